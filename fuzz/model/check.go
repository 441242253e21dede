// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"
	"strings"
	"syscall"

	w "github.com/wflp/wflp/fuzz/fuzzwire"
	"github.com/wflp/wflp/fuzz/oracle"
)

// Error numbers as records have them.
const (
	ePERM      = -int32(syscall.EPERM)
	eINTR      = -int32(syscall.EINTR)
	eBADF      = -int32(syscall.EBADF)
	eAGAIN     = -int32(syscall.EAGAIN)
	eNOMEM     = -int32(syscall.ENOMEM)
	eACCES     = -int32(syscall.EACCES)
	eFAULT     = -int32(syscall.EFAULT)
	eBUSY      = -int32(syscall.EBUSY)
	eNODEV     = -int32(syscall.ENODEV)
	eINVAL     = -int32(syscall.EINVAL)
	eNFILE     = -int32(syscall.ENFILE)
	eMFILE     = -int32(syscall.EMFILE)
	eSPIPE     = -int32(syscall.ESPIPE)
	e2BIG      = -int32(syscall.E2BIG)
	eSRCH      = -int32(syscall.ESRCH)
	eNOENT     = -int32(syscall.ENOENT)
	eIO        = -int32(syscall.EIO)
	sigSEGV    = -int32(syscall.SIGSEGV)
	sigBUS     = -int32(syscall.SIGBUS)
	viewsAtMax = 64
)

// check compares every record with what the registers allow.
func (m *model) check() {
	for _, r := range m.recs {
		if r.e >= m.settled {
			continue
		}
		switch r.Kind {
		case w.OpLoad:
			m.checkLoad(r)
		case w.OpStore:
			m.checkStore(r)
		case w.OpExec:
			m.checkExec(r)
		case w.OpWho:
			m.checkWho(r)
		case w.OpFileRead:
			m.checkFileRead(r)
		case w.OpTaskRead, w.OpTrace, w.OpVMRead:
			m.checkRemote(r)
		case w.OpMmap, w.OpMunmap, w.OpMprotect, w.OpMremap, w.OpMadvise:
			m.checkMapping(r)
		case w.OpStat:
			m.checkStat(r)
		case w.OpPoll:
			m.checkPoll(r)
		case w.OpUserfault:
			m.checkGuarded(r)
		case w.OpBrk:
			m.checkHeap(r)
		}
		m.checkErrno(r)
	}
	m.checkOnce()
	m.checkSteady()
}

// rights says what a protection lets one do.
func rights(prot int) (read, write, exec bool) {
	switch prot {
	case w.ProtR:
		return true, false, false
	case w.ProtRW:
		return true, true, false
	case w.ProtRX:
		return true, false, true
	case w.ProtRWX:
		return true, true, true
	}
	return false, false, false
}

// access judges whether an access got through. It says whether its value is
// still to be judged.
func (m *model) access(r *rec, area, u int, wants func(read, write, exec bool) bool) bool {
	objects := m.mapped(r.p, area, u, r.span, r.n, asks{})
	prots := m.prots(r.p, area, u, r.span, r.n, asks{})
	may, mayNot := false, slices.Contains(objects, nil)
	for _, p := range prots {
		if wants(rights(p)) {
			may = true
		} else {
			mayNot = true
		}
	}
	there := slices.ContainsFunc(objects, func(o *object) bool { return o != nil })
	switch r.Ret {
	case 0:
		if !there {
			m.violate(oracle.Access, r, "an access to what is not mapped gets through; area %d unit %d, value %#x", area, u, r.Val)
		} else if !may {
			m.violate(oracle.Access, r, "an access against the protection gets through; area %d unit %d, value %#x", area, u, r.Val)
		}
		return there && may
	case sigSEGV:
		if !mayNot {
			m.violate(oracle.Access, r, "an access that is permitted faults; area %d unit %d", area, u)
		}
	case sigBUS:
		cut := false
		for _, o := range objects {
			if o != nil && o.kind != w.MapAnon {
				for _, c := range m.files[o.area][o.unit].cuts {
					cut = cut || c.b < r.e && c.e > r.b
				}
			}
		}
		if !cut {
			m.violate(oracle.Access, r, "SIGBUS where the file is there; area %d unit %d", area, u)
		}
	default:
		m.violate(oracle.Access, r, "an access ends in signal %s; area %d unit %d", signame(r.Ret), area, u)
	}
	return false
}

func (m *model) checkLoad(r *rec) {
	area, u, _ := r.where()
	cell := u
	if area == w.AreaCode {
		u /= 2
	}
	if !m.access(r, area, u, func(read, _, _ bool) bool { return read }) {
		return
	}
	var may values
	if area == w.AreaCode {
		m.executed(r.p, m.viewsOf(r.t, r.span, r.n, asks{}), cell, r.span, r.n, asks{}, &may)
		m.checkCode(r, cell, may)
		return
	}
	eff := effective(r.span, r.p.units[area][u].zaps)
	for _, o := range m.mapped(r.p, area, u, r.span, r.n, asks{}) {
		if o != nil {
			m.inObject(o, 0, r.span, eff, r.n, asks{}, &may)
		}
	}
	if !may.have(r.Val) {
		m.violate(oracle.Memory, r, "memory is not what was written; area %d unit %d: seen %#x, possible %s", area, u, r.Val, may)
	}
}

func (vs values) String() string {
	var b strings.Builder
	for i, v := range vs.list {
		if i > 0 {
			b.WriteByte(' ')
		}
		if i == 6 {
			b.WriteString("…")
			break
		}
		b.WriteString("0x" + hex(v))
	}
	return b.String()
}

func hex(v uint64) string {
	const digits = "0123456789abcdef"
	s := ""
	for {
		s = string(digits[v&15]) + s
		if v >>= 4; v == 0 {
			return s
		}
	}
}

func (m *model) checkCode(r *rec, cell int, may values) {
	if may.have(r.Val) {
		return
	}
	what := "code is not that of the view"
	if r.Val>>63 == 1 {
		what = "code is torn"
	}
	in := ""
	for _, v := range m.viewsOf(r.t, r.span, r.n, asks{}) {
		if v == nil {
			in += " base"
		} else {
			in += " " + hex(v.id)
		}
	}
	m.violate(oracle.Code, r, "%s; function %d: seen %#x, possible %s, in view%s", what, cell, r.Val, may, in)
}

func (m *model) checkStore(r *rec) {
	area, u, _ := r.where()
	m.access(r, area, u, func(_, write, _ bool) bool { return write })
}

func (m *model) checkExec(r *rec) {
	cell := int(r.Unit)
	if !m.access(r, w.AreaCode, cell/2, func(_, _, exec bool) bool { return exec }) {
		return
	}
	var may values
	m.executed(r.p, m.viewsOf(r.t, r.span, r.n, asks{}), cell, r.span, r.n, asks{}, &may)
	m.checkCode(r, cell, may)
}

func (m *model) checkWho(r *rec) {
	if r.Ret != 0 {
		m.violate(oracle.Errno, r, "/proc does not tell the view; %d", r.Ret)
		return
	}
	vs := m.viewsOf(r.t, r.span, r.n, asks{})
	if !slices.ContainsFunc(vs, func(v *view) bool {
		return v == nil && r.Val == 0 || v != nil && v.id == r.Val
	}) {
		m.violate(oracle.Code, r, "a thread is in another view than it should be; seen %d, %d possible", r.Val, len(vs))
	}
}

func (m *model) checkFileRead(r *rec) {
	area, u, _ := r.where()
	f := m.files[area][u]
	if r.Ret != 8 {
		for _, c := range f.cuts {
			if c.b < r.e && c.e > r.b && r.Ret >= 0 {
				return
			}
		}
		m.violate(oracle.Errno, r, "a read of the file fails; %d", r.Ret)
		return
	}
	var may values
	m.inObject(f, 0, r.span, r.b, r.n, asks{}, &may)
	if !may.have(r.Val) {
		m.violate(oracle.Memory, r, "the file is not what was written; area %d unit %d: seen %#x, possible %s", area, u, r.Val, may)
	}
}

// checkGuarded: while userfaultfd holds up whoever writes, nothing is written. What
// changes mappings or files meanwhile changes content by other ways, and what began
// to be written before the protection was there may end after; a write past it that
// is found is one that surely began later.
func (m *model) checkGuarded(r *rec) {
	if r.Val != w.UserfaultProtect || r.Ret != 0 || r.Ext == 0 {
		return
	}
	area, from, to := r.where()
	for u := from; u < to; u++ {
		if r.Ext>>(u-from)&1 == 0 {
			continue
		}
		// Memory of a file can be written elsewhere, where it is not protected.
		otherwise := slices.ContainsFunc(m.mapped(r.p, area, u, r.span, r.n, asks{}), func(o *object) bool {
			return o == nil || o.kind != w.MapAnon
		})
		for _, o := range m.recs {
			if o == r || o.b > r.e || o.e < r.b {
				continue
			}
			a, at, n := o.place()
			switch o.Kind {
			case w.OpLoad, w.OpExec:
			case w.OpStore:
				// It may have been in the page before the protection was.
				otherwise = otherwise || a == area && at == u && o.b < r.b
			case w.OpMremap, w.OpFork, w.OpVfork, w.OpMadvise, w.OpMmap, w.OpMunmap, w.OpMprotect, w.OpTruncate, w.OpFileWrite, w.OpUserfault:
				otherwise = true
			default:
				otherwise = otherwise || a == area && at <= u && u < at+n
			}
		}
		if !otherwise {
			m.violate(oracle.Memory, r, "a write gets past the protection of userfaultfd; area %d unit %d", area, u)
			return
		}
	}
}

// checkHeap: one thread at a time has the heap, and has looked at all of it.
func (m *model) checkHeap(r *rec) {
	for _, c := range []struct {
		bit  uint64
		kind oracle.Kind
		what string
	}{
		{w.BrkOld, oracle.Memory, "a new page of the heap is not empty"},
		{w.BrkLost, oracle.Memory, "a page of the heap is not what was written"},
		{w.BrkThere, oracle.Access, "heap that was given back can be read"},
		{w.BrkMissing, oracle.Access, "heap that is there cannot be used"},
	} {
		if r.Val&c.bit != 0 {
			m.violate(c.kind, r, "%s; operation %d", c.what, r.Unit)
		}
	}
}

// checkRemote: what a debugger reads is what the thread would have executed.
func (m *model) checkRemote(r *rec) {
	if r.Ret != w.FnBytes || r.Kind == w.OpTrace && r.Ext != 0 {
		return
	}
	t := m.threads[len(m.threads)-1]
	if r.Kind != w.OpVMRead {
		t = m.threads[r.FD]
	} else if t.p != r.p { // of a child: its first thread is the list that was forked
		for _, x := range m.threads {
			if x.used && x.p == r.p && x.first >= r.p.fork.b && m.trace.StreamList[x.list].Forked != 0 {
				t = x
			}
		}
	}
	if t.p != r.p {
		return
	}
	cell := int(r.Unit)
	objects := m.mapped(r.p, w.AreaCode, cell/2, r.span, r.n, asks{})
	if len(objects) == 1 && objects[0] == nil {
		m.violate(oracle.Access, r, "a debugger reads what is not mapped; function %d", cell)
		return
	}
	var may values
	m.executed(r.p, m.viewsOf(t, r.span, r.n, asks{}), cell, r.span, r.n, asks{}, &may)
	if !may.have(r.Val) {
		m.violate(oracle.Code, r, "a debugger reads other code than the thread runs; function %d: seen %#x, possible %s", cell, r.Val, may)
	}
}

// checkMapping: results of calls that change mappings.
func (m *model) checkMapping(r *rec) {
	area, from, to := r.where()
	absent, surelyAbsent, private, surelyPrivate := false, false, false, false
	for u := from; u < to; u++ {
		objects := m.mapped(r.p, area, u, r.span, r.n, asks{})
		absent = absent || slices.Contains(objects, nil)
		surelyAbsent = surelyAbsent || len(objects) == 1 && objects[0] == nil
		if area != w.AreaCode {
			continue
		}
		for _, v := range r.p.views {
			if v.by.b > r.e {
				continue
			}
			yes, no := m.private(v, u, r.span, r.n, asks{})
			private = private || yes
			surelyPrivate = surelyPrivate || yes && !no && m.alive(v, r)
		}
	}
	may := []int32{0}
	if r.Flags&w.FlagFailed != 0 {
		may = append(may, eNOMEM)
	}
	switch r.Kind {
	case w.OpMprotect:
		_, write, _ := rights(int(r.Val))
		if absent {
			may = append(may, eNOMEM)
		}
		if write && private {
			may = append(may, eBUSY)
		}
		if surelyAbsent || write && surelyPrivate {
			may = may[1:]
		}
	case w.OpMremap:
		if absent || to-from > 1 { // several mappings, perhaps
			may = append(may, eFAULT)
		}
		if private {
			may = append(may, eBUSY)
		}
		if surelyAbsent || surelyPrivate {
			may = may[1:]
		}
	case w.OpMadvise:
		if r.Val != 4 || absent || m.locked {
			return // too many reasons for too many advices
		}
	}
	if r.Ret == eNOMEM && m.failing(r) {
		return
	}
	if !slices.Contains(may, r.Ret) {
		m.violate(oracle.Errno, r, "%s; possible %s", result(r.Ret), results(may))
	}
}

// failing: another operation that fails on purpose cannot make this one fail.
func (m *model) failing(r *rec) bool { return r.Flags&w.FlagFailed != 0 }

func result(n int32) string {
	if n >= 0 {
		return "succeeds"
	}
	return "fails with " + errname(n)
}

func errname(n int32) string {
	names := map[int32]string{
		ePERM: "EPERM", eINTR: "EINTR", eBADF: "EBADF", eAGAIN: "EAGAIN", eNOMEM: "ENOMEM", eACCES: "EACCES",
		eFAULT: "EFAULT", eBUSY: "EBUSY", eNODEV: "ENODEV", eINVAL: "EINVAL", eNFILE: "ENFILE", eMFILE: "EMFILE",
		eSPIPE: "ESPIPE", e2BIG: "E2BIG", eSRCH: "ESRCH", eNOENT: "ENOENT", eIO: "EIO",
	}
	if s, ok := names[n]; ok {
		return s
	}
	return syscall.Errno(-n).Error()
}

func results(may []int32) string {
	var out []string
	for _, n := range may {
		if n >= 0 {
			out = append(out, "success")
		} else {
			out = append(out, errname(n))
		}
	}
	return strings.Join(out, " ")
}

// alive: surely not torn down within r, as a descriptor is open that can be
// nothing else and it is not retired.
func (m *model) alive(v *view, r *rec) bool {
	for _, x := range v.retired.at(r.span, r.b, -1) {
		if x.v {
			return false
		}
	}
	for fd := range v.p.fds {
		vs, none := m.descriptor(v.p, fd, r.span, -1, asks{})
		if !none && len(vs) == 1 && vs[0] == v {
			return true
		}
	}
	return false
}

func flags(r *register[bool], s span, reader int) (yes, no bool) {
	for _, x := range r.at(s, s.b, reader) {
		yes, no = yes || x.v, no || !x.v
	}
	return yes, no
}

func (m *model) checkStat(r *rec) {
	if r.Ret != 0 {
		return
	}
	if r.FD == -1 {
		if r.t.main && r.Unit == 1 && (r.Ext>>16&0xffff != 0 || r.Ext>>32 != 0) {
			m.violate(oracle.Leak, r, "views are left at the end; %d views, %d threads in views", r.Ext>>16&0xffff, r.Ext>>32)
		}
		return
	}
	vs := m.about(r)
	id, sealed, retired := r.Val&0xffffffff, r.Val>>32&1 == 1, r.Val>>32&2 == 2
	ok := false
	for _, v := range vs {
		y, n := flags(&v.sealed, r.span, r.n)
		ry, rn := flags(&v.retired, r.span, r.n)
		if v.id == id && (sealed && y || !sealed && n) && (retired && ry || !retired && rn) {
			ok = true
		}
	}
	if !ok && len(vs) > 0 {
		m.violate(oracle.Errno, r, "a view is not as it should be; id %d sealed %v retired %v", id, sealed, retired)
	}
}

// inside tells whether a thread may be, and surely is, in v within s.
func (m *model) inside(t *thread, v *view, r *rec) (may, surely bool) {
	if !t.used || t.p != v.p || t.alive.b > r.e {
		return false, false
	}
	vs := m.viewsOf(t, r.span, r.n, asks{})
	may = slices.Contains(vs, v)
	surely = may && len(vs) == 1 && t.first < r.b && (t.last > r.e || t.main)
	// Who tries to enter counts for a moment.
	for _, q := range m.recs {
		if q.t == t && q.Kind == w.OpEnter && q.b < r.e && q.e > r.b && slices.Contains(m.about(q), v) {
			may = true
		}
	}
	return may, surely
}

func (m *model) checkPoll(r *rec) {
	if r.Ret != 0 && r.Ret != 1 {
		return
	}
	vs, none := m.descriptor(r.p, r.FD, r.span, r.n, asks{})
	if len(vs) != 1 || none || vs[0].p != r.p {
		return
	}
	for _, t := range m.threads {
		may, surely := m.inside(t, vs[0], r)
		if surely && r.Ret == 1 {
			m.violate(oracle.Errno, r, "a view is said to have drained and has a thread; list %d", t.list)
		}
		if may && r.Ret == 0 {
			return
		}
	}
	if r.Ret == 0 {
		m.violate(oracle.Errno, r, "a view without threads is not said to have drained; id %d", vs[0].id)
	}
}

// checkOnce: what can happen to a view only once.
func (m *model) checkOnce() {
	sealed := map[*view]bool{}
	for _, r := range m.recs {
		if r.Kind != w.OpSeal && r.Kind != w.OpRebase || r.Ret != 0 || r.e >= m.settled {
			continue
		}
		vs, none := m.descriptor(r.p, r.FD, r.span, r.n, asks{})
		if len(vs) != 1 || none || r.Kind == w.OpRebase {
			continue
		}
		if sealed[vs[0]] {
			m.violate(oracle.Errno, r, "a view is sealed twice; id %d", vs[0].id)
		}
		sealed[vs[0]] = true
	}
}

// checkErrno: results of calls that are about views.
func (m *model) checkErrno(r *rec) {
	may, known := m.possible(r)
	if !known {
		return
	}
	if r.Flags&w.FlagFailed != 0 {
		may = append(may, eNOMEM, eFAULT, eNFILE)
	}
	if slices.Contains(may, min(r.Ret, 0)) {
		return
	}
	m.violate(oracle.Errno, r, "%s; possible %s, descriptor %d", result(r.Ret), results(may), r.FD)
}

// possible lists the results of an operation on a view; 0 stands for success.
func (m *model) possible(r *rec) (may []int32, known bool) {
	allow := func(ns ...int32) { may = append(may, ns...) }
	kind := r.Kind
	variant := -1
	if kind == w.OpMisuse {
		variant = int(r.Unit)
	}
	switch kind {
	case w.OpCreate:
		// The record says nothing of the flags; the operation does.
		if o, ok := m.op(r); ok && o.B != 0 {
			return []int32{eINVAL}, true
		}
		allow(0)
		if m.creates >= viewsAtMax {
			allow(eMFILE)
		}
		return may, true
	case w.OpRegister, w.OpVfork:
		return []int32{0}, true
	case w.OpSpawn, w.OpFork:
		return []int32{0, eAGAIN}, true
	case w.OpClose:
		if r.FD < 0 {
			return []int32{eBADF}, true
		}
	case w.OpEnter:
		if r.Unit != 0 {
			return []int32{eINVAL}, true
		}
		if r.FD == -1 {
			allow(0)
			for _, q := range m.recs {
				if q.Kind == w.OpRebase && q.p == r.p && q.b < r.e && q.e > r.b {
					allow(eBUSY)
				}
			}
			return may, true
		}
	case w.OpStat:
		if r.FD == -1 {
			return []int32{0}, true
		}
	case w.OpWrite, w.OpRead, w.OpSeal, w.OpRetire, w.OpRebase, w.OpPoll, w.OpPull, w.OpDup:
	case w.OpMisuse:
		switch variant {
		case w.MisuseOp, w.MisuseSealArg, w.MisuseRegisterOdd, w.MisuseRegisterSize, w.MisuseRegisterFD:
			return []int32{eINVAL}, true
		}
	default:
		return nil, false
	}
	if kind == w.OpPoll && r.Unit > 0 { // it waits, and signals are among the operations
		allow(eINTR)
	}
	vs, none := m.descriptor(r.p, r.FD, r.span, r.n, asks{})
	if none {
		allow(m.withoutView(r, variant)...)
	}
	for _, v := range vs {
		allow(m.withView(r, v, variant)...)
	}
	return may, true
}

// withoutView: the descriptor is of no view.
func (m *model) withoutView(r *rec, variant int) []int32 {
	out := []int32{eBADF}
	other := r.FD >= 0 && r.FD < w.FirstFD // an eventfd
	switch {
	case r.Kind == w.OpPoll && r.FD == -1: // poll(2) leaves it out
		return []int32{0}
	case !other:
		if r.FD == -1 {
			switch variant {
			case w.MisuseStatSize:
				return []int32{eINVAL}
			case w.MisuseStatHuge:
				return []int32{e2BIG}
			case w.MisuseStatBuffer:
				return []int32{eFAULT}
			}
		}
	case r.Kind == w.OpWrite, r.Kind == w.OpRead:
		out = append(out, eSPIPE)
	case r.Kind == w.OpPoll:
		out = append(out, 0)
	case r.Kind == w.OpMisuse:
		out = append(out, eSPIPE, eNODEV, eINVAL, eACCES, 0)
	}
	return out
}

// withView: the descriptor is v's.
func (m *model) withView(r *rec, v *view, variant int) (out []int32) {
	allow := func(ns ...int32) { out = append(out, ns...) }
	kind := r.Kind
	switch {
	case kind == w.OpDup, kind == w.OpClose, kind == w.OpPoll:
		return []int32{0}
	case variant == w.MisuseMmap:
		return []int32{eNODEV}
	case v.p != r.p && kind == w.OpEnter:
		return []int32{eBADF}
	case v.p != r.p && variant == w.MisusePullMask, v.p != r.p && variant == w.MisusePullSize:
		return []int32{eINVAL}
	case v.p != r.p:
		return []int32{ePERM}
	case kind == w.OpStat, kind == w.OpRetire:
		return []int32{0}
	case variant == w.MisuseStatSize, variant == w.MisusePullMask, variant == w.MisusePullSize:
		return []int32{eINVAL}
	case variant == w.MisuseStatHuge:
		return []int32{e2BIG}
	case variant == w.MisuseStatBuffer:
		return []int32{eFAULT}
	}
	sealed, open := flags(&v.sealed, r.span, r.n)
	retired, live := flags(&v.retired, r.span, r.n)
	switch {
	case kind == w.OpRead:
		// A view that has gone cannot be read; one that is retired may have gone.
		if retired {
			allow(eBADF)
		}
		u := int(r.Unit) / 2
		if slices.Contains(m.mapped(r.p, w.AreaCode, u, r.span, r.n, asks{}), nil) {
			allow(eFAULT)
		}
		for _, p := range m.prots(r.p, w.AreaCode, u, r.span, r.n, asks{}) {
			if read, _, _ := rights(p); read {
				allow(0)
			} else {
				allow(eFAULT)
			}
		}
		if r.Ret == w.FnBytes {
			m.checkRead(r, v)
		}
		return out
	case variant == w.MisuseReadBuffer, variant == w.MisuseReadHole:
		if retired {
			allow(eBADF)
		}
		allow(eFAULT)
		return out
	case variant == w.MisuseReadFile:
		if retired {
			allow(eBADF)
		}
		allow(0)
		return out
	}
	if retired {
		allow(eBADF)
		if kind == w.OpRebase {
			allow(eBUSY)
		}
	}
	if !live {
		return out
	}
	writing := kind == w.OpWrite || variant >= 0
	if sealed && (writing || kind == w.OpSeal) || open && !writing && kind != w.OpSeal {
		allow(eBUSY)
	}
	if open && !sealed && !writing && kind != w.OpSeal || sealed && !open && (writing || kind == w.OpSeal) {
		return out
	}
	switch {
	case variant == w.MisuseWriteNothing:
		allow(0)
	case variant == w.MisuseWriteData, variant == w.MisuseWriteCross:
		allow(eACCES, eFAULT)
	case variant >= 0:
		allow(eFAULT)
	case kind == w.OpWrite:
		u := int(r.Unit) / 2
		objects := m.mapped(r.p, w.AreaCode, u, r.span, r.n, asks{})
		if slices.Contains(objects, nil) {
			allow(eFAULT)
		}
		if slices.ContainsFunc(objects, func(o *object) bool { return o != nil }) {
			for _, p := range m.prots(r.p, w.AreaCode, u, r.span, r.n, asks{}) {
				if _, write, exec := rights(p); exec && !write {
					allow(0)
				} else {
					allow(eACCES)
				}
			}
		}
	case kind == w.OpRebase:
		allow(0, eBUSY)
		if m.moved {
			allow(eFAULT)
		}
		if r.Ret == 0 {
			m.checkRebase(r)
		}
	default:
		allow(0)
	}
	return out
}

// checkRead: what pread shows of a view is what a thread in it runs.
func (m *model) checkRead(r *rec, v *view) {
	vs, none := m.descriptor(r.p, r.FD, r.span, r.n, asks{})
	if len(vs) != 1 || none {
		return
	}
	var may values
	m.executed(r.p, []*view{v}, int(r.Unit), r.span, r.n, asks{}, &may)
	if !may.have(r.Val) {
		m.violate(oracle.Code, r, "pread shows other code than the view has; function %d: seen %#x, possible %s", r.Unit, r.Val, may)
	}
}

// checkRebase: nobody was in the base all the time.
func (m *model) checkRebase(r *rec) {
	for _, t := range m.threads {
		if !t.used || t.p != r.p || t.first > r.b || !(t.last > r.e || t.main) {
			continue
		}
		if vs := m.viewsOf(t, r.span, r.n, asks{}); len(vs) == 1 && vs[0] == nil {
			m.violate(oracle.Errno, r, "the base is changed with a thread in it; list %d", t.list)
		}
	}
}

// checkSteady: as long as a thread is online and does not enter another view, it
// is in one and the same, whatever others do. So there must be a view that
// explains all that it executed in that time, where each single execution may
// have been in one of several.
func (m *model) checkSteady() {
	var rebases []span
	for _, r := range m.recs {
		if r.Kind == w.OpRebase {
			rebases = append(rebases, r.span)
		}
	}
	last := make([][]*view, len(m.threads))
	known := make([]bool, len(m.threads))
	for _, r := range m.recs {
		i := r.t.list
		switch {
		case r.Kind == w.OpEnter, r.Kind == w.OpRebase, r.Kind == w.OpSleep && r.Flags&w.FlagOffline != 0:
			known[i] = false
			continue
		case r.Kind != w.OpExec && r.Kind != w.OpWho || r.Ret != 0 || r.e >= m.settled:
			continue
		}
		// One that takes threads to the base may do so at any moment of it.
		if slices.ContainsFunc(rebases, func(s span) bool { return s.b < r.e && s.e > r.t.first }) {
			continue
		}
		var fit []*view
		for _, v := range m.viewsOf(r.t, r.span, r.n, asks{}) {
			if r.Kind == w.OpWho {
				if v == nil && r.Val == 0 || v != nil && v.id == r.Val {
					fit = append(fit, v)
				}
				continue
			}
			var may values
			m.executed(r.p, []*view{v}, int(r.Unit), r.span, r.n, asks{}, &may)
			if may.have(r.Val) {
				fit = append(fit, v)
			}
		}
		if len(fit) == 0 {
			continue // told already
		}
		if known[i] {
			both := slices.DeleteFunc(slices.Clone(fit), func(v *view) bool { return !slices.Contains(last[i], v) })
			if len(both) == 0 {
				m.violate(oracle.Code, r, "a thread that is online changes its view; function or id %d, value %#x", r.Unit, r.Val)
			}
			fit = both
		}
		last[i], known[i] = fit, len(fit) > 0
	}
}
