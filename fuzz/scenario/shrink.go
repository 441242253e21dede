// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"iter"
	"slices"

	w "github.com/wflp/wflp/fuzz/fuzzwire"
)

// Shrink yields simpler scenarios, those first that leave out most: lists,
// stretches of operations, single ones, and then smaller arguments. Each is
// valid and smaller by an order that has no infinite descent, so taking one and
// shrinking that comes to an end.
func (s *Scenario) Shrink() iter.Seq[*Scenario] {
	return func(yield func(*Scenario) bool) {
		// A scenario that normalising turns back into s, or into one that is
		// not simpler, would go round in circles.
		try := func(c *Scenario) bool {
			c.normalise()
			if !c.simpler(s) {
				return true
			}
			return yield(c)
		}
		for i := range s.Lists {
			c := s.Clone()
			c.removeList(i)
			if len(s.Lists) > 1 && !try(c) {
				return
			}
		}
		for n := 64; n >= 1; n /= 2 {
			for i, l := range s.Lists {
				for from := 0; from < len(l.Ops); from += n {
					if n > 1 && n >= 2*len(l.Ops) {
						break
					}
					c := s.Clone()
					c.Lists[i].Ops = slices.Delete(c.Lists[i].Ops, from, min(from+n, len(l.Ops)))
					if !try(c) {
						return
					}
				}
			}
		}
		for i := range s.Areas {
			c := s.Clone()
			c.Areas[i] = w.MapAnon
			if !try(c) {
				return
			}
		}
		for i, l := range s.Lists {
			for j, o := range l.Ops {
				for _, less := range o.less() {
					c := s.Clone()
					c.Lists[i].Ops[j] = less
					if !try(c) {
						return
					}
				}
			}
		}
	}
}

// removeList takes a list out and renames the others where they are named.
func (s *Scenario) removeList(i int) {
	s.Lists = slices.Delete(s.Lists, i, i+1)
	for l := range s.Lists {
		s.Lists[l].Ops = slices.DeleteFunc(s.Lists[l].Ops, func(o Op) bool {
			return kinds[o.Kind].bound[0] == anyList && int(o.A) == i
		})
		for j := range s.Lists[l].Ops {
			if o := &s.Lists[l].Ops[j]; kinds[o.Kind].bound[0] == anyList && int(o.A) > i {
				o.A--
			}
		}
	}
}

// less are operations with one smaller argument.
func (o Op) less() []Op {
	var out []Op
	for i := range 5 {
		c := o
		p := []*uint16{&c.A, &c.B, &c.C, &c.D, &c.E}[i]
		if *p == 0 || kinds[o.Kind].bound[i] == anyList {
			continue
		}
		v := *p
		for _, n := range []uint16{0, v / 2, v - 1} {
			if n < v {
				*p = n
				out = append(out, c)
			}
		}
	}
	return out
}

// size orders scenarios: lists, operations, then the sum of all numbers.
func (s *Scenario) size() [3]int {
	n := [3]int{len(s.Lists), s.Ops()}
	for _, a := range s.Areas {
		n[2] += a
	}
	for _, l := range s.Lists {
		for _, o := range l.Ops {
			n[2] += int(o.A) + int(o.B) + int(o.C) + int(o.D) + int(o.E)
		}
	}
	return n
}

func (s *Scenario) simpler(than *Scenario) bool {
	a, b := s.size(), than.size()
	return slices.Compare(a[:], b[:]) < 0
}
