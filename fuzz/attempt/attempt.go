// SPDX-License-Identifier: Apache-2.0

// Package attempt runs scenarios in a machine and judges them. An attempt is
// one start of one machine: its outcomes are a function of the attempt and of
// what the machine is made of, where the mode is deterministic.
package attempt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wflp/wflp/fuzz/guest"
	"github.com/wflp/wflp/fuzz/model"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/fuzz/scenario"
	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/qemu"
	"github.com/wflp/wflp/vmimages/vm"
)

// Setup is a kind of machine.
type Setup struct {
	Variant string  `json:"variant"` // of the kernel
	Mode    vm.Mode `json:"mode"`
	CPUs    int     `json:"cpus"`
	MemMiB  int     `json:"mem_mib"`
	// TLB: the emulator's adversarial one, which shows flushes that are missing.
	TLB bool `json:"adversarial_tlb,omitempty"`
}

// WithTLB marks the mode of machines that have the adversarial TLB.
const WithTLB = "+tlb"

func (s Setup) String() string {
	if s.TLB {
		return fmt.Sprintf("%s/%s%s", s.Variant, s.Mode, WithTLB)
	}
	return fmt.Sprintf("%s/%s", s.Variant, s.Mode)
}

// Kit is what machines are made of.
type Kit struct {
	Kernel kernel.Built
	Image  string
	// Emulator is a QEMU of our own; the zero value is the host's.
	Emulator qemu.Built
	// From, if not nil, is a machine that has booted, which others start from.
	From *vm.Snapshot
}

// Keep boots a machine of this kind once and has all others start from it, where
// such a machine can be kept.
func (k *Kit) Keep(ctx context.Context, s Setup, cacheDir string) error {
	from, err := vm.Keep(ctx, Attempt{Setup: s}.config(*k, "", guestproto.Job{}, nil), cacheDir)
	if errors.Is(err, vm.ErrNoSnapshot) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("keep a machine of %s: %w", s, err)
	}
	k.From = from
	return nil
}

// machineSeed is of what the guest takes for chance. It shapes a kept machine, so
// it is one for all; what differs between attempts is the schedule.
const machineSeed = 1

// Attempt is one start of a machine.
type Attempt struct {
	Setup Setup `json:"setup"`
	// Schedule is the seed of the interleaving, and of all that is random in the
	// machine. Outside of the deterministic mode it decides nothing.
	Schedule uint64 `json:"schedule"`
	// Patience multiplies the limit of the machine, where it is greater than 1.
	Patience int `json:"-"`
	// Scenarios are run one after the other, each in processes of its own.
	Scenarios []*scenario.Scenario `json:"-"`
}

// Runner makes an attempt. The error is about the machinery, a *vm.BootError for
// one; what the kernel did is in the outcomes.
type Runner func(ctx context.Context, a Attempt) (*Result, error)

// limits of the host's time: what a scenario is given on top of the start of a
// machine. They only end machines that do not end by themselves; the scenario's
// own limit is in the guest's time, and is what tells a hang. Kernels that check
// themselves get checkedFactor times as much.
const (
	bootLimit     = 2 * time.Minute
	startLimit    = 30 * time.Second // from a machine that has booted
	scenarioLimit = 15 * time.Second
	checkedFactor = 4
)

func (a Attempt) limit(k Kit) time.Duration {
	d := bootLimit
	if k.From != nil {
		d = startLimit
	}
	d += time.Duration(len(a.Scenarios)) * scenarioLimit
	if k.Kernel.Checks() {
		d *= checkedFactor
	}
	return d * time.Duration(max(a.Patience, 1))
}

// Machines is the Runner that starts a virtual machine for each attempt. Its files
// are left in dir, if that is not empty.
func Machines(k Kit, dir string) Runner {
	return func(ctx context.Context, a Attempt) (*Result, error) {
		job, files := a.job()
		cfg := a.config(k, dir, job, files)
		res, err := vm.Run(ctx, cfg, nil)
		if err != nil {
			return nil, fmt.Errorf("run %d scenarios: %w", len(a.Scenarios), err)
		}
		out, err := a.judge(res)
		if err == nil {
			out.Limit = cfg.Timeout
		}
		return out, err
	}
}

// Debugged is the Runner whose machine waits at the socket for a debugger, and
// has no end but its own.
func Debugged(k Kit, socket string) Runner {
	return func(ctx context.Context, a Attempt) (*Result, error) {
		job, files := a.job()
		cfg := a.config(k, "", job, files)
		cfg.Debugger, cfg.Timeout = socket, 24*time.Hour
		res, err := vm.Run(ctx, cfg, nil)
		if err != nil {
			return nil, fmt.Errorf("run %d scenarios: %w", len(a.Scenarios), err)
		}
		return a.judge(res)
	}
}

func (a Attempt) config(k Kit, dir string, job guestproto.Job, files map[string][]byte) vm.Config {
	return vm.Config{Mode: a.Setup.Mode, Kernel: k.Kernel, Image: k.Image, CPUs: a.Setup.CPUs, MemMiB: a.Setup.MemMiB, AdversarialTLB: a.Setup.TLB,
		Emulator: k.Emulator, From: k.From, Seed: machineSeed, Schedule: a.Schedule,
		Timeout: a.limit(k), Dir: dir, Job: job, JobFiles: files}
}

// Stands is the title of a scenario in which a deterministic machine was when its
// time was over. Its verdict is unknown: the time is the host's. Whether the host
// was slow or the machine stands is told by giving it more (campaign), and by the
// same machine with another kernel (matrix).
const Stands = "hang: the machine stands still"

// Outcome is what came of one scenario.
type Outcome struct {
	Scenario *scenario.Scenario
	Verdict  model.Verdict
	// Title names the failure, the same for each time that the same thing goes
	// wrong; empty unless the verdict is a violation, or Stands.
	Title   string
	Trace   []byte
	Console []byte
	GuestNS int64
	// Begun is false if the machine was gone before its turn.
	Begun bool
}

// Result is what came of an attempt.
type Result struct {
	Outcomes []Outcome // one for each scenario
	// Console is all that the kernel said, the start included.
	Console  []byte
	End      vm.End
	Duration time.Duration
	QEMU     string
	// QEMULog is the end of what QEMU itself said, and Limit how long the machine
	// was given: to tell people why a machine was ended.
	QEMULog string
	Limit   time.Duration
}

// Stood says that the machine was ended from outside and not one of its
// scenarios could be judged.
func (r Result) Stood() bool {
	return r.End == vm.Timeout && !slices.ContainsFunc(r.Outcomes, func(o Outcome) bool {
		return o.Verdict.Status != oracle.Unknown
	})
}

// Digest is of all that the guest can influence: two attempts that are equal in
// deterministic mode have the same.
func (r Result) Digest() string {
	h := sha256.New()
	add := func(b []byte) { fmt.Fprintf(h, "%d:", len(b)); h.Write(b) }
	add(r.Console)
	for _, o := range r.Outcomes {
		add(o.Trace)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// job is what the machine is told.
func (a Attempt) job() (guestproto.Job, map[string][]byte) {
	job, files := guest.Job(a.Scenarios)
	job.Seed = a.Schedule
	return job, files
}

func (a Attempt) judge(res *vm.Result) (*Result, error) {
	if len(res.Steps) != len(a.Scenarios) {
		return nil, fmt.Errorf("judge attempt: %d steps of %d scenarios", len(res.Steps), len(a.Scenarios))
	}
	out := &Result{Console: res.Console, End: res.End, Duration: res.Duration, QEMU: res.QEMU, QEMULog: res.QEMULog}
	for i, s := range a.Scenarios {
		step := res.Steps[i]
		run := guest.RunOf(s, res, i)
		o := Outcome{Scenario: s, Trace: run.Trace, Console: step.Console, GuestNS: step.DurationNS, Verdict: model.Check(run),
			Begun: step.Ran || len(step.Console) > 0 || i == 0 || res.Steps[i-1].Ran}
		if o.Verdict.Status == oracle.Violated {
			o.Title = model.Title(o.Verdict)
		}
		if res.End == vm.Timeout && a.Setup.Mode == vm.Deterministic && o.Begun && !step.Ran && o.Verdict.Status == oracle.Unknown {
			o.Title = Stands
		}
		out.Outcomes = append(out.Outcomes, o)
	}
	return out, nil
}

// First returns the first outcome that is a violation, and its place; -1 if
// there is none.
func (r Result) First() (Outcome, int) {
	for i, o := range r.Outcomes {
		if o.Verdict.Status == oracle.Violated {
			return o, i
		}
	}
	return Outcome{}, -1
}
