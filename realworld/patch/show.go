// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
)

// Info is what a patch file says of itself.
type Info struct {
	Name      string
	ID        [32]byte
	BuildID   []byte
	Functions []Function
	Symbols   []Symbol
	Origin    []byte
}

// Function is an entry of a patch file for a function of the program.
type Function struct {
	Name     string
	Addr     uint64
	Size     uint64
	Replaced bool // or else it must only be on no stack
}

// Symbol is something outside of the patch that it refers to.
type Symbol struct {
	Name   string
	ByName bool // or else at Addr
	Addr   uint64
	TLS    bool
}

// Read reads a patch file and verifies that it is whole.
func Read(file []byte) (*Info, error) {
	f, err := elf.NewFile(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("read patch: %w", err)
	}
	if f.Type != elf.ET_REL || f.Machine != elf.EM_X86_64 {
		return nil, errors.New("read patch: it is no relocatable object for x86-64")
	}
	s := f.Section(secHead)
	if s == nil {
		return nil, fmt.Errorf("read patch: it has no section %s: it is not a patch", secHead)
	}
	var head rawHead
	if err := decode(f, secHead, &head); err != nil {
		return nil, err
	}
	if head.Magic != magic || head.Version != formatVersion {
		return nil, fmt.Errorf("read patch: it is of format version %d, this program knows %d", head.Version, formatVersion)
	}
	plain := bytes.Clone(file)
	at := s.Offset + idOffset
	if at+32 > uint64(len(plain)) {
		return nil, errors.New("read patch: it is cut short")
	}
	clear(plain[at : at+32])
	if sha256.Sum256(plain) != head.ID {
		return nil, errors.New("read patch: its digest does not fit: it is damaged, or was changed")
	}
	objects, funcs, syms := make([]rawObject, head.ObjectCount), make([]rawFunc, head.FunctionCount), make([]rawSym, head.SymbolCount)
	if err := errors.Join(decode(f, secObjects, objects), decode(f, secFuncs, funcs), decode(f, secSyms, syms)); err != nil {
		return nil, err
	}
	strings, err := sectionData(f, secStr)
	if err != nil {
		return nil, err
	}
	origin, err := sectionData(f, secOrigin)
	if err != nil {
		return nil, err
	}
	name := func(off uint32) string {
		if int(off) >= len(strings) {
			return ""
		}
		text, _, _ := bytes.Cut(strings[off:], []byte{0})
		return string(text)
	}
	info := &Info{Name: name(head.NameOff), ID: head.ID, Origin: origin}
	if len(objects) > 0 {
		info.BuildID = objects[0].BuildID[:min(objects[0].BuildIDSize, 32)]
	}
	for _, r := range funcs {
		info.Functions = append(info.Functions, Function{name(r.NameOff), r.OldAddr, r.OldSize, r.Flags&funcPart == 0})
	}
	for _, r := range syms {
		info.Symbols = append(info.Symbols, Symbol{name(r.NameOff), r.Object == byName, r.Addr, r.Flags&symTLS != 0})
	}
	return info, nil
}

func sectionData(f *elf.File, name string) ([]byte, error) {
	s := f.Section(name)
	if s == nil {
		return nil, fmt.Errorf("read patch: it has no section %s", name)
	}
	data, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("read patch: section %s: %w", name, err)
	}
	return data, nil
}

func decode(f *elf.File, name string, to any) error {
	data, err := sectionData(f, name)
	if err != nil {
		return err
	}
	if len(data) < binary.Size(to) {
		return fmt.Errorf("read patch: section %s is cut short", name)
	}
	if _, err := binary.Decode(data, binary.LittleEndian, to); err != nil {
		return fmt.Errorf("read patch: section %s: %w", name, err)
	}
	return nil
}
