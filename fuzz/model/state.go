// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"

	w "github.com/wflp/wflp/fuzz/fuzzwire"
)

// rec is a record with what the trace says elsewhere.
type rec struct {
	w.Record
	span
	n    int // index of all records, by time of begin
	list int
	in   int // index in its list
	p    *proc
	t    *thread
}

// proc is a process: an address space, and descriptors.
type proc struct {
	parent *proc
	fork   span
	by     *rec // the fork
	units  [w.Areas][w.Units]*unit
	fds    map[int32]*register[fdVal]
	views  []*view
}

// unit is a place in an address space. Its mapping and its protection are
// registers of their own: what is allowed by both, each by itself, is allowed.
type unit struct {
	mapping register[mapVal]
	prot    register[protVal]
	zaps    []span // changes for which translations may be stale until they are over
}

// thread is what runs a list.
type thread struct {
	list  int
	p     *proc
	alive span // from when it may be there; certainly between its records
	first uint64
	last  uint64 // end of its last record
	main  bool
	view  register[viewVal]
	word  register[bool] // registered
	used  bool
}

// view is a view, from the create that made it.
type view struct {
	n       int
	p       *proc
	by      *rec
	id      uint64
	sealed  register[bool]
	retired register[bool]
	cells   [w.Cells]register[val]
	priv    [w.CodeUnits]register[privVal]
}

// object is what is mapped: content that moves with the mapping. One of a shared
// file stands for the place in the file.
type object struct {
	kind  int // fuzzwire.Map…
	area  int // of the file
	unit  int
	cells [2]register[val]
	code  bool
	zaps  []span // truncation of the file and the like
	cuts  []span // moments of no file there
	child map[*proc]*object
}

// Values that are not constants are asked for when they are wanted, because
// what they depend on may be written at the same time.

// fdVal: a view, none, or what another descriptor was.
type fdVal struct {
	v    *view
	p    *proc // copy of fd of p at the write's span
	fd   int32
	copy bool
}

// mapVal: an object, nothing, or what was mapped elsewhere.
type mapVal struct {
	o          *object
	p          *proc
	area, unit int
	copy, fork bool
}

type protVal struct {
	prot       int
	p          *proc
	area, unit int
	copy       bool
}

// viewVal: some views (nil is the base), or where another thread was.
type viewVal struct {
	vs []*view
	t  *thread // copy
}

// privVal: yes, no, or as in the view that a thread was in.
type privVal struct {
	yes  bool
	t    *thread
	copy bool
}

// val is the content of a word or a function.
type val struct {
	how  int
	c    uint64
	o    *object // howFile, howObject
	t    *thread // howSeen, howViewOf
	v    *view
	p    *proc
	cell int
	poke *poke
}

const (
	howConst  = iota
	howFile   // what the file has when one reads
	howObject // what object o's cell had at the write's span
	howFork   // the same, but what was the file's then is what the file has when one reads
	howSeen   // what thread t of p would have executed at the write's span
	howViewOf // what the views that t was in had of their own at the write's span
	howInView // what a thread in v would have executed at the write's span
	howPoke   // what was there, but for bytes a debugger saw and replaced
)

type poke struct {
	t    *thread
	cell int
	to   uint64
	v    *view   // of v, or
	o    *object // of o
	in   int     // cell of o
}

func newProc(parent *proc) *proc {
	p := &proc{parent: parent, fds: map[int32]*register[fdVal]{}}
	for a := range p.units {
		for u := range unitsOf(a) {
			p.units[a][u] = &unit{}
		}
	}
	return p
}

func unitsOf(area int) int {
	if area == w.AreaCode {
		return w.CodeUnits
	}
	return w.Units
}

func (p *proc) fd(fd int32) *register[fdVal] {
	r := p.fds[fd]
	if r == nil {
		r = &register[fdVal]{}
		if p.parent != nil {
			r.add(p.fork, true, p.by.n, fdVal{p: p.parent, fd: fd, copy: true})
		} else {
			r.add(span{}, true, -1, fdVal{})
		}
		p.fds[fd] = r
	}
	return r
}

// effective is the moment as of which a read within s may know what is at a
// place: an operation that is under way there may have left translations that
// are older than it.
func effective(s span, zaps ...[]span) uint64 {
	eff := s.b
	for _, zs := range zaps {
		for _, z := range zs {
			if z.b < s.e && z.e > s.b && z.b < eff {
				eff = z.b
			}
		}
	}
	return eff
}

// asks guards against values that depend on each other in a circle: they add
// nothing that the others of the circle do not.
type asks map[any]bool

func (a asks) enter(key any) bool {
	if a[key] {
		return false
	}
	a[key] = true
	return true
}

// descriptor tells what a descriptor of p may be within s.
func (m *model) descriptor(p *proc, fd int32, s span, reader int, seen asks) (vs []*view, none bool) {
	if fd < w.FirstFD {
		return nil, true
	}
	for _, x := range p.fd(fd).at(s, s.b, reader) {
		switch {
		case !seen.enter(x):
		case x.v.copy:
			v2, n2 := m.descriptor(x.v.p, x.v.fd, x.span, x.by, seen)
			none = none || n2
			for _, v := range v2 {
				if !slices.Contains(vs, v) {
					vs = append(vs, v)
				}
			}
		case x.v.v == nil:
			none = true
		case !slices.Contains(vs, x.v.v):
			vs = append(vs, x.v.v)
		}
	}
	return vs, none
}

// mapped tells what may be mapped at a place within s; nil is nothing.
func (m *model) mapped(p *proc, area, u int, s span, reader int, seen asks) []*object {
	at := p.units[area][u]
	var out []*object
	add := func(o *object) {
		if !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	for _, x := range at.mapping.at(s, effective(s, at.zaps), reader) {
		switch {
		case !seen.enter(x):
		case x.v.copy:
			for _, o := range m.mapped(x.v.p, x.v.area, x.v.unit, x.span, x.by, seen) {
				if x.v.fork {
					o = m.inChild(o, p)
				}
				add(o)
			}
		default:
			add(x.v.o)
		}
	}
	return out
}

// inChild is what a forked child has of an object of its parent.
func (m *model) inChild(o *object, p *proc) *object {
	if o == nil || o.kind == w.MapShared {
		return o
	}
	c := o.child[p]
	if c == nil {
		c = &object{kind: o.kind, area: o.area, unit: o.unit, code: o.code, zaps: o.zaps, cuts: o.cuts}
		if o.child == nil {
			o.child = map[*proc]*object{}
		}
		o.child[p] = c
		for i := range c.cells {
			if o.code {
				// The cell's place is known where it is mapped only; see cellIn.
				c.cells[i].add(p.fork, true, p.by.n, val{how: howSeen, p: p.parent, t: p.by.t, o: o, cell: i})
			} else {
				c.cells[i].add(p.fork, true, p.by.n, val{how: howFork, o: o, cell: i})
			}
			if m.wiped {
				c.cells[i].add(p.fork, false, p.by.n, val{})
			}
		}
	}
	return c
}

func (m *model) prots(p *proc, area, u int, s span, reader int, seen asks) []int {
	at := p.units[area][u]
	var out []int
	for _, x := range at.prot.at(s, effective(s, at.zaps), reader) {
		switch {
		case !seen.enter(x):
		case x.v.copy:
			for _, n := range m.prots(x.v.p, x.v.area, x.v.unit, x.span, x.by, seen) {
				if !slices.Contains(out, n) {
					out = append(out, n)
				}
			}
		case !slices.Contains(out, x.v.prot):
			out = append(out, x.v.prot)
		}
	}
	return out
}

// viewsOf tells in which views a thread may be within s.
func (m *model) viewsOf(t *thread, s span, reader int, seen asks) []*view {
	var out []*view
	add := func(v *view) {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	for _, x := range t.view.at(s, s.b, reader) {
		switch {
		case !seen.enter(x):
		case x.v.t != nil:
			for _, v := range m.viewsOf(x.v.t, x.span, x.by, seen) {
				add(v)
			}
		default:
			for _, v := range x.v.vs {
				add(v)
			}
		}
	}
	return out
}

// private tells whether a view may have, and may not have, a page of its own.
func (m *model) private(v *view, u int, s span, reader int, seen asks) (yes, no bool) {
	if v == nil {
		return false, true
	}
	eff := effective(s, v.p.units[w.AreaCode][u].zaps)
	for _, x := range v.priv[u].at(s, eff, reader) {
		switch {
		case !seen.enter(x):
		case x.v.copy:
			for _, o := range m.viewsOf(x.v.t, x.span, x.by, seen) {
				y, n := m.private(o, u, x.span, x.by, seen)
				yes, no = yes || y, no || n
			}
		case x.v.yes:
			yes = true
		default:
			no = true
		}
	}
	return yes, no
}

// values collects what may be read.
type values struct {
	list []uint64
	any  bool // too many to list
}

func (vs *values) add(n uint64) {
	if !slices.Contains(vs.list, n) {
		vs.list = append(vs.list, n)
	}
}

// have tells whether n may be read.
func (vs *values) have(n uint64) bool { return vs.any || slices.Contains(vs.list, n) }

// inObject tells what a cell of an object may hold within s.
func (m *model) inObject(o *object, cell int, s span, eff uint64, reader int, seen asks, out *values) {
	eff = min(eff, effective(s, o.zaps))
	m.resolve(o.cells[cell].at(s, eff, reader), s, eff, reader, seen, out)
}

// fileRead is what a file has when one reads it.
type fileRead struct {
	w   *write[val]
	s   span
	eff uint64
}

func (m *model) resolve(ws []*write[val], s span, eff uint64, reader int, seen asks, out *values) {
	for _, x := range ws {
		key := any(x)
		if x.v.how == howFile || x.v.how == howFork {
			// What it stands for depends on when it is asked for.
			key = fileRead{x, s, eff}
		}
		if !seen.enter(key) {
			continue
		}
		switch v := x.v; v.how {
		case howConst:
			out.add(v.c)
		case howFile:
			m.inObject(v.o, v.cell, s, eff, reader, seen, out)
		case howObject:
			m.inObject(v.o, v.cell, x.span, x.b, x.by, seen, out)
		case howFork:
			at := min(x.b, effective(x.span, v.o.zaps))
			for _, y := range v.o.cells[v.cell].at(x.span, at, x.by) {
				// A page that was not copied is the file's in the child, too.
				if y.v.how == howFile || y.v.how == howFork {
					m.resolve([]*write[val]{y}, s, eff, reader, seen, out)
				} else {
					m.resolve([]*write[val]{y}, x.span, at, x.by, seen, out)
				}
			}
		case howSeen:
			m.seenIn(v, x.span, x.by, seen, out)
		case howViewOf:
			for _, o := range m.viewsOf(v.t, x.span, x.by, asks{}) {
				if o != nil {
					m.resolve(o.cells[v.cell].at(x.span, x.b, x.by), x.span, x.b, x.by, seen, out)
				}
			}
		case howInView:
			m.executed(v.p, []*view{v.v}, v.cell, x.span, x.by, seen, out)
		case howPoke:
			m.poked(x, out)
		}
	}
}

// seenIn is the content of an object of code in a forked child: what the thread
// that forked saw where the object was mapped.
func (m *model) seenIn(v val, s span, reader int, seen asks, out *values) {
	there := false
	for u := range w.CodeUnits {
		if slices.Contains(m.mapped(v.p, w.AreaCode, u, s, reader, asks{}), v.o) {
			there = true
			m.executed(v.p, m.viewsOf(v.t, s, reader, asks{}), 2*u+v.cell, s, reader, seen, out)
		}
	}
	if !there {
		m.inObject(v.o, v.cell, s, s.b, reader, seen, out)
	}
}

// executed tells what function cell may return to threads of p in these views.
func (m *model) executed(p *proc, in []*view, cell int, s span, reader int, seen asks, out *values) {
	u := cell / 2
	eff := effective(s, p.units[w.AreaCode][u].zaps)
	base := false
	for _, v := range in {
		yes, no := m.private(v, u, s, reader, asks{})
		if yes {
			m.resolve(v.cells[cell].at(s, eff, reader), s, eff, reader, seen, out)
		}
		base = base || no
	}
	if !base {
		return
	}
	for _, o := range m.mapped(p, w.AreaCode, u, s, reader, asks{}) {
		if o != nil {
			m.inObject(o, cell%2, s, eff, reader, seen, out)
		}
	}
}

// pokeValues is how many values one write of a debugger may leave at a place
// before nothing is said of them any more. Writes that overlap mix bytes, and a
// few dozen of them at one function mix them without end.
const pokeValues = 256

// poked tells what a debugger's write may have left. Writes that overlap depend
// on each other in circles, so all that one depends on are solved together: from
// nothing, each adds what follows from the others, until none adds anything.
func (m *model) poked(x *write[val], out *values) {
	if _, known := m.pokes[x]; !known {
		m.pokes[x] = &values{}
		m.unsolved = append(m.unsolved, x)
		if len(m.unsolved) == 1 {
			m.solve()
		}
	}
	from := m.pokes[x]
	out.any = out.any || from.any
	for _, n := range from.list {
		out.add(n)
	}
}

// solve finds the least fixed point of the writes in unsolved, which grows by
// those that they turn out to depend on.
func (m *model) solve() {
	for grew := true; grew; {
		grew = false
		for i := 0; i < len(m.unsolved); i++ {
			x := m.unsolved[i]
			at := m.pokes[x]
			if at.any {
				continue
			}
			known, more := len(at.list), len(m.unsolved)
			m.pokeOnce(x, at)
			if len(at.list) > pokeValues {
				at.any = true
			}
			grew = grew || at.any || len(at.list) > known || len(m.unsolved) > more
		}
	}
	m.unsolved = nil
}

// pokeOnce adds to out what x leaves by what is known so far: each byte that was
// what the debugger saw becomes what it wrote.
func (m *model) pokeOnce(x *write[val], out *values) {
	k := x.v.poke
	var saw, old values
	m.executed(k.t.p, m.viewsOf(k.t, x.span, x.by, asks{}), k.cell, x.span, x.by, asks{}, &saw)
	if k.v != nil {
		m.executed(k.t.p, []*view{k.v}, k.cell, x.span, x.by, asks{}, &old)
	} else {
		m.inObject(k.o, k.in, x.span, x.b, x.by, asks{}, &old)
	}
	out.any = out.any || saw.any || old.any
	for _, o := range old.list {
		for _, s := range saw.list {
			n := uint64(0)
			for i := 0; i < 64; i += 8 {
				b := o >> i & 0xff
				if s>>i&0xff == b {
					b = k.to >> i & 0xff
				}
				n |= b << i
			}
			out.add(n)
		}
	}
}
