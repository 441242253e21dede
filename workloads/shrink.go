// SPDX-License-Identifier: Apache-2.0

package workloads

import (
	"iter"
	"reflect"
	"slices"
)

// Shrink yields valid specs that are simpler than s, the greatest steps first.
// A minimiser takes the first that still shows what it is after, and calls
// Shrink again on that one; every step removes something, so this ends.
func (s *Spec) Shrink() iter.Seq[*Spec] {
	return func(yield func(*Spec) bool) {
		on := true
		s.shrink(func(change func(c *Spec)) {
			if !on {
				return
			}
			c := s.Clone()
			change(c)
			if !reflect.DeepEqual(c, s) && c.Validate() == nil {
				on = yield(c)
			}
		})
	}
}

func (s *Spec) shrink(try func(func(c *Spec))) {
	for _, span := range halves(len(s.Patches)) {
		try(func(c *Spec) { c.Patches = slices.Delete(c.Patches, span[0], span[1]) })
	}
	for i := len(s.Workers) - 1; i >= 0 && len(s.Workers) > 1; i-- {
		try(func(c *Spec) { c.dropWorker(i) })
	}
	for i := range s.Workers {
		for _, span := range halves(len(s.Workers[i].Actions)) {
			try(func(c *Spec) { c.Workers[i].Actions = slices.Delete(c.Workers[i].Actions, span[0], span[1]) })
		}
		for _, span := range halves(len(s.Workers[i].Roots)) {
			try(func(c *Spec) { c.Workers[i].Roots = slices.Delete(c.Workers[i].Roots, span[0], span[1]) })
		}
		try(func(c *Spec) { c.Workers[i].Arrivals = c.Workers[i].Arrivals[:len(c.Workers[i].Arrivals)/2] })
		try(func(c *Spec) { c.Workers[i].Interval = (c.Workers[i].Interval + 1) / 2 })
	}
	for i, p := range s.Patches {
		for _, span := range halves(len(p.Changes)) {
			try(func(c *Spec) { c.Patches[i].Changes = slices.Delete(c.Patches[i].Changes, span[0], span[1]) })
		}
	}
	for i := range s.Functions {
		try(func(c *Spec) { c.Functions[i].Calls = nil })
		try(func(c *Spec) {
			for v := range c.Functions[i].Versions {
				for p := range c.Functions[i].Versions[v].Parts {
					part := &c.Functions[i].Versions[v].Parts[p]
					part.Skip, part.Loop, part.Pad = part.Skip/2, part.Loop/2, part.Pad/2
				}
			}
		})
	}
	try(func(c *Spec) { c.Depth = 1 })
}

// dropWorker takes a worker out if it starts no other.
func (s *Spec) dropWorker(i int) {
	for _, w := range s.Workers {
		if w.Parent == i {
			return
		}
	}
	s.Workers = slices.Delete(s.Workers, i, i+1)
	for j := range s.Workers {
		if s.Workers[j].Parent > i {
			s.Workers[j].Parent--
		}
	}
}

// halves lists spans of n things to take out: all, each half, … each one.
func halves(n int) [][2]int {
	var out [][2]int
	for size := n; size > 0; size /= 2 {
		for from := 0; from < n; from += size {
			out = append(out, [2]int{from, min(from+size, n)})
		}
	}
	return out
}
