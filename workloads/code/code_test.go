// SPDX-License-Identifier: Apache-2.0

package code

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"golang.org/x/arch/x86/x86asm"

	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/wire"
)

// machine interprets the few instructions that the code consists of, decoded
// by another implementation than the one that encoded them.
type machine struct {
	base, data uint64
	text       []byte
	mem        []byte // at data: records, then a stack
	reg        map[x86asm.Reg]uint64
	zero       bool
	steps      int
}

const dataBase = 1 << 20

func newMachine(p *Program, text []byte) *machine {
	m := &machine{base: p.TextAddr, data: dataBase, text: text, mem: make([]byte, 64*1024), reg: map[x86asm.Reg]uint64{}}
	m.reg[x86asm.RDI] = dataBase
	m.reg[x86asm.RSP] = dataBase + uint64(len(m.mem))
	return m
}

func (m *machine) push(v uint64) {
	m.reg[x86asm.RSP] -= 8
	binary.LittleEndian.PutUint64(m.mem[m.reg[x86asm.RSP]-m.data:], v)
}

func (m *machine) pop() uint64 {
	v := binary.LittleEndian.Uint64(m.mem[m.reg[x86asm.RSP]-m.data:])
	m.reg[x86asm.RSP] += 8
	return v
}

// call runs until the matching return.
func (m *machine) call(addr uint64) error {
	const stop = 0xdead
	m.push(stop)
	for ip := addr; ip != stop; {
		if m.steps++; m.steps > 2_000_000 {
			return fmt.Errorf("at %#x: does not end", ip)
		}
		if ip < m.base || ip >= m.base+uint64(len(m.text)) {
			return fmt.Errorf("at %#x: outside the text", ip)
		}
		in, err := x86asm.Decode(m.text[ip-m.base:min(ip-m.base+16, uint64(len(m.text)))], 64)
		if err != nil {
			return fmt.Errorf("at %#x: %w", ip, err)
		}
		next := ip + uint64(in.Len)
		switch in.Op {
		case x86asm.NOP, x86asm.XCHG: // 66 90 decodes as xchg ax,ax
		case x86asm.PUSH:
			m.push(m.reg[in.Args[0].(x86asm.Reg)])
		case x86asm.POP:
			m.reg[in.Args[0].(x86asm.Reg)] = m.pop()
		case x86asm.RET:
			next = m.pop()
		case x86asm.CALL:
			m.push(next)
			next += uint64(int64(in.Args[0].(x86asm.Rel)))
		case x86asm.JMP:
			next += uint64(int64(in.Args[0].(x86asm.Rel)))
		case x86asm.JNE:
			if !m.zero {
				next += uint64(int64(in.Args[0].(x86asm.Rel)))
			}
		case x86asm.LEA:
			m.set(in.Args[0].(x86asm.Reg), m.addr(in.Args[1].(x86asm.Mem)))
		case x86asm.XOR:
			m.set(in.Args[0].(x86asm.Reg), 0)
		case x86asm.DEC:
			r := in.Args[0].(x86asm.Reg)
			m.set(r, m.get(r)-1)
			m.zero = uint32(m.get(r)) == 0
		case x86asm.ADD, x86asm.MOV:
			v := m.value(in.Args[1])
			if in.Op == x86asm.ADD {
				v += m.load(in, in.Args[0])
			}
			m.store(in, in.Args[0], v)
		default:
			return fmt.Errorf("at %#x: %v", ip, in)
		}
		ip = next
	}
	return nil
}

var wide = map[x86asm.Reg]x86asm.Reg{x86asm.EAX: x86asm.RAX, x86asm.ECX: x86asm.RCX, x86asm.AL: x86asm.RAX, x86asm.CL: x86asm.RCX}

func (m *machine) get(r x86asm.Reg) uint64 {
	if w, ok := wide[r]; ok {
		r = w
	}
	return m.reg[r]
}

func (m *machine) set(r x86asm.Reg, v uint64) {
	switch w := wide[r]; {
	case r == x86asm.AL || r == x86asm.CL:
		m.reg[w] = m.reg[w]&^0xff | v&0xff
	case w != 0:
		m.reg[w] = uint64(uint32(v))
	default:
		m.reg[r] = v
	}
}

func (m *machine) addr(a x86asm.Mem) uint64 { return m.reg[a.Base] + uint64(a.Disp) }

func (m *machine) value(a x86asm.Arg) uint64 {
	switch a := a.(type) {
	case x86asm.Imm:
		return uint64(a)
	case x86asm.Reg:
		return m.get(a)
	}
	panic(fmt.Sprintf("value of %T", a))
}

func (m *machine) load(in x86asm.Inst, a x86asm.Arg) uint64 {
	if r, ok := a.(x86asm.Reg); ok {
		return m.get(r)
	}
	var v uint64
	for i := range in.MemBytes {
		v |= uint64(m.mem[m.addr(a.(x86asm.Mem))-m.data+uint64(i)]) << (8 * i)
	}
	return v
}

func (m *machine) store(in x86asm.Inst, a x86asm.Arg, v uint64) {
	if r, ok := a.(x86asm.Reg); ok {
		m.set(r, v)
		return
	}
	for i := range in.MemBytes {
		m.mem[m.addr(a.(x86asm.Mem))-m.data+uint64(i)] = byte(v >> (8 * i))
	}
}

func (m *machine) records() []wire.Exec {
	var out []wire.Exec
	for at := uint64(dataBase); at < m.reg[x86asm.RDI]; at += recordSize {
		b := m.mem[at-m.data:]
		e := wire.Exec{Kind: binary.LittleEndian.Uint16(b), First: b[2], Last: b[3], Loop: binary.LittleEndian.Uint32(b[4:])}
		copy(e.Parts[:], b[8:16])
		out = append(out, e)
	}
	return out
}

// want says what one call leaves, from the spec alone.
func want(s *workloads.Spec, root int, version []int) []wire.Exec {
	var out []wire.Exec
	for _, fn := range s.Tree(root) {
		v := version[fn]
		e := wire.Exec{Kind: uint16(wire.RecordExec | fn), First: uint8(v + 1), Last: uint8(v + 1), Loop: s.Functions[fn].LoopSum(v)}
		for i := range s.Functions[fn].Parts {
			e.Parts[i] = uint8(v + 1)
		}
		out = append(out, e)
	}
	return out
}

func assembled(t *testing.T, shape workloads.Shape, seeds ...uint64) []*Program {
	t.Helper()
	var specs []*workloads.Spec
	for _, seed := range seeds {
		s, err := workloads.Generate(seed, shape)
		if err != nil {
			t.Fatal(err)
		}
		specs = append(specs, s)
	}
	ps, err := Assemble(t.Context(), specs...)
	if err != nil {
		t.Fatal(err)
	}
	return ps
}

// TestEvidence decodes and runs functions in random mixtures of versions.
func TestEvidence(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, p := range assembled(t, workloads.Correctness, 1, 2, 3, 4) {
		for range 25 {
			text := p.Image()
			version := make([]int, len(p.Slots))
			for fn, slot := range p.Slots {
				version[fn] = rng.IntN(len(p.Versions[fn]))
				at := text[slot.Addr-p.TextAddr:][:slot.Len]
				for i := range at {
					at[i] = trap
				}
				copy(at, p.Versions[fn][version[fn]])
			}
			root := rng.IntN(len(p.Slots))
			m := newMachine(p, text)
			if err := m.call(p.Slots[root].Addr); err != nil {
				t.Fatalf("seed %d: function %d: %v", p.Spec.Seed, root, err)
			}
			if got, want := m.records(), want(p.Spec, root, version); !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: function %d left %+v, want %+v", p.Spec.Seed, root, got, want)
			}
			if m.reg[x86asm.RSP] != dataBase+uint64(len(m.mem)) {
				t.Fatalf("seed %d: function %d left the stack at %#x", p.Spec.Seed, root, m.reg[x86asm.RSP])
			}
		}
	}
}

// TestLayout holds slots apart, and sees that odd places do occur.
func TestLayout(t *testing.T) {
	seeds := make([]uint64, 40)
	for i := range seeds {
		seeds[i] = uint64(i)
	}
	var line, pages, chunk, near int
	for _, p := range assembled(t, workloads.Correctness, seeds...) {
		at := p.TextAddr
		for _, s := range p.Slots {
			if s.Addr < at || s.Addr+uint64(s.Len) > p.TextAddr+p.TextLen {
				t.Fatalf("seed %d: slot at %#x of %d, after %#x", p.Spec.Seed, s.Addr, s.Len, at)
			}
			at = s.Addr + uint64(s.Len)
			cross := func(size uint64) bool { return s.Addr/size != (at-1)/size }
			if cross(64) {
				line++
			}
			if cross(page) {
				pages++
			}
			if cross(workloads.Chunk) {
				chunk++
			}
		}
		f := p.File()
		ends := [][2]uint64{{p.TextAddr, p.TextAddr + p.TextLen}}
		for _, r := range f.RegionList {
			if r.Addr == 0 {
				continue
			}
			for _, a := range []uint64{r.Addr, r.Other} {
				for _, e := range ends {
					if a < e[1] && e[0] < a+uint64(r.Pages)*page {
						t.Fatalf("seed %d: region at %#x overlaps", p.Spec.Seed, a)
					}
				}
				ends = append(ends, [2]uint64{a, a + uint64(r.Pages)*page})
				if a/workloads.Chunk == (p.TextAddr+p.TextLen-1)/workloads.Chunk {
					near++
				}
			}
		}
		if back, err := wire.DecodeSpec(f.Encode()); err != nil || !reflect.DeepEqual(back.PatchList, f.PatchList) {
			t.Fatalf("seed %d: file does not read back: %v", p.Spec.Seed, err)
		}
	}
	if line < 100 || pages < 40 || chunk < 5 || near < 20 {
		t.Errorf("%d slots cross lines, %d pages, %d chunks; %d windows near the text", line, pages, chunk, near)
	}
}

// TestVersionsDiffer: lengths and places of instructions must differ, or mixing
// would be harmless and go unseen.
func TestVersionsDiffer(t *testing.T) {
	pairs, length, starts := 0, 0, 0
	for _, p := range assembled(t, workloads.Correctness, 8, 9) {
		for fn := range p.Versions {
			for v := 1; v < len(p.Versions[fn]); v++ {
				a, b := p.Versions[fn][v-1], p.Versions[fn][v]
				pairs++
				if len(a) != len(b) {
					length++
				}
				if !reflect.DeepEqual(boundaries(t, a), boundaries(t, b)) {
					starts++
				}
			}
		}
	}
	if length < pairs*9/10 || starts < pairs*9/10 {
		t.Errorf("of %d pairs of versions %d differ in length, %d in instruction boundaries", pairs, length, starts)
	}
}

func boundaries(t *testing.T, code []byte) []int {
	t.Helper()
	var out []int
	for at := 0; at < len(code); {
		in, err := x86asm.Decode(code[at:], 64)
		if err != nil {
			t.Fatalf("at %d: %v", at, err)
		}
		out = append(out, at)
		at += in.Len
	}
	return out
}

func TestAssembleFails(t *testing.T) {
	s, err := workloads.Generate(1, workloads.Correctness)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := Assemble(t.Context(), s); err == nil {
		t.Error("assembled without an assembler")
	}
}

// TestStackChanges: what unwinding information is made of is where the code has
// its push and its pop.
func TestStackChanges(t *testing.T) {
	for seed := range uint64(20) {
		ps, err := Assemble(t.Context(), workloads.Wild(seed, workloads.WildParams{}))
		if err != nil {
			t.Fatal(err)
		}
		f := ps[0].File()
		for _, v := range f.VersionList {
			code := f.BlobBytes[v.Blob:]
			if code[v.Saved-1] != 0x53 || code[v.Restored-1] != 0x5b || code[v.Restored] != 0xc3 {
				t.Fatalf("seed %d function %d: %#x before %d, %#x before %d", seed, v.Function, code[v.Saved-1], v.Saved, code[v.Restored-1], v.Restored)
			}
		}
	}
}
