// SPDX-License-Identifier: Apache-2.0

package evaluation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/analysis/report"
	"github.com/wflp/wflp/realworld/guest"
	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/vm"
	"github.com/wflp/wflp/workloads/trial"
)

// Config is an evaluation as a user asks for it.
type Config struct {
	Profile string
	Out     string
	Seed    uint64
	Only    []string // experiments; empty: all
	Mode    vm.Mode  // "": the default
	// Slots is how many machines run side by side; 0: as many as fit the host.
	Slots    int
	Maker    Maker
	Log      io.Writer // progress
	Terminal bool      // that Log is
}

// SideBySide is how many machines run at once, of those that may.
func (c Config) SideBySide(a Ability) int {
	if c.Slots > 0 {
		return c.Slots
	}
	return max(a.Cores, 1)
}

// Finding is what an evaluation found that must not be.
type Finding struct {
	Key      string
	Strategy record.Strategy
	Note     string
	Again    string // the command that repeats it; empty for complaints of a kernel
}

// Run makes an evaluation, or goes on with the one in Out, and its report.
func Run(ctx context.Context, c Config) ([]Finding, error) {
	ability, err := c.Maker.Ability(ctx, c.Mode)
	if err != nil {
		return nil, err
	}
	all, err := Plan(c.Profile, c.Seed, ability, nil)
	if err != nil {
		return nil, err
	}
	plan, err := Plan(c.Profile, c.Seed, ability, c.Only)
	if err != nil {
		return nil, err
	}
	// All kernels of the profile, whatever is run of it now: the manifest names
	// them, and the rest of the run may follow.
	kit, err := c.Maker.Make(ctx, Variants(all))
	if err != nil {
		return nil, err
	}
	m, err := kit.Manifest(ctx, c.Maker)
	if err != nil {
		return nil, err
	}
	digest, err := Digest(all)
	if err != nil {
		return nil, err
	}
	m.Profile, m.Seed = c.Profile, record.Seed(c.Seed)
	m.TimeBases = []record.TimeBase{base(ability.Mode), record.ICount}
	m.Config = map[string]string{"mode": string(ability.Mode), "plan": digest, "machine_memory_limit_mib": strconv.Itoa(ability.MemMiB)}
	if _, err := record.Begin(c.Out, m); err != nil {
		return nil, err
	}
	log, err := record.Open(c.Out)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	digests := map[string]string{}
	for v, k := range kit.Kernels {
		digests[v] = k.Digest
	}
	// Machines that a kill left behind are dead, but their files are still there.
	machines := filepath.Join(c.Out, "machines")
	defer os.RemoveAll(machines)
	if err := os.RemoveAll(machines); err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	engine := Engine{Log: log, Digests: digests, Slots: c.SideBySide(ability), Evidence: filepath.Join(c.Out, "evidence"), Progress: &Progress{W: c.Log, Terminal: c.Terminal},
		Machine: func(u Unit, step func()) trial.Machine {
			emulator, bits := kit.EmulatorFor(u.Mode)
			return oneTime{trial.VM{Config: vm.Config{Mode: u.Mode, Emulator: emulator, SliceBits: bits, Kernel: kit.Kernels[u.Variant], Image: kit.Image, CPUs: u.CPUs, MemMiB: u.MemMiB, Seed: u.Seed,
				Timeout: u.Timeout, Dir: filepath.Join(machines, name(u))},
				On: func(e vm.Event) {
					if e.Kind == vm.EventStepEnd {
						step()
					}
				}}}
		}}
	images := &guest.Maker{Builder: c.Maker.Builder, Log: c.Log, Patches: filepath.Join(c.Out, "patches")}
	engine.Real = func(ctx context.Context, u Unit) (record.Unit, error) {
		cfg := guest.Config{Mode: u.Mode, Kernel: kit.Kernels[u.Variant], CPUs: u.CPUs, MemMiB: u.MemMiB, Seed: u.Seed, Dir: filepath.Join(machines, name(u)),
			Clients: u.Real.Clients, CalibrateMS: u.Real.CalibrateMS, Runs: u.Real.Runs}
		cfg.Emulator, _ = kit.EmulatorFor(u.Mode)
		var err error
		if cfg.Made, err = images.Make(ctx, u.Real.Program, u.Real.Fix); err != nil {
			return record.Unit{}, err
		}
		defer os.RemoveAll(cfg.Dir)
		res, err := guest.Run(ctx, cfg)
		if err != nil {
			return record.Unit{}, err
		}
		return guest.Unit(u.Key, cfg, u.Base(), res)
	}
	runErr := engine.Run(ctx, plan)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("evaluate: %w", ctx.Err())
	}
	if log.Len() == 0 {
		return nil, errors.Join(runErr, errors.New("evaluate: nothing was recorded"))
	}
	if err := report.Make(c.Out); err != nil {
		return nil, errors.Join(runErr, err)
	}
	units, err := record.ReadAll(c.Out)
	if err != nil {
		return nil, errors.Join(runErr, err)
	}
	return Findings(all, units), runErr
}

// oneTime is a machine whose folder goes when it ends: its console is in the
// result, and its frames may be large.
type oneTime struct{ trial.VM }

func (m oneTime) Run(ctx context.Context, job guestproto.Job, files map[string][]byte) (*vm.Result, error) {
	defer os.RemoveAll(m.Config.Dir)
	return m.VM.Run(ctx, job, files)
}

// name is the key of a unit as the name of a file.
func name(u Unit) string { return strings.ReplaceAll(u.Key, "/", "-") }

// Findings lists what the records of a plan say that must not be: violations,
// but for those of the control, and complaints of kernels.
func Findings(plan []Unit, units []record.Unit) []Finding {
	planned := map[string]Unit{}
	for _, u := range plan {
		planned[u.Key] = u
	}
	var out []Finding
	for _, u := range units {
		p, ok := planned[u.Key]
		for i, t := range u.Trials {
			if t.Verdict != record.Violation || t.Strategy == record.Naive {
				continue
			}
			f := Finding{Key: u.Key, Strategy: t.Strategy, Note: t.Note}
			if ok && i < len(p.Trials) {
				f.Again = Repeat(p, p.Trials[i])
			}
			out = append(out, f)
		}
		if len(u.Programs) > 0 {
			for _, bad := range guest.Bad(u) {
				f := Finding{Key: u.Key, Strategy: bad.Strategy, Note: bad.Note}
				if ok && p.Real != nil {
					f.Again = "wflp realworld -strategies " + string(bad.Strategy) + " " + p.Real.Program + " " + p.Real.Fix
				}
				out = append(out, f)
			}
		}
		if u.EmulatorDefect() {
			continue
		}
		for _, c := range u.Boot.Complaints {
			out = append(out, Finding{Key: u.Key, Note: c.Kind + ": " + c.Text})
		}
	}
	return out
}

// Describe prints a plan, and how long it takes about where so many machines run
// side by side.
func Describe(w io.Writer, plan []Unit, slots int) {
	var trials, measures, servers int
	var total time.Duration
	builds := map[string]bool{}
	for _, u := range plan {
		how, what := "beside others", fmt.Sprintf("%3d trials %d benchmarks", len(u.Trials), len(u.Measures))
		if u.Alone {
			how = "alone"
		}
		if u.Real != nil {
			what = fmt.Sprintf("%3d servers of %s", len(u.Real.Runs), u.Real.Program)
			servers += len(u.Real.Runs)
			builds[u.Real.Program+" "+u.Real.Fix] = true
		}
		fmt.Fprintf(w, "%-26s %-8s %-13s %d CPUs %5d MiB  %s  about %3.0f s, %s\n", u.Key, u.Variant, u.Mode, u.CPUs, u.MemMiB, what, u.Estimate.Seconds(), how)
		trials += len(u.Trials)
		measures += len(u.Measures)
		if u.Alone {
			total += u.Estimate
		} else {
			total += u.Estimate / time.Duration(slots)
		}
	}
	fmt.Fprintf(w, "%d boots, %d trials, %d benchmarks, %d servers; about %s\n", len(plan), trials, measures, servers, total.Round(time.Minute))
	if len(builds) > 0 {
		fmt.Fprintf(w, "%d fixes of real programs are built without and with, if the cache does not have them: about a minute for each\n", len(builds))
	}
}

// IsTerminal says whether a file is one that a line can be redrawn on.
func IsTerminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != ""
}
