// SPDX-License-Identifier: Apache-2.0

package matrix

import (
	"context"
	"errors"

	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/wflp/wflp/fuzz/attempt"
	"github.com/wflp/wflp/fuzz/campaign"
	"github.com/wflp/wflp/fuzz/model"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages/vm"
	"github.com/wflp/wflp/workloads/trial"
)

func lane() campaign.Lane {
	return campaign.Lane{Setup: attempt.Setup{Variant: "debug", Mode: vm.Deterministic, CPUs: 2, MemMiB: 256}, Weight: 1, Batch: 2}
}

func settings(mutants ...string) Settings {
	s := Settings{Seed: 7, Seeds: 2, CapS: 0.3, QEMU: "9.9", Treatments: []Treatment{{Name: "guided", Lanes: []campaign.Lane{lane()}}}}
	for _, id := range mutants {
		s.Mutants = append(s.Mutants, Mutant{ID: id, Name: "name-" + id, Kind: "kind", Target: kernel.TargetKernel, Oracle: "memory", Patch: "p" + id})
	}
	return s
}

// world is what machines do, by mutant.
type world struct {
	mu sync.Mutex
	// titles of the scenarios of a machine of a mutant, by how many machines of it
	// there were before.
	titles func(mutant string, run int, a attempt.Attempt) string
	err    func(mutant string, run int) error
	runs   map[string]int
}

func (w *world) try(c Cell, _ map[string]attempt.Kit) attempt.Runner {
	return func(ctx context.Context, a attempt.Attempt) (*attempt.Result, error) {
		w.mu.Lock()
		if w.runs == nil {
			w.runs = map[string]int{}
		}
		run := w.runs[c.Mutant]
		w.runs[c.Mutant]++
		w.mu.Unlock()
		if w.err != nil {
			if err := w.err(c.Mutant, run); err != nil {
				return nil, err
			}
		}
		res := &attempt.Result{End: vm.Exited}
		title := ""
		if w.titles != nil {
			title = w.titles(c.Mutant, run, a)
		}
		for i, s := range a.Scenarios {
			o := attempt.Outcome{Scenario: s, Begun: true, Trace: []byte(s.ID()), Verdict: model.Verdict{Status: oracle.Pass}}
			if title != "" && i == len(a.Scenarios)-1 {
				o.Title = title
				o.Verdict = model.Verdict{Status: oracle.Violated, ByKind: map[oracle.Kind]int{oracle.Memory: 1}}
			}
			res.Outcomes = append(res.Outcomes, o)
		}
		return res, nil
	}
}

func kits(t *testing.T) func(context.Context, Cell) (map[string]attempt.Kit, error) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"vmlinux", "vmlinux.debug", "bzImage", "config", "image"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(`{"digest":"d"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	return func(_ context.Context, c Cell) (map[string]attempt.Kit, error) {
		return map[string]attempt.Kit{lane().Setup.String(): {Kernel: kernel.Built{Variant: "debug", Dir: dir, Digest: "d" + c.Mutant}, Image: filepath.Join(dir, "image")}}, nil
	}
}

// played is what a matrix in dir reports of the world.
func played(t *testing.T, dir string, s Settings, w *world) Report {
	t.Helper()
	m := &Matrix{Dir: dir, Settings: s, Seek: map[string]Seeker{kernel.TargetKernel: Campaigns{Kits: kits(t), Try: w.try, Jobs: 1}.Seek}}
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func cell(t *testing.T, r Report, mutant string, seed uint64) Result {
	t.Helper()
	for _, c := range r.Cells {
		if c.Mutant == mutant && c.Seed == seed {
			return c
		}
	}
	t.Fatalf("no cell of %s and %d", mutant, seed)
	return Result{}
}

func TestFoundCensoredAndFalse(t *testing.T) {
	s := settings("0001", "0002", "0003", "0004")
	var control sync.Map
	w := &world{titles: func(mutant string, run int, a attempt.Attempt) string {
		switch mutant {
		case Control:
			// Seldom, and so not in the control cells: but in a machine that has
			// shown it with the mutant.
			if _, again := control.Load(a.Schedule); again {
				return "false alarm"
			}
			if run == 3 {
				return "alarm of the control"
			}
		case "0001":
			if run >= 4 {
				return "lost store"
			}
		case "0002":
			if run == 1 {
				control.Store(a.Schedule, true)
				return "false alarm"
			}
			if run >= 6 {
				return "stale code"
			}
		case "0003":
			return "alarm of the control"
		}
		return ""
	}}
	r := played(t, t.TempDir(), s, w)
	if c := cell(t, r, "0001", 7); c.State != Found || c.Title != "lost store" || c.Seconds <= 0 || c.Seconds > s.CapS || !reflect.DeepEqual(c.Kinds, []string{"memory"}) {
		t.Errorf("a defect that shows: %+v", c)
	}
	if c := cell(t, r, "0002", 7); c.State != Found || c.Title != "stale code" || !reflect.DeepEqual(c.False, []string{"false alarm"}) {
		t.Errorf("a defect that shows after a false alarm: %+v", c)
	}
	for _, id := range []string{"0003", "0004"} {
		if c := cell(t, r, id, 7); c.State != Censored || c.Title != "" || c.Seconds < s.CapS {
			t.Errorf("%s, which shows nothing or what the control shows: %+v", id, c)
		}
	}
	if c := cell(t, r, Control, 7); c.State != Censored || !reflect.DeepEqual(c.False, []string{"alarm of the control"}) || c.Seconds < s.CapS {
		t.Errorf("control: %+v", c)
	}
	lines := r.Lines()
	if l := lines[0]; l.Mutant.ID != "0001" || l.Found != 2 || l.Cells != 2 || l.Within != 2 || math.IsNaN(l.Median) {
		t.Errorf("line of 0001: %+v", l)
	}
	if got := r.Survivors(); len(got) != 2 || got[0].ID != "0003" {
		t.Errorf("survivors: %v", got)
	}
	page := r.Page()
	for _, want := range []string{"alarm of the control", "| 0004 name-0004 | kind | 0 of 2 | > 0.3 s |", "of 8 cells 4 found theirs, 4 are censored, 0 say nothing", "2 of 4 defects"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q:\n%s", want, page)
		}
	}
}

// A control cell of another shard, run later, takes back what was counted.
func TestControlTakesBack(t *testing.T) {
	r := Report{Settings: settings("0001"), Cells: []Result{
		{Cell: Cell{Control, kernel.TargetKernel, "guided", 7}, State: Censored, False: []string{"x"}},
		{Cell: Cell{"0001", kernel.TargetKernel, "guided", 7}, State: Found, Title: "x", Seconds: 0.1},
		{Cell: Cell{"0001", kernel.TargetKernel, "guided", 8}, State: Found, Title: "y", Seconds: 0.1},
		{Cell: Cell{"0080", kernel.TargetLibrary, "guided", 8}, State: Found, Title: "x", Seconds: 0.1},
	}}
	r.takeBack()
	if r.Cells[1].State != Censored || r.Cells[1].Seconds != 0.1 || r.Cells[2].State != Found || r.Cells[3].State != Found {
		t.Errorf("%+v", r.Cells)
	}
}

func TestDoneCellsAreNotRunAgain(t *testing.T) {
	dir := t.TempDir()
	s := settings("0001", "0002")
	w := &world{titles: func(mutant string, _ int, _ attempt.Attempt) string {
		if mutant == Control {
			return ""
		}
		return "lost store"
	}}
	first := played(t, dir, s, w)
	before := w.runs["0001"]
	s.Seeds = 3
	s.Mutants = append(s.Mutants, settings("0003").Mutants...)
	second := played(t, dir, s, w)
	if cell(t, first, "0001", 8).Seconds != cell(t, second, "0001", 8).Seconds {
		t.Error("a cell has changed")
	}
	if per := before / 2; w.runs["0001"] != 3*per {
		t.Errorf("%d machines of 0001 for two seeds, %d after a third", before, w.runs["0001"])
	}
	cell(t, second, "0003", 9)

	s.Mutants[0].Patch = "other"
	if err := (&Matrix{Dir: dir, Settings: s}).Run(t.Context()); !errors.Is(err, ErrOther) {
		t.Errorf("a mutant has changed: %v", err)
	}
	s = settings("0001")
	s.CapS = 5
	if err := (&Matrix{Dir: dir, Settings: s}).Run(t.Context()); !errors.Is(err, ErrOther) {
		t.Errorf("the cap has changed: %v", err)
	}
}

// A cell that was stopped goes on, and its time with it.
func TestStoppedCellGoesOn(t *testing.T) {
	dir := t.TempDir()
	s := settings("0001")
	s.Seeds = 1
	ctx, cancel := context.WithCancel(t.Context())
	w := &world{titles: func(mutant string, run int, _ attempt.Attempt) string {
		if mutant == Control {
			return ""
		}
		if run == 5 {
			cancel()
		}
		if run >= 10 {
			return "lost store"
		}
		return ""
	}}
	m := &Matrix{Dir: dir, Settings: s, Seek: map[string]Seeker{kernel.TargetKernel: Campaigns{Kits: kits(t), Try: w.try, Jobs: 1}.Seek}}
	if err := m.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if r, _ := Read(dir); len(r.Cells) != 1 { // the control
		t.Fatalf("%d cells are done", len(r.Cells))
	}
	c := cell(t, played(t, dir, s, w), "0001", 7)
	if c.State != Found || c.Iterations < 10 {
		t.Errorf("%+v", c)
	}
}

func TestMachineFailuresAreToldApart(t *testing.T) {
	dir := t.TempDir()
	s := settings("0001", "0002")
	s.Seeds = 1
	broken := true
	w := &world{
		err: func(mutant string, _ int) error {
			if mutant == "0001" && broken {
				return &vm.BootError{End: vm.Crashed}
			}
			return nil
		},
		titles: func(mutant string, _ int, _ attempt.Attempt) string {
			if mutant == Control {
				return ""
			}
			return "lost store"
		}}
	r := played(t, dir, s, w)
	c := cell(t, r, "0001", 7)
	if c.State != Machine || c.Note == "" {
		t.Errorf("no machine starts: %+v", c)
	}
	if l := r.Lines()[0]; l.Machine != 1 || l.Cells != 0 {
		t.Errorf("%+v", l)
	}
	if cell(t, r, "0002", 7).State != Found {
		t.Error("the next cell was not run")
	}
	broken = false
	if c := cell(t, played(t, dir, s, w), "0001", 7); c.State != Found || c.NotStarted == 0 {
		t.Errorf("machines start again: %+v", c)
	}
}

func TestShardsAreTheWhole(t *testing.T) {
	s := settings("0001", "0002", "0003")
	s.Mutants = append(s.Mutants, Mutant{ID: "0080", Target: kernel.TargetLibrary})
	s.Treatments = append(s.Treatments, Treatment{Name: "blind", Blind: true})
	owner := map[string]int{}
	n := 0
	for i := range 3 {
		for _, c := range s.Shard(i, 3) {
			n++
			if o, ok := owner[c.Target+c.Mutant]; ok && o != i {
				t.Errorf("%s is in shards %d and %d", c, o, i)
			}
			owner[c.Target+c.Mutant] = i
			if c.Target == kernel.TargetLibrary && c.Treatment == "blind" {
				t.Errorf("%s: the library is not guided", c)
			}
		}
	}
	if all := len(s.Cells()); n != all || all != (3+1)*2*2+(1+1)*2 {
		t.Errorf("%d cells in shards, %d in all", n, all)
	}
	if c := s.Cells()[0]; c.Mutant != Control {
		t.Errorf("%s comes before the controls", c)
	}
}

func TestLibraryCells(t *testing.T) {
	s := settings()
	s.Seeds, s.CapS = 1, 0.2
	s.Mutants = []Mutant{{ID: "0080", Name: "n", Target: kernel.TargetLibrary}, {ID: "0081", Name: "m", Target: kernel.TargetLibrary}}
	runs := 0
	var failing []string // programs that fail with a sound library, too
	try := func(_ context.Context, c Cell, _ campaign.Lane, _ uint64, trials []trial.Trial) ([]trial.Result, error) {
		runs++
		var out []trial.Result
		for _, tr := range trials {
			out = append(out, trial.Result{Trial: tr, Verdict: oracle.Verdict{Status: oracle.Pass}})
		}
		violate := func(k oracle.Kind) {
			out[0].Verdict = oracle.Verdict{Status: oracle.Violated, ByKind: map[oracle.Kind]int{k: 1}}
		}
		id := trials[0].Spec.ID()
		switch {
		case c.Mutant == Control:
			for _, f := range failing {
				if f == id {
					violate(oracle.Crash)
				}
			}
		case c.Mutant == "0080" && len(failing) == 0:
			failing = append(failing, id)
			violate(oracle.Crash)
		case c.Mutant == "0080" && runs > 5:
			violate(oracle.Torn)
		}
		return out, nil
	}
	dir := t.TempDir()
	m := &Matrix{Dir: dir, Settings: s, Seek: map[string]Seeker{kernel.TargetLibrary: Programs{Try: try}.Seek}}
	// The control cell would see the alarm, so it is done first.
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if c := cell(t, r, "0080", 7); c.State != Found || c.Title != "waitfree: torn" || !reflect.DeepEqual(c.False, []string{"waitfree: crash"}) {
		t.Errorf("%+v", c)
	}
	if c := cell(t, r, "0081", 7); c.State != Censored || c.Seconds < s.CapS || c.Iterations == 0 {
		t.Errorf("%+v", c)
	}
	before := runs
	if err := m.Run(t.Context()); err != nil || runs != before {
		t.Errorf("run again: %v, %d machines more", err, runs-before)
	}
}

func TestTornLogOfALibraryCell(t *testing.T) {
	path := filepath.Join(t.TempDir(), batchesName)
	if err := os.WriteFile(path, []byte("{\"n\":0,\"at_s\":1,\"runs\":8}\n{\"n\":1,\"at"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := readBatches(path)
	if err != nil || len(got) != 1 || got[0].Runs != 8 {
		t.Errorf("%v, %v", got, err)
	}
}

// What is written can be read, and makes the same page and figure.
func TestResultIsAllThatThereIs(t *testing.T) {
	s := settings("0001", "0002")
	s.Treatments = append(s.Treatments, Treatment{Name: "blind", Blind: true, Lanes: []campaign.Lane{lane()}})
	r := Report{Settings: s}
	r.Settings.Format = Format
	for i, c := range s.Cells() {
		res := Result{Cell: c, State: Censored, Seconds: s.CapS}
		if c.Mutant != Control && (c.Treatment == "guided" || c.Mutant == "0001") {
			res = Result{Cell: c, State: Found, Seconds: 0.01 * float64(i), Iterations: i, Title: "t", Kinds: []string{"memory"}}
		}
		r.Cells = append(r.Cells, res)
	}
	dir := t.TempDir()
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	again, err := Read(dir) // there are no cells
	if err != nil {
		t.Fatal(err)
	}
	if again.Page() != r.Page() {
		t.Errorf("the page is another:\n%s\n%s", again.Page(), r.Page())
	}
	for _, format := range []string{"svg", "pdf"} {
		a, err := r.Figure().Render(format)
		if err != nil {
			t.Fatal(err)
		}
		b, err := again.Figure().Render(format)
		if err != nil || string(a) != string(b) {
			t.Errorf("%s: the figure is another (%v)", format, err)
		}
	}
	if !strings.Contains(r.Page(), "guided, blind | 2 | 4 of 4, 2 of 4") {
		t.Errorf("no comparison:\n%s", r.Page())
	}
	data, _ := os.ReadFile(filepath.Join(dir, ResultName))
	if n := strings.Count(string(data), "\n"); n != len(r.Cells)+len(s.Mutants)+4 {
		t.Errorf("%d lines of %d cells:\n%s", n, len(r.Cells), data)
	}
	if _, err := os.Stat(filepath.Join(dir, FigureName+".svg")); err != nil {
		t.Error(err)
	}
}

func TestClock(t *testing.T) {
	for s, want := range map[float64]string{0.3: "0.3 s", 9.96: "10.0 s", 90: "90 s", 600: "10.0 min", math.Inf(1): "later"} {
		if got := clock(s); got != want {
			t.Errorf("%v: %q, want %q", s, got, want)
		}
	}
}
