// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"sort"
	"strings"
)

// calls is who calls whom, and whose address is taken, read off the relocations.
type calls struct {
	of    map[*unit][]*unit
	by    map[*unit][]*unit
	taken map[*unit][]string // by what
}

func (p *Program) calls() *calls {
	g := &calls{of: map[*unit][]*unit{}, by: map[*unit][]*unit{}, taken: map[*unit][]string{}}
	for _, o := range p.objects {
		for _, s := range o.sections {
			u := o.unitOf[s]
			switch {
			case u == nil && !s.alloc(), s.name == ".eh_frame", strings.HasPrefix(s.name, ".init_array"), strings.HasPrefix(s.name, ".fini_array"),
				strings.HasPrefix(s.name, ".ctors"), strings.HasPrefix(s.name, ".dtors"):
				// What runs before main, or behind it, is nobody's callback.
				continue
			}
			for _, r := range s.relocs {
				def := p.definition(r.sym)
				if def == nil {
					continue
				}
				to := def.sec.obj.unitOf[def.sec]
				switch {
				case to == nil:
				case u != nil && (s.branch(r) || u == to && !to.begins(def, r)):
					if u != to {
						g.of[u] = append(g.of[u], to)
						g.by[to] = append(g.by[to], u)
					}
				case u == nil && !to.begins(def, r) && !to.mixed:
					// A table of jumps inside of a function.
				case u != nil:
					g.taken[to] = append(g.taken[to], u.String())
				default:
					g.taken[to] = append(g.taken[to], s.title())
				}
			}
		}
	}
	return g
}

// from is everything that is reached from some functions by calls, and through
// whom.
func (g *calls) from(roots []*unit, next map[*unit][]*unit) map[*unit]*unit {
	via := map[*unit]*unit{}
	for _, u := range roots {
		via[u] = nil
	}
	for todo := roots; len(todo) > 0; {
		u := todo[0]
		todo = todo[1:]
		for _, n := range next[u] {
			if _, seen := via[n]; !seen {
				via[n] = u
				todo = append(todo[:len(todo):len(todo)], n)
			}
		}
	}
	return via
}

// path is how a function is reached, for people.
func path(via map[*unit]*unit, u *unit) string {
	names := []string{u.String()}
	for via[u] != nil && len(names) < 12 {
		u = via[u]
		names = append(names, u.String())
	}
	for i, j := 0, len(names)-1; i < j; i, j = i+1, j-1 {
		names[i], names[j] = names[j], names[i]
	}
	return strings.Join(names, " > ")
}

// named finds functions by the name in the source, of which the compiler may
// have made several.
func (p *Program) named(name string) []*unit {
	var list []*unit
	for _, o := range p.objects {
		for _, u := range o.units {
			if u.sourceName() == name {
				list = append(list, u)
			}
		}
	}
	return list
}

// sourceName is the name without what the compiler adds for variants.
func (u *unit) sourceName() string {
	name, _, _ := strings.Cut(u.name, ".")
	return name
}

// live is all that may run once the program is up: what the loops call, and
// what anybody may call because its address is taken.
func (g *calls) live(loops []*unit) map[*unit]*unit {
	roots := append([]*unit(nil), loops...)
	var more []*unit
	for u := range g.taken {
		more = append(more, u)
	}
	sort.Slice(more, func(i, j int) bool { return more[i].String() < more[j].String() })
	return g.from(append(roots, more...), g.of)
}
