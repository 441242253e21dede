// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// describe is the same text for two sections, of two builds, that mean the
// same: their bytes without what the linker fills in, and what it fills in.
func (s *section) describe() string {
	if s.described != "" {
		return s.described
	}
	if s.busy { // constants that refer to one another: the rest of them tells
		return "loop:" + s.name
	}
	s.busy = true
	h := sha256.New()
	fmt.Fprintf(h, "%d %v %d\n", s.typ, s.flags, s.size)
	data := bytes.Clone(s.data)
	for _, r := range s.relocs {
		// A field at which the linker puts a number holds nothing of its own.
		clear(data[min(r.off, s.size):min(r.off+r.width(), s.size)])
		fmt.Fprintf(h, "%d %v %s\n", r.off, r.typ, s.target(r).describe())
	}
	h.Write(data)
	s.busy = false
	sum := hex.EncodeToString(h.Sum(nil))
	s.described = sum
	return sum
}

func (r reloc) width() uint64 {
	switch r.typ {
	case elf.R_X86_64_64, elf.R_X86_64_PC64, elf.R_X86_64_DTPOFF64, elf.R_X86_64_TPOFF64, elf.R_X86_64_GOTOFF64:
		return 8
	}
	return 4
}

// fromNext says whether a relocation counts from its own end, as instructions
// do (their operand is last, or almost).
func (r reloc) fromNext() bool {
	switch r.typ {
	case elf.R_X86_64_PC32, elf.R_X86_64_PLT32, elf.R_X86_64_GOTPCREL, elf.R_X86_64_GOTPCRELX, elf.R_X86_64_REX_GOTPCRELX, elf.R_X86_64_GOTTPOFF:
		return true
	}
	return false
}

// branch says whether a relocation is that of a call or a jump. The byte before
// the field tells: where an operand is relative to the instruction pointer, it
// is 00rrr101, which none of these is.
func (s *section) branch(r reloc) bool {
	if r.typ == elf.R_X86_64_PLT32 {
		return true
	}
	if r.typ != elf.R_X86_64_PC32 || !s.code() || r.off < 2 {
		return false
	}
	b := s.data[r.off-1]
	return b == 0xe8 || b == 0xe9 || b&0xf0 == 0x80 && s.data[r.off-2] == 0x0f
}

// target is what a relocation refers to.
type target struct {
	sym *symbol
	sec *section // where it is, if this object file defines it
	off int64    // from the symbol, or in the section where the symbol is that
	// exact: off is where, and not up to 4 bytes before it, which is so where
	// the instruction may have another operand behind this one.
	exact bool
}

func (s *section) target(r reloc) target {
	t := target{sym: r.sym, sec: r.sym.sec, off: r.addend, exact: true}
	if t.sec != nil {
		t.off += int64(r.sym.value)
	}
	if s.code() && r.fromNext() {
		t.off += 4
		lea := r.off >= 2 && s.data[r.off-2] == 0x8d && s.data[r.off-1]&0xc7 == 5
		t.exact = lea || s.branch(r)
	}
	return t
}

// describe names a thing that other functions share, and spells out what is a
// function's own: literals, tables, constants.
func (t target) describe() string {
	s := t.sec
	switch {
	case s == nil:
		return fmt.Sprintf("%s%+d", t.sym.name, t.off)
	case !t.sym.local():
		return fmt.Sprintf("%s%+d", t.sym.name, t.off-int64(t.sym.value))
	case s.code():
		name := s.name
		if u := s.obj.unitOf[s]; u != nil && !u.mixed {
			name = u.name
			if u.parts[0] != s {
				name += ".cold"
			}
		}
		return fmt.Sprintf("code %s%+d", name, t.off)
	case s.literals():
		return "literal " + hex.EncodeToString(t.literal())
	case s.writable() || s.tls():
		return fmt.Sprintf("data %s%+d", s.key(), t.off)
	}
	return fmt.Sprintf("constant %s%+d", s.describe(), t.off)
}

// literal is what is at a place in a section whose entries the linker merges.
// Where the place is not exact, a little more than the entry stands for it.
func (t target) literal() []byte {
	data := t.sec.data
	at := min(max(t.off, 0), int64(len(data)))
	if t.sec.flags&elf.SHF_STRINGS == 0 {
		n := int64(max(t.sec.entsize, 1))
		if !t.exact { // up to the next entry, if that is within reach
			if up := (at + n - 1) / n * n; up-at <= 4 {
				at = up
			}
		}
		return data[min(at, int64(len(data))):min(at+n, int64(len(data)))]
	}
	from := at
	if !t.exact {
		from = min(at+4, int64(len(data)))
	}
	wide := int64(max(t.sec.entsize, 1))
	for end := from; end+wide <= int64(len(data)); end++ {
		if (end-at)%wide == 0 && len(bytes.Trim(data[end:end+wide], "\x00")) == 0 {
			return data[at : end+wide]
		}
	}
	return data[at:]
}

// key names a variable across builds. One that the compiler has numbered is
// known by size and first contents, and by its turn among equal ones.
func (s *section) key() string {
	if len(s.defined) != 1 {
		return s.name
	}
	v := s.defined[0]
	if !v.numbered() {
		return v.name
	}
	turn := 0
	for _, other := range s.obj.sections {
		if other == s {
			break
		}
		if len(other.defined) > 0 && other.defined[0].stem() == v.stem() && other.defined[0].numbered() && other.describe() == s.describe() {
			turn++
		}
	}
	return fmt.Sprintf("%s#%s#%d", v.stem(), s.describe(), turn)
}

// sameNames says whether two sections have the same variables at the same places.
func (s *section) sameNames(other *section) bool {
	return slices.EqualFunc(s.defined, other.defined, func(a, b *symbol) bool {
		return a.stem() == b.stem() && a.value == b.value && a.size == b.size
	})
}

// title is a section's name for people.
func (s *section) title() string {
	if len(s.defined) != 1 {
		return fmt.Sprintf("section %s (%s)", s.name, s.obj.source)
	}
	if v := s.defined[0]; v.local() {
		return fmt.Sprintf("%s (%s)", v.stem(), s.obj.source)
	}
	return s.defined[0].name
}

func (u *unit) describe() string {
	var all strings.Builder
	for _, s := range u.parts {
		all.WriteString(s.describe() + " ")
	}
	return all.String()
}

// comparison is what two builds have in common and what not.
type comparison struct {
	old, new *Program
	twin     map[*object]*object   // of a new object, in the old build
	oldOf    map[*unit]*unit       // of a new function
	dataOf   map[*section]*section // of a new variable or constant, if it is as it was
	changed  []*unit               // of the new build, with one in the old
	fresh    map[*unit]bool        // functions that only the new build has
	gone     []*unit               // functions that only the old one has
	data     []dataChange
}

type dataChange struct {
	old, new *section // either may be nil
}

// compare pairs the object files by source and order of linking, and then what
// is in them by name.
func compare(old, new *Program) *comparison {
	c := &comparison{old: old, new: new, twin: map[*object]*object{}, oldOf: map[*unit]*unit{}, dataOf: map[*section]*section{}, fresh: map[*unit]bool{}}
	bySource := map[string][]*object{}
	for _, o := range old.objects {
		bySource[o.source] = append(bySource[o.source], o)
	}
	paired := map[*object]bool{}
	for _, n := range new.objects {
		var o *object
		if list := bySource[n.source]; len(list) > 0 {
			o, bySource[n.source] = list[0], list[1:]
			c.twin[n], paired[o] = o, true
		}
		c.functions(o, n)
		c.variables(o, n)
	}
	for _, o := range old.objects {
		if !paired[o] {
			c.gone = append(c.gone, o.units...)
		}
	}
	return c
}

func (c *comparison) functions(o, n *object) {
	was := map[string]*unit{}
	if o != nil {
		for _, u := range o.units {
			was[u.name] = u
		}
	}
	for _, u := range n.units {
		before := was[u.name]
		if before == nil {
			c.fresh[u] = true
			continue
		}
		delete(was, u.name)
		c.oldOf[u] = before
		if u.describe() != before.describe() {
			c.changed = append(c.changed, u)
		}
	}
	if o != nil {
		for _, u := range o.units {
			if was[u.name] == u {
				c.gone = append(c.gone, u)
			}
		}
	}
}

// named data sections are those that hold one variable each, or what the
// program itself has given a name. What a function has of its own goes with it.
func (o *object) named() []*section {
	var list []*section
	for _, s := range o.sections {
		own := len(s.defined) == 0 && (strings.HasPrefix(s.name, ".rodata") || strings.HasPrefix(s.name, ".eh_frame") || strings.HasPrefix(s.name, ".note"))
		if s.alloc() && !s.code() && !s.literals() && !own && s.size > 0 {
			list = append(list, s)
		}
	}
	return list
}

func (c *comparison) variables(o, n *object) {
	was := map[string]*section{}
	var order []*section
	if o != nil {
		order = o.named()
	}
	for _, s := range order {
		was[s.key()] = s
	}
	var left []*section
	for _, s := range n.named() {
		before := was[s.key()]
		if before != nil && before.describe() == s.describe() && before.sameNames(s) {
			c.dataOf[s] = before
			delete(was, s.key())
			continue
		}
		left = append(left, s)
	}
	// A variable that is not as it was, and one of the same name before.
	stems := map[string][]*section{}
	for _, s := range order {
		if was[s.key()] == s {
			stems[s.title()] = append(stems[s.title()], s)
		}
	}
	for _, s := range left {
		change := dataChange{new: s}
		if list := stems[s.title()]; len(list) > 0 {
			change.old, stems[s.title()] = list[0], list[1:]
		}
		c.data = append(c.data, change)
	}
	var rest []*section
	for _, list := range stems {
		rest = append(rest, list...)
	}
	sort.Slice(rest, func(i, j int) bool { return rest[i].name < rest[j].name })
	for _, s := range rest {
		c.data = append(c.data, dataChange{old: s})
	}
}
