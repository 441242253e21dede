// SPDX-License-Identifier: Apache-2.0

package evaluation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/vm"
	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/trial"
	"github.com/wflp/wflp/workloads/wire"
)

var laptop = Ability{Mode: vm.Fast, Cores: 2, MemMiB: 6000}

func plan(t *testing.T, profile string, seed uint64, a Ability, only ...string) []Unit {
	t.Helper()
	units, err := Plan(profile, seed, a, only)
	if err != nil {
		t.Fatal(err)
	}
	return units
}

func TestPlanIsPure(t *testing.T) {
	for _, profile := range Profiles() {
		a, b := plan(t, profile, 7, laptop), plan(t, profile, 7, laptop)
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: two calls, two plans", profile)
		}
		x, err := Digest(a)
		if err != nil {
			t.Fatal(err)
		}
		y, err := Digest(plan(t, profile, 8, laptop))
		if err != nil || x == y {
			t.Errorf("%s: another seed, the same plan (%v)", profile, err)
		}
	}
}

// TestPlanParts holds plans to what every unit needs, and -only to leaving units
// as they are.
func TestPlanParts(t *testing.T) {
	for _, profile := range Profiles() {
		for _, a := range []Ability{laptop, {Mode: vm.Measured, Cores: 16, MemMiB: 64000}, {Mode: vm.Fast, Cores: 1, MemMiB: 1000},
			{Mode: vm.Deterministic, Cores: 2, MemMiB: 8000}} {
			all := plan(t, profile, 1, a)
			keys := map[string]Unit{}
			seeds := map[uint64]bool{}
			strategies := map[string][]record.Strategy{}
			stopped := 0
			alone := false
			for _, u := range all {
				if _, twice := keys[u.Key]; twice || seeds[u.Seed] {
					t.Errorf("%s: unit %s or its seed is there twice", profile, u.Key)
				}
				keys[u.Key], seeds[u.Seed] = u, true
				if alone && !u.Alone {
					t.Errorf("%s: %s, which needs no machine of its own, waits for those that do", profile, u.Key)
				}
				alone = u.Alone
				if kinds := boolInt(len(u.Trials) > 0) + boolInt(len(u.Measures) > 0) + boolInt(u.Real != nil); kinds != 1 || u.Timeout < 3*u.Estimate || u.CPUs < 1 || u.MemMiB > a.MemMiB {
					t.Errorf("%s: %s: %d trials and %d measures, %v of %v, %d CPUs, %d MiB", profile, u.Key, len(u.Trials), len(u.Measures), u.Estimate, u.Timeout, u.CPUs, u.MemMiB)
				}
				if timed := u.Mode != vm.Deterministic && u.Experiments[0] != "E1"; timed != u.Alone {
					t.Errorf("%s: %s: alone: %v", profile, u.Key, u.Alone)
				}
				if (u.Variant == stock) != strings.Contains(u.Key, "/stock/") || u.Variant == stock && u.Experiments[0] != "E5" {
					t.Errorf("%s: %s on %s", profile, u.Key, u.Variant)
				}
				if u.Real != nil {
					var s []record.Strategy
					for _, r := range u.Real.Runs {
						s = append(s, r.Strategy)
						for _, at := range r.PatchAtMS {
							if at < 0 || at >= r.DurationMS || len(r.PatchAtMS) == 0 || !slices.Equal(r.PatchAtMS, u.Real.Runs[0].PatchAtMS) {
								t.Errorf("%s: %s: changes at %v of %d ms", profile, u.Key, r.PatchAtMS, r.DurationMS)
							}
						}
					}
					if slices.Sort(s); len(s) != 5 || len(slices.Compact(s)) != 5 {
						t.Errorf("%s: %s under %v", profile, u.Key, s)
					}
				}
				for _, tr := range u.Trials {
					if u.Experiments[0] == "E1" && tr.Strategy == record.StopWorld {
						stopped++ // of some programs only
						continue
					}
					k := fmt.Sprint(u.Experiments[0], " ", u.Variant, " ", tr.Program.Seed)
					strategies[k] = append(strategies[k], tr.Strategy)
					if alone := u.Trials[0].Strategy == record.Naive; alone != (tr.Strategy == record.Naive) {
						t.Errorf("%s: %s: naive shares a machine with others", profile, u.Key)
					}
				}
			}
			for k, s := range strategies {
				slices.Sort(s)
				want := map[string]int{"E0 release": 1, "E1 release": 3, "E1 debug": 2, "E1 kasan": 2, "E2 release": 5, "E3 release": 3, "E7 release": 3, "E8 release": 3}[k[:strings.LastIndex(k, " ")]]
				if len(s) != want || len(slices.Compact(s)) != want {
					t.Errorf("%s: program %s under %v", profile, k, s)
				}
			}
			if stopped == 0 {
				t.Errorf("%s: no program is stopped to be patched", profile)
			}
			n := 0
			for _, e := range Experiments {
				for _, u := range plan(t, profile, 1, a, e) {
					n++
					if !reflect.DeepEqual(u, keys[u.Key]) {
						t.Errorf("%s: %s is another unit when alone", profile, u.Key)
					}
				}
			}
			if n != len(all) {
				t.Errorf("%s: %d units in all, %d by experiment", profile, len(all), n)
			}
		}
	}
	if _, err := Plan("huge", 1, laptop, nil); err == nil {
		t.Error("an unknown profile was accepted")
	}
	if _, err := Plan("quick", 1, laptop, []string{"E12"}); err == nil {
		t.Error("an unknown experiment was accepted")
	}
	if got := Variants(plan(t, "quick", 1, laptop)); !reflect.DeepEqual(got, []string{"debug", "kasan", "release", "stock"}) {
		t.Errorf("variants %v", got)
	}
}

// TestQuickIsEnough counts what E1 of the quick profile plans: the least that its
// claims rest on, with room for patches that are refused.
func TestQuickIsEnough(t *testing.T) {
	specs := map[string]bool{}
	boots, patches, memory, births := 0, 0, 0, 0
	for _, u := range plan(t, "quick", 1, laptop, "E1") {
		boots++
		trials, err := specsOf(u)
		if err != nil {
			t.Fatal(err)
		}
		for _, tr := range trials {
			if tr.Strategy != record.Naive {
				patches += len(tr.Spec.Patches)
			}
			if id := tr.Spec.ID(); !specs[id] {
				specs[id] = true
				if tr.Spec.Has(func(a workloads.Action) bool { return a.Kind.Memory() }) {
					memory++
				}
				if tr.Spec.Births() > 0 {
					births++
				}
			}
		}
	}
	t.Logf("%d boots, %d specs (%d with memory operations, %d with births), %d patches", boots, len(specs), memory, births, patches)
	if boots < 10 || len(specs) < 300 || patches < 30000 || memory*2 < len(specs) || births*2 < len(specs) {
		t.Error("too little")
	}
	estimate := time.Duration(0)
	for _, u := range plan(t, "quick", 1, laptop) {
		if u.Alone {
			estimate += u.Estimate
		} else {
			estimate += u.Estimate / 2
		}
	}
	if estimate > 17*time.Minute {
		t.Errorf("quick takes about %v on two cores", estimate)
	}
}

func TestMemoryLimitsSizes(t *testing.T) {
	has := func(mem int, size string) bool {
		for _, u := range plan(t, "full", 1, Ability{Mode: vm.Fast, Cores: 2, MemMiB: mem}, "E4") {
			for _, m := range u.Measures {
				i := slices.Index(m.Args, "--resident")
				if slices.Contains(strings.Split(m.Args[i+1], ","), size) {
					return true
				}
			}
		}
		return false
	}
	if !has(6000, "4096") || has(4000, "4096") || !has(4000, "1024") || has(1000, "1024") {
		t.Error("sizes do not follow the memory of the machine")
	}
}

// TestRepeat: the command of a trial, taken apart as wflp run does, describes the
// very same program.
func TestRepeat(t *testing.T) {
	// What a program is, by its description: most are run under several strategies.
	ids := map[string]string{}
	id := func(p Program) string {
		description, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if ids[string(description)] == "" {
			s, err := p.Spec()
			if err != nil {
				t.Fatal(err)
			}
			ids[string(description)] = s.ID()
		}
		return ids[string(description)]
	}
	for _, u := range slices.Concat(small(t), plan(t, "full", 3, laptop, "E0", "E2", "E3", "E7", "E8")) {
		for _, tr := range u.Trials {
			line := Repeat(u, tr)
			a := Again{}
			v := reflect.ValueOf(&a).Elem()
			words := strings.Fields(line)
			for i := 2; i < len(words); i += 2 {
				name := strings.TrimPrefix(words[i], "--")
				for f := range v.NumField() {
					flag := v.Type().Field(f).Tag.Get("flag")
					if flag == name {
						if _, err := fmt.Sscan(words[i+1], v.Field(f).Addr().Interface()); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			if id(a.Program()) != id(tr.Program) {
				t.Fatalf("%q makes another program", line)
			}
		}
	}
}

// shelf is a log in memory.
type shelf struct {
	mu    sync.Mutex
	units map[string]record.Unit
	bad   error
}

func newShelf() *shelf { return &shelf{units: map[string]record.Unit{}} }

func (s *shelf) Done(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.units[key]
	return ok
}

func (s *shelf) Append(u record.Unit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad != nil {
		return s.bad
	}
	if _, twice := s.units[u.Key]; twice {
		return errors.New("twice")
	}
	s.units[u.Key] = u
	return nil
}

// hall counts the machines that run at the same time.
type hall struct {
	mu               sync.Mutex
	running, most    int
	alone, disturbed bool
	booted           map[string]int
	run              func(ctx context.Context, u Unit, job guestproto.Job) (*vm.Result, error)
}

type fakeMachine struct {
	h    *hall
	u    Unit
	step func()
}

func (m fakeMachine) Run(ctx context.Context, job guestproto.Job, files map[string][]byte) (*vm.Result, error) {
	h := m.h
	h.mu.Lock()
	h.running++
	h.booted[m.u.Key]++
	h.most = max(h.most, h.running)
	if m.u.Alone && h.running > 1 || h.alone {
		h.disturbed = true
	}
	h.alone = m.u.Alone
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.running--
		h.alone = false
	}()
	for range job.Steps {
		m.step()
	}
	if !m.u.Alone && len(m.u.Measures) > 0 {
		time.Sleep(100 * time.Millisecond) // long enough to meet another
	}
	return h.run(ctx, m.u, job)
}

// fine is a machine on which every step ran, left nothing, and ended as if the
// kernel had no views.
func fine(_ context.Context, u Unit, job guestproto.Job) (*vm.Result, error) {
	res := &vm.Result{End: vm.Exited, Mode: u.Mode, QEMU: "7", Duration: time.Second}
	res.Hello.Release = "6.12-" + u.Variant
	for range job.Steps {
		s := vm.StepResult{Ran: true, ExitCode: wire.EndUnsupported}
		switch {
		case len(u.Measures) > 0 && u.Measures[len(res.Steps)].Args[0] == "footprint":
			s = vm.StepResult{Ran: true, Stdout: []byte(`{"experiment":"E6","series":"views","n":1,"views":1,"private_pages":1,"own_tables":4,"files":4,"rss_kib":700,"pte_kib":40,"used_kib":9000}` + "\n")}
		case len(u.Measures) > 0:
			s = vm.StepResult{Ran: true, Stdout: []byte(`{"experiment":"E5","bench":"syscall","setting":"base","rep":0,"batch":4,"ns":100}` + "\n")}
		}
		res.Steps = append(res.Steps, s)
	}
	return res, nil
}

func newEngine(t *testing.T, log Log, h *hall) (*Engine, *bytes.Buffer) {
	h.booted = map[string]int{}
	if h.run == nil {
		h.run = fine
	}
	var said bytes.Buffer
	return &Engine{Log: log, Digests: map[string]string{"release": "r", "stock": "s", "debug": "d", "kasan": "k"}, Slots: 2, Evidence: t.TempDir(), Progress: &Progress{W: &said},
		Machine: func(u Unit, step func()) trial.Machine { return fakeMachine{h, u, step} }}, &said
}

// small is a plan of few units of every kind, alone and not.
func small(t *testing.T) []Unit {
	t.Helper()
	return plan(t, "smoke", 1, laptop)
}

func TestEngineRunsAll(t *testing.T) {
	log, h := newShelf(), &hall{}
	e, said := newEngine(t, log, h)
	units := small(t)
	if err := e.Run(t.Context(), units); err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		r, ok := log.units[u.Key]
		if !ok || len(r.Trials) != len(u.Trials) || len(r.Micros)+len(r.Memories) != len(u.Measures) {
			t.Errorf("%s: %d trials of %d, %d micros", u.Key, len(r.Trials), len(u.Trials), len(r.Micros))
		}
		if r.Boot.KernelDigest != u.Variant[:1] || r.Boot.End != record.EndExited || r.Boot.TimeBase != u.Base() || (r.Boot.IcountShift != 0) != (u.Mode == vm.Deterministic) {
			t.Errorf("%s: boot %+v", u.Key, r.Boot)
		}
		for i, x := range r.Trials {
			if x.Strategy != u.Trials[i].Strategy || x.SpecSeed != record.Seed(u.Trials[i].Program.Seed) || x.Cell != u.Trials[i].Cell {
				t.Errorf("%s: trial %d is %+v", u.Key, i, x)
			}
		}
	}
	if h.most != 2 || h.disturbed {
		t.Errorf("%d machines at once; one that must be alone was not: %v", h.most, h.disturbed)
	}
	if n := strings.Count(said.String(), "\n"); n < len(units) || !strings.Contains(said.String(), fmt.Sprintf("%d of %d", len(units), len(units))) {
		t.Errorf("progress:\n%s", said)
	}
	// Again: there is nothing to do.
	h.booted = map[string]int{}
	if err := e.Run(t.Context(), units); err != nil || len(h.booted) != 0 {
		t.Errorf("boots %v, %v", h.booted, err)
	}
}

// TestEngineResumes ends a run at any number of boots; the next one does what is
// missing, and the records are those of a run that nobody disturbed.
func TestEngineResumes(t *testing.T) {
	units := small(t)
	whole := newShelf()
	e, _ := newEngine(t, whole, &hall{})
	if err := e.Run(t.Context(), units); err != nil {
		t.Fatal(err)
	}
	for stopAt := 1; stopAt < len(units); stopAt += 3 {
		dir := t.TempDir()
		log, err := record.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		h := &hall{}
		n := 0
		h.run = func(c context.Context, u Unit, job guestproto.Job) (*vm.Result, error) {
			h.mu.Lock()
			n++
			last := n > stopAt
			h.mu.Unlock()
			if last {
				cancel()
				return &vm.Result{End: vm.Killed, Steps: make([]vm.StepResult, len(job.Steps))}, nil
			}
			return fine(c, u, job)
		}
		e, _ := newEngine(t, log, h)
		if err := e.Run(ctx, units); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted, and the error is %v", err)
		}
		cancel()
		if log.Len() > stopAt {
			t.Errorf("%d units recorded, %d boots came to their end", log.Len(), stopAt)
		}
		h.run = fine
		if err := e.Run(t.Context(), units); err != nil {
			t.Fatal(err)
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := record.ReadAll(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(units) {
			t.Fatalf("%d units of %d", len(got), len(units))
		}
		for _, u := range got {
			want := whole.units[u.Key]
			if len(u.Trials) != len(want.Trials) || len(u.Trials) > 0 && !reflect.DeepEqual(u.Trials, want.Trials) || !reflect.DeepEqual(u.Boot, want.Boot) {
				t.Errorf("%s: %+v, undisturbed %+v", u.Key, u, want)
			}
		}
	}
}

func TestEngineRetriesBoots(t *testing.T) {
	units := plan(t, "smoke", 1, laptop, "E5")[:3]
	log, h := newShelf(), &hall{}
	e, said := newEngine(t, log, h)
	h.run = func(ctx context.Context, u Unit, job guestproto.Job) (*vm.Result, error) {
		h.mu.Lock()
		n := h.booted[u.Key]
		h.mu.Unlock()
		if u.Key == units[0].Key && n < attempts || u.Key == units[1].Key {
			return nil, &vm.BootError{End: vm.Timeout}
		}
		return fine(ctx, u, job)
	}
	err := e.Run(t.Context(), units)
	var be *vm.BootError
	if !errors.As(err, &be) || !strings.Contains(err.Error(), units[1].Key) {
		t.Errorf("a machine that does not boot: %v", err)
	}
	if h.booted[units[0].Key] != attempts || h.booted[units[1].Key] != attempts || h.booted[units[2].Key] != 1 {
		t.Errorf("boots %v", h.booted)
	}
	if got := log.units[units[0].Key].Boot.Incidents; len(got) != attempts-1 {
		t.Errorf("incidents %q", got)
	}
	if files, _ := filepath.Glob(filepath.Join(e.Evidence, "*", "attempt-*.txt")); len(files) != attempts-1+attempts {
		t.Errorf("kept %v", files)
	}
	if log.Done(units[1].Key) || !log.Done(units[2].Key) {
		t.Error("one that did not boot is recorded, or kept another from running")
	}
	if !strings.Contains(said.String(), "attempt 2 of 3") {
		t.Errorf("said %s", said)
	}
}

// TestEngineKernelFailsToBoot: a kernel that goes down on its way up is a finding;
// trying again would hide it.
func TestEngineKernelFailsToBoot(t *testing.T) {
	units := plan(t, "smoke", 1, laptop, "E1")[:1]
	log, h := newShelf(), &hall{}
	e, _ := newEngine(t, log, h)
	h.run = func(_ context.Context, u Unit, job guestproto.Job) (*vm.Result, error) {
		res := &vm.Result{End: vm.Crashed, Steps: make([]vm.StepResult, len(job.Steps)), Console: []byte("Kernel panic - not syncing: no\n")}
		res.Complaints = vm.Scan(res.Console)
		return res, &vm.BootError{End: vm.Crashed}
	}
	if err := e.Run(t.Context(), units); err != nil {
		t.Fatal(err)
	}
	r := log.units[units[0].Key]
	if h.booted[units[0].Key] != 1 || len(r.Boot.Complaints) != 1 || len(r.Trials) == 0 || r.Trials[0].Verdict != record.Unknown {
		t.Errorf("boots %v, %+v", h.booted, r.Boot)
	}
	if files, _ := filepath.Glob(filepath.Join(e.Evidence, "*", "console.log")); len(files) != 1 {
		t.Error("no console is kept")
	}
}

// TestEngineTimeout: what a machine that hangs did not do is unknown, and is
// recorded, not tried again: a hang may be what we are looking for.
func TestEngineTimeout(t *testing.T) {
	units := plan(t, "smoke", 1, laptop, "E1")[:1]
	log, h := newShelf(), &hall{}
	e, _ := newEngine(t, log, h)
	h.run = func(_ context.Context, u Unit, job guestproto.Job) (*vm.Result, error) {
		res := &vm.Result{End: vm.Timeout, Steps: make([]vm.StepResult, len(job.Steps))}
		res.Hello.MMView = true
		return res, nil
	}
	if err := e.Run(t.Context(), units); err != nil {
		t.Fatal(err)
	}
	r := log.units[units[0].Key]
	if r.Boot.End != record.EndTimeout || len(r.Trials) != len(units[0].Trials) || h.booted[units[0].Key] != 1 {
		t.Errorf("end %s, %d trials, boots %v", r.Boot.End, len(r.Trials), h.booted)
	}
	for _, x := range r.Trials {
		if x.Verdict != record.Unknown {
			t.Errorf("verdict %s", x.Verdict)
		}
	}
}

// TestEngineKeepsEvidence: a violation under a strategy that must not have any is
// told with the command that repeats it, and what it was found in is kept.
func TestEngineKeepsEvidence(t *testing.T) {
	units := plan(t, "smoke", 1, laptop, "E1")[:1]
	log, h := newShelf(), &hall{}
	e, said := newEngine(t, log, h)
	h.run = func(_ context.Context, u Unit, job guestproto.Job) (*vm.Result, error) {
		res := &vm.Result{End: vm.Exited, Console: []byte("a console\n")}
		for range job.Steps {
			res.Steps = append(res.Steps, vm.StepResult{Ran: true, ExitCode: -1, Signal: "SIGSEGV"})
		}
		return res, nil
	}
	if err := e.Run(t.Context(), units); err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, x := range units[0].Trials {
		if x.Strategy != record.Naive {
			want++
			if !strings.Contains(said.String(), Repeat(units[0], x)) {
				t.Errorf("nobody says %s", Repeat(units[0], x))
			}
		}
	}
	for _, pattern := range []string{"*.json", "*.txt"} {
		files, err := filepath.Glob(filepath.Join(e.Evidence, "*", pattern))
		if err != nil || len(files) != want {
			t.Errorf("%d files %s, %d violations", len(files), pattern, want)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(e.Evidence, "*", "console.log")); len(files) != 1 {
		t.Error("no console is kept")
	}
	found := Findings(units, []record.Unit{log.units[units[0].Key]})
	if len(found) != want || !strings.HasPrefix(found[0].Again, "wflp run --seed") {
		t.Errorf("%d findings, want %d: %+v", len(found), want, found)
	}
}

func TestEngineStopsWhenTheLogFails(t *testing.T) {
	log, h := newShelf(), &hall{}
	log.bad = os.ErrPermission
	e, _ := newEngine(t, log, h)
	units := small(t)
	if err := e.Run(t.Context(), units); !errors.Is(err, os.ErrPermission) {
		t.Errorf("error %v", err)
	}
	if len(h.booted) > 4 {
		t.Errorf("%d boots whose results nobody can keep", len(h.booted))
	}
}

// TestEngineBenchmarks: what a benchmark said before it failed is kept, that it
// failed is recorded.
func TestEngineBenchmarks(t *testing.T) {
	u := plan(t, "smoke", 1, laptop, "E5")[0]
	log, h := newShelf(), &hall{}
	e, _ := newEngine(t, log, h)
	line := `{"experiment":"E5","bench":"syscall","setting":"base","rep":0,"batch":4,"ns":100}` + "\n"
	for name, c := range map[string]struct {
		step           vm.StepResult
		micros, wrongs int
	}{
		"fine":    {vm.StepResult{Ran: true, Stdout: []byte(line)}, 1, 0},
		"failed":  {vm.StepResult{Ran: true, ExitCode: 66, Stdout: []byte(line + `{"experi`)}, 1, 1},
		"killed":  {vm.StepResult{Ran: true, ExitCode: -1, TimedOut: true, Stdout: []byte(line)}, 1, 1},
		"not run": {vm.StepResult{}, 0, 1},
		"rubbish": {vm.StepResult{Ran: true, Stdout: []byte("hello\n")}, 0, 1},
	} {
		h.run = func(context.Context, Unit, guestproto.Job) (*vm.Result, error) {
			return &vm.Result{End: vm.Exited, Steps: []vm.StepResult{c.step}}, nil
		}
		u.Key = "e5/" + name
		if err := e.Run(t.Context(), []Unit{u}); err != nil {
			t.Fatal(err)
		}
		if r := log.units[u.Key]; len(r.Micros) != c.micros || len(r.Boot.Incidents) != c.wrongs {
			t.Errorf("%s: %d micros, incidents %q", name, len(r.Micros), r.Boot.Incidents)
		}
	}
}

func TestProgress(t *testing.T) {
	var w bytes.Buffer
	at := time.Unix(1000, 0)
	p := &Progress{W: &w, now: func() time.Time { return at }}
	a := Unit{Key: "a", Estimate: 10 * time.Second, Alone: true}
	b := Unit{Key: "b", Estimate: 20 * time.Second, Measures: make([]Measure, 4)}
	c := Unit{Key: "c", Estimate: 20 * time.Second, Alone: true}
	p.begin([]Unit{a, b, c}, []Unit{a, b, c}, 2)
	p.start(a)
	at = at.Add(20 * time.Second)
	p.finish(a, record.Unit{Boot: record.Boot{End: record.EndExited}}, nil, false)
	// Twice as long as estimated: 20 s of b side by side, 40 s of c.
	if got := p.remaining(); got != "20s gone, about 1m0s left" {
		t.Error(got)
	}
	p.start(b)
	p.step(b)
	at = at.Add(10 * time.Second)
	p.mu.Lock()
	p.draw()
	p.mu.Unlock()
	if got := w.String(); !strings.HasSuffix(got, "1 of 3 units done · b 1/4 · 30s gone, about 55s left\n") {
		t.Errorf("%q", got)
	}
	p.end()
	var quiet *Progress
	quiet.begin(nil, nil, 1)
	quiet.start(a)
	quiet.step(a)
	quiet.say("x")
	quiet.finish(a, record.Unit{}, nil, false)
	quiet.end()
}

// TestReal: what a server did wrong is found, a machine that does not start is
// tried again, and a program that cannot be built is not.
func TestReal(t *testing.T) {
	u := Unit{Key: "e9/tcg/release/server/F/0000", Real: &Real{Program: "server", Fix: "F"}}
	rec := record.Unit{Key: u.Key, Programs: []record.Program{{Strategy: record.WaitFree}, {Strategy: record.Barrier}},
		Boot: record.Boot{Incidents: []string{"package x is 1, tried with 2", "barrier: change 0: refused"}}}
	found := Findings([]Unit{u}, []record.Unit{rec})
	if len(found) != 1 || found[0].Strategy != record.Barrier || found[0].Note != "change 0: refused" || found[0].Again != "wflp realworld -strategies barrier server F" {
		t.Errorf("%+v", found)
	}
	for name, c := range map[string]struct {
		err  error
		want int
	}{"boot": {&vm.BootError{}, attempts}, "build": {errors.New("no compiler"), 1}} {
		n := 0
		e := Engine{Evidence: t.TempDir(), Progress: &Progress{}, Real: func(context.Context, Unit) (record.Unit, error) {
			n++
			return record.Unit{}, fmt.Errorf("run: %w", c.err)
		}}
		if _, err := e.unit(t.Context(), u); !errors.Is(err, c.err) || n != c.want {
			t.Errorf("%s: %d attempts, %v", name, n, err)
		}
	}
	n := 0
	e := Engine{Evidence: t.TempDir(), Progress: &Progress{}, Real: func(context.Context, Unit) (record.Unit, error) {
		if n++; n == 1 {
			return record.Unit{}, &vm.BootError{}
		}
		return rec, nil
	}}
	if got, err := e.unit(t.Context(), u); err != nil || len(got.Boot.Incidents) != 3 {
		t.Errorf("%v, %v", got.Boot.Incidents, err)
	}
}

func TestDescribeReal(t *testing.T) {
	var b bytes.Buffer
	Describe(&b, plan(t, "quick", 1, laptop, "E9"), 2)
	for _, want := range []string{"servers of redis", "servers of memcached", "servers of haproxy", "3 fixes of real programs"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}
