// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	w "github.com/wflp/wflp/fuzz/fuzzwire"
)

// All that is made is valid, prints and parses, and is the same for the same seed.
func TestGenerate(t *testing.T) {
	seen := map[Kind]int{}
	for seed := range uint64(400) {
		k := Knobs{}
		if seed%8 == 0 {
			k.Allow = func(Kind) bool { return true }
		}
		s := Generate(seed, k)
		if err := s.Validate(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !reflect.DeepEqual(s, Generate(seed, k)) {
			t.Fatalf("seed %d gives two scenarios", seed)
		}
		b, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		p, err := Parse(b)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if p.ID() != s.ID() || !bytes.Equal(p.Encode(), s.Encode()) {
			t.Fatalf("seed %d: printed and parsed it is another", seed)
		}
		for _, l := range s.Lists {
			for _, o := range l.Ops {
				seen[o.Kind]++
			}
		}
	}
	for _, k := range Kinds() {
		if seen[k] == 0 && k != w.OpExit {
			t.Errorf("no scenario has %v", k)
		}
	}
}

func TestMutate(t *testing.T) {
	donors := []*Scenario{Generate(1, Knobs{}), Generate(2, Knobs{})}
	s := Generate(3, Knobs{})
	changed := 0
	for seed := range uint64(2000) {
		before := s.Clone()
		m := s.Mutate(seed, donors)
		if err := m.Validate(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !reflect.DeepEqual(s, before) {
			t.Fatalf("seed %d changed what it was given", seed)
		}
		if !reflect.DeepEqual(m, s.Mutate(seed, donors)) {
			t.Fatalf("seed %d gives two mutants", seed)
		}
		if m.ID() != s.ID() {
			changed++
		}
		if seed%3 == 0 {
			s = m
		}
	}
	if changed < 1500 {
		t.Errorf("%d of 2000 mutations changed anything", changed)
	}
}

// Taking what is simpler comes to an end, and to one operation if that is all
// that is asked for.
func TestShrink(t *testing.T) {
	for seed := range uint64(6) {
		s := Generate(seed, Knobs{Ops: 12})
		has := func(s *Scenario) bool {
			for _, l := range s.Lists {
				for _, o := range l.Ops {
					if o.Kind == w.OpSeal {
						return true
					}
				}
			}
			return false
		}
		for steps := 0; ; steps++ {
			if steps > 3000 {
				t.Fatalf("seed %d: no end", seed)
			}
			var next *Scenario
			for c := range s.Shrink() {
				if err := c.Validate(); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if has(c) {
					next = c
					break
				}
			}
			if next == nil {
				break
			}
			s = next
		}
		if has(s) && (s.Ops() != 1 || len(s.Lists) != 1) {
			t.Errorf("seed %d: %d lists, %d operations are left", seed, len(s.Lists), s.Ops())
		}
	}
}

func TestValidateRefuses(t *testing.T) {
	for name, spoil := range map[string]func(s *Scenario){
		"format":   func(s *Scenario) { s.Format++ },
		"watchdog": func(s *Scenario) { s.WatchdogMS = 0 },
		"kind":     func(s *Scenario) { s.Lists[0].Ops[0].Kind = 999 },
		"slot":     func(s *Scenario) { s.Lists[0].Ops[0] = Op{Kind: w.OpSeal, A: w.Slots} },
		"count":    func(s *Scenario) { s.Lists[0].Ops[0] = Op{Kind: w.OpLoad, C: 0} },
		"argument": func(s *Scenario) { s.Lists[0].Ops[0] = Op{Kind: w.OpYield, A: 1} },
		"list":     func(s *Scenario) { s.Lists[0].Ops[0] = Op{Kind: w.OpFork, A: 99} },
		"start": func(s *Scenario) {
			for i := range s.Lists {
				s.Lists[i].Start = false
			}
		},
		"none": func(s *Scenario) { s.Lists = nil },
	} {
		s := Generate(1, Knobs{})
		spoil(s)
		if s.Validate() == nil {
			t.Errorf("%s: taken for valid", name)
		}
	}
}

// The reproducer is a program, and runs to its end also where there are no views.
func TestC(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler")
	}
	src, err := Generate(5, Knobs{}).C()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, bin := filepath.Join(dir, "reproducer.c"), filepath.Join(dir, "reproducer")
	if err := os.WriteFile(path, src, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-O2", "-static", "-no-pie", "-mno-red-zone", "-pthread", "-Wall", "-Wextra", "-Werror", "-o", bin, path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(bin, filepath.Join(dir, "trace")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "trace")); err != nil {
		t.Fatal(err)
	} else if tr, err := w.DecodeTrace(b); err != nil || tr.End != w.EndComplete || tr.Seed != 5 {
		t.Fatalf("trace: %v", err)
	}
}
