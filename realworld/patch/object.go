// SPDX-License-Identifier: Apache-2.0

// Package patch compares two builds of one program function by function,
// judges whether a running process of the first can be given the code of the
// second, and writes the file from which it gets that.
//
// What it rests on: afterwards the code that runs is, function by function,
// that of the second build. A function that stays is one whose machine code is
// the same in both, so all that a compiler knows about its callees (registers
// that they spare, arguments that it dropped) holds for the new ones. What can
// be wrong is only what the first build's code has left behind: data of another
// shape, initialisation that did not happen, and frames on stacks.
package patch

import (
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
)

// object is an object file, as the compiler made it.
type object struct {
	path     string // within the build
	source   string // of its FILE symbol
	sections []*section
	symbols  []*symbol
	units    []*unit
	unitOf   map[*section]*unit
}

type section struct {
	obj            *object
	name           string
	typ            elf.SectionType
	flags          elf.SectionFlag
	align, entsize uint64
	size           uint64
	data           []byte // none for NOBITS
	relocs         []reloc
	defined        []*symbol // here, by address

	described string // memo of describe
	busy      bool
}

type symbol struct {
	name        string
	bind        elf.SymBind
	typ         elf.SymType
	vis         elf.SymVis
	sec         *section // nil: defined elsewhere
	value, size uint64
}

type reloc struct {
	off    uint64
	typ    elf.R_X86_64
	sym    *symbol
	addend int64
}

func (s *section) alloc() bool    { return s.flags&elf.SHF_ALLOC != 0 }
func (s *section) code() bool     { return s.alloc() && s.flags&elf.SHF_EXECINSTR != 0 }
func (s *section) writable() bool { return s.alloc() && s.flags&elf.SHF_WRITE != 0 && !s.relro() }
func (s *section) tls() bool      { return s.flags&elf.SHF_TLS != 0 }

// relro sections are written by the dynamic linker and by nobody later.
func (s *section) relro() bool { return strings.HasPrefix(s.name, ".data.rel.ro") }

func (s *section) literals() bool { return s.flags&elf.SHF_MERGE != 0 }

// local says whether no other object file can name the symbol.
func (s *symbol) local() bool { return s.bind == elf.STB_LOCAL }

// stem is a name without the number that the compiler gave a variable of a
// function's or its own making, like counter.3. The number changes with any
// other such variable.
func (s *symbol) stem() string {
	if s.local() && s.typ != elf.STT_FUNC {
		if base, n, ok := cutLast(s.name, "."); ok && base != "" && n != "" && strings.Trim(n, "0123456789") == "" {
			return base
		}
	}
	return s.name
}

func (s *symbol) numbered() bool { return s.stem() != s.name }

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// unit is a function with its parts: the compiler puts what is seldom run into
// a section of its own.
type unit struct {
	obj   *object
	name  string
	sym   *symbol
	parts []*section // where the function begins, first
	mixed bool       // several functions, which only the whole section tells apart
}

// String names a function so that equal names in two files stay apart.
func (u *unit) String() string {
	if u.sym.local() {
		return u.name + " (" + u.obj.source + ")"
	}
	return u.name
}

// readObject reads an object file; it returns nil where the file is none.
func readObject(path, rel string) (*object, error) {
	f, err := elf.Open(path)
	if err != nil {
		if _, bad := err.(*elf.FormatError); bad {
			return nil, nil
		}
		return nil, fmt.Errorf("read object file: %w", err)
	}
	defer f.Close()
	if f.Type != elf.ET_REL || f.Machine != elf.EM_X86_64 || f.Class != elf.ELFCLASS64 {
		return nil, nil
	}
	o := &object{path: rel, unitOf: map[*section]*unit{}}
	for _, s := range f.Sections {
		sec := &section{obj: o, name: s.Name, typ: s.Type, flags: s.Flags, align: max(s.Addralign, 1), entsize: s.Entsize, size: s.Size}
		o.sections = append(o.sections, sec)
		if s.Type == elf.SHT_NOBITS || !sec.alloc() {
			continue
		}
		if sec.data, err = s.Data(); err != nil {
			return nil, fmt.Errorf("read section %s of %s: %w", s.Name, rel, err)
		}
	}
	if err := o.readSymbols(f); err != nil {
		return nil, fmt.Errorf("read symbols of %s: %w", rel, err)
	}
	if err := o.readRelocs(f); err != nil {
		return nil, fmt.Errorf("read relocations of %s: %w", rel, err)
	}
	o.findUnits()
	return o, nil
}

func (o *object) readSymbols(f *elf.File) error {
	list, err := f.Symbols()
	if err != nil {
		return err
	}
	o.symbols = append(o.symbols, &symbol{}) // index 0
	for _, s := range list {
		sym := &symbol{name: s.Name, bind: elf.ST_BIND(s.Info), typ: elf.ST_TYPE(s.Info), vis: elf.ST_VISIBILITY(s.Other), value: s.Value, size: s.Size}
		switch {
		case sym.typ == elf.STT_FILE:
			o.source = s.Name
		case s.Section == elf.SHN_UNDEF || s.Section == elf.SHN_ABS:
		case s.Section == elf.SHN_COMMON:
			return fmt.Errorf("%s is a common symbol: compile with -fno-common", s.Name)
		case int(s.Section) < len(o.sections):
			sym.sec = o.sections[s.Section]
			if sym.typ == elf.STT_SECTION {
				sym.name = sym.sec.name
			} else {
				sym.sec.defined = append(sym.sec.defined, sym)
			}
		default:
			return fmt.Errorf("%s is in section %d, which the file does not have", s.Name, s.Section)
		}
		o.symbols = append(o.symbols, sym)
	}
	return nil
}

func (o *object) readRelocs(f *elf.File) error {
	for _, s := range f.Sections {
		if s.Type == elf.SHT_REL {
			return fmt.Errorf("section %s has relocations without addends", s.Name)
		}
		if s.Type != elf.SHT_RELA || int(s.Info) >= len(o.sections) || !o.sections[s.Info].alloc() {
			continue
		}
		data, err := s.Data()
		if err != nil {
			return err
		}
		sec := o.sections[s.Info]
		for ; len(data) >= 24; data = data[24:] {
			off, info, addend := binary.LittleEndian.Uint64(data), binary.LittleEndian.Uint64(data[8:]), int64(binary.LittleEndian.Uint64(data[16:]))
			if int(info>>32) >= len(o.symbols) || off >= sec.size {
				return fmt.Errorf("section %s has a malformed entry", s.Name)
			}
			sec.relocs = append(sec.relocs, reloc{off, elf.R_X86_64(info & 0xffffffff), o.symbols[info>>32], addend})
		}
	}
	return nil
}

// findUnits finds the functions. Parts go with the function they are named for.
func (o *object) findUnits() {
	byName := map[string]*unit{}
	var later []*section
	for _, s := range o.sections {
		if !s.code() || s.size == 0 {
			continue
		}
		var first *symbol
		several := false
		for _, d := range s.defined {
			if d.typ != elf.STT_FUNC && d.typ != elf.STT_GNU_IFUNC {
				continue
			}
			switch {
			case first == nil || d.value < first.value:
				several = several || first != nil
				first = d
			case d.value != first.value:
				several = true
			case first.local() && !d.local(): // an alias: the name that others use
				first = d
			}
		}
		if first != nil && strings.HasSuffix(first.name, ".cold") && !several {
			later = append(later, s)
			continue
		}
		u := &unit{obj: o, parts: []*section{s}}
		if first == nil || first.value != 0 || several || first.typ != elf.STT_FUNC {
			u.mixed = true
		}
		if u.sym = first; first == nil {
			u.sym = &symbol{name: s.name, sec: s}
		}
		u.name = u.sym.name
		o.units, o.unitOf[s], byName[u.name] = append(o.units, u), u, u
	}
	for _, s := range later {
		name := strings.TrimSuffix(s.defined[0].name, ".cold")
		u := byName[name]
		if u == nil {
			u = &unit{obj: o, name: s.defined[0].name, sym: s.defined[0]}
			o.units = append(o.units, u)
		}
		u.parts = append(u.parts, s)
		o.unitOf[s] = u
	}
}

// debug reads the debugging information. The file is opened again: most
// objects are never asked.
func (o *object) debug(dir string) (*dwarf.Data, error) {
	f, err := elf.Open(dir + string(os.PathSeparator) + o.path)
	if err != nil {
		return nil, fmt.Errorf("read object file: %w", err)
	}
	defer f.Close()
	d, err := f.DWARF()
	if err != nil {
		return nil, fmt.Errorf("read debugging information of %s: %w", o.path, err)
	}
	return d, nil
}
