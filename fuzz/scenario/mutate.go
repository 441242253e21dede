// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"slices"

	w "github.com/wflp/wflp/fuzz/fuzzwire"
)

// Mutate makes another scenario of this one: parts from donors, changed
// arguments, operations moved, doubled, removed or new. It is valid.
func (s *Scenario) Mutate(seed uint64, donors []*Scenario) *Scenario {
	g := newGen(seed)
	g.draw(Knobs{})
	c := s.Clone()
	g.lists = len(c.Lists)
	for range 1 + g.size(6) {
		g.mutate(c, donors)
	}
	c.Seed = seed
	c.normalise()
	return c
}

// run picks a stretch of operations.
func (g *gen) run(ops []Op) (from, to int) {
	if len(ops) == 0 {
		return 0, 0
	}
	from = g.Intn(len(ops))
	return from, min(from+g.size(12), len(ops))
}

func (g *gen) mutate(s *Scenario, donors []*Scenario) {
	l := &s.Lists[g.Intn(len(s.Lists))]
	at := g.Intn(len(l.Ops) + 1)
	switch g.Intn(12) {
	case 0, 1, 2: // another argument
		if at < len(l.Ops) {
			g.argument(&l.Ops[at])
		}
	case 3: // new ones
		l.Ops = slices.Insert(l.Ops, at, g.step()...)
	case 4: // remove some
		from, to := g.run(l.Ops)
		l.Ops = slices.Delete(l.Ops, from, to)
	case 5: // twice the same
		from, to := g.run(l.Ops)
		l.Ops = slices.Insert(l.Ops, at, slices.Clone(l.Ops[from:to])...)
	case 6: // two change places
		if len(l.Ops) > 1 {
			i, j := g.Intn(len(l.Ops)), g.Intn(len(l.Ops))
			l.Ops[i], l.Ops[j] = l.Ops[j], l.Ops[i]
		}
	case 7: // what one thread does another does, too
		from, to := g.run(l.Ops)
		o := &s.Lists[g.Intn(len(s.Lists))]
		o.Ops = slices.Insert(o.Ops, g.Intn(len(o.Ops)+1), slices.Clone(l.Ops[from:to])...)
	case 8, 9: // from a donor
		if len(donors) == 0 {
			return
		}
		d := donors[g.Intn(len(donors))]
		from := d.Lists[g.Intn(len(d.Lists))]
		if g.one(3) && len(s.Lists) < w.MaxLists {
			s.Lists = append(s.Lists, List{Start: from.Start, Ops: slices.Clone(from.Ops)})
			g.lists = len(s.Lists)
			return
		}
		a, b := g.run(from.Ops)
		l.Ops = slices.Insert(l.Ops, at, slices.Clone(from.Ops[a:b])...)
	case 10: // shape
		switch g.Intn(4) {
		case 0:
			l.Start = !l.Start
		case 1:
			s.Areas[g.Intn(len(s.Areas))] = g.Intn(w.MapKinds)
		case 2:
			if len(s.Lists) > 2 {
				i := g.Intn(len(s.Lists))
				s.Lists = slices.Delete(s.Lists, i, i+1)
				g.lists = len(s.Lists)
			}
		default:
			if len(s.Lists) < w.MaxLists {
				s.Lists = append(s.Lists, List{Start: true, Ops: slices.Clone(l.Ops)})
				g.lists = len(s.Lists)
			}
		}
	default: // meet: the same point in two lists
		o := &s.Lists[g.Intn(len(s.Lists))]
		meet := Op{Kind: w.OpMeet, A: uint16(4 + g.Intn(12)), B: 2}
		l.Ops = slices.Insert(l.Ops, at, meet)
		if o != l {
			o.Ops = slices.Insert(o.Ops, g.Intn(len(o.Ops)+1), meet)
		}
	}
}

func (g *gen) argument(o *Op) {
	p := []*uint16{&o.A, &o.B, &o.C, &o.D, &o.E}[g.Intn(5)]
	switch g.Intn(4) {
	case 0:
		*p++
	case 1:
		*p--
	case 2:
		*p = uint16(g.Intn(16))
	default:
		g.f.Fuzz(p)
	}
}
