// SPDX-License-Identifier: Apache-2.0

// Package code makes machine code and tables for the executor from a Spec.
//
// The encoder is GNU as, one run for a batch of specs. It was chosen over the
// Go encoders: those that are kept up to date (avo, the toolchain's internal
// obj) write Go's assembly or cannot be imported, and the one that can is a copy
// of that package from years ago; while as is maintained, knows every form of
// an instruction ({disp32}, .nops with a limit), and is there wherever a kernel
// is built. It costs 10 ms a batch and a binary that must exist. What as makes
// is placed and linked here, so that a slot can lie at any byte, and a test
// decodes it with golang.org/x/arch and runs it in an interpreter.
//
// Each version of a function has this form; rdi is where the next record goes,
// rbx the record of this execution:
//
//	pad; push rbx; rbx = rdi; rdi += 16
//	record.first = V; record.kind = Exec | function
//	for each part: pad; skip; record.parts[i] = V; loop { record.loop += V }; calls
//	record.last = V; pop rbx; ret
//
// So one execution is one record, written by the code itself at every stretch:
// a mix of versions shows as unequal bytes, a stretch left out as a zero, a
// loop that changed under way as a wrong sum, and a call that went astray as a
// record too many or too few. The bytes after a shorter version are int3.
package code

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/wire"
)

// Addresses. The executor is linked low and not relocated, and the kernel maps
// from the top, so nothing else lies around here.
const (
	textBase   = 1 << 36
	regionBase = 1 << 37
	regionStep = 64 << 20
	page       = 4096
	recordSize = 16
	trap       = 0xcc
)

var le = binary.LittleEndian

// Slot is the place of a function.
type Slot struct {
	Addr uint64
	Len  int
}

// Program is a Spec in machine code.
type Program struct {
	Spec     *workloads.Spec
	Slots    []Slot
	Versions [][][]byte // by function, by version: linked, as long as it is
	TextAddr uint64
	TextLen  uint64
}

// batch bounds what one run of as is given, so that an object file stays well
// below 65,280 sections, above which the format changes.
const batch = 32

// Assemble makes the programs of specs, in order.
func Assemble(ctx context.Context, specs ...*workloads.Spec) ([]*Program, error) {
	var out []*Program
	for part := range slices.Chunk(specs, batch) {
		ps, err := assemble(ctx, part)
		if err != nil {
			return nil, fmt.Errorf("assemble %d specs: %w", len(part), err)
		}
		out = append(out, ps...)
	}
	return out, nil
}

func assemble(ctx context.Context, specs []*workloads.Spec) ([]*Program, error) {
	var src bytes.Buffer
	for i, s := range specs {
		source(&src, i, s)
	}
	dir, err := os.MkdirTemp("", "wflp-as")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	obj := filepath.Join(dir, "code.o")
	cmd := exec.CommandContext(ctx, "as", "--64", "-mx86-used-note=no", "-o", obj, "-")
	cmd.Stdin = &src
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("run as: %w: %s", err, firstLine(text))
	}
	f, err := elf.Open(obj)
	if err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	defer f.Close()
	syms, err := f.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) { // no function calls another
		return nil, fmt.Errorf("read symbols: %w", err)
	}
	data := map[string][]byte{}
	for _, s := range f.Sections {
		if strings.Contains(s.Name, "wflp.") {
			if data[s.Name], err = s.Data(); err != nil {
				return nil, fmt.Errorf("read section %s: %w", s.Name, err)
			}
		}
	}
	out := make([]*Program, len(specs))
	for i, s := range specs {
		p := &Program{Spec: s, Versions: make([][][]byte, len(s.Functions))}
		for fn, f := range s.Functions {
			for v := range f.Versions {
				code := data[section(i, fn, v)]
				if len(code) == 0 {
					return nil, fmt.Errorf("object has no section %s", section(i, fn, v))
				}
				p.Versions[fn] = append(p.Versions[fn], code)
			}
		}
		p.place()
		for fn := range s.Functions {
			for v := range p.Versions[fn] {
				if err := p.link(fn, v, data[".rela"+section(i, fn, v)], syms); err != nil {
					return nil, fmt.Errorf("link function %d version %d: %w", fn, v, err)
				}
			}
		}
		out[i] = p
	}
	return out, nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return line
}

func section(spec, fn, v int) string { return fmt.Sprintf(".wflp.%d.%d.%d", spec, fn, v) }

// source writes the assembly of all versions, each in a section of its own.
func source(w *bytes.Buffer, spec int, s *workloads.Spec) {
	for fn, f := range s.Functions {
		for v, ver := range f.Versions {
			fmt.Fprintf(w, ".section %s,\"ax\",@progbits\n", section(spec, fn, v))
			e := v + 1 // evidence
			pad(w, ver.Parts[0])
			fmt.Fprint(w, "push %rbx\nmov %rdi,%rbx\n")
			if ver.Parts[0].Form%2 == 0 {
				fmt.Fprintf(w, "add $%d,%%rdi\n", recordSize)
			} else {
				fmt.Fprintf(w, "lea %d(%%rdi),%%rdi\n", recordSize)
			}
			fmt.Fprintf(w, "movb $%d,2(%%rbx)\nmovw $%d,(%%rbx)\n", e, wire.RecordExec|fn)
			for i, p := range ver.Parts {
				if i > 0 {
					pad(w, p)
				}
				if p.Skip > 0 {
					fmt.Fprintf(w, "jmp 1f\n.skip %d,%d\n1:\n", p.Skip, trap)
				}
				store(w, p.Form, e, 8+i)
				if p.Loop > 0 {
					fmt.Fprintf(w, "mov $%d,%%ecx\n1: addl $%d,4(%%rbx)\ndec %%ecx\njnz 1b\n", p.Loop, e)
				}
				for _, c := range f.Calls {
					if c.After == i {
						fmt.Fprintf(w, "call f%d\n", c.Callee)
					}
				}
			}
			fmt.Fprintf(w, "movb $%d,3(%%rbx)\npop %%rbx\nret\n", e)
		}
	}
}

func pad(w *bytes.Buffer, p workloads.Part) {
	if p.Pad > 0 {
		fmt.Fprintf(w, ".nops %d,%d\n", p.Pad, max(p.Step, 1))
	}
}

// store leaves a byte in the record, in one of several encodings of unequal
// lengths, so that versions that do the same differ in where instructions start.
func store(w *bytes.Buffer, form, e, disp int) {
	switch form % 6 {
	case 0:
		fmt.Fprintf(w, "movb $%d,%d(%%rbx)\n", e, disp)
	case 1:
		fmt.Fprintf(w, "{disp32} movb $%d,%d(%%rbx)\n", e, disp)
	case 2:
		fmt.Fprintf(w, "mov $%d,%%eax\nmov %%al,%d(%%rbx)\n", e, disp)
	case 3:
		fmt.Fprintf(w, "lea %d(%%rbx),%%rdx\nmovb $%d,(%%rdx)\n", disp, e)
	case 4:
		fmt.Fprintf(w, "xor %%ecx,%%ecx\nmov $%d,%%cl\nmov %%cl,%d(%%rbx)\n", e, disp)
	case 5:
		fmt.Fprintf(w, "movabs $%d,%%rax\nmov %%al,%d(%%rbx)\n", e, disp)
	}
}

// place lays the slots out in the order of the functions.
func (p *Program) place() {
	at := uint64(textBase + p.Spec.Text.Offset)
	p.TextAddr = at &^ (page - 1)
	for fn, f := range p.Spec.Functions {
		length := 0
		for _, code := range p.Versions[fn] {
			length = max(length, len(code))
		}
		entry := up(at, uint64(f.Align)) + uint64(f.Skew)
		if f.Straddle > 0 {
			border := up(at+uint64(f.Into), uint64(f.Straddle))
			// Not at any price: a border of 2 MiB that is far away would make the
			// text that long.
			if border-at <= 16*page {
				entry = border - uint64(f.Into)
			}
		}
		p.Slots = append(p.Slots, Slot{Addr: entry, Len: length})
		at = entry + uint64(length)
	}
	p.TextLen = up(at, page) - p.TextAddr
}

func up(v, align uint64) uint64 { return (v + align - 1) &^ (align - 1) }

// link resolves the calls of one version.
func (p *Program) link(fn, v int, rela []byte, syms []elf.Symbol) error {
	code := p.Versions[fn][v]
	for r := rela; len(r) > 0; r = r[24:] {
		if len(r) < 24 {
			return fmt.Errorf("relocations: %d bytes left", len(r))
		}
		off, info, addend := le.Uint64(r), le.Uint64(r[8:]), int64(le.Uint64(r[16:]))
		typ, sym := elf.R_X86_64(info&0xffffffff), int(info>>32)
		if typ != elf.R_X86_64_PLT32 && typ != elf.R_X86_64_PC32 {
			return fmt.Errorf("relocation of type %v", typ)
		}
		if sym < 1 || sym > len(syms) || off+4 > uint64(len(code)) {
			return fmt.Errorf("relocation at %d of symbol %d", off, sym)
		}
		var callee int
		if _, err := fmt.Sscanf(syms[sym-1].Name, "f%d", &callee); err != nil || callee >= len(p.Slots) {
			return fmt.Errorf("relocation against %q", syms[sym-1].Name)
		}
		rel := int64(p.Slots[callee].Addr) + addend - int64(p.Slots[fn].Addr+off)
		if rel != int64(int32(rel)) {
			return fmt.Errorf("call of function %d: too far", callee)
		}
		le.PutUint32(code[off:], uint32(rel))
	}
	return nil
}

// Image returns the text area with the first version of every function.
func (p *Program) Image() []byte {
	img := bytes.Repeat([]byte{trap}, int(p.TextLen))
	for fn, s := range p.Slots {
		copy(img[s.Addr-p.TextAddr:], p.Versions[fn][0])
	}
	return img
}

// File returns the tables for the executor.
func (p *Program) File() *wire.SpecFile {
	s := p.Spec
	f := &wire.SpecFile{ImageBytes: p.Image()}
	h := &f.SpecHeader
	h.Seed, h.TextAddr, h.TextLen = s.Seed, p.TextAddr, p.TextLen
	h.Depth, h.WatchdogMS = uint32(s.Depth), uint32(s.WatchdogMS)
	if s.Drain {
		h.Drain = 1
	}
	h.Backing = map[workloads.Backing]uint32{workloads.Memfd: wire.BackingMemfd, workloads.File: wire.BackingFile,
		workloads.Anonymous: wire.BackingAnonymous}[s.Text.Backing]
	for fn, slot := range p.Slots {
		f.FunctionList = append(f.FunctionList, wire.Function{Entry: slot.Addr, Len: uint32(slot.Len), Version: uint32(len(f.VersionList))})
		for v, code := range p.Versions[fn] {
			f.VersionList = append(f.VersionList, wire.CodeVersion{Blob: uint64(len(f.BlobBytes)), Function: uint32(fn),
				Saved: uint32(s.Functions[fn].Versions[v].Parts[0].Pad + 1), Restored: uint32(len(code) - 1)})
			f.BlobBytes = append(f.BlobBytes, code...)
			f.BlobBytes = append(f.BlobBytes, bytes.Repeat([]byte{trap}, slot.Len-len(code))...)
		}
	}
	p.workers(f)
	p.regions(f)
	for i, patch := range s.Patches {
		w := wire.Patch{AtNS: uint64(patch.AtUS) * 1000, Change: uint32(len(f.ChangeList)), Changes: uint32(len(patch.Changes)), Number: uint32(i), StallNS: uint64(patch.StallUS) * 1000}
		w.Flags = bit(patch.Runs, wire.PatchRuns) | bit(patch.Wrong, wire.PatchWrong) | bit(patch.Try, wire.PatchTry)
		for _, c := range patch.Changes {
			f.ChangeList = append(f.ChangeList, wire.Change{Function: uint32(c.Function),
				Version: f.FunctionList[c.Function].Version + uint32(c.Version)})
		}
		f.PatchList = append(f.PatchList, w)
	}
	return f
}

func bit(on bool, b uint32) uint32 {
	if on {
		return b
	}
	return 0
}

func (p *Program) workers(f *wire.SpecFile) {
	for i, w := range p.Spec.Workers {
		ww := wire.Worker{
			Parent: int32(w.Parent), BornAt: uint32(w.BornAt),
			Root: uint32(len(f.RootList)), Roots: uint32(len(w.Roots)), Interval: uint32(w.Interval),
			Txns: uint32(w.Txns), Cap: uint32(w.Cap), MaxRecords: uint32(p.Spec.MaxTransaction(i)),
			SpinNS: uint32(w.SpinUS) * 1000, LongEvery: uint32(w.LongEvery), LongNS: uint32(w.LongUS) * 1000, BlockedNS: uint32(w.BlockedUS) * 1000,
			Arrival: uint32(len(f.ArrivalList)), Arrivals: uint32(len(w.Arrivals)), PerRequest: uint32(w.PerRequest),
			Action: uint32(len(f.ActionList)), Actions: uint32(len(w.Actions)),
			Flags: bit(w.WaitOnline, wire.WorkerWaitOnline) | bit(w.Yield, wire.WorkerYield),
		}
		for _, r := range w.Roots {
			f.RootList = append(f.RootList, uint32(r))
		}
		for _, a := range w.Arrivals {
			f.ArrivalList = append(f.ArrivalList, uint64(a*1000))
		}
		for _, a := range w.Actions {
			f.ActionList = append(f.ActionList, wire.Action{At: uint32(a.At), Kind: uint32(slices.Index(workloads.ActionKinds, a.Kind)),
				Region: uint32(a.Region), Page: uint32(a.Page), Count: uint32(a.Count), US: uint32(a.US)})
		}
		f.WorkerList = append(f.WorkerList, ww)
	}
}

// regions places each region: near the text one after the other behind it,
// with an unmapped page between any two windows so that a stray access faults;
// elsewhere at addresses where a huge page can be.
func (p *Program) regions(f *wire.SpecFile) {
	near := p.TextAddr + p.TextLen + page
	for i, r := range p.Spec.Regions {
		w := wire.Region{Kind: uint32(slices.Index(workloads.RegionKinds, r.Kind)), Pages: uint32(r.Pages)}
		switch size := uint64(r.Pages+1) * page; {
		case r.Kind == workloads.Heap: // where the heap is, the executor finds out
		case r.Near:
			w.Addr, w.Other = near, near+size
			near += 2 * size
		default:
			w.Addr = regionBase + uint64(i)*regionStep
			w.Other = w.Addr + regionStep/2
		}
		f.RegionList = append(f.RegionList, w)
	}
}
