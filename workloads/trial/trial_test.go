// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/vm"
	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/wire"
)

var built struct {
	sync.Once
	dir string
	err error
}

// local builds the executor, once, and returns a machine that runs it here.
func local(t *testing.T) Local {
	t.Helper()
	built.Do(func() {
		built.dir, built.err = filepath.Abs("../executor/build/test")
		if built.err != nil {
			return
		}
		cmd := exec.Command("make", "-s", "-C", "../executor", "BUILD="+built.dir)
		// A make above must not lend this one its job slots.
		cmd.Env = append(cmd.Environ(), "MAKEFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = errors.New(string(out))
		}
	})
	if built.err != nil {
		t.Fatalf("build executor: %v", built.err)
	}
	return Local{Executor: filepath.Join(built.dir, "wflp-exec"), Dir: t.TempDir()}
}

func wild(seeds int, strategies ...record.Strategy) []Trial {
	var out []Trial
	for seed := range uint64(seeds) {
		s := workloads.Wild(seed, workloads.WildParams{})
		for _, st := range strategies {
			out = append(out, Trial{Experiment: "E1", Spec: s, Strategy: st})
		}
	}
	return out
}

func run(t *testing.T, m Machine, trials []Trial) []Result {
	t.Helper()
	res, _, err := Run(t.Context(), m, trials)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestSafeStrategiesPass runs the very specs that TestNaiveIsCaught does.
func TestSafeStrategiesPass(t *testing.T) {
	patches, execs, active := 0, 0, 0
	for _, r := range run(t, local(t), wild(12, record.None, record.Barrier, record.StopWorld)) {
		if r.Verdict.Status != oracle.Pass {
			t.Errorf("seed %d %s: %s: %s", r.Spec.Seed, r.Strategy, r.Verdict.Status, r.Verdict.Note)
		}
		rec := r.Record()
		patches += int(rec.Counts.Patches)
		execs += int(rec.Counts.Executions)
		if rec.Verdict != record.Pass || len(rec.Violations) != 0 || rec.SpecID != r.Spec.ID() {
			t.Errorf("record %+v", rec)
		}
		if r.Strategy == record.Barrier && rec.Counts.Migrated == 0 {
			t.Errorf("seed %d: no thread was ever patched", r.Spec.Seed)
		}
		active += int(rec.Counts.StopsActive)
	}
	if active == 0 {
		t.Error("no function that was to be changed was ever on a stack: the walks see nothing")
	}
	if patches < 24*30 || execs < 36*2000 {
		t.Errorf("%d patches, %d executions: too few to mean anything", patches, execs)
	}
}

// TestNaiveIsCaught: the control, or the checks above are worthless.
func TestNaiveIsCaught(t *testing.T) {
	kinds := map[string]int{}
	for _, r := range run(t, local(t), wild(40, record.Naive)) {
		rec := r.Record()
		for k := range rec.Violations {
			kinds[k]++
		}
	}
	t.Logf("trials with each kind of violation: %v", kinds)
	if len(kinds) < 3 {
		t.Errorf("naive was caught in %v only", kinds)
	}
}

func TestWaitfreeNeedsTheMechanism(t *testing.T) {
	r := run(t, local(t), wild(1, record.WaitFree))[0]
	if r.Verdict.Status == oracle.Pass {
		t.Skip("this machine runs a kernel with views")
	}
	if r.Verdict.Status != oracle.Unsupported || !strings.Contains(string(r.Step.Stderr), "libwflp") {
		t.Errorf("%s: %s; stderr %q", r.Verdict.Status, r.Verdict.Note, r.Step.Stderr)
	}
}

func TestServe(t *testing.T) {
	s := workloads.Serve(4, workloads.ServeParams{Threads: 3, Utilisation: 0.2, DurationMS: 300, ServiceUS: 100, Patches: 2})
	n := 0
	for _, w := range s.Workers {
		n += len(w.Arrivals)
	}
	var trials []Trial
	for _, st := range []record.Strategy{record.None, record.Barrier, record.StopWorld, record.Restart} {
		trials = append(trials, Trial{Experiment: "E2", Spec: s, Strategy: st, Cell: record.Cell{Threads: 3}})
	}
	for _, r := range run(t, local(t), trials) {
		if r.Verdict.Status != oracle.Pass {
			t.Fatalf("%s: %s", r.Strategy, r.Verdict.Note)
		}
		l, err := r.Latency(Windows{Window: 50 * time.Millisecond, Bin: 10 * time.Millisecond, FirstBin: -5, Bins: 10,
			Warmup: func(lat []int64) int { return len(lat) / 10 }})
		if err != nil {
			t.Fatal(err)
		}
		var bins int64
		for _, b := range l.Bins {
			bins += b.N()
		}
		if got := l.WarmupRequests + l.Window.N() + l.Steady.N(); got != int64(n) || l.Window.N() == 0 || bins == 0 || l.Patches != 2 {
			t.Errorf("%s: %d requests of %d, %d in the window, %d in bins, %d patches", r.Strategy, got, n, l.Window.N(), bins, l.Patches)
		}
		if (r.Strategy == record.Restart) != (l.LostKiB > 0) {
			t.Errorf("%s: %d KiB of memory lost", r.Strategy, l.LostKiB)
		}
	}
}

func TestRestartNeedsAServer(t *testing.T) {
	if _, _, err := Job(t.Context(), wild(1, record.Restart)); err == nil || !strings.Contains(err.Error(), "latency") {
		t.Errorf("a program without requests was accepted: %v", err)
	}
}

func TestSlow(t *testing.T) {
	s := workloads.Slow(5, workloads.SlowParams{Threads: 2, Blocked: 2, BlockedUS: 60000, DurationMS: 200, Patches: 2, LongPct: 10, LongUS: 2000})
	r := run(t, local(t), []Trial{{Experiment: "E3", Spec: s, Strategy: record.Barrier, Cell: record.Cell{Threads: 2, BlockedThreads: 2}}})[0]
	if r.Verdict.Status != oracle.Pass {
		t.Fatal(r.Verdict.Note)
	}
	overs := r.Overs(20 * time.Millisecond)
	if len(overs) != 2 {
		t.Fatalf("%d patches", len(overs))
	}
	pulled := 0
	for _, o := range overs {
		if o.QueuedNS == 0 || o.LastOverNS < o.PublishedNS || len(o.Moves) != 4 {
			t.Errorf("patch %+v", o)
		}
		for _, m := range o.Moves {
			if m.How == record.HowPulled {
				pulled++
			}
			if m.AtNS < o.PublishedNS || len(m.Spans) == 0 {
				t.Errorf("patch %d: thread %d over at %d (published %d), %d spans", o.Patch, m.Thread, m.AtNS, o.PublishedNS, len(m.Spans))
			}
			for i := 1; i < len(m.Spans); i++ {
				if m.Spans[i].FromNS < m.Spans[i-1].ToNS {
					t.Errorf("patch %d thread %d: spans overlap: %+v", o.Patch, m.Thread, m.Spans)
				}
			}
		}
	}
	if pulled == 0 {
		t.Error("no sleeper was over while asleep")
	}
}

// TestMove is a thread's way told record by record.
func TestMove(t *testing.T) {
	p := wire.Report{Generation: 2, QueuedNS: 100, PublishedNS: 120, LastOverNS: 200}
	rec := func(kind, a uint16, gen uint32, at uint64) wire.Record {
		return wire.Record{Kind: kind, A: a, B: gen, C: at}
	}
	old := []wire.Record{rec(wire.RecordBirth, 0, 0, 10), rec(wire.RecordTxn, 0, 1, 50)}
	span := func(state string, from, to int64) record.Span {
		return record.Span{State: state, FromNS: from, ToNS: to}
	}
	for name, c := range map[string]struct {
		recs    []wire.Record
		inPlace bool
		how     string
		at      int64
		spans   []record.Span
	}{
		"own": {append(old[:2:2], rec(wire.RecordTxn, 1, 2, 130), rec(wire.RecordMoved, 1, 2, 150)), false, record.HowOwn, 150,
			[]record.Span{span("old", 50, 130), span("wait", 130, 150), span("new", 150, 300)}},
		"pulled": {append(old[:2:2], rec(wire.RecordOffline, 0, 0, 90), rec(wire.RecordOnline, wire.OnlinePulled, 2, 250), rec(wire.RecordTxn, 0, 2, 260)), false,
			record.HowPulled, 200, []record.Span{span("old", 50, 90), span("idle", 90, 260), span("new", 260, 300)}},
		"pulled, awake before the rest": {append(old[:2:2], rec(wire.RecordOffline, 0, 0, 90), rec(wire.RecordOnline, wire.OnlinePulled, 2, 180), rec(wire.RecordTxn, 0, 2, 190)), false,
			record.HowPulled, 180, []record.Span{span("old", 50, 90), span("idle", 90, 190), span("new", 190, 300)}},
		"woke and moved": {append(old[:2:2], rec(wire.RecordOffline, 0, 0, 90), rec(wire.RecordOnline, wire.OnlineMoved, 2, 180), rec(wire.RecordTxn, 0, 2, 190)), false,
			record.HowOwn, 180, []record.Span{span("old", 50, 90), span("idle", 90, 180), span("wait", 180, 190), span("new", 190, 300)}},
		"arrived asleep": {append(old[:2:2], rec(wire.RecordOffline, 0, 0, 90), rec(wire.RecordOnline, wire.OnlineMoved, 2, 180), rec(wire.RecordTxn, 0, 2, 190)), true,
			record.HowPulled, 180, []record.Span{span("old", 50, 90), span("idle", 90, 180), span("wait", 180, 190), span("new", 190, 300)}},
		"gone": {append(old[:2:2], rec(wire.RecordDeath, 0, 1, 140)), false, record.HowGone, 140, []record.Span{span("old", 50, 140)}},
		"born": {[]wire.Record{rec(wire.RecordBirth, 0, 0, 160), rec(wire.RecordTxn, 0, 2, 170)}, false, record.HowBorn, 160,
			[]record.Span{span("idle", 160, 170), span("new", 170, 300)}},
		"never": {old, false, "", 0, []record.Span{span("old", 50, 300)}},
	} {
		m, ok := move(c.recs, 0, p, c.inPlace, 50, 300)
		if !ok || m.How != c.how || m.AtNS != c.at || len(m.Spans) != len(c.spans) {
			t.Errorf("%s: %v %+v", name, ok, m)
			continue
		}
		for i := range m.Spans {
			if m.Spans[i] != c.spans[i] {
				t.Errorf("%s: spans %+v, want %+v", name, m.Spans, c.spans)
			}
		}
	}
	if _, ok := move([]wire.Record{rec(wire.RecordBirth, 0, 0, 400)}, 0, p, false, 50, 300); ok {
		t.Error("a thread born afterwards was there")
	}
}

// fake is a machine that says what it is told to.
type fake struct {
	res *vm.Result
	err error
	job guestproto.Job
}

func (f *fake) Run(_ context.Context, job guestproto.Job, files map[string][]byte) (*vm.Result, error) {
	f.job = job
	for _, s := range job.Steps {
		if _, ok := files[filepath.Base(s.Argv[4])]; !ok {
			return nil, errors.New("a step without its file")
		}
	}
	return f.res, f.err
}

// TestMachineGoesDown: the step that the machine went down in is charged with
// what the kernel said in it, those after it are unknown, not passes.
func TestMachineGoesDown(t *testing.T) {
	trials := wild(2, record.WaitFree, record.Barrier)
	f := &fake{res: &vm.Result{End: vm.Crashed, Steps: []vm.StepResult{
		{Ran: true, ExitCode: wire.EndUnsupported},
		{Console: []byte("[    1.0] WARNING: CPU: 0 PID: 7 at mm/mm_view.c:12 f+0x1/0x2\n[    1.1] Kernel panic - not syncing: oops\n")},
		{}, {TimedOut: true, ExitCode: -1, Signal: "SIGKILL", Ran: true},
	}}}
	f.res.Hello.MMView = true
	got := run(t, f, trials)
	for i, want := range []oracle.Status{oracle.Broken, oracle.Violated, oracle.Unknown, oracle.Unknown} {
		if got[i].Verdict.Status != want {
			t.Errorf("step %d: %s: %s, want %s", i, got[i].Verdict.Status, got[i].Verdict.Note, want)
		}
	}
	if len(got[1].Verdict.Violations) == 0 || got[1].Verdict.ByKind[oracle.Kernel] == 0 {
		t.Errorf("the kernel's complaint was not charged: %+v", got[1].Verdict)
	}
	if len(f.job.Steps) != 4 || f.job.Steps[0].Argv[4] != f.job.Steps[1].Argv[4] || f.job.Steps[0].Collect[0] == f.job.Steps[1].Collect[0] {
		t.Errorf("job %+v", f.job)
	}
	f.err = errors.New("no machine")
	if _, _, err := Run(t.Context(), f, trials); !errors.Is(err, f.err) {
		t.Errorf("error %v", err)
	}
	f.err, f.res = nil, &vm.Result{}
	if _, _, err := Run(t.Context(), f, trials); err == nil {
		t.Error("steps are missing, and nobody said so")
	}
	trials[0].Strategy = record.Restart
	if _, _, err := Run(t.Context(), f, trials); err == nil {
		t.Error("a strategy without an executor was accepted")
	}
}

// TestLocalTimeout: a step that is killed for its time is no pass.
func TestLocalTimeout(t *testing.T) {
	l := Local{Executor: "/bin/sleep", Dir: t.TempDir()}
	res, err := l.Run(t.Context(), guestproto.Job{Steps: []guestproto.Step{{Argv: []string{Executor, "60"}, TimeoutMS: 50}}}, nil)
	if err != nil || len(res.Steps) != 1 || !res.Steps[0].TimedOut {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := l.Run(t.Context(), guestproto.Job{Steps: []guestproto.Step{{Argv: []string{"/nowhere"}}}}, nil); err == nil {
		t.Error("a program that is not there ran")
	}
}
