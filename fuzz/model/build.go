// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"

	w "github.com/wflp/wflp/fuzz/fuzzwire"
)

// build writes all registers. What depends on others only by way of values is
// in any order; what depends on which object or view an operation was about
// comes after what says so.
func (m *model) build() {
	m.initial()
	for _, r := range m.recs {
		m.descriptors(r)
	}
	for _, r := range m.recs {
		m.mappings(r)
	}
	for _, r := range m.recs {
		m.states(r)
	}
	for _, r := range m.recs {
		m.places(r)
	}
	for _, r := range m.recs {
		if r.Kind == w.OpRebase && r.Ret == 0 {
			m.rebased(r)
		}
	}
	for _, r := range m.recs {
		m.content(r)
	}
}

func (m *model) initial() {
	for a := range m.files {
		for u := range unitsOf(a) {
			o := &object{kind: w.MapShared, area: a, unit: u}
			if a == w.AreaCode {
				for i := range o.cells {
					o.cells[i].add(span{}, true, -1, val{c: w.BaseValue + uint64(2*u+i)})
				}
			} else {
				o.cells[0].add(span{}, true, -1, val{})
			}
			m.files[a][u] = o
			kind, prot := w.MapPrivate, w.ProtRX
			if a != w.AreaCode {
				kind, prot = m.s.Areas[a], w.ProtRW
			}
			at := m.procs[0].units[a][u]
			at.mapping.add(span{}, true, -1, mapVal{o: m.fresh(kind, a, u)})
			at.prot.add(span{}, true, -1, protVal{prot: prot})
		}
	}
	for _, p := range m.procs[1:] {
		for a := range p.units {
			for u := range unitsOf(a) {
				at := p.units[a][u]
				at.mapping.add(p.fork, true, p.by.n, mapVal{p: p.parent, area: a, unit: u, copy: true, fork: true})
				at.prot.add(p.fork, true, p.by.n, protVal{p: p.parent, area: a, unit: u, copy: true})
				from := p.parent.units[a][u]
				from.zaps = append(from.zaps, p.by.span)
			}
		}
	}
}

// fresh is what a new mapping has.
func (m *model) fresh(kind, area, u int) *object {
	file := m.files[area][u]
	if kind == w.MapShared {
		return file
	}
	o := &object{kind: kind, area: area, unit: u, code: area == w.AreaCode}
	for i := range o.cells {
		v := val{}
		if kind == w.MapPrivate {
			v = val{how: howFile, o: file, cell: i}
		}
		o.cells[i].add(span{}, true, -1, v)
	}
	return o
}

// where unpacks a record about a range of units.
func (r *rec) where() (area, from, to int) {
	area, from = int(r.Unit>>8), int(r.Unit&0xff)
	return area, from, from + max(int(r.FD), 1)
}

func (m *model) descriptors(r *rec) {
	switch r.Kind {
	case w.OpCreate:
		m.creates++
		if r.Ret < 0 {
			return
		}
		v := &view{n: r.n, p: r.p, by: r, id: r.Val}
		v.sealed.add(span{}, true, -1, false)
		v.retired.add(span{}, true, -1, false)
		for u := range v.priv {
			v.priv[u].add(r.span, true, r.n, privVal{t: r.t, copy: true})
		}
		for c := range v.cells {
			v.cells[c].add(r.span, true, r.n, val{how: howViewOf, t: r.t, cell: c})
		}
		r.p.views = append(r.p.views, v)
		r.p.fd(r.Ret).add(r.span, true, r.n, fdVal{v: v})
	case w.OpDup:
		if r.Ret >= 0 {
			r.p.fd(r.Ret).add(r.span, true, r.n, fdVal{p: r.p, fd: r.FD, copy: true})
		}
	case w.OpClose:
		if r.Ret == 0 {
			r.p.fd(r.FD).add(r.span, true, r.n, fdVal{})
		}
	}
}

func (m *model) mappings(r *rec) {
	ok := r.Ret == 0
	set := func(a, u int, must bool, v mapVal) {
		at := r.p.units[a][u]
		at.mapping.add(r.span, must, r.n, v)
		at.zaps = append(at.zaps, r.span)
		m.dropped(r, a, u, must)
	}
	switch r.Kind {
	case w.OpMmap:
		a, from, to := r.where()
		for u := from; u < to; u++ {
			if ok {
				set(a, u, true, mapVal{o: m.fresh(int(r.Val&0xff), a, u)})
				r.p.units[a][u].prot.add(r.span, true, r.n, protVal{prot: int(r.Val >> 8)})
			} else { // what was there may have gone
				set(a, u, false, mapVal{})
			}
		}
	case w.OpMunmap:
		a, from, to := r.where()
		for u := from; u < to; u++ {
			set(a, u, ok, mapVal{})
		}
	case w.OpMremap:
		a, from, to := r.where()
		b, at := int(r.Val>>8), int(r.Val&0xff)
		for i := range to - from {
			if ok {
				set(a, from+i, true, mapVal{})
				set(b, at+i, true, mapVal{p: r.p, area: a, unit: from + i, copy: true})
				r.p.units[b][at+i].prot.add(r.span, true, r.n, protVal{p: r.p, area: a, unit: from + i, copy: true})
			} else {
				set(b, at+i, false, mapVal{})
			}
		}
	case w.OpMprotect:
		a, from, to := r.where()
		for u := from; u < to; u++ {
			at := r.p.units[a][u]
			at.prot.add(r.span, ok, r.n, protVal{prot: int(r.Val)})
			at.zaps = append(at.zaps, r.span)
			m.moved = m.moved || a == w.AreaCode
		}
	case w.OpMadvise:
		a, from, to := r.where()
		for u := from; u < to; u++ {
			r.p.units[a][u].zaps = append(r.p.units[a][u].zaps, r.span)
		}
		switch r.Val {
		case 10, 11, 18, 19: // DONTFORK, WIPEONFORK and back
			m.wiped = true
			for _, p := range m.procs {
				if p.by != nil && p.by.e > r.b {
					for u := from; u < to; u++ {
						p.units[a][u].mapping.add(p.fork, false, p.by.n, mapVal{})
					}
				}
			}
		}
	case w.OpMlock:
		m.locked = true
	}
}

// dropped: views have no page of their own where nothing is mapped.
func (m *model) dropped(r *rec, a, u int, must bool) {
	if a != w.AreaCode {
		return
	}
	m.moved = true
	for _, v := range r.p.views {
		if v.by.b < r.e {
			v.priv[u].add(r.span, must, r.n, privVal{})
		}
	}
}

// about are the views that an operation may have been about.
func (m *model) about(r *rec) []*view {
	vs, _ := m.descriptor(r.p, r.FD, r.span, r.n, asks{})
	return slices.DeleteFunc(vs, func(v *view) bool { return v.p != r.p })
}

func (m *model) states(r *rec) {
	if r.Kind == w.OpWrite && r.Ret == w.FnBytes {
		vs := m.about(r)
		for _, v := range vs {
			v.priv[r.Unit/2].add(r.span, len(vs) == 1, r.n, privVal{yes: true})
		}
	}
	if r.Ret != 0 || r.Kind != w.OpSeal && r.Kind != w.OpRetire && r.Kind != w.OpRebase {
		return
	}
	vs := m.about(r)
	for _, v := range vs {
		switch r.Kind {
		case w.OpSeal:
			v.sealed.add(r.span, len(vs) == 1, r.n, true)
		case w.OpRetire, w.OpRebase:
			v.retired.add(r.span, len(vs) == 1, r.n, true)
		}
	}
}

// places: who is where.
func (m *model) places(r *rec) {
	switch r.Kind {
	case w.OpRegister:
		if r.Ret == 0 {
			r.t.word.add(r.span, true, r.n, r.Unit == 1)
		}
	case w.OpEnter:
		if r.Ret != 0 {
			return
		}
		vs := []*view{nil}
		if r.FD != -1 {
			vs = m.about(r)
		}
		r.t.view.add(r.span, true, r.n, viewVal{vs: vs})
	case w.OpPull:
		if r.Ret < 0 {
			return
		}
		vs := m.about(r)
		form := r.Unit & 0xf
		if form != w.PullTids && r.Ret == 0 {
			return
		}
		for _, t := range m.threads {
			if t.p != r.p || !t.used || t == r.t {
				continue
			}
			told := r.Val>>t.list&1 == 1
			if form == w.PullTids && !told {
				continue
			}
			// It happened while the thread was offline.
			for _, q := range m.recs {
				if q.t != t || q.Kind != w.OpSleep || q.Flags&w.FlagOffline == 0 {
					continue
				}
				s := span{max(q.b, r.b), min(q.e, r.e)}
				if s.b >= s.e {
					continue
				}
				// Told of, and asleep from before to after: it is there.
				must := told && len(vs) == 1 && q.b <= r.b && q.e >= r.e
				t.view.add(s, must, r.n, viewVal{vs: vs})
			}
		}
	}
}

func (m *model) rebased(r *rec) {
	vs := m.about(r)
	for _, t := range m.threads {
		if t.p != r.p || !t.used {
			continue
		}
		was := m.viewsOf(t, r.span, r.n, asks{})
		for _, v := range vs {
			if slices.Contains(was, v) {
				t.view.add(r.span, len(was) == 1 && len(vs) == 1, r.n, viewVal{vs: []*view{nil}})
				break
			}
		}
	}
}

func (m *model) content(r *rec) {
	ok := r.Ret == 0
	switch r.Kind {
	case w.OpWrite:
		if r.Ret != w.FnBytes {
			return
		}
		vs := m.about(r)
		must := len(vs) == 1
		cell := int(r.Unit)
		other := cell ^ 1
		for _, v := range vs {
			yes, no := m.private(v, cell/2, r.span, r.n, asks{})
			v.cells[cell].add(r.span, must, r.n, val{c: r.Val})
			if no {
				v.cells[other].add(r.span, must && !yes, r.n, val{how: howInView, p: r.p, v: v, cell: other})
			}
		}
	case w.OpRebase:
		if !ok {
			return
		}
		vs := m.about(r)
		for u := range w.CodeUnits {
			r.p.units[w.AreaCode][u].zaps = append(r.p.units[w.AreaCode][u].zaps, r.span)
			objects := m.mapped(r.p, w.AreaCode, u, r.span, r.n, asks{})
			for _, v := range vs {
				yes, no := m.private(v, u, r.span, r.n, asks{})
				for _, o := range objects {
					if o == nil || !yes {
						continue
					}
					for i := range o.cells {
						o.cells[i].add(r.span, !no && len(vs) == 1 && len(objects) == 1, r.n,
							val{how: howInView, p: r.p, v: v, cell: 2*u + i})
					}
				}
			}
		}
	case w.OpStore:
		a, u, _ := r.where()
		objects := m.mapped(r.p, a, u, r.span, r.n, asks{})
		for _, o := range objects {
			// The fault copies the page of a file; what is stored comes later, if
			// nothing comes in between.
			if o != nil && o.kind == w.MapPrivate {
				o.cells[0].add(r.span, false, r.n, val{how: howObject, o: o})
			}
			if o != nil && ok {
				o.cells[0].add(r.span, len(objects) == 1, r.n, val{c: r.Val})
			}
		}
	case w.OpMadvise:
		m.advised(r)
	case w.OpMlock:
		if r.Val != 0 {
			m.unshared(r)
		}
	case w.OpTruncate:
		a, from, to := r.where()
		for u := from; u < to; u++ {
			f := m.files[a][u]
			f.cells[0].add(r.span, ok, r.n, val{})
			f.cuts = append(f.cuts, r.span)
			m.cutFile(r, a, u)
		}
	case w.OpFileWrite:
		a, u, _ := r.where()
		if r.Ret == 8 {
			m.files[a][u].cells[0].add(r.span, true, r.n, val{c: r.Val})
		}
	case w.OpTaskWrite, w.OpTrace:
		if r.Kind == w.OpTrace && r.Ext == 0 || r.Ret < 0 {
			return
		}
		m.poke(r)
	}
}

// cutFile: copies of a page of a file go with the page, wherever they are mapped.
func (m *model) cutFile(r *rec, a, u int) {
	seen := map[*object]bool{}
	for _, p := range m.procs {
		for b := range p.units {
			for i := range unitsOf(b) {
				hit := false
				for _, o := range m.mapped(p, b, i, span{0, never}, -1, asks{}) {
					if o == nil || o.area != a || o.unit != u || o.kind == w.MapAnon {
						continue
					}
					hit = true
					if o.kind == w.MapPrivate && !seen[o] {
						seen[o] = true
						o.cells[0].add(r.span, false, r.n, val{how: howFile, o: m.files[a][u]})
						o.zaps = append(o.zaps, r.span)
					}
				}
				if hit {
					p.units[b][i].zaps = append(p.units[b][i].zaps, r.span)
				}
			}
		}
	}
	m.files[a][u].zaps = append(m.files[a][u].zaps, r.span)
}

func (m *model) advised(r *rec) {
	a, from, to := r.where()
	ok := r.Ret == 0
	for u := from; u < to; u++ {
		objects := m.mapped(r.p, a, u, r.span, r.n, asks{})
		for _, o := range objects {
			if o == nil {
				continue
			}
			must := ok && len(objects) == 1
			for i := range o.cells {
				switch r.Val {
				case 4, 24: // DONTNEED, and of locked memory
					switch o.kind {
					case w.MapAnon:
						o.cells[i].add(r.span, must, r.n, val{})
					case w.MapPrivate:
						o.cells[i].add(r.span, must, r.n, val{how: howFile, o: m.files[o.area][o.unit], cell: i})
					}
				case 8: // FREE
					if o.kind == w.MapAnon {
						o.cells[i].add(r.span, false, r.n, val{})
					}
				case 9: // REMOVE
					if o.kind == w.MapShared {
						o.cells[i].add(r.span, must, r.n, val{})
						o.zaps = append(o.zaps, r.span)
					}
				}
			}
		}
	}
	if r.Val == 23 || r.Val == 22 { // POPULATE_WRITE
		m.unshared(r)
	}
	if r.Val == 9 {
		for u := from; u < to; u++ {
			for _, o := range m.mapped(r.p, a, u, r.span, r.n, asks{}) {
				if o != nil && o.kind == w.MapShared {
					m.cutFile(r, o.area, o.unit)
				}
			}
		}
	}
}

// unshared: private mappings of files may have got pages of their own.
func (m *model) unshared(r *rec) {
	a, from, to := r.where()
	for u := from; u < to; u++ {
		for _, o := range m.mapped(r.p, a, u, r.span, r.n, asks{}) {
			if o != nil && o.kind == w.MapPrivate {
				for i := range o.cells {
					o.cells[i].add(r.span, false, r.n, val{how: howObject, o: o, cell: i})
				}
			}
		}
	}
}

// poke is a debugger's write: byte for byte, into the base and into every view
// that has there what the thread saw.
func (m *model) poke(r *rec) {
	if int(r.FD) >= len(m.threads) {
		return
	}
	t := m.threads[r.FD]
	if t.p == nil {
		return
	}
	cell := int(r.Unit)
	u := cell / 2
	at := t.p.units[w.AreaCode][u]
	at.zaps = append(at.zaps, r.span)
	full := r.Val
	where := m.viewsOf(t, r.span, r.n, asks{})
	put := func(c *register[val], k poke, sure bool) {
		k.t, k.cell, k.to = t, cell, full
		if sure {
			c.add(r.span, true, r.n, val{c: full})
		} else {
			c.add(r.span, false, r.n, val{how: howPoke, poke: &k})
		}
	}
	inBase := len(where) == 1
	for _, v := range where {
		if yes, _ := m.private(v, u, r.span, r.n, asks{}); yes {
			inBase = false
		}
	}
	objects := m.mapped(t.p, w.AreaCode, u, r.span, r.n, asks{})
	for _, o := range objects {
		if o != nil {
			put(&o.cells[cell%2], poke{o: o, in: cell % 2}, inBase && len(objects) == 1)
		}
	}
	for _, v := range t.p.views {
		if v.by.b > r.e {
			continue
		}
		yes, no := m.private(v, u, r.span, r.n, asks{})
		if yes {
			put(&v.cells[cell], poke{v: v}, len(where) == 1 && where[0] == v && !no)
		}
	}
}
