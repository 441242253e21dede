// SPDX-License-Identifier: Apache-2.0

package evaluation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/analysis/stats"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/vm"
	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/trial"
)

// Log is where units go when they are whole.
type Log interface {
	Done(key string) bool
	Append(record.Unit) error
}

// Engine runs the units of a plan.
type Engine struct {
	Log Log
	// Machine is the machine of a unit; step is to be called after each step.
	Machine func(u Unit, step func()) trial.Machine
	// Real runs a unit with a real program.
	Real func(ctx context.Context, u Unit) (record.Unit, error)
	// Digests of the kernels, by variant.
	Digests map[string]string
	// Slots is how many machines run side by side that may.
	Slots int
	// Evidence is the folder for specs, traces and consoles of what is found.
	Evidence string
	Progress *Progress
}

// attempts is how often a machine is started whose guest does not speak.
const attempts = 3

// Run runs what the log does not have. A unit that cannot be run does not keep
// the others from running; the error then names it, and a later run tries again.
func (e *Engine) Run(ctx context.Context, plan []Unit) error {
	var todo []Unit
	for _, u := range plan {
		if !e.Log.Done(u.Key) {
			todo = append(todo, u)
		}
	}
	e.Progress.begin(plan, todo, e.Slots)
	defer e.Progress.end()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var (
		mu     sync.Mutex
		failed []error
		wg     sync.WaitGroup
		slots  = make(chan struct{}, max(e.Slots, 1))
	)
	for _, u := range todo {
		// A unit that must be alone takes all slots. They are taken one by one and
		// by nobody else at the time, so this cannot deadlock.
		take := 1
		if u.Alone {
			take = cap(slots)
		}
		for range take {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			break
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() {
				for range take {
					<-slots
				}
			}()
			e.Progress.start(u)
			rec, err := e.unit(ctx, u)
			if err == nil {
				err = e.Log.Append(rec)
				if err != nil {
					stop() // what cannot be written down need not be measured
				}
			}
			e.Progress.finish(u, rec, err, ctx.Err() != nil)
			if err != nil {
				mu.Lock()
				failed = append(failed, err)
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	return errors.Join(failed...)
}

// unit runs one unit and makes its record.
func (e *Engine) unit(ctx context.Context, u Unit) (record.Unit, error) {
	if u.Real != nil {
		return e.real(ctx, u)
	}
	out := record.Unit{Key: u.Key, Boot: record.Boot{Experiments: u.Experiments, TimeBase: u.Base(), Variant: u.Variant, KernelDigest: e.Digests[u.Variant],
		CPUs: u.CPUs, MemMiB: u.MemMiB, Seed: record.Seed(u.Seed)}}
	if u.Mode == vm.Deterministic {
		out.Boot.IcountShift = vm.ShiftFor(kernel.Built{Variant: u.Variant})
	}
	var trials []trial.Trial
	var job guestproto.Job
	var files map[string][]byte
	var err error
	if len(u.Trials) > 0 {
		if trials, err = specsOf(u); err != nil {
			return out, fmt.Errorf("run unit %s: %w", u.Key, err)
		}
		if job, files, err = trial.Job(ctx, trials); err != nil {
			return out, fmt.Errorf("run unit %s: %w", u.Key, err)
		}
	} else {
		job = measureJob(u)
	}
	job.Seed = u.Seed
	var res *vm.Result
	for n := 1; ; n++ {
		res, err = e.Machine(u, func() { e.Progress.step(u) }).Run(ctx, job, files)
		if ctx.Err() != nil {
			return out, fmt.Errorf("run unit %s: %w", u.Key, ctx.Err())
		}
		if err == nil {
			break
		}
		if res != nil && len(res.Complaints) > 0 {
			// Not the host's fault: this kernel went down before it could run
			// anything. To try again would hide a finding.
			e.Progress.say("%s: %s", u.Key, firstLine(err.Error()))
			break
		}
		if e := e.keepFailure(u, n, err); e != nil {
			return out, fmt.Errorf("run unit %s: %w", u.Key, e)
		}
		e.Progress.say("%s: attempt %d of %d: %s", u.Key, n, attempts, firstLine(err.Error()))
		if n == attempts {
			return out, fmt.Errorf("run unit %s: %d attempts: %w", u.Key, n, err)
		}
		out.Boot.Incidents = append(out.Boot.Incidents, fmt.Sprintf("attempt %d failed: %s", n, firstLine(err.Error())))
	}
	e.boot(&out.Boot, res)
	if len(u.Trials) > 0 {
		err = e.trials(&out, u, trials, res)
	} else {
		err = e.measures(&out, u, res)
	}
	if err == nil && (len(res.Complaints) > 0 || len(Findings(nil, []record.Unit{out})) > 0) {
		err = e.keepConsole(u, res)
	}
	if err != nil {
		return out, fmt.Errorf("run unit %s: %w", u.Key, err)
	}
	return out, nil
}

// real runs a unit with a real program. One that fails is tried again: what a
// server does wrong is in its record and no failure of the unit.
func (e *Engine) real(ctx context.Context, u Unit) (record.Unit, error) {
	var failed []string
	for n := 1; ; n++ {
		out, err := e.Real(ctx, u)
		if ctx.Err() != nil {
			return out, fmt.Errorf("run unit %s: %w", u.Key, ctx.Err())
		}
		if err == nil {
			out.Boot.Incidents = append(failed, out.Boot.Incidents...)
			return out, nil
		}
		if kept := e.keepFailure(u, n, err); kept != nil {
			return out, fmt.Errorf("run unit %s: %w", u.Key, errors.Join(err, kept))
		}
		e.Progress.say("%s: attempt %d of %d: %s", u.Key, n, attempts, firstLine(err.Error()))
		// What cannot be built today cannot be built a moment later.
		var boot *vm.BootError
		if n == attempts || !errors.As(err, &boot) {
			return out, fmt.Errorf("run unit %s: %d attempts: %w", u.Key, n, err)
		}
		failed = append(failed, fmt.Sprintf("attempt %d failed: %s", n, firstLine(err.Error())))
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func (e *Engine) boot(b *record.Boot, res *vm.Result) {
	b.Release, b.QEMU, b.DurationNS, b.End = res.Hello.Release, res.QEMU, res.Duration.Nanoseconds(), string(res.End)
	for _, c := range res.Complaints {
		b.Complaints = append(b.Complaints, record.Complaint{Kind: string(c.Kind), Text: c.Title})
	}
	if res.AgentError != "" {
		b.Incidents = append(b.Incidents, "the guest agent: "+res.AgentError)
	}
	if res.StreamErr != nil {
		b.Incidents = append(b.Incidents, "the stream of results: "+res.StreamErr.Error())
	}
}

// specsOf makes the programs of a unit, each once.
func specsOf(u Unit) ([]trial.Trial, error) {
	type key struct {
		seed  uint64
		shape workloads.Shape
	}
	made := map[key]*workloads.Spec{}
	var out []trial.Trial
	for _, t := range u.Trials {
		k := key{t.Program.Seed, t.Program.Shape}
		if made[k] == nil {
			s, err := t.Program.Spec()
			if err != nil {
				return nil, err
			}
			made[k] = s
		}
		out = append(out, trial.Trial{Experiment: t.Experiment, Spec: made[k], Strategy: t.Strategy, Cell: t.Cell})
	}
	return out, nil
}

// How requests are laid around patches. The window is shorter than the time
// between two patches, and longer than a patch takes to reach all threads.
const (
	window   = 25 * time.Millisecond
	bin      = time.Millisecond
	firstBin = -10
	bins     = 45
	// Of each patch's way, what the threads did this long before and after it.
	margin = 2 * time.Millisecond
)

func (e *Engine) trials(out *record.Unit, u Unit, trials []trial.Trial, res *vm.Result) error {
	results, err := trial.Judge(trials, res)
	if err != nil {
		return err
	}
	for i, r := range results {
		out.Trials = append(out.Trials, r.Record())
		if r.Verdict.Status == oracle.Violated && r.Strategy != record.Naive {
			e.Progress.say("%s: %s: %s\n    again: %s", u.Key, r.Strategy, r.Verdict.Note, Repeat(u, u.Trials[i]))
			if err := e.keep(u, i, r, res); err != nil {
				return err
			}
		}
		if r.Trace == nil {
			continue
		}
		switch r.Experiment {
		case "E0", "E2":
			l, err := r.Latency(trial.Windows{Window: window, Bin: bin, FirstBin: firstBin, Bins: bins, Warmup: warmup})
			if err != nil {
				return err
			}
			out.Latencies = append(out.Latencies, l)
		case "E3":
			out.Overs = append(out.Overs, r.Overs(margin)...)
		case "E7":
			// Each thread's way, of a thousand, would be most of the records.
			for _, o := range r.Overs(margin) {
				o.Moves = nil
				out.Overs = append(out.Overs, o)
			}
		case "E8":
			out.Outcomes = append(out.Outcomes, r.Outcome(string(u.Trials[i].Program.Hostile)))
		}
	}
	return nil
}

func warmup(ns []int64) int {
	v := make([]float64, len(ns))
	for i, n := range ns {
		v[i] = float64(n)
	}
	return stats.WarmUp(v)
}

// keep writes down what a violation was found in.
func (e *Engine) keep(u Unit, i int, r trial.Result, res *vm.Result) error {
	dir := filepath.Join(e.Evidence, name(u))
	path := filepath.Join(dir, fmt.Sprintf("%04d-%s", i, r.Strategy))
	spec, err := r.Spec.Marshal()
	if err != nil {
		return fmt.Errorf("keep evidence: %w", err)
	}
	var said strings.Builder
	fmt.Fprintf(&said, "again: %s\n%s\n", Repeat(u, u.Trials[i]), r.Verdict.Note)
	for _, v := range r.Verdict.Violations {
		fmt.Fprintln(&said, v)
	}
	said.Write(r.Step.Stderr)
	files := map[string][]byte{path + ".json": spec, path + ".txt": []byte(said.String())}
	if r.Trace != nil {
		files[path+".trace"] = r.Trace.Encode()
	}
	return keepFiles(dir, files)
}

// keepConsole writes down what the kernel complained of.
func (e *Engine) keepConsole(u Unit, res *vm.Result) error {
	dir := filepath.Join(e.Evidence, name(u))
	return keepFiles(dir, map[string][]byte{filepath.Join(dir, "console.log"): res.Console})
}

// keepFailure writes down all that is known of a machine that did not start.
func (e *Engine) keepFailure(u Unit, n int, err error) error {
	dir := filepath.Join(e.Evidence, name(u))
	return keepFiles(dir, map[string][]byte{filepath.Join(dir, fmt.Sprintf("attempt-%d.txt", n)): []byte(err.Error() + "\n")})
}

func keepFiles(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("keep evidence: %w", err)
	}
	for path, data := range files {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return fmt.Errorf("keep evidence: %w", err)
		}
	}
	return nil
}

func measureJob(u Unit) guestproto.Job {
	var job guestproto.Job
	for _, m := range u.Measures {
		job.Steps = append(job.Steps, guestproto.Step{Name: "micro " + m.Args[0], Argv: append([]string{trial.MicroProgram}, m.Args...), TimeoutMS: u.Timeout.Milliseconds()})
	}
	return job
}

// measures makes the records of micro-benchmarks. What one has printed before it
// failed is as good as if it had not.
func (e *Engine) measures(out *record.Unit, u Unit, res *vm.Result) error {
	if len(res.Steps) != len(u.Measures) {
		return fmt.Errorf("%d steps of %d benchmarks", len(res.Steps), len(u.Measures))
	}
	incident := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		out.Boot.Incidents = append(out.Boot.Incidents, text)
		e.Progress.say("%s: %s", u.Key, text)
	}
	for i, m := range u.Measures {
		s := res.Steps[i]
		what := trial.MicroProgram + " " + strings.Join(m.Args, " ")
		switch {
		case !s.Ran:
			incident("%s: did not come to its end, machine %s", what, res.End)
		case s.TimedOut:
			incident("%s: timed out", what)
		case s.ExitCode != 0 || s.Signal != "":
			incident("%s: exit %d %s: %s", what, s.ExitCode, s.Signal, firstLine(string(s.Stderr)))
		}
		text := s.Stdout
		if n := strings.LastIndexByte(string(text), '\n'); !s.Ran || s.ExitCode != 0 {
			text = text[:n+1] // the last line may be cut off
		}
		var micros []record.Micro
		var looks []record.Memory
		var missing []trial.Missing
		var err error
		if m.Args[0] == "footprint" {
			looks, missing, err = trial.ParseFootprint(text)
		} else {
			micros, missing, err = trial.ParseMicro(text)
		}
		if err != nil {
			incident("%s: %v", what, err)
			continue
		}
		out.Micros, out.Memories = append(out.Micros, micros...), append(out.Memories, looks...)
		for _, x := range missing {
			// The reference has no views, as it should.
			if u.Variant != stock {
				incident("%s: %s (%s %d): %s", what, x.What, x.Sweep, x.Value, x.Why)
			}
		}
	}
	return nil
}
