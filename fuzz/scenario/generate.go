// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"math"
	"slices"

	fuzz "github.com/google/gofuzz"

	w "github.com/wflp/wflp/fuzz/fuzzwire"
)

// Knobs bound what is generated; the zero value is the default, sizes are drawn
// from the seed then.
type Knobs struct {
	Threads int             // that are there from the start
	Ops     int             // of a list, on average
	Allow   func(Kind) bool // nil: all kinds that a plain machine can do
}

// gen draws from one seed. gofuzz fills operations with random numbers, which
// normal() makes mean something; what must fit together is put together here.
type gen struct {
	fuzz.Continue
	f     *fuzz.Fuzzer
	allow func(Kind) bool
	lists int // there will be
	// What threads are to meet at: few places, else they never do.
	slots, fns  int
	areas       []uint16
	unit, units int
	weights     []weighted
	total       int
	free        []uint16 // lists that no fork or spawn names yet
}

type weighted struct {
	make   func(g *gen) []Op
	weight int
}

func newGen(seed uint64) *gen {
	g := &gen{}
	g.f = fuzz.NewWithSeed(int64(seed)).NilChance(0)
	// A Continue can be had only inside a Fuzz call; keep the one of this.
	g.f.Funcs(func(_ *struct{ seeded bool }, c fuzz.Continue) { g.Continue = c })
	g.f.Fuzz(&struct{ seeded bool }{})
	return g
}

func (g *gen) in(lo, hi int) int { return lo + g.Intn(hi-lo+1) }
func (g *gen) one(n int) bool    { return g.Intn(n) == 0 }

// size draws from 1 to limit with every magnitude alike.
func (g *gen) size(limit int) int {
	return int(math.Exp(g.Float64() * math.Log(float64(limit)+0.99)))
}

func (g *gen) slot() uint16 {
	switch {
	case g.one(60):
		return w.SlotBad
	case g.one(40):
		return uint16(g.Intn(w.Slots))
	}
	return uint16(g.Intn(g.slots))
}

func (g *gen) fn() uint16 {
	if g.one(10) {
		return uint16(g.Intn(w.Cells))
	}
	return uint16(g.Intn(g.fns))
}

func (g *gen) prctl() uint16 {
	if g.one(8) {
		return 1
	}
	return 0
}

// place draws an area and units there; code now and then.
func (g *gen) place(code bool) (area, unit, count uint16) {
	area = g.areas[g.Intn(len(g.areas))]
	if code && g.one(3) {
		area = w.AreaCode
		return area, uint16(g.Intn((g.fns + 1) / 2)), uint16(g.size(2))
	}
	switch {
	case area == w.AreaHuge && g.one(2): // 2 MiB, where whole tables move and go
		return area, uint16(8 * g.Intn(2)), 8
	case g.one(6): // all, so that tables go with it
		return area, 0, w.Units
	}
	unit = uint16(g.unit + g.Intn(g.units))
	return area, unit, uint16(g.size(4))
}

// whole takes all of an area away, and its tables, and brings some of it back.
func (g *gen) whole() []Op {
	a := g.areas[g.Intn(len(g.areas))]
	u, n := uint16(0), uint16(w.Units)
	if a == w.AreaHuge && g.one(2) {
		u, n = uint16(8*g.Intn(2)), 8
	}
	from := uint16(g.unit)
	out := []Op{{Kind: w.OpMunmap, A: a, B: u, C: n}}
	if g.one(3) {
		out = append(out, Op{Kind: w.OpLoad, A: a, B: from, C: 1})
	}
	out = append(out, Op{Kind: w.OpMmap, A: a, B: u, C: n, D: uint16(g.Intn(w.MapKinds)), E: w.ProtRW})
	return append(out, Op{Kind: w.OpStore, A: a, B: from, C: uint16(g.size(4))})
}

// huge makes huge pages and small ones of each other.
func (g *gen) huge() []Op {
	u := uint16(8 * g.Intn(2))
	advice := []uint16{14, 25, 25, 4, 15}[g.Intn(5)]
	out := []Op{{Kind: w.OpMadvise, A: w.AreaHuge, B: u, C: 8, D: advice}}
	switch g.Intn(4) {
	case 0:
		out = append(out, Op{Kind: w.OpMprotect, A: w.AreaHuge, B: u + uint16(g.Intn(8)), C: 1, D: w.ProtR},
			Op{Kind: w.OpMprotect, A: w.AreaHuge, B: u, C: 8, D: w.ProtRW})
	case 1:
		out = append(out, Op{Kind: w.OpMremap, A: w.AreaHuge, B: u, C: 8, D: w.AreaHuge, E: 8 - u},
			Op{Kind: w.OpMmap, A: w.AreaHuge, B: u, C: 8, D: w.MapAnon, E: w.ProtRW})
	}
	return append(out, Op{Kind: w.OpStore, A: w.AreaHuge, B: u + uint16(g.Intn(8)), C: uint16(g.size(4))},
		Op{Kind: w.OpLoad, A: w.AreaHuge, B: u, C: 8})
}

func op(k Kind, a, b, c, d, e uint16) []Op { return []Op{{k, a, b, c, d, e}} }

// allKinds are the makers: mostly single operations, and some that follow each
// other as programs have them.
var allKinds = []struct {
	kind   Kind
	weight int
	make   func(g *gen) []Op
}{
	{w.OpCreate, 4, (*gen).patch},
	{w.OpCreate, 1, func(g *gen) []Op {
		flag := uint16(0)
		if g.one(20) {
			flag = 1
		}
		return op(w.OpCreate, g.slot(), flag, 0, 0, g.prctl())
	}},
	{w.OpWrite, 2, func(g *gen) []Op { return op(w.OpWrite, g.slot(), g.fn(), 0, 0, 0) }},
	{w.OpRead, 1, func(g *gen) []Op { return op(w.OpRead, g.slot(), g.fn(), 0, 0, 0) }},
	{w.OpSeal, 2, func(g *gen) []Op { return op(w.OpSeal, g.slot(), 0, 0, 0, g.prctl()) }},
	{w.OpEnter, 8, (*gen).enter},
	{w.OpRetire, 1, func(g *gen) []Op { return op(w.OpRetire, g.slot(), 0, 0, 0, g.prctl()) }},
	{w.OpRebase, 1, (*gen).rebase},
	{w.OpStat, 1, func(g *gen) []Op { return op(w.OpStat, g.slot(), 0, 0, 0, g.prctl()) }},
	{w.OpPoll, 1, func(g *gen) []Op { return op(w.OpPoll, g.slot(), uint16(g.Intn(4)), 0, 0, 0) }},
	{w.OpPull, 4, func(g *gen) []Op {
		return op(w.OpPull, g.slot(), uint16(g.Intn(w.PullForms)), uint16(max(g.Intn(7)-3, 0)), 0, g.prctl())
	}},
	{w.OpRegister, 1, func(g *gen) []Op { return op(w.OpRegister, uint16(min(g.Intn(4), 1)), 0, 0, 0, g.prctl()) }},
	{w.OpClose, 2, func(g *gen) []Op { return op(w.OpClose, g.slot(), 0, 0, 0, 0) }},
	{w.OpDup, 1, func(g *gen) []Op { return op(w.OpDup, g.slot(), g.slot(), 0, 0, 0) }},
	{w.OpWho, 2, func(*gen) []Op { return op(w.OpWho, 0, 0, 0, 0, 0) }},
	{w.OpMisuse, 1, func(g *gen) []Op {
		return op(w.OpMisuse, g.slot(), uint16(g.Intn(w.MisuseKinds)), uint16(g.Intn(4)), uint16(g.Intn(16)), g.prctl())
	}},
	{w.OpLoad, 10, func(g *gen) []Op { a, u, c := g.place(g.one(4)); return op(w.OpLoad, a, u, c, 0, 0) }},
	{w.OpStore, 8, func(g *gen) []Op { a, u, c := g.place(false); return op(w.OpStore, a, u, c, 0, 0) }},
	{w.OpExec, 10, func(g *gen) []Op { return op(w.OpExec, 0, g.fn(), uint16(g.size(4)), 0, 0) }},
	{w.OpMmap, 4, (*gen).remap},
	{w.OpMunmap, 1, (*gen).whole},
	{w.OpMadvise, 1, (*gen).huge},
	{w.OpMunmap, 2, func(g *gen) []Op { a, u, c := g.place(true); return op(w.OpMunmap, a, u, c, 0, 0) }},
	{w.OpMprotect, 3, (*gen).protect},
	{w.OpMremap, 2, func(g *gen) []Op {
		a, u, c := g.place(true)
		to, v, _ := g.place(false)
		return op(w.OpMremap, a, u, c, to, v)
	}},
	{w.OpMadvise, 4, func(g *gen) []Op {
		a, u, c := g.place(true)
		return op(w.OpMadvise, a, u, c, advices[g.Intn(len(advices))], 0)
	}},
	{w.OpMlock, 1, func(g *gen) []Op {
		a, u, c := g.place(true)
		return op(w.OpMlock, a, u, c, uint16(g.Intn(2)), 0)
	}},
	{w.OpTruncate, 1, func(g *gen) []Op { a, u, _ := g.place(false); return op(w.OpTruncate, a, u, 0, 0, 0) }},
	{w.OpFork, 1, func(g *gen) []Op { return op(w.OpFork, g.list(), 0, 0, 0, 0) }},
	{w.OpSpawn, 1, func(g *gen) []Op { return op(w.OpSpawn, g.list(), 0, 0, 0, 0) }},
	{w.OpVfork, 1, func(g *gen) []Op { return op(w.OpVfork, uint16(g.Intn(2)), 0, 0, 0, 0) }},
	{w.OpSleep, 4, (*gen).sleep},
	{w.OpSleep, 3, (*gen).flicker},
	{w.OpSignal, 1, func(g *gen) []Op { return op(w.OpSignal, uint16(g.Intn(g.lists)), 0, 0, 0, 0) }},
	{w.OpMeet, 2, func(g *gen) []Op { return op(w.OpMeet, uint16(g.Intn(4)), uint16(g.in(2, 4)), 0, 0, 0) }},
	{w.OpYield, 1, func(*gen) []Op { return op(w.OpYield, 0, 0, 0, 0, 0) }},
	{w.OpTaskRead, 1, func(g *gen) []Op { return op(w.OpTaskRead, uint16(g.Intn(g.lists)), g.fn(), 0, 0, 0) }},
	{w.OpTaskWrite, 1, func(g *gen) []Op { return op(w.OpTaskWrite, uint16(g.Intn(g.lists)), g.fn(), 0, 0, 0) }},
	{w.OpVMRead, 1, func(g *gen) []Op { return op(w.OpVMRead, 0, g.fn(), 0, 0, 0) }},
	{w.OpSystem, 1, func(g *gen) []Op { return op(w.OpSystem, uint16(g.Intn(w.SystemKinds)), 0, 0, 0, 0) }},
	{w.OpTrace, 1, func(g *gen) []Op {
		return op(w.OpTrace, uint16(g.Intn(g.lists)), g.fn(), uint16(g.Intn(2)), 0, 0)
	}},
	{w.OpFileWrite, 1, func(g *gen) []Op { a, u, _ := g.place(false); return op(w.OpFileWrite, a, u, 0, 0, 0) }},
	{w.OpFileRead, 1, func(g *gen) []Op { a, u, _ := g.place(false); return op(w.OpFileRead, a, u, 0, 0, 0) }},
	{w.OpUserfault, 1, (*gen).missing},
	{w.OpUserfault, 1, (*gen).guarded},
	{w.OpBrk, 2, (*gen).heap},
	{w.OpMremap, 2, (*gen).tables},
	{w.OpMadvise, 1, (*gen).swapped},
	{w.OpFail, 2, (*gen).fail},
	{w.OpHotplug, 1, func(g *gen) []Op { return op(w.OpHotplug, 1, 0, 0, 0, 0) }},
}

// rare kinds cost much, or need a machine that has been made for them; each is
// in few scenarios only.
var rare = map[Kind]int{
	w.OpHotplug: 40, w.OpFail: 8, w.OpSystem: 4, w.OpTrace: 4, w.OpVfork: 4, w.OpFork: 2,
	w.OpMisuse: 3, w.OpUserfault: 3, w.OpRebase: 3, w.OpTaskWrite: 4, w.OpTruncate: 3, w.OpMlock: 3,
}

func (g *gen) list() uint16 {
	if len(g.free) == 0 {
		return uint16(g.Intn(g.lists))
	}
	l := g.free[0]
	g.free = g.free[1:]
	return l
}

// patch is a new view as libraries make one: written, sealed, and used.
func (g *gen) patch() []Op {
	s := uint16(g.Intn(g.slots))
	out := op(w.OpCreate, s, 0, 0, 0, g.prctl())
	for range g.size(4) {
		out = append(out, Op{Kind: w.OpWrite, A: s, B: g.fn()})
	}
	if !g.one(10) {
		out = append(out, Op{Kind: w.OpSeal, A: s, E: g.prctl()})
	}
	switch g.Intn(5) {
	case 0, 1:
		out = append(out, Op{Kind: w.OpEnter, A: s})
	case 2:
		out = append(out, Op{Kind: w.OpPull, A: s, B: uint16(g.Intn(w.PullForms))})
	}
	if g.one(3) {
		out = append(out, Op{Kind: w.OpExec, B: g.fn(), C: uint16(g.size(3))})
	}
	return out
}

func (g *gen) enter() []Op {
	s := g.slot()
	if g.one(5) {
		s = w.SlotBase
	}
	out := op(w.OpEnter, s, 0, 0, 0, g.prctl())
	if g.one(40) {
		out[0].B = 1
	}
	if g.one(2) {
		out = append(out, Op{Kind: w.OpExec, B: g.fn(), C: uint16(g.size(3))})
	}
	return out
}

// rebase works only if nobody is in the base: who tries it sends for the others.
func (g *gen) rebase() []Op {
	s := uint16(g.Intn(g.slots))
	var out []Op
	if !g.one(4) {
		out = append(out, Op{Kind: w.OpEnter, A: s}, Op{Kind: w.OpPull, A: s})
	}
	out = append(out, Op{Kind: w.OpRebase, A: s})
	if g.one(2) {
		out = append(out, Op{Kind: w.OpExec, B: g.fn(), C: uint16(g.size(4))})
	}
	return out
}

func (g *gen) remap() []Op {
	a, u, c := g.place(true)
	prot := uint16(w.ProtRW)
	if a == w.AreaCode {
		prot = w.ProtRX
	}
	if g.one(8) {
		prot = uint16(g.Intn(w.ProtKinds))
	}
	out := op(w.OpMmap, a, u, c, uint16(g.Intn(w.MapKinds)), prot)
	if g.one(3) && a != w.AreaCode {
		out = append(out, Op{Kind: w.OpStore, A: a, B: u, C: c})
	}
	return out
}

// protect takes rights away and mostly gives them back, else all would be lost soon.
func (g *gen) protect() []Op {
	a, u, c := g.place(true)
	usual := uint16(w.ProtRW)
	if a == w.AreaCode {
		usual = w.ProtRX
	}
	out := op(w.OpMprotect, a, u, c, uint16(g.Intn(w.ProtKinds)), 0)
	if !g.one(4) {
		if g.one(2) {
			out = append(out, Op{Kind: w.OpLoad, A: a, B: u, C: c})
		}
		out = append(out, Op{Kind: w.OpMprotect, A: a, B: u, C: c, D: usual})
	}
	return out
}

func (g *gen) sleep() []Op {
	us := uint16(g.size(300))
	return op(w.OpSleep, us, uint16(g.Intn(w.SleepKinds)), uint16(min(g.Intn(4), 1)), uint16(g.Intn(4)), 0)
}

// asleep is a way to sleep that is none to be awake.
func (g *gen) asleep() uint16 {
	for {
		if how := uint16(g.Intn(w.SleepKinds)); how != w.SleepSpin {
			return how
		}
	}
}

// missing makes memory that others wait for, asleep in a page fault.
func (g *gen) missing() []Op {
	a, u, c := g.areas[g.Intn(len(g.areas))], uint16(g.unit), uint16(g.size(4))
	if g.one(2) { // where those look that sleep offline in a fault
		a, u, c = w.AreaNear, 0, w.Units
	}
	return []Op{{Kind: w.OpMadvise, A: a, B: u, C: c, D: 4},
		{Kind: w.OpUserfault, A: a, B: u, C: c, D: uint16(g.in(1, 15))},
		{Kind: w.OpLoad, A: a, B: u, C: c}}
}

// guarded has memory that nobody is to write for a while, just written and perhaps
// seen from a view.
func (g *gen) guarded() []Op {
	a, u, c := g.areas[g.Intn(len(g.areas))], uint16(g.unit), uint16(g.size(4))
	out := []Op{{Kind: w.OpStore, A: a, B: u, C: c}}
	if g.one(2) {
		out = append(out, Op{Kind: w.OpEnter, A: uint16(g.Intn(g.slots))}, Op{Kind: w.OpStore, A: a, B: u, C: c})
	}
	return append(out, Op{Kind: w.OpUserfault, A: a, B: u, C: c, D: uint16(g.in(1, 15)), E: w.UserfaultProtect},
		Op{Kind: w.OpStore, A: a, B: u, C: c}, Op{Kind: w.OpLoad, A: a, B: u, C: c})
}

// heap grows and shrinks, seen from one view and then another.
func (g *gen) heap() []Op {
	out := []Op{{Kind: w.OpBrk, A: uint16(g.Intn(w.BrkKinds)), B: uint16(g.size(8))}}
	if g.one(2) {
		out = append(out, Op{Kind: w.OpEnter, A: uint16(g.Intn(g.slots))},
			Op{Kind: w.OpBrk, A: w.BrkLook}, Op{Kind: w.OpBrk, A: w.BrkShrink, B: uint16(g.size(8))},
			Op{Kind: w.OpBrk, A: w.BrkGrow, B: uint16(g.size(8))})
	}
	return out
}

// tables moves 2 MiB of small pages, that is, a table and not what is in it, away
// and perhaps back, and looks at where they were.
func (g *gen) tables() []Op {
	u := uint16(8 * g.Intn(2))
	to, at := 8-u, u+uint16(g.Intn(8))
	out := []Op{{Kind: w.OpMmap, A: w.AreaHuge, C: w.Units, D: uint16(g.Intn(w.MapKinds)), E: w.ProtRW},
		{Kind: w.OpMadvise, A: w.AreaHuge, C: w.Units, D: 15}, // small pages
		{Kind: w.OpStore, A: w.AreaHuge, B: u, C: 8}, {Kind: w.OpLoad, A: w.AreaHuge, B: at, C: 1}}
	if g.one(2) {
		s := uint16(g.Intn(g.slots))
		out = append(out, Op{Kind: w.OpEnter, A: s}, Op{Kind: w.OpLoad, A: w.AreaHuge, B: u, C: 8})
	}
	for range g.in(1, 3) {
		out = append(out, Op{Kind: w.OpMunmap, A: w.AreaHuge, B: to, C: 8}, // and its table
			Op{Kind: w.OpMremap, A: w.AreaHuge, B: u, C: 8, D: w.AreaHuge, E: to},
			Op{Kind: w.OpLoad, A: w.AreaHuge, B: at, C: 1}, // nothing is there
			Op{Kind: w.OpLoad, A: w.AreaHuge, B: to, C: 8}, Op{Kind: w.OpStore, A: w.AreaHuge, B: to + at%8, C: 1})
		u, to = to, u
		at = u + at%8
	}
	return append(out, Op{Kind: w.OpMmap, A: w.AreaHuge, B: to, C: 8, D: uint16(g.Intn(w.MapKinds)), E: w.ProtRW})
}

// swapped writes, has it taken away from memory, and comes back to it.
func (g *gen) swapped() []Op {
	a, u, c := g.place(false)
	out := []Op{{Kind: w.OpStore, A: a, B: u, C: c}, {Kind: w.OpMadvise, A: a, B: u, C: c, D: 21}}
	if g.one(2) { // clean again once it has been read: what is not marked dirty is lost
		out = append(out, Op{Kind: w.OpLoad, A: a, B: u, C: c})
	}
	if g.one(2) {
		out = append(out, Op{Kind: w.OpStore, A: a, B: u, C: c}, Op{Kind: w.OpMadvise, A: a, B: u, C: c, D: 21})
	}
	if g.one(3) {
		out = append(out, Op{Kind: w.OpSystem, A: w.SystemSwapper})
	}
	return append(out, Op{Kind: w.OpLoad, A: a, B: u, C: c})
}

// flicker goes offline and online often, awake and asleep, and looks where it is.
func (g *gen) flicker() []Op {
	return append(op(w.OpRegister, 1, 0, 0, 0, 0), g.flickerAt(g.fn())...)
}

func (g *gen) flickerAt(fn uint16) (out []Op) {
	for range g.in(1, 6) {
		how := uint16(g.Intn(w.SleepKinds))
		us := uint16(g.size(60))
		if g.one(2) {
			how, us = w.SleepSpin, uint16(g.in(10, 199))
		}
		out = append(out, Op{Kind: w.OpSleep, A: us, B: how, C: 1},
			Op{Kind: w.OpExec, B: fn, C: 1})
		if g.one(2) { // to see whether it stays where it is
			out = append(out, Op{Kind: w.OpYield}, Op{Kind: w.OpExec, B: fn, C: 1})
		}
		if g.one(2) {
			out = append(out, Op{Kind: w.OpWho})
		}
		if g.one(2) { // asleep, and not to be moved
			out = append(out, Op{Kind: w.OpSleep, A: uint16(g.size(60)), B: g.asleep()},
				Op{Kind: w.OpExec, B: fn, C: 1})
		}
	}
	return out
}

func (g *gen) fail() []Op {
	out := op(w.OpFail, uint16(g.size(30)), 0, 0, 0, 0)
	s := g.slot()
	a, u, c := g.place(true)
	next := []Op{
		{Kind: w.OpCreate, A: s}, {Kind: w.OpWrite, A: s, B: g.fn()}, {Kind: w.OpSeal, A: s},
		{Kind: w.OpSeal, A: s}, {Kind: w.OpPull, A: s}, {Kind: w.OpRebase, A: s},
		{Kind: w.OpMunmap, A: a, B: u, C: c}, {Kind: w.OpMprotect, A: a, B: u, C: c, D: w.ProtRW},
		{Kind: w.OpMremap, A: a, B: u, C: c, D: a, E: u + 8},
	}
	return append(out, next[g.Intn(len(next))])
}

// duel makes two lists that meet again and again, each time at one place: one
// changes it, the other uses it, in a view.
func (g *gen) duel() (a, b []Op) {
	b = []Op{{Kind: w.OpRegister, A: 1}}
	first := g.patch()
	for range g.in(2, 8) {
		meet := Op{Kind: w.OpMeet, A: uint16(4 + g.Intn(12)), B: 2}
		a, b = append(a, meet), append(b, meet)
		if g.one(3) {
			a = append(a, g.patch()...)
		}
		s, area, unit, n := uint16(g.Intn(g.slots)), g.areas[g.Intn(len(g.areas))], uint16(g.unit), uint16(g.size(4))
		if g.one(2) {
			area = w.AreaNear
		}
		var use []Op
		switch g.Intn(7) {
		case 0, 1, 2: // mappings
			for range g.in(1, 3) {
				switch g.Intn(5) {
				case 0:
					a = append(a, Op{Kind: w.OpMunmap, A: area, B: unit, C: n}, Op{Kind: w.OpMmap, A: area, B: unit, C: n, D: uint16(g.Intn(w.MapKinds)), E: w.ProtRW})
				case 1:
					a = append(a, Op{Kind: w.OpMprotect, A: area, B: unit, C: n, D: uint16(g.Intn(2))}, Op{Kind: w.OpLoad, A: area, B: unit, C: 1},
						Op{Kind: w.OpMprotect, A: area, B: unit, C: n, D: w.ProtRW})
				case 2:
					a = append(a, Op{Kind: w.OpMadvise, A: area, B: unit, C: n, D: 4})
				case 3:
					a = append(a, Op{Kind: w.OpMremap, A: area, B: unit, C: 1, D: area, E: unit + 8}, Op{Kind: w.OpMmap, A: area, B: unit, C: 1, E: w.ProtRW})
				default:
					a = append(a, Op{Kind: w.OpMmap, A: area, B: unit, C: n, D: uint16(g.Intn(w.MapKinds)), E: w.ProtRW})
				}
				a = append(a, Op{Kind: w.OpStore, A: area, B: unit, C: n})
			}
			use = []Op{{Kind: w.OpLoad, A: area, B: unit, C: n}, {Kind: w.OpStore, A: area, B: unit, C: n}, {Kind: w.OpLoad, A: area, B: unit, C: 1}}
		case 3, 4: // threads that are moved
			// To somewhere else than where they are, just when they are offline:
			// between two views, as a pull to where a thread is does nothing.
			fn := g.fn()
			views := []uint16{s, uint16((int(s) + 1) % w.Slots)}
			a = a[:len(a)-1]
			for _, v := range views {
				a = append(a, Op{Kind: w.OpCreate, A: v}, Op{Kind: w.OpWrite, A: v, B: fn}, Op{Kind: w.OpSeal, A: v})
			}
			a = append(a, meet)
			for i := range g.in(4, 20) {
				a = append(a, Op{Kind: w.OpPull, A: views[i%2], B: uint16(g.Intn(w.PullForms))})
				if g.one(6) { // the other one's pages, while somebody may use them
					a = append(a, Op{Kind: w.OpExec, B: fn, C: 1}, Op{Kind: w.OpStat, A: views[i%2]})
				}
			}
			for range g.in(2, 5) {
				b = append(b, g.flickerAt(fn)...)
			}
			continue
		case 5: // code that comes and goes
			u := g.fn() / 2
			a = append(a, Op{Kind: w.OpMmap, A: w.AreaCode, B: u, C: 1, D: w.MapPrivate, E: w.ProtRX})
			use = []Op{{Kind: w.OpExec, B: 2 * u, C: 2}, {Kind: w.OpWrite, A: s, B: 2 * u}, {Kind: w.OpTaskRead, A: uint16(g.Intn(g.lists)), B: 2 * u}}
		default: // views that do
			a = append(a, g.patch()...)
			use = []Op{{Kind: w.OpSeal, A: s}, {Kind: w.OpEnter, A: s}, {Kind: w.OpExec, B: g.fn(), C: 2}, {Kind: w.OpWrite, A: s, B: g.fn()}, {Kind: w.OpClose, A: s}}
		}
		for range g.in(2, 8) {
			b = append(b, use[g.Intn(len(use))])
		}
	}
	return append(first, a...), append(append([]Op{}, b[0], Op{Kind: w.OpEnter, A: first[0].A}), b[1:]...)
}

func (g *gen) step() []Op {
	n := g.Intn(g.total)
	for _, x := range g.weights {
		if n -= x.weight; n < 0 {
			return x.make(g)
		}
	}
	return nil
}

// draw sets what this scenario is about: places, and kinds with their weights.
// Not every kind is in every scenario: what is left out makes room for the
// others to meet.
func (g *gen) draw(k Knobs) {
	g.allow = k.Allow
	g.slots = g.in(1, 5)
	g.fns = g.size(w.Cells)
	g.units = g.size(6)
	g.unit = g.Intn(w.Units - g.units + 1)
	for a := range uint16(w.DataAreas) {
		if a == w.AreaNear && !g.one(6) || g.one(3) {
			g.areas = append(g.areas, a)
		}
	}
	if len(g.areas) == 0 {
		g.areas = []uint16{w.AreaNear}
	}
	off := map[Kind]bool{}
	for _, kind := range Kinds() {
		if n, ok := rare[kind]; ok {
			off[kind] = !g.one(n)
		} else {
			off[kind] = g.one(5)
		}
	}
	// Without these there would be nothing to see.
	for _, kind := range []Kind{w.OpCreate, w.OpEnter, w.OpExec, w.OpLoad, w.OpStore} {
		off[kind] = false
	}
	for _, x := range allKinds {
		if off[x.kind] || k.Allow != nil && !k.Allow(x.kind) {
			continue
		}
		weight := x.weight * g.in(1, 3)
		if g.one(6) {
			weight *= 4
		}
		g.weights = append(g.weights, weighted{x.make, weight})
		g.total += weight
	}
}

// Generate makes the scenario of a seed.
func Generate(seed uint64, k Knobs) *Scenario {
	g := newGen(seed)
	g.draw(k)
	s := &Scenario{Format: Format, Seed: seed, WatchdogMS: 5000}
	threads := k.Threads
	if threads <= 0 {
		threads = g.in(1, 5)
	}
	more := g.Intn(3)
	g.lists = min(threads+more, w.MaxLists)
	for i := threads; i < g.lists; i++ {
		g.free = append(g.free, uint16(i))
	}
	for i := range s.Areas {
		s.Areas[i] = []int{w.MapAnon, w.MapAnon, w.MapShared, w.MapPrivate}[g.Intn(4)]
	}
	mean := k.Ops
	if mean <= 0 {
		mean = g.in(8, 60)
	}
	for i := range g.lists {
		l := List{Start: i < threads}
		if g.one(3) { // as a thread of a program that uses the library
			l.Ops = append(l.Ops, Op{Kind: w.OpRegister, A: 1})
		}
		for n := g.in(mean/2+1, mean*3/2+1); len(l.Ops) < n; {
			l.Ops = append(l.Ops, g.step()...)
		}
		s.Lists = append(s.Lists, l)
	}
	// What no operation names would never run.
	for i := threads; i < g.lists; i++ {
		kind := Kind(w.OpSpawn)
		if g.one(3) {
			kind = w.OpFork
		}
		if k.Allow == nil || k.Allow(kind) {
			l := &s.Lists[g.Intn(i)]
			at := g.Intn(len(l.Ops) + 1)
			l.Ops = slices.Insert(l.Ops, at, Op{Kind: kind, A: uint16(i)})
		}
		s.Lists[i].Ops = append([]Op{{Kind: w.OpExec, B: g.fn(), C: uint16(g.size(4))}}, s.Lists[i].Ops...)
	}
	if threads > 1 && g.one(2) && k.Allow == nil {
		a, b := g.duel()
		s.Lists[0].Ops = append(a, s.Lists[0].Ops...)
		s.Lists[1].Ops = append(b, s.Lists[1].Ops...)
	}
	// Some views to start with, made by whoever comes first.
	s.Lists[0].Ops = append(g.patch(), s.Lists[0].Ops...)
	s.normalise()
	return s
}
