// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"sort"
)

// writer lays out an ELF object. The standard library reads these and does not
// write them, and no linker can be told to leave out the half of an object
// file and to rebind the other; the file is simple, on the other hand.
type writer struct {
	k        *collection
	sections []*outSection
	symbols  []elf.Sym64
	strtab   stringTable // of symbols
	wstr     stringTable // of .wflp.str
	at       map[*section]*outSection
	start    map[*section]int // symbol at the start of a section of the patch
	outer    map[outerKey]int // symbols that are not in the patch
	syms     []rawSym
}

type outerKey struct {
	old  *symbol
	name string
}

type outSection struct {
	elf.Section64
	name   string
	data   []byte
	relocs []elf.Rela64
	index  int
}

type stringTable struct {
	bytes.Buffer
	seen map[string]uint32
}

func (t *stringTable) add(s string) uint32 {
	if t.seen == nil {
		t.seen = map[string]uint32{"": 0}
		t.WriteByte(0)
	}
	if off, ok := t.seen[s]; ok {
		return off
	}
	off := uint32(t.Len())
	t.seen[s] = off
	t.WriteString(s + "\x00")
	return off
}

// write makes the file of a patch.
func (k *collection) write(name string, origin []byte) ([]byte, error) {
	w := &writer{k: k, at: map[*section]*outSection{}, start: map[*section]int{}, outer: map[outerKey]int{}, symbols: []elf.Sym64{{}}}
	w.wstr.add("")
	for _, s := range k.sections {
		out := &outSection{name: s.name, data: s.data}
		out.Type, out.Flags, out.Addralign, out.Entsize, out.Size = uint32(s.typ), uint64(s.flags&^elf.SHF_GROUP), s.align, s.entsize, s.size
		w.at[s] = out
		w.add(out)
	}
	// Local symbols come first in the table, so all of the patch's are local:
	// what it has can be meant by nobody else.
	for _, s := range k.sections {
		w.define(s)
	}
	for _, s := range k.sections {
		for _, r := range s.relocs {
			if err := w.relocate(s, r); err != nil {
				return nil, fmt.Errorf("%s: %w", s.title(), err)
			}
		}
	}
	if err := w.unwindTables(); err != nil {
		return nil, err
	}
	funcs, err := w.functions()
	if err != nil {
		return nil, err
	}
	object := rawObject{BuildIDSize: uint32(len(k.c.old.buildID))}
	copy(object.BuildID[:], k.c.old.buildID)
	head := rawHead{Magic: magic, Version: formatVersion, ObjectCount: 1, FunctionCount: uint32(len(funcs)), SymbolCount: uint32(len(w.syms)), NameOff: w.wstr.add(name)}
	head.HeadSize = uint32(binary.Size(head))
	for _, s := range []struct {
		name string
		data any
	}{{secHead, head}, {secObjects, object}, {secFuncs, funcs}, {secSyms, w.syms}, {secStr, w.wstr.Bytes()}, {secOrigin, origin}} {
		out := &outSection{name: s.name, data: encode(s.data)}
		out.Type, out.Addralign, out.Size = uint32(elf.SHT_PROGBITS), 8, uint64(len(out.data))
		w.add(out)
	}
	return w.finish(), nil
}

func encode(v any) []byte {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
		panic(err) // a type without a fixed size: a mistake in this file
	}
	return b.Bytes()
}

func (w *writer) add(s *outSection) {
	w.sections = append(w.sections, s)
	s.index = len(w.sections)
}

// define makes symbols for a section of the patch: one for its start, and those
// that it had.
func (w *writer) define(s *section) {
	info := elf.ST_INFO(elf.STB_LOCAL, elf.STT_SECTION)
	index := uint16(w.at[s].index)
	w.start[s] = w.symbol(elf.Sym64{Info: info, Shndx: index})
	for _, d := range s.defined {
		n := w.symbol(elf.Sym64{Name: w.strtab.add(d.name), Info: elf.ST_INFO(elf.STB_LOCAL, d.typ), Shndx: index, Value: d.value, Size: d.size})
		if d.value == 0 {
			w.start[s] = n
		}
	}
}

func (w *writer) symbol(s elf.Sym64) int {
	w.symbols = append(w.symbols, s)
	return len(w.symbols) - 1
}

func (w *writer) relocate(s *section, r reloc) error {
	b, err := w.k.bind(s, r)
	if err != nil {
		return err
	}
	sym := w.start[b.inside]
	if b.inside == nil {
		if sym, err = w.outside(b); err != nil {
			return err
		}
	}
	out := w.at[s]
	out.relocs = append(out.relocs, elf.Rela64{Off: r.off, Info: elf.R_INFO(uint32(sym), uint32(r.typ)), Addend: r.addend + b.off})
	return nil
}

// outside is the symbol for what is in the running program.
func (w *writer) outside(b binding) (int, error) {
	key := outerKey{b.old, b.name}
	if n, ok := w.outer[key]; ok {
		return n, nil
	}
	entry := rawSym{Object: byName}
	typ := elf.STT_NOTYPE
	name := b.name
	if b.old != nil {
		name = b.old.name
		typ = b.old.typ
		if typ == elf.STT_SECTION || typ == elf.STT_GNU_IFUNC {
			return 0, fmt.Errorf("%s is in the running program, but nobody knows where", name)
		}
		addr, ok := w.k.c.old.address[b.old]
		if !ok {
			return 0, fmt.Errorf("%s is in the running program, but nobody knows where", name)
		}
		entry.Object, entry.Addr = 0, addr
		if typ == elf.STT_TLS {
			entry.Flags = symTLS
		}
	} else if addr, ok := w.k.c.old.linked[name]; ok {
		// What the linker or the C library has put into every program.
		entry.Object, entry.Addr = 0, addr
	}
	entry.NameOff = w.wstr.add(name)
	n := w.symbol(elf.Sym64{Name: w.strtab.add(name), Info: elf.ST_INFO(elf.STB_GLOBAL, typ)})
	entry.Symbol = uint32(n)
	w.syms = append(w.syms, entry)
	w.outer[key] = n
	return n, nil
}

func (w *writer) functions() ([]rawFunc, error) {
	old := w.k.c.old
	var list []rawFunc
	for _, u := range w.k.replaced {
		was := w.k.c.oldOf[u]
		addr, size, sum, err := old.oldCode(was.parts[0], was.sym)
		if err != nil {
			return nil, err
		}
		list = append(list, rawFunc{NewSymbol: uint32(w.start[u.parts[0]]), OldAddr: addr, OldSize: size, OldSHA256: sum, NameOff: w.wstr.add(u.String())})
	}
	for _, s := range w.k.watched() {
		if len(s.defined) == 0 {
			continue
		}
		addr, size, sum, err := old.oldCode(s, s.defined[0])
		if err != nil {
			return nil, err
		}
		list = append(list, rawFunc{OldAddr: addr, OldSize: size, OldSHA256: sum, NameOff: w.wstr.add(s.defined[0].name), Flags: funcPart})
	}
	return list, nil
}

// unwindTables takes over the .eh_frame entries of the functions.
func (w *writer) unwindTables() error {
	out := &outSection{name: ".eh_frame"}
	out.Type, out.Flags, out.Addralign = uint32(elf.SHT_PROGBITS), uint64(elf.SHF_ALLOC), 8
	cies := map[string]int{}
	for _, s := range w.k.sections {
		if !s.code() {
			continue
		}
		found, err := w.unwindEntries(out, cies, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.title(), err)
		}
		if found == 0 {
			return fmt.Errorf("%s has no entry in .eh_frame: compile with -fasynchronous-unwind-tables", s.title())
		}
	}
	out.data = append(out.data, 0, 0, 0, 0)
	out.Size = uint64(len(out.data))
	w.add(out)
	return nil
}

// unwindEntries copies the entries for one section, and the common entry that
// each of them refers to.
func (w *writer) unwindEntries(out *outSection, cies map[string]int, s *section) (int, error) {
	found := 0
	for _, eh := range s.obj.sections {
		if eh.name != ".eh_frame" {
			continue
		}
		at := map[uint64]reloc{}
		for _, r := range eh.relocs {
			at[r.off] = r
		}
		for pos := uint64(0); pos+8 <= eh.size; {
			length := uint64(binary.LittleEndian.Uint32(eh.data[pos:]))
			if length == 0 || length == 0xffffffff || pos+4+length > eh.size {
				break
			}
			end := pos + 4 + length
			back := uint64(binary.LittleEndian.Uint32(eh.data[pos+4:]))
			if r, ok := at[pos+8]; back != 0 && ok && r.sym.sec == s {
				cie := pos + 4 - back
				cieEnd := cie + 4 + uint64(binary.LittleEndian.Uint32(eh.data[cie:]))
				if cieEnd > eh.size {
					return 0, fmt.Errorf("its entry in .eh_frame is malformed")
				}
				for off := range at {
					if off >= cie && off < cieEnd || off > pos+8 && off < end {
						return 0, fmt.Errorf("its entry in .eh_frame has a handler, which C does not have")
					}
				}
				common := string(eh.data[cie:cieEnd])
				start, ok := cies[common]
				if !ok {
					start = len(out.data)
					cies[common] = start
					out.data = append(out.data, common...)
				}
				here := len(out.data)
				out.data = append(out.data, eh.data[pos:end]...)
				binary.LittleEndian.PutUint32(out.data[here+4:], uint32(here+4-start))
				out.relocs = append(out.relocs, elf.Rela64{Off: uint64(here + 8), Info: elf.R_INFO(uint32(w.start[s]), uint32(r.typ)), Addend: r.addend + int64(r.sym.value) - w.startValue(s)})
				found++
			}
			pos = end
		}
	}
	return found, nil
}

func (w *writer) startValue(s *section) int64 { return int64(w.symbols[w.start[s]].Value) }

// finish puts everything into one file: header, sections, symbols, names, and
// the table of sections.
func (w *writer) finish() []byte {
	// The table wants local symbols first.
	order := make([]int, len(w.symbols))
	for i := range order {
		order[i] = i
	}
	isLocal := func(i int) bool { return elf.ST_BIND(w.symbols[i].Info) == elf.STB_LOCAL }
	sort.SliceStable(order, func(a, b int) bool { return isLocal(order[a]) && !isLocal(order[b]) })
	locals := 0
	sorted := make([]elf.Sym64, 0, len(w.symbols))
	for i, from := range order {
		if from != i {
			panic("symbols of the patch after those of the program")
		}
		if isLocal(from) {
			locals++
		}
		sorted = append(sorted, w.symbols[from])
	}
	content := len(w.sections)
	for _, s := range w.sections[:content] {
		if len(s.relocs) == 0 {
			continue
		}
		rela := &outSection{name: ".rela" + s.name, data: encode(s.relocs)}
		rela.Type, rela.Flags, rela.Addralign, rela.Entsize = uint32(elf.SHT_RELA), uint64(elf.SHF_INFO_LINK), 8, 24
		rela.Info, rela.Size = uint32(s.index), uint64(len(rela.data))
		w.add(rela)
	}
	symtab := &outSection{name: ".symtab", data: encode(sorted)}
	symtab.Type, symtab.Addralign, symtab.Entsize, symtab.Info = uint32(elf.SHT_SYMTAB), 8, 24, uint32(locals)
	w.add(symtab)
	strtab := &outSection{name: ".strtab", data: w.strtab.Bytes()}
	strtab.Type, strtab.Addralign = uint32(elf.SHT_STRTAB), 1
	w.add(strtab)
	names := &outSection{name: ".shstrtab"}
	names.Type, names.Addralign = uint32(elf.SHT_STRTAB), 1
	w.add(names)
	symtab.Link = uint32(strtab.index)
	var table stringTable
	table.add("")
	for _, s := range w.sections {
		s.Name = table.add(s.name)
		if elf.SectionType(s.Type) == elf.SHT_RELA {
			s.Link = uint32(symtab.index)
		}
	}
	names.data = table.Bytes()

	head := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Ehsize: 64, Shentsize: 64,
		Shnum: uint16(len(w.sections) + 1), Shstrndx: uint16(names.index)}
	copy(head.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	file := make([]byte, 64)
	headAt := 0
	for _, s := range w.sections {
		align := max(int(s.Addralign), 1)
		file = append(file, make([]byte, (align-len(file)%align)%align)...)
		s.Off = uint64(len(file))
		if s.name == secHead {
			headAt = len(file)
		}
		if elf.SectionType(s.Type) != elf.SHT_NOBITS {
			s.Size = uint64(len(s.data))
			file = append(file, s.data...)
		}
	}
	file = append(file, make([]byte, (8-len(file)%8)%8)...)
	head.Shoff = uint64(len(file))
	file = append(file, encode(elf.Section64{})...)
	for _, s := range w.sections {
		file = append(file, encode(s.Section64)...)
	}
	copy(file, encode(head))
	// The id covers all of the file, with itself as zeros.
	id := sha256.Sum256(file)
	copy(file[headAt+idOffset:], id[:])
	return file
}

// idOffset is where rawHead has its ID.
const idOffset = 8 + 6*4
