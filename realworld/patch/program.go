// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sort"
	"strings"
)

// Program is a linked program with the object files that it was made of.
type Program struct {
	dir, path string
	buildID   []byte
	objects   []*object          // in the order of linking
	globals   map[string]*symbol // defined in an object file
	address   map[*symbol]uint64 // of what the object files define
	linked    map[string]uint64  // every other symbol that is no file's own
	segments  []segment
	next      []uint64 // where some function begins, ascending
}

type segment struct {
	addr uint64
	data []byte
}

// group is what the symbol table of a linked program has of one object file.
type group struct {
	source string
	locals []elf.Symbol
}

// Open reads the program (a path within the build's folder) and finds its
// object files there: nothing but symbol tables and the machine code itself
// says which these are, so it does not matter how the package is built.
func Open(dir, path string) (*Program, error) {
	p := &Program{dir: dir, path: path, globals: map[string]*symbol{}, address: map[*symbol]uint64{}, linked: map[string]uint64{}}
	f, err := elf.Open(filepath.Join(dir, path))
	if err != nil {
		return nil, fmt.Errorf("open program: %w", err)
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 || f.Class != elf.ELFCLASS64 {
		return nil, fmt.Errorf("open program: %s is not for x86-64", path)
	}
	if f.Type != elf.ET_DYN {
		return nil, fmt.Errorf("open program: %s is not position-independent: build it with -fPIE -pie, as Debian does", path)
	}
	if err := p.readImage(f); err != nil {
		return nil, fmt.Errorf("open program %s: %w", path, err)
	}
	groups, err := p.readGroups(f)
	if err != nil {
		return nil, fmt.Errorf("open program %s: %w", path, err)
	}
	if err := p.findObjects(groups); err != nil {
		return nil, fmt.Errorf("find object files of %s: %w", path, err)
	}
	return p, nil
}

func (p *Program) readImage(f *elf.File) error {
	for _, ph := range f.Progs {
		if ph.Type != elf.PT_LOAD {
			continue
		}
		data := make([]byte, ph.Filesz)
		if _, err := ph.ReadAt(data, 0); err != nil {
			return err
		}
		p.segments = append(p.segments, segment{ph.Vaddr, data})
	}
	s := f.Section(".note.gnu.build-id")
	if s == nil {
		return errors.New("it has no build id: link it with --build-id")
	}
	note, err := s.Data()
	if err != nil {
		return err
	}
	if len(note) <= 16 || len(note)-16 > 32 {
		return errors.New("its build id is malformed")
	}
	p.buildID = note[16:]
	return nil
}

// readGroups takes the symbol table apart: the linker writes the local symbols
// of one object file after another, each list after the name of its source, and
// then its own ones and those that it made local.
func (p *Program) readGroups(f *elf.File) ([]*group, error) {
	symbols, err := f.Symbols()
	if errors.Is(err, elf.ErrNoSymbols) {
		return nil, errors.New("it is stripped: keep the symbol table of the build")
	}
	if err != nil {
		return nil, err
	}
	var groups []*group
	var now *group
	for _, s := range symbols {
		typ, local := elf.ST_TYPE(s.Info), elf.ST_BIND(s.Info) == elf.STB_LOCAL
		if typ == elf.STT_FUNC && s.Section != elf.SHN_UNDEF {
			p.next = append(p.next, s.Value)
		}
		switch {
		case typ == elf.STT_FILE:
			if now = nil; s.Name != "" {
				now = &group{source: s.Name}
				groups = append(groups, now)
			}
		case s.Section == elf.SHN_UNDEF || typ == elf.STT_SECTION:
		case local && now != nil:
			now.locals = append(now.locals, s)
		default:
			p.linked[s.Name] = s.Value
		}
	}
	sort.Slice(p.next, func(i, j int) bool { return p.next[i] < p.next[j] })
	return groups, nil
}

// findObjects pairs the groups with object files. One that fits by its symbols
// must also have the code that the program has.
func (p *Program) findObjects(groups []*group) error {
	bySource := map[string][]*object{}
	sources := map[string]bool{}
	err := filepath.WalkDir(p.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		sources[e.Name()] = true
		if !strings.HasSuffix(path, ".o") {
			return nil
		}
		rel, err := filepath.Rel(p.dir, path)
		if err != nil {
			return err
		}
		o, err := readObject(path, rel)
		if o != nil {
			bySource[o.source] = append(bySource[o.source], o)
		}
		return err
	})
	if err != nil {
		return err
	}
	taken := map[*object]bool{}
	for _, g := range groups {
		var fits *object
		why := "no object file of that source is in the build"
		for _, o := range bySource[g.source] {
			if taken[o] {
				continue
			}
			at, err := p.place(o, g)
			if err != nil {
				why = err.Error()
				continue
			}
			fits = o
			for sym, addr := range at {
				p.address[sym] = addr
			}
			break
		}
		if fits == nil {
			// The C library's own files are in every program.
			if sources[filepath.Base(g.source)] {
				return fmt.Errorf("%s: %s", g.source, why)
			}
			continue
		}
		taken[fits] = true
		p.objects = append(p.objects, fits)
		for _, s := range fits.symbols {
			if s.sec != nil && !s.local() && p.globals[s.name] == nil {
				p.globals[s.name] = s
			}
		}
	}
	if len(p.objects) == 0 {
		return fmt.Errorf("none in %s", p.dir)
	}
	return nil
}

// place finds where the linker has put what an object file defines.
func (p *Program) place(o *object, g *group) (map[*symbol]uint64, error) {
	at := map[*symbol]uint64{}
	locals := g.locals
	for _, s := range o.symbols {
		if s.sec == nil || s.typ == elf.STT_SECTION || !s.sec.alloc() {
			continue
		}
		if !s.local() {
			addr, ok := p.linked[s.name]
			if !ok {
				return nil, fmt.Errorf("%s defines %s, which the program does not have", o.path, s.name)
			}
			at[s] = addr
			continue
		}
		if strings.HasPrefix(s.name, ".L") || s.name == "" {
			continue
		}
		for len(locals) > 0 && strings.HasPrefix(locals[0].Name, ".L") {
			locals = locals[1:]
		}
		if len(locals) == 0 || locals[0].Name != s.name || locals[0].Size != s.size {
			return nil, fmt.Errorf("the static symbols of %s are others than the program's", o.path)
		}
		at[s] = locals[0].Value
		locals = locals[1:]
	}
	if len(locals) > 0 {
		return nil, fmt.Errorf("the program has %s, which %s has not", locals[0].Name, o.path)
	}
	for _, u := range o.units {
		for _, s := range u.parts {
			if err := p.sameCode(s, at); err != nil {
				return nil, err
			}
		}
	}
	return at, nil
}

func (p *Program) sameCode(s *section, at map[*symbol]uint64) error {
	if len(s.defined) == 0 {
		return nil
	}
	addr, ok := at[s.defined[0]]
	if !ok {
		return nil
	}
	have := p.bytes(addr-s.defined[0].value, s.size)
	if have == nil {
		return fmt.Errorf("%s of %s is outside of the program", s.name, s.obj.path)
	}
	want := bytes.Clone(s.data)
	have = bytes.Clone(have)
	for _, r := range s.relocs {
		lo, hi := r.field()
		clear(want[min(lo, s.size):min(hi, s.size)])
		clear(have[min(lo, s.size):min(hi, s.size)])
	}
	if !bytes.Equal(want, have) {
		return fmt.Errorf("the code of %s in %s is not the program's", s.name, s.obj.path)
	}
	return nil
}

// field is what the linker may change for a relocation: some let it replace
// the instruction.
func (r reloc) field() (lo, hi uint64) {
	lo, hi = r.off, r.off+4
	switch r.typ {
	case elf.R_X86_64_64, elf.R_X86_64_PC64, elf.R_X86_64_DTPOFF64, elf.R_X86_64_TPOFF64, elf.R_X86_64_GOTOFF64:
		hi = r.off + 8
	case elf.R_X86_64_GOTPCRELX, elf.R_X86_64_REX_GOTPCRELX, elf.R_X86_64_GOTTPOFF:
		lo -= min(lo, 3)
	case elf.R_X86_64_TLSGD, elf.R_X86_64_TLSLD:
		lo -= min(lo, 4)
		hi += 8
	}
	return lo, hi
}

// bytes are those of the file that are mapped at an address, or nil.
func (p *Program) bytes(addr, n uint64) []byte {
	for _, s := range p.segments {
		if addr >= s.addr && addr-s.addr <= uint64(len(s.data)) && n <= uint64(len(s.data))-(addr-s.addr) {
			return s.data[addr-s.addr:][:n]
		}
	}
	return nil
}

// padded is the size of a function with as much of the padding behind it as it
// takes to have want bytes.
func (p *Program) padded(addr, size, want uint64) uint64 {
	i := sort.Search(len(p.next), func(i int) bool { return p.next[i] >= addr+size })
	if i == len(p.next) {
		return size
	}
	pad := p.bytes(addr+size, p.next[i]-addr-size)
	for size < want {
		n := nop(pad)
		if n == 0 {
			break
		}
		pad, size = pad[n:], size+uint64(n)
	}
	return size
}

// nop is the length of the instruction at the start, if it is one of those that
// the assembler fills gaps with, or 0.
func nop(b []byte) int {
	for _, n := range []string{
		"\x90", "\x66\x90", "\x0f\x1f\x00", "\x0f\x1f\x40\x00", "\x0f\x1f\x44\x00\x00", "\x66\x0f\x1f\x44\x00\x00",
		"\x0f\x1f\x80\x00\x00\x00\x00", "\x0f\x1f\x84\x00\x00\x00\x00\x00", "\x66\x0f\x1f\x84\x00\x00\x00\x00\x00",
		"\x66\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00", "\x66\x66\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00", "\xcc",
	} {
		if bytes.HasPrefix(b, []byte(n)) {
			return len(n)
		}
	}
	return 0
}
