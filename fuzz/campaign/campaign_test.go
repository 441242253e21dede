// SPDX-License-Identifier: Apache-2.0

package campaign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wflp/wflp/fuzz/attempt"
	"github.com/wflp/wflp/fuzz/finding"
	"github.com/wflp/wflp/fuzz/model"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages/vm"
)

// fake makes attempts without a machine: each scenario passes and covers what
// its digest says, unless told otherwise.
type fake struct {
	mu   sync.Mutex
	runs int
	// each is asked of each scenario in turn: a title if it fails, and whether the
	// machine goes down with it.
	each func(a attempt.Attempt, i int) (title string, down bool)
	err  func(run int) error
	stop func(run int)
	// stands says whether a machine stands until its time is over.
	stands func(a attempt.Attempt) bool
}

func (f *fake) try(ctx context.Context, a attempt.Attempt) (*attempt.Result, error) {
	f.mu.Lock()
	f.runs++
	run := f.runs
	f.mu.Unlock()
	if f.stop != nil {
		f.stop(run)
	}
	if f.err != nil {
		if err := f.err(run); err != nil {
			return nil, err
		}
	}
	res := &attempt.Result{End: vm.Exited, Console: fmt.Appendf(nil, "schedule %d\n", a.Schedule)}
	if f.stands != nil && f.stands(a) {
		res.End, res.Limit, res.QEMULog = vm.Timeout, 45*time.Second, "cannot do that"
		for i, s := range a.Scenarios {
			o := attempt.Outcome{Scenario: s, Begun: i == 0, Verdict: model.Verdict{Status: oracle.Unknown}}
			if o.Begun && a.Setup.Mode == vm.Deterministic {
				o.Title = attempt.Stands
			}
			res.Outcomes = append(res.Outcomes, o)
		}
		return res, nil
	}
	down := false
	for i, s := range a.Scenarios {
		o := attempt.Outcome{Scenario: s, Begun: !down, Trace: []byte(s.ID()), Verdict: model.Verdict{Status: oracle.Pass, Ops: 10}}
		if down {
			o.Verdict.Status = oracle.Unknown
		} else {
			for k := range 4 {
				o.Verdict.PCs = append(o.Verdict.PCs, uint64(s.ID()[k]))
			}
			if f.each != nil {
				if o.Title, down = f.each(a, i); o.Title != "" {
					o.Verdict.Status = oracle.Violated
					o.Verdict.ByKind = map[oracle.Kind]int{oracle.Memory: 1}
				}
			}
		}
		res.Outcomes = append(res.Outcomes, o)
	}
	if down {
		res.End = vm.Crashed
	}
	if ctx.Err() != nil {
		res.End = vm.Killed
	}
	return res, nil
}

// kit is a kernel and an image as far as a finding needs them.
func kit(t *testing.T) attempt.Kit {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"vmlinux", "vmlinux.debug", "bzImage", "config", "image"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(`{"digest":"d1"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	return attempt.Kit{Kernel: kernel.Built{Variant: "release", Dir: dir, Digest: "d1"}, Image: filepath.Join(dir, "image")}
}

func begin(t *testing.T, dir string, f *fake) *Campaign {
	t.Helper()
	det := attempt.Setup{Variant: "release", Mode: vm.Deterministic, CPUs: 2, MemMiB: 256}
	fast := det
	fast.Mode = vm.Fast
	k := kit(t)
	return &Campaign{Dir: dir, Jobs: 2, Try: f.try, Confirm: 3,
		Settings: Settings{Seed: 5, Lanes: []Lane{{Setup: det, Weight: 2, Batch: 3}, {Setup: fast, Weight: 1, Batch: 4}}},
		Bounds:   Bounds{Iterations: 60}, Kits: map[string]attempt.Kit{det.String(): k, fast.String(): k}}
}

// iterations returns the numbers in the log, each of which must be there once.
func iterations(t *testing.T, dir string) map[uint64]Entry {
	t.Helper()
	entries, err := ReadLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[uint64]Entry{}
	for _, e := range entries {
		if e.Machine {
			continue
		}
		if _, ok := out[e.N]; ok {
			t.Errorf("iteration %d was run twice", e.N)
		}
		out[e.N] = e
	}
	return out
}

func TestRunsEachIterationOnce(t *testing.T) {
	dir := t.TempDir()
	c := begin(t, dir, &fake{})
	if err := c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := iterations(t, dir)
	origins := map[Origin]int{}
	for n := range uint64(60) {
		e, ok := got[n]
		if !ok {
			t.Errorf("iteration %d is missing", n)
		}
		origins[e.Origin]++
	}
	if len(got) != 60 || origins[Fresh] == 0 || origins[Mutant] == 0 || origins[Again] == 0 {
		t.Errorf("%d iterations, origins %v", len(got), origins)
	}
	if l := c.st.Lanes; l["release/deterministic"].Iterations == 0 || l["release/fast"].Iterations == 0 {
		t.Errorf("a lane did not have its turn: %v", l)
	}
	read, err := ReadStatus(dir, c.Settings)
	if err != nil {
		t.Fatal(err)
	}
	read.ElapsedS = c.st.ElapsedS
	if !reflect.DeepEqual(read, c.st) {
		t.Errorf("the status out of the log is\n%+v\nthe live one\n%+v", read, c.st)
	}
	for _, name := range []string{StatusName, PageName} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || len(b) < 100 {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}

func TestBlindGeneratesAfresh(t *testing.T) {
	dir := t.TempDir()
	c := begin(t, dir, &fake{})
	c.Settings.Blind = true
	if err := c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n, e := range iterations(t, dir) {
		if e.Origin != Fresh {
			t.Errorf("iteration %d is of origin %s", n, e.Origin)
		}
	}
}

// A campaign that is stopped in the middle, with a torn line at the end of its
// log, goes on to the same set of iterations.
func TestGoesOn(t *testing.T) {
	dir := t.TempDir()
	for try := 0; ; try++ {
		ctx, cancel := context.WithCancel(t.Context())
		f := &fake{stop: func(run int) {
			if run == 5 {
				cancel()
			}
		}}
		err := begin(t, dir, f).Run(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if len(iterations(t, dir)) == 60 {
			break
		}
		if try > 30 {
			t.Fatal("it does not come to an end")
		}
		log, err := os.OpenFile(filepath.Join(dir, LogName), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := log.WriteString(`{"n":3,"lane":"rel`); err != nil {
			t.Fatal(err)
		}
		log.Close()
	}
}

func TestKeepsTheFirstOfATitle(t *testing.T) {
	dir := t.TempDir()
	f := &fake{each: func(a attempt.Attempt, i int) (string, bool) {
		if strings.HasPrefix(a.Scenarios[i].ID(), "0") || strings.HasPrefix(a.Scenarios[i].ID(), "1") {
			return "memory: a store of one thread is not seen", i == 1
		}
		return "", false
	}}
	c := begin(t, dir, f)
	if err := c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(iterations(t, dir)); n != 60 {
		t.Errorf("%d iterations: those behind a machine that went down are to be run as well", n)
	}
	names, err := os.ReadDir(filepath.Join(dir, FindingsName))
	if err != nil || len(names) != 1 {
		t.Fatalf("findings: %v, %v", names, err)
	}
	got, err := finding.Read(filepath.Join(dir, FindingsName, names[0].Name()))
	if err != nil {
		t.Fatal(err)
	}
	if got.Again == nil || got.Again.Hits != got.Again.Runs || got.Again.Runs == 0 {
		t.Errorf("it was run again: %+v", got.Again)
	}
	if got.Exact != got.Deterministic() {
		t.Errorf("exact %v, mode %s", got.Exact, got.Attempt.Setup.Mode)
	}
	if _, err := got.Kit(); err != nil {
		t.Error(err)
	}
	again, err := got.Replay(t.Context(), f.try, 2, nil)
	if err != nil || again.Hits != 2 || again.Same != 2 {
		t.Errorf("replay: %+v, %v", again, err)
	}
}

func TestMachinesThatDoNotStart(t *testing.T) {
	dir := t.TempDir()
	once := &fake{err: func(run int) error {
		if run%7 == 0 {
			return fmt.Errorf("run: %w", &vm.BootError{End: vm.Timeout})
		}
		return nil
	}}
	c := begin(t, dir, once)
	if err := c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.st.Machines == 0 || len(iterations(t, dir)) != 60 {
		t.Errorf("%d machines did not start, %d iterations", c.st.Machines, len(iterations(t, dir)))
	}
	never := &fake{err: func(int) error { return &vm.BootError{End: vm.Crashed} }}
	var be *vm.BootError
	if err := begin(t, t.TempDir(), never).Run(t.Context()); !errors.As(err, &be) {
		t.Errorf("error of a campaign whose machines never start: %v", err)
	}
}

// Machines that start and then stand must not keep a campaign for ever; single
// ones among others that get somewhere must not end it.
func TestMachinesThatStand(t *testing.T) {
	turn := map[vm.Mode]int{}
	c := begin(t, t.TempDir(), &fake{stands: func(a attempt.Attempt) bool {
		turn[a.Setup.Mode]++
		return turn[a.Setup.Mode]%standing != 0
	}})
	c.Jobs = 1
	if err := c.Run(t.Context()); err != nil {
		t.Errorf("each fifth machine of a lane gets somewhere: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f := &fake{stands: func(attempt.Attempt) bool { return true }}
	err := begin(t, t.TempDir(), f).Run(ctx)
	var se *StandError
	if !errors.As(err, &se) {
		t.Fatalf("error of a campaign whose machines stand: %v", err)
	}
	// Both lanes stand, each for its own count.
	if f.runs < standing || f.runs > 2*standing {
		t.Errorf("%d machines were tried", f.runs)
	}
	for _, want := range []string{se.Lane, "45s", "cannot do that", fmt.Sprintf("schedule %d", se.Attempt.Schedule)} {
		if !strings.HasPrefix(se.Lane, "release/") || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not tell %q: %v", want, err)
		}
	}
}

// A machine that stands is a finding if it does so for much longer as well, on a
// host on which others get somewhere, and in deterministic mode. One that was only
// slow is none.
func TestAMachineThatStandsIsAFinding(t *testing.T) {
	for _, slow := range []bool{false, true} {
		dir, asked := t.TempDir(), 0
		f, of := &fake{}, uint64(0)
		f.stands = func(a attempt.Attempt) bool {
			if a.Patience > 1 {
				asked++
				return !slow
			}
			if of == 0 && f.runs > 5 && a.Setup.Mode == vm.Deterministic {
				of = a.Schedule
			}
			return a.Schedule == of
		}
		c := begin(t, dir, f)
		c.Jobs = 1
		if err := c.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		names, err := os.ReadDir(filepath.Join(dir, FindingsName))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if asked == 0 || slow != (len(names) == 0) {
			t.Errorf("slow %v: asked %d times, %d findings", slow, asked, len(names))
		}
		for _, e := range iterations(t, dir) {
			if e.Title != "" && (e.Title != attempt.Stands || e.Status != oracle.Violated || !strings.Contains(e.Lane, string(vm.Deterministic))) {
				t.Errorf("%+v", e)
			}
		}
		for _, n := range names {
			got, err := finding.Read(filepath.Join(dir, FindingsName, n.Name()))
			if err != nil || got.Title != attempt.Stands || got.Kinds[oracle.Hang] != 1 {
				t.Errorf("finding: %+v, %v", got, err)
			}
		}
	}
}

func TestAFolderBelongsToOneCampaign(t *testing.T) {
	dir := t.TempDir()
	c := begin(t, dir, &fake{})
	if err := c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := begin(t, dir, &fake{})
	other.Settings.Seed++
	if err := other.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "Seed") {
		t.Errorf("another seed: %v", err)
	}
	l, _, err := openLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := begin(t, dir, &fake{}).Run(t.Context()); !errors.Is(err, ErrLocked) {
		t.Errorf("two at once: %v", err)
	}
}

func TestShardsAndMerge(t *testing.T) {
	all := map[uint64]bool{}
	dirs := []string{t.TempDir(), t.TempDir()}
	f := &fake{each: func(a attempt.Attempt, i int) (string, bool) { return "title " + a.Scenarios[i].ID()[:1], false }}
	for i, dir := range dirs {
		c := begin(t, dir, f)
		c.Settings.Shard, c.Settings.Shards, c.Bounds.Iterations = uint64(i), 2, 30
		if err := c.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		for n := range iterations(t, dir) {
			if all[n] {
				t.Errorf("both shards ran iteration %d", n)
			}
			all[n] = true
		}
	}
	to := t.TempDir()
	s, n, err := Merge(to, dirs...)
	if err != nil || s == 0 || n == 0 {
		t.Fatalf("merge: %d scenarios, %d findings, %v", s, n, err)
	}
	if s, n, err = Merge(to, dirs...); s != 0 || n != 0 || err != nil {
		t.Errorf("merged twice: %d scenarios, %d findings, %v", s, n, err)
	}
	if _, _, err := Merge(to, t.TempDir()); err == nil {
		t.Error("merged a folder that is none")
	}
}
