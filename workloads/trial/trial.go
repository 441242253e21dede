// SPDX-License-Identifier: Apache-2.0

// Package trial runs a spec under a strategy on a machine and judges it. Many
// trials share one boot; measurement and fuzzing share this package.
package trial

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/vm"
	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/code"
	"github.com/wflp/wflp/workloads/wire"
)

// Executor is where a machine has the executor.
const Executor = "/bin/wflp-exec"

// Machine runs a job to its end. A result may come with fewer steps run than
// asked for; an error means that there is no result at all.
type Machine interface {
	Run(ctx context.Context, job guestproto.Job, files map[string][]byte) (*vm.Result, error)
}

// VM is a virtual machine: every Run boots it afresh.
type VM struct {
	Config vm.Config // but for Job and JobFiles
	// On, if not nil, is told what happens.
	On func(vm.Event)
}

// Run boots the machine for one job.
func (m VM) Run(ctx context.Context, job guestproto.Job, files map[string][]byte) (*vm.Result, error) {
	cfg := m.Config
	cfg.Job, cfg.JobFiles = job, files
	return vm.Run(ctx, cfg, m.On)
}

// Trial is one program under one strategy.
type Trial struct {
	Experiment string
	Spec       *workloads.Spec
	Strategy   record.Strategy
	Cell       record.Cell
}

// Result is what came of a trial.
type Result struct {
	Trial
	Verdict oracle.Verdict
	// Trace is nil if there is none.
	Trace *wire.Trace
	Step  vm.StepResult
}

var strategies = map[record.Strategy]uint32{
	record.None: wire.StrategyNone, record.WaitFree: wire.StrategyWaitfree, record.Barrier: wire.StrategyBarrier, record.Naive: wire.StrategyNaive,
	record.StopWorld: wire.StrategyStopworld, record.Restart: wire.StrategyRestart,
}

// Run runs trials in their order in one boot, and judges each. Specs that occur
// more than once are assembled once.
func Run(ctx context.Context, m Machine, trials []Trial) ([]Result, *vm.Result, error) {
	job, files, err := Job(ctx, trials)
	if err != nil {
		return nil, nil, err
	}
	res, err := m.Run(ctx, job, files)
	if err != nil {
		return nil, nil, fmt.Errorf("run %d trials: %w", len(trials), err)
	}
	out, err := Judge(trials, res)
	return out, res, err
}

// grace is what a step may take beyond the executor's own watchdog: it must have
// looked twice and written its trace before the machine ends it.
const grace = 15 * time.Second

func specFile(s *workloads.Spec) string { return "spec-" + s.ID() }

func traceFile(i int) string { return fmt.Sprintf("/tmp/trace-%04d", i) }

// Job makes the job of trials and the files that it needs.
func Job(ctx context.Context, trials []Trial) (guestproto.Job, map[string][]byte, error) {
	var job guestproto.Job
	var specs []*workloads.Spec
	files := map[string][]byte{}
	for i, t := range trials {
		if _, ok := strategies[t.Strategy]; !ok {
			return job, nil, fmt.Errorf("make job: no executor for strategy %q", t.Strategy)
		}
		if t.Strategy == record.Restart && t.Spec.Shape != workloads.Latency {
			return job, nil, fmt.Errorf("make job: strategy %s is for specs of shape %s, not %s: only a server can hand its requests over", t.Strategy, workloads.Latency, t.Spec.Shape)
		}
		name := specFile(t.Spec)
		if _, ok := files[name]; !ok {
			files[name] = nil
			specs = append(specs, t.Spec)
		}
		job.Steps = append(job.Steps, guestproto.Step{
			Name:      fmt.Sprintf("%s %s", t.Strategy, t.Spec.ID()),
			Argv:      []string{Executor, "run", "--strategy", string(t.Strategy), path.Join("/job", name), traceFile(i)},
			TimeoutMS: int64(t.Spec.WatchdogMS) + grace.Milliseconds(),
			Collect:   []string{traceFile(i)},
		})
	}
	programs, err := code.Assemble(ctx, specs...)
	if err != nil {
		return job, nil, fmt.Errorf("make job: %w", err)
	}
	for _, p := range programs {
		files[specFile(p.Spec)] = p.File().Encode()
	}
	return job, files, nil
}

// Judge makes the results of trials from what their machine says.
//
// A step that began and was not reported, because the machine went down, is
// unknown, unless the kernel had something to say: then that is a violation, and
// it is charged to the step that ran. What the kernel says between the steps is
// in the machine's result, and not charged to a trial.
func Judge(trials []Trial, res *vm.Result) ([]Result, error) {
	if len(res.Steps) != len(trials) {
		return nil, fmt.Errorf("judge trials: %d steps of %d trials", len(res.Steps), len(trials))
	}
	out := make([]Result, len(trials))
	for i, t := range trials {
		step := res.Steps[i]
		r := Result{Trial: t, Step: step}
		run := oracle.Run{Spec: t.Spec, Strategy: strategies[t.Strategy], HasViews: res.Hello.MMView,
			End: oracle.End{Code: step.ExitCode, Signal: step.Signal, TimedOut: step.TimedOut, NotRun: !step.Ran}}
		if run.End.Signal != "" || run.End.NotRun || run.End.TimedOut {
			run.End.Code = 0 // it has none
		}
		for _, c := range vm.Scan(step.Console) {
			// Torn code is any code, also such as the emulator fails at: a
			// machine that went down by that has said nothing of the strategy.
			if c.Kind == vm.KindEmulator && t.Strategy == record.Naive {
				continue
			}
			run.Complaints = append(run.Complaints, c.Title)
		}
		if b, ok := step.Files[traceFile(i)]; ok && len(b) > 0 {
			run.Trace, run.TraceErr = wire.DecodeTrace(b)
		} else if step.Ran {
			run.TraceErr = errors.New("the executor left no trace")
		}
		if step.Ran && step.Error != "" {
			run.TraceErr = fmt.Errorf("%v; the agent says: %s", run.TraceErr, step.Error)
		}
		r.Trace = run.Trace
		r.Verdict = oracle.Check(run)
		out[i] = r
		// Decoded once; a batch of them is a lot to keep twice.
		out[i].Step.Files = nil
	}
	return out, nil
}

// Record is the trial's line in the records.
func (r Result) Record() record.Trial {
	c := r.Verdict.Counts
	t := record.Trial{
		Experiment: r.Experiment, SpecID: r.Spec.ID(), SpecSeed: record.Seed(r.Spec.Seed), Shape: string(r.Spec.Shape), Strategy: r.Strategy, Cell: r.Cell,
		Verdict: string(r.Verdict.Status), Note: r.Verdict.Note,
		Counts: record.Counts{Executions: int64(c.Executions), Patches: int64(c.Published), PatchesFailed: int64(c.Refused),
			Transactions: int64(c.Transactions), Requests: int64(c.Requests), Migrated: int64(c.Migrated), Pulled: int64(c.Pulled),
			Births: int64(c.Births), Deaths: int64(c.Deaths), MemoryOps: int64(c.MemoryOps),
			Stops: int64(c.Stops), StopsActive: int64(c.StopsActive), StopsUnknown: int64(c.StopsUnknown), Mixed: int64(c.MixedAllowed)},
	}
	for k, n := range r.Verdict.ByKind {
		if t.Violations == nil {
			t.Violations = map[string]int64{}
		}
		t.Violations[string(k)] = int64(n)
	}
	return t
}
