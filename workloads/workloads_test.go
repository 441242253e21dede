// SPDX-License-Identifier: Apache-2.0

package workloads

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"
)

var shapes = []Shape{Correctness, Latency, Over}

func generate(t *testing.T, seed uint64, shape Shape) *Spec {
	t.Helper()
	s, err := Generate(seed, shape)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGenerateIsPure(t *testing.T) {
	ids := map[string]bool{}
	for _, shape := range shapes {
		for seed := range uint64(60) {
			s := generate(t, seed, shape)
			if err := s.Validate(); err != nil {
				t.Fatalf("%s %d: %v", shape, seed, err)
			}
			if again := generate(t, seed, shape); !reflect.DeepEqual(s, again) {
				t.Fatalf("%s %d: two calls, two specs", shape, seed)
			}
			ids[s.ID()] = true
		}
	}
	if want := 60 * len(shapes); len(ids) != want {
		t.Errorf("%d different specs of %d seeds", len(ids), want)
	}
	if _, err := Generate(1, "round"); err == nil {
		t.Error("an unknown shape was accepted")
	}
}

func TestMarshalParse(t *testing.T) {
	for _, shape := range shapes {
		s := generate(t, 7, shape)
		b, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(s, back) {
			t.Errorf("%s: printed and parsed, another spec", shape)
		}
		if _, err := Parse(bytes.Replace(b, []byte(`"depth"`), []byte(`"deep"`), 1)); err == nil {
			t.Error("an unknown field was accepted")
		}
	}
}

// TestWildIsWild holds the generator to what correctness runs are counted on.
func TestWildIsWild(t *testing.T) {
	const n = 200
	var memory, births, blocking, straddle, near, forks, wrong, several, back, requests int
	for seed := range uint64(n) {
		s := generate(t, seed, Correctness)
		count := func(c *int, ok bool) {
			if ok {
				*c++
			}
		}
		count(&memory, s.Has(func(a Action) bool { return a.Kind.Memory() }))
		count(&births, s.Births() > 0)
		count(&blocking, s.Has(func(a Action) bool { return a.Kind.Blocking() }))
		count(&forks, s.Has(func(a Action) bool { return a.Kind == Fork }))
		count(&straddle, s.Functions[0].Straddle == Chunk)
		for _, r := range s.Regions {
			if r.Near {
				near++
				break
			}
		}
		seen := map[Change]bool{}
		var w, m, b bool
		for _, p := range s.Patches {
			w = w || p.Wrong
			m = m || len(p.Changes) > 1
			for _, c := range p.Changes {
				b = b || seen[c]
				seen[c] = true
			}
		}
		count(&wrong, w)
		count(&several, m)
		count(&back, b)
		count(&requests, len(s.Workers[len(s.Workers)-1].Arrivals) > 0)
		if len(s.Patches) < 40 {
			t.Errorf("seed %d: %d patches", seed, len(s.Patches))
		}
	}
	for name, c := range map[string]struct{ got, least int }{
		"memory operations": {memory, n * 3 / 4}, "births": {births, n * 3 / 4}, "blocking calls": {blocking, n * 3 / 4},
		"forks": {forks, n / 4}, "code across 2 MiB": {straddle, n / 5}, "data near code": {near, n / 3}, "patches to refuse": {wrong, n / 2},
		"patches of several functions": {several, n * 9 / 10}, "returns to a version": {back, n / 2}, "requests": {requests, n / 5},
	} {
		if c.got < c.least {
			t.Errorf("%s in %d of %d specs, want %d", name, c.got, n, c.least)
		}
	}
}

func TestServeLoad(t *testing.T) {
	s := Serve(3, ServeParams{Threads: 8, Utilisation: 0.7, DurationMS: 20000, CPUs: 2, ServiceUS: 100})
	requests := 0
	for _, w := range s.Workers {
		requests += len(w.Arrivals)
	}
	// 1.4 CPUs of 100 us requests for 20 s.
	want := 0.7 * 2 * 20e6 / 100
	if got := float64(requests); math.Abs(got-want) > 4*math.Sqrt(want) {
		t.Errorf("%v requests, want about %v", got, want)
	}
	// A long one in twenty, of 2 ms: 195 us more on average.
	long := Serve(3, ServeParams{Threads: 8, Utilisation: 0.7, DurationMS: 20000, CPUs: 2, ServiceUS: 100, PerRequest: 1, LongPct: 5, LongUS: 2000})
	requests = 0
	for _, w := range long.Workers {
		requests += len(w.Arrivals)
		if w.LongEvery != 20 || w.LongUS != 2000 {
			t.Errorf("long every %d, %d us", w.LongEvery, w.LongUS)
		}
	}
	want = 0.7 * 2 * 20e6 / 195
	if got := float64(requests); math.Abs(got-want) > 4*math.Sqrt(want) {
		t.Errorf("%v requests, want about %v", got, want)
	}
	for _, p := range s.Patches {
		if p.AtUS < 5e6 || p.AtUS > 15e6 {
			t.Errorf("patch at %d us, not in the middle half", p.AtUS)
		}
	}
}

func TestTree(t *testing.T) {
	ver := []Version{{Parts: make([]Part, 2)}}
	s := &Spec{Functions: []Function{
		{Parts: 2, Versions: ver, Calls: []Call{{After: 1, Callee: 2}, {After: 0, Callee: 1}}},
		{Parts: 2, Versions: ver, Calls: []Call{{After: 0, Callee: 2}}},
		{Parts: 2, Versions: ver},
	}, Workers: []Worker{{Roots: []int{0, 2}, Interval: 1}}}
	if got, want := s.Tree(0), []int{0, 1, 2, 2}; !reflect.DeepEqual(got, want) {
		t.Errorf("tree %v, want %v", got, want)
	}
	if got, want := s.Transaction(0, 3), []int{2}; !reflect.DeepEqual(got, want) {
		t.Errorf("transaction %v, want %v", got, want)
	}
	if got := s.MaxTransaction(0); got != 4 {
		t.Errorf("greatest transaction %d, want 4", got)
	}
	f := Function{Versions: []Version{{}, {Parts: []Part{{Loop: 3}, {Loop: 4}}}}}
	if got := f.LoopSum(1); got != 14 {
		t.Errorf("loop sum %d, want 14", got)
	}
}

func TestValidateRefuses(t *testing.T) {
	base := func() *Spec { return generate(t, 11, Correctness) }
	for name, change := range map[string]func(*Spec){
		"format":         func(s *Spec) { s.Format++ },
		"text offset":    func(s *Spec) { s.Text.Offset = Chunk },
		"backing":        func(s *Spec) { s.Text.Backing = "" },
		"functions":      func(s *Spec) { s.Functions = nil },
		"workers":        func(s *Spec) { s.Workers = nil },
		"cyclic":         func(s *Spec) { s.Functions[1].Calls = []Call{{Callee: 1}} },
		"parts":          func(s *Spec) { s.Functions[0].Parts++ },
		"align":          func(s *Spec) { s.Functions[0].Align = 3 },
		"root":           func(s *Spec) { s.Workers[0].Roots = []int{99} },
		"parent":         func(s *Spec) { s.Workers[0].Parent = 0 },
		"born too late":  func(s *Spec) { s.Workers[1].Parent, s.Workers[1].BornAt = 0, s.Workers[0].Cap },
		"arrivals":       func(s *Spec) { s.Workers[0].Arrivals, s.Workers[0].PerRequest = []float64{2, 1}, 1 },
		"patch order":    func(s *Spec) { s.Patches[0].AtUS = 1 << 30 },
		"empty patch":    func(s *Spec) { s.Patches[0].Changes = nil },
		"twice in patch": func(s *Spec) { s.Patches[0].Changes = []Change{{}, {}} },
		"version":        func(s *Spec) { s.Patches[0].Changes = []Change{{Version: 999}} },
		"action region":  func(s *Spec) { s.Workers[0].Actions = []Action{{Kind: Store, Region: 99, Count: 1}} },
		"action kind":    func(s *Spec) { s.Workers[0].Actions = []Action{{Kind: "dance"}} },
		"two heaps":      func(s *Spec) { s.Regions = []Region{{Kind: Heap, Pages: 1}, {Kind: Heap, Pages: 1}} },
		"depth":          func(s *Spec) { s.Depth = 0 },
		"watchdog":       func(s *Spec) { s.WatchdogMS = 0 },
	} {
		s := base()
		change(s)
		if s.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestShrink takes always the first smaller spec that still has a birth and a
// patch, and must end at one that has little else.
func TestShrink(t *testing.T) {
	keep := func(s *Spec) bool { return s.Births() > 0 && s.Patched() }
	s := generate(t, 5, Correctness)
	for !keep(s) {
		s = generate(t, s.Seed+1, Correctness)
	}
	for steps := 0; ; steps++ {
		if steps > 2000 {
			t.Fatal("does not end")
		}
		next := s
		for c := range s.Shrink() {
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			if keep(c) {
				next = c
				break
			}
		}
		if next == s {
			break
		}
		s = next
	}
	actions := 0
	for _, w := range s.Workers {
		actions += len(w.Actions)
	}
	if len(s.Patches) != 1 || len(s.Patches[0].Changes) != 1 || len(s.Workers) > 5 || actions != 0 {
		b, _ := s.Marshal()
		t.Errorf("shrunk to %s", strings.TrimSpace(string(b)))
	}
}
