// SPDX-License-Identifier: Apache-2.0

// Package model judges a run of a scenario: was what its threads saw something
// that one ordinary address space, with code that differs by view and nothing
// else, can show?
//
// Each operation has two stamps of one atomic counter, taken before and after.
// What it changes, it changes at some moment between them; what it reads, it
// reads at some moment between them. Everything that can be changed is a
// register: what is mapped at a place, its protection, each word, each function
// in each view, in which view a thread is, what a descriptor stands for. A read
// may return what a write put there that began before the read ended, unless
// another write, one that surely happened, lay wholly between the two.
//
// A correct kernel is never accused. For any order of the operations that
// respects the stamps, the value read is that of the last write before it in
// that order; that write began before the read ended, and no write lies wholly
// between them, as it would be between them in the order, too. Registers are
// looked at one by one, so combinations pass that no one order explains: the
// check is sound and not complete. Three things are not atomic on any kernel
// and are allowed for. While an operation removes translations (unmapping,
// protecting, discarding, moving, fork, truncation), another thread may still
// use an old one, though what came after it is visible elsewhere; so a read that
// overlaps one may return what was there when it began (effective). A range is
// changed page by page. And an operation that failed may have done a part of its
// work, unless it is one of views: those leave nothing half done.
//
// Where the stamps leave one state only, they leave one answer only, for values,
// faults and error numbers alike. The tests hold this against a search through
// all orders for small histories, and against hand-made traces.
package model

import (
	"fmt"
	"slices"

	w "github.com/wflp/wflp/fuzz/fuzzwire"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/fuzz/scenario"
)

// Run is all that a verdict is made from.
type Run struct {
	Scenario *scenario.Scenario
	// Trace is nil if there was none; TraceErr says why.
	Trace    []byte
	TraceErr error
	End      oracle.End
	// Complaints are what the kernel found wrong during the run.
	Complaints []string
	// HasViews: the kernel has the mechanism, so "unsupported" is no excuse.
	HasViews bool
}

// Verdict is what the model says of a run.
type Verdict struct {
	Status     oracle.Status
	Violations []oracle.Violation // at most a hundred; ByKind counts all
	ByKind     map[oracle.Kind]int
	Note       string   // why it is not a pass, in a sentence
	PCs        []uint64 // kernel coverage, sorted; nil if the kernel has none
	Pairs      []uint32 // interleaving coverage, sorted
	Ops        int      // operations done
}

const listed = 100

type model struct {
	Verdict
	parts    []oracle.Status
	trace    *w.Trace
	s        *scenario.Scenario
	procs    []*proc
	threads  []*thread // by list; the last is the process's first thread
	recs     []*rec    // by begin
	files    [w.Areas][w.Units]*object
	wiped    bool                    // some memory may be wiped, or not be there, in children
	locked   bool                    // some memory may be locked
	moved    bool                    // mappings of code were changed
	pokes    map[*write[val]]*values // what debuggers' writes may have left
	unsolved []*write[val]           // of those that are being found out
	creates  int
	settled  uint64 // what ended before is not touched by what never ended
}

// violate notes what must not be. What stands before the first semicolon names
// the kind of failure and has no numbers; Title relies on it.
func (m *model) violate(k oracle.Kind, r *rec, format string, args ...any) {
	m.ByKind[k]++
	if len(m.Violations) >= listed {
		return
	}
	v := oracle.Violation{Kind: k, Worker: -1, Record: -1, Detail: fmt.Sprintf(format, args...)}
	if r != nil {
		v.Worker, v.Record = r.list, r.in
		v.Detail = fmt.Sprintf("%s: %s; op %d at [%d,%d]", scenario.Kind(r.Kind), v.Detail, r.Op, r.b, r.e)
	}
	m.Violations = append(m.Violations, v)
}

func (m *model) note(s oracle.Status, format string, args ...any) {
	m.parts = append(m.parts, s)
	if m.Note == "" {
		m.Note = fmt.Sprintf(format, args...)
	}
}

// Check judges a run.
func Check(run Run) Verdict {
	m := &model{s: run.Scenario, parts: []oracle.Status{oracle.Pass}, pokes: map[*write[val]]*values{}}
	m.ByKind = map[oracle.Kind]int{}
	for _, c := range run.Complaints {
		m.violate(oracle.Kernel, nil, "%s", c)
	}
	if run.Trace != nil {
		t, err := w.DecodeTrace(run.Trace)
		if err != nil {
			run.TraceErr = err
		} else {
			m.trace = t
			m.PCs = slices.Clone(t.PCs)
			slices.Sort(m.PCs)
			m.PCs = slices.Compact(m.PCs)
		}
	}
	m.end(run)
	if m.trace != nil && m.prepare() {
		m.Pairs = m.pairs()
		if m.trace.HasViews != 0 {
			m.settle()
			m.build()
			m.check()
		}
	}
	if len(m.Violations) > 0 {
		m.parts = append(m.parts, oracle.Violated)
		m.Note = m.Violations[0].String()
	}
	m.Status = oracle.Combine(m.parts...)
	return m.Verdict
}

// settle leaves out what came after the first operation that never ended, as
// nobody knows what that has done. A sleep does nothing, and is no such operation.
func (m *model) settle() {
	m.settled = never
	for _, r := range m.recs {
		if r.e == never && r.Kind != w.OpSleep {
			m.settled = min(m.settled, r.b)
		}
	}
	m.recs = slices.DeleteFunc(m.recs, func(r *rec) bool { return r.b >= m.settled })
}

func (m *model) end(run Run) {
	t := m.trace
	switch e := run.End; {
	case e.NotRun:
		m.note(oracle.Unknown, "not run: the machine was gone")
	case e.TimedOut:
		m.note(oracle.Unknown, "timed out")
	case e.Signal == "SIGKILL" || e.Signal == "SIGTERM":
		m.note(oracle.Unknown, "killed from outside: %s", e.Signal)
	case e.Signal != "":
		m.violate(oracle.Crash, nil, "the monitor died of a signal; %s", e.Signal)
	case e.Code == w.EndStuck && t != nil && t.Slow != 0:
		m.note(oracle.Unknown, "ended after four times its limit, still moving")
	case e.Code == w.EndStuck && t != nil:
		m.stuck()
	case e.Code == w.EndCrash && t != nil:
		m.crash()
	case e.Code != w.EndComplete:
		m.note(oracle.Broken, "the driver exited with status %d", e.Code)
	case t == nil:
		m.note(oracle.Broken, "no trace: %v", run.TraceErr)
	case t.End != w.EndComplete:
		m.note(oracle.Broken, "the driver exited with status 0, the trace says %d", t.End)
	case t.Children != 0:
		m.crash()
	}
	if t == nil {
		return
	}
	if t.Seed != run.Scenario.Seed || len(t.StreamList) != len(run.Scenario.Lists)+1 {
		m.note(oracle.Broken, "the trace is of another scenario")
		m.trace = nil
		return
	}
	switch {
	case t.HasViews != 0:
	case run.HasViews:
		m.violate(oracle.Failure, nil, "the kernel is to have views and says it has none")
	default:
		m.note(oracle.Unsupported, "this kernel has no views")
	}
}

func (m *model) crash() {
	t := m.trace
	where := "outside of the arena"
	if t.CrashIP >= w.ArenaAddr && t.CrashIP < w.ArenaEnd {
		where = "in code that may be patched"
	}
	if t.Signal == 0 {
		m.violate(oracle.Crash, nil, "a process ended in an odd way; status %#x, %d children", t.Status, t.Children)
		return
	}
	m.violate(oracle.Crash, nil, "signal %s %s; list %d, ip %#x, address %#x", signame(int32(t.Signal)), where, t.CrashList, t.CrashIP, t.CrashAddr)
}

// stuck names the operation that was open where nothing moved any more.
func (m *model) stuck() {
	t := m.trace
	for _, th := range t.ThreadList {
		if int(th.List) >= len(t.StreamList) {
			continue
		}
		rs := t.Of(int(th.List))
		if len(rs) == 0 || rs[len(rs)-1].End != 0 {
			continue
		}
		r := rs[len(rs)-1]
		if r.Kind == w.OpSleep && int(th.List) == len(t.StreamList)-1 {
			continue // waits for the others
		}
		n := slices.Index(th.Where[:], 0)
		m.violate(oracle.Hang, nil, "%s does not end; list %d op %d state %c in %s", scenario.Kind(r.Kind), th.List, r.Op, rune(th.Letter), th.Where[:max(n, 0)])
	}
	if m.ByKind[oracle.Hang] == 0 {
		m.violate(oracle.Hang, nil, "the end of the process does not come; %d threads left", len(t.ThreadList))
	}
}

func signame(n int32) string {
	switch max(n, -n) {
	case 4:
		return "SIGILL"
	case 5:
		return "SIGTRAP"
	case 7:
		return "SIGBUS"
	case 11:
		return "SIGSEGV"
	}
	return "unexpected"
}

// prepare puts the records in order and finds out whose they are.
func (m *model) prepare() bool {
	t := m.trace
	main := newProc(nil)
	m.procs = []*proc{main}
	n := len(t.StreamList)
	m.threads = make([]*thread, n)
	for i, s := range t.StreamList {
		if s.Dropped > 0 {
			m.note(oracle.Broken, "list %d had no room for %d records", i, s.Dropped)
		}
		th := &thread{list: i, main: i == n-1, used: s.State != w.StateNew, first: never}
		m.threads[i] = th
		rs := t.Of(i)
		for j, x := range rs {
			if x.End == 0 {
				x.End = never
			}
			r := &rec{Record: x, span: span{x.Begin, x.End}, list: i, in: j, t: th}
			if j == 0 {
				th.first = r.b
			}
			th.last = r.e
			m.recs = append(m.recs, r)
			m.Ops++
		}
	}
	slices.SortFunc(m.recs, func(a, b *rec) int {
		if a.b < b.b {
			return -1
		}
		return 1
	})
	byList := make([][]*rec, n)
	for i, r := range m.recs {
		r.n = i
		byList[r.list] = append(byList[r.list], r)
	}
	// Processes: who was started by whom.
	var find func(i, depth int) *proc
	find = func(i, depth int) *proc {
		th, s := m.threads[i], t.StreamList[i]
		if th.p != nil || depth > n {
			return th.p
		}
		if s.By < 0 || int(s.By) >= n {
			th.p = main
			th.view.add(span{}, true, -1, viewVal{vs: []*view{nil}})
			return th.p
		}
		parent := find(int(s.By), depth+1)
		if parent == nil || int(s.ByOp) >= len(byList[s.By]) {
			return nil
		}
		by := byList[s.By][s.ByOp]
		at := span{by.b, min(by.e, th.first)}
		th.alive.b = by.b
		if s.Forked == 0 {
			th.p = parent
			th.view.add(at, true, by.n, viewVal{t: m.threads[s.By]})
			return parent
		}
		th.p = newProc(parent)
		th.p.fork, th.p.by = at, by
		by.t, by.p = m.threads[s.By], parent
		m.procs = append(m.procs, th.p)
		th.view.add(span{}, true, -1, viewVal{vs: []*view{nil}})
		return th.p
	}
	for i, th := range m.threads {
		if th.used && find(i, 0) == nil {
			m.note(oracle.Broken, "list %d was started by nobody", i)
			return false
		}
	}
	for _, r := range m.recs {
		r.p = r.t.p
	}
	return true
}
