// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"crypto/sha256"
	"fmt"
	"sort"
)

// collection is what goes into a patch file.
type collection struct {
	c        *comparison
	sections []*section // of the new build, in the order of finding
	has      map[*section]bool
	replaced []*unit // of the new build, each with one in the old
}

// collect gathers the changed functions and, of what they refer to, all that
// the running program has not: functions, variables, constants and literals.
func (c *comparison) collect() *collection {
	k := &collection{c: c, has: map[*section]bool{}, replaced: c.changed}
	for _, u := range c.changed {
		k.unit(u)
	}
	for i := 0; i < len(k.sections); i++ { // it grows meanwhile
		for _, r := range k.sections[i].relocs {
			if s := c.new.definition(r.sym); s != nil && !c.there(s.sec) {
				k.section(s.sec)
			}
		}
	}
	return k
}

func (k *collection) unit(u *unit) {
	for _, s := range u.parts {
		if !k.has[s] {
			k.has[s] = true
			k.sections = append(k.sections, s)
		}
	}
}

func (k *collection) section(s *section) {
	if u := s.obj.unitOf[s]; u != nil {
		k.unit(u)
	} else if !k.has[s] {
		k.has[s] = true
		k.sections = append(k.sections, s)
	}
}

// definition is the symbol that a reference means, or nil if it is not in the
// program's own object files.
func (p *Program) definition(s *symbol) *symbol {
	if s.sec != nil {
		return s
	}
	return p.globals[s.name]
}

// there says whether the running program has what is in a section of the new
// build. It has literals, too, but the linker has merged them, so that nobody
// knows where; a copy does as well, since they are constant and equal.
func (c *comparison) there(s *section) bool {
	if u := s.obj.unitOf[s]; u != nil {
		// A changed function is there as far as its address goes.
		return c.oldOf[u] != nil
	}
	if was := c.dataOf[s]; was != nil && len(was.defined) > 0 {
		return s.writable() || s.tls() || !s.defined[0].numbered()
	}
	return false
}

// binding is how the patch refers to something.
type binding struct {
	inside *section // in the patch
	old    *symbol  // in the running program
	off    int64    // from there
	name   string   // anywhere, by name
}

// bind decides where a reference of the patch leads. Calls between functions of
// the patch stay in it. An address of a function that is taken is that of the
// old one, where a jump leads on: the program may compare it with one that it
// took before.
func (k *collection) bind(from *section, r reloc) (binding, error) {
	c := k.c
	def := c.new.definition(r.sym)
	if def == nil {
		return binding{name: r.sym.name}, nil
	}
	s := def.sec
	if u := s.obj.unitOf[s]; u != nil {
		was := c.oldOf[u]
		begins := u.begins(def, r)
		switch {
		case was == nil, k.has[s] && (from.branch(r) || !begins):
			return binding{inside: s, off: int64(def.value)}, nil
		case begins:
			return binding{old: was.sym}, nil
		}
		// The same code, so the same symbols at the same places.
		for i, part := range u.parts {
			for _, d := range was.parts[min(i, len(was.parts)-1)].defined {
				if part == s && d.value == def.value && !k.has[s] {
					return binding{old: d}, nil
				}
			}
		}
		return binding{}, fmt.Errorf("%s refers to the middle of %s", r.typ, u)
	}
	if k.has[s] {
		return binding{inside: s, off: int64(def.value)}, nil
	}
	was := c.dataOf[s]
	if was == nil || len(was.defined) == 0 {
		return binding{}, fmt.Errorf("%s is in the running program, but nobody knows where", s.title())
	}
	first := was.defined[0]
	return binding{old: first, off: int64(def.value) - int64(first.value)}, nil
}

// begins says whether a reference means the function's beginning.
func (u *unit) begins(def *symbol, r reloc) bool {
	if def.sec != u.parts[0] {
		return false
	}
	off := int64(def.value) + r.addend
	if r.fromNext() {
		off += 4
	}
	return off == int64(u.sym.value)
}

// oldCode is the range of a section of the old build in the program's file.
func (p *Program) oldCode(s *section, sym *symbol) (addr, size uint64, sum [32]byte, err error) {
	at, ok := p.address[sym]
	if !ok {
		return 0, 0, sum, fmt.Errorf("nobody knows where %s is in the program", sym.name)
	}
	addr = at - sym.value
	size = p.padded(addr, s.size, jumpSize)
	code := p.bytes(addr, size)
	if code == nil {
		return 0, 0, sum, fmt.Errorf("%s is outside of the program", sym.name)
	}
	return addr, size, sha256.Sum256(code), nil
}

// jumpSize is what the jump to a new function takes.
const jumpSize = 5

// watched are the sections of the old build that are not replaced, but left by
// all: seldom run parts of replaced functions, and functions that are no more.
func (k *collection) watched() []*section {
	var list []*section
	for _, u := range k.replaced {
		list = append(list, k.c.oldOf[u].parts[1:]...)
	}
	for _, u := range k.c.gone {
		list = append(list, u.parts...)
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].name < list[j].name })
	return list
}
