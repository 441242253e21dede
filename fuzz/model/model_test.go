// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	w "github.com/wflp/wflp/fuzz/fuzzwire"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/fuzz/scenario"
)

// trace is made by hand: steps of lists with stamps of one's own choice.
type trace struct {
	lists [][]w.Record
	by    map[int][3]int // list: by which, its record, forked
}

func at(b, e uint64, r w.Record) w.Record { r.Begin, r.End = b, e; return r }

func load(unit int, val uint64, ret int32) w.Record {
	return w.Record{Kind: w.OpLoad, Unit: uint16(unit), Val: val, Ret: ret, FD: -1}
}
func store(unit int, val uint64) w.Record {
	return w.Record{Kind: w.OpStore, Unit: uint16(unit), Val: val, FD: -1}
}
func exec(fn int, val uint64) w.Record {
	return w.Record{Kind: w.OpExec, Unit: uint16(fn), Val: val, FD: -1}
}
func create(fd int32) w.Record { return w.Record{Kind: w.OpCreate, FD: fd, Ret: fd, Val: uint64(fd)} }
func patch(fd int32, fn int, val uint64) w.Record {
	return w.Record{Kind: w.OpWrite, FD: fd, Unit: uint16(fn), Val: val, Ret: w.FnBytes}
}
func call(kind int, fd, ret int32) w.Record {
	return w.Record{Kind: uint16(kind), FD: fd, Ret: ret}
}
func units(kind, area, unit int, n, ret int32, val uint64) w.Record {
	return w.Record{Kind: uint16(kind), Unit: uint16(area<<8 | unit), FD: n, Ret: ret, Val: val}
}
func guard(unit int, changed uint64) w.Record {
	r := units(w.OpUserfault, 0, unit, 2, 0, w.UserfaultProtect)
	r.Ext = changed
	return r
}
func heap(what int, wrong uint64) w.Record {
	return w.Record{Kind: w.OpBrk, Unit: uint16(what), Val: wrong, FD: -1}
}
func asleep(word uint64) w.Record {
	return w.Record{Kind: w.OpSleep, FD: -1, Flags: w.FlagOffline, Val: word}
}

// judge runs the model over a trace made by hand; the last list is the first
// thread of the process.
func judge(tr trace, areas [w.DataAreas]int) Verdict {
	s := &scenario.Scenario{Format: scenario.Format, Seed: 1, Areas: areas}
	t := w.Trace{TraceHeader: w.TraceHeader{Seed: 1, End: w.EndComplete, HasViews: 1}}
	for i, rs := range tr.lists {
		if i < len(tr.lists)-1 {
			s.Lists = append(s.Lists, scenario.List{Start: true})
		}
		st := w.Stream{First: uint32(len(t.RecordList)), Count: uint32(len(rs)), By: -1, State: w.StateDone}
		if by, ok := tr.by[i]; ok {
			st.By, st.ByOp, st.Forked = int32(by[0]), uint32(by[1]), uint32(by[2])
		}
		t.StreamList = append(t.StreamList, st)
		t.RecordList = append(t.RecordList, rs...)
	}
	return Check(Run{Scenario: s, Trace: t.Encode(), HasViews: true})
}

// in gives records stamps one after the other, from a first one.
func in(from uint64, rs ...w.Record) []w.Record {
	for i := range rs {
		rs[i].Begin, rs[i].End = from+2*uint64(i), from+2*uint64(i)+1
	}
	return rs
}

var none = []w.Record(nil)

// What must be caught, and its sound counterpart, which must not be.
func TestHandMade(t *testing.T) {
	patched := []w.Record{create(100), patch(100, 0, 0x51), call(w.OpSeal, 100, 0), call(w.OpEnter, 100, 0)}
	with := func(more ...w.Record) []w.Record { return in(1, append(slices.Clone(patched), more...)...) }
	for _, c := range []struct {
		name  string
		bad   trace
		kind  oracle.Kind
		good  trace
		areas [w.DataAreas]int
	}{
		{name: "a store is lost",
			bad:  trace{lists: [][]w.Record{in(1, store(0, 7), load(0, 0, 0)), none}},
			good: trace{lists: [][]w.Record{in(1, store(0, 7), load(0, 7, 0)), none}}, kind: oracle.Memory},
		{name: "a stale value after another thread's store",
			bad:  trace{lists: [][]w.Record{in(1, store(0, 7)), in(3, load(0, 0, 0)), none}},
			good: trace{lists: [][]w.Record{{at(1, 4, store(0, 7))}, in(2, load(0, 0, 0)), none}}, kind: oracle.Memory},
		{name: "access after munmap",
			bad:  trace{lists: [][]w.Record{in(1, store(3, 7), units(w.OpMunmap, 0, 3, 1, 0, 0), load(3, 7, 0)), none}},
			good: trace{lists: [][]w.Record{in(1, store(3, 7), units(w.OpMunmap, 0, 3, 1, 0, 0), load(3, 0, -11)), none}}, kind: oracle.Access},
		{name: "access during munmap is either",
			bad:  trace{lists: [][]w.Record{{at(1, 6, units(w.OpMunmap, 0, 3, 1, 0, 0))}, in(7, load(3, 0, 0)), none}},
			good: trace{lists: [][]w.Record{{at(1, 6, units(w.OpMunmap, 0, 3, 1, 0, 0))}, in(2, load(3, 0, -11), load(3, 0, 0)), none}}, kind: oracle.Access},
		{name: "store to what is read-only",
			bad:  trace{lists: [][]w.Record{in(1, units(w.OpMprotect, 0, 0, 2, 0, w.ProtR), store(1, 9)), none}},
			good: trace{lists: [][]w.Record{in(1, units(w.OpMprotect, 0, 0, 2, 0, w.ProtR), store(2, 9)), none}}, kind: oracle.Access},
		{name: "a fault where none may be",
			bad:  trace{lists: [][]w.Record{in(1, load(5, 0, -11)), none}},
			good: trace{lists: [][]w.Record{in(1, load(5, 0, 0)), none}}, kind: oracle.Access},
		{name: "old content in a fresh mapping",
			bad:  trace{lists: [][]w.Record{in(1, store(0, 7), units(w.OpMmap, 0, 0, 1, 0, w.MapAnon|w.ProtRW<<8), load(0, 7, 0)), none}},
			good: trace{lists: [][]w.Record{in(1, store(0, 7), units(w.OpMmap, 0, 0, 1, 0, w.MapAnon|w.ProtRW<<8), load(0, 0, 0)), none}}, kind: oracle.Memory},
		{name: "content does not move along",
			bad:  trace{lists: [][]w.Record{in(1, store(0, 7), units(w.OpMremap, 0, 0, 1, 0, 0<<8|9), load(9, 0, 0)), none}},
			good: trace{lists: [][]w.Record{in(1, store(0, 7), units(w.OpMremap, 0, 0, 1, 0, 0<<8|9), load(9, 7, 0), load(0, 0, -11)), none}}, kind: oracle.Memory},
		{name: "DONTNEED leaves the page",
			bad:  trace{lists: [][]w.Record{in(1, store(0, 7), units(w.OpMadvise, 0, 0, 1, 0, 4), load(0, 7, 0)), none}},
			good: trace{lists: [][]w.Record{in(1, store(0, 7), units(w.OpMadvise, 0, 0, 1, 0, 4), load(0, 0, 0)), none}}, kind: oracle.Memory},
		{name: "shared memory that DONTNEED empties", areas: [w.DataAreas]int{w.MapShared},
			bad:  trace{lists: [][]w.Record{in(1, store(0, 7), units(w.OpMadvise, 0, 0, 1, 0, 4), load(0, 0, 0)), none}},
			good: trace{lists: [][]w.Record{in(1, store(0, 7), units(w.OpMadvise, 0, 0, 1, 0, 4), load(0, 7, 0)), none}}, kind: oracle.Memory},
		{name: "a write past userfaultfd",
			bad:  trace{lists: [][]w.Record{{at(1, 6, guard(2, 1<<1))}, {at(3, 4, store(3, 7))}, none}},
			good: trace{lists: [][]w.Record{{at(2, 6, guard(2, 1<<1))}, {at(1, 4, store(3, 7))}, none}}, kind: oracle.Memory},
		{name: "a discard under userfaultfd",
			bad:  trace{lists: [][]w.Record{{at(1, 6, guard(2, 1<<0))}, {at(8, 9, units(w.OpMadvise, 0, 2, 1, 0, 4))}, none}},
			good: trace{lists: [][]w.Record{{at(1, 6, guard(2, 1<<0))}, {at(3, 9, units(w.OpMadvise, 0, 2, 1, 0, 4))}, none}}, kind: oracle.Memory},
		{name: "a heap with old content",
			bad:  trace{lists: [][]w.Record{in(1, heap(w.BrkGrow, w.BrkOld)), none}},
			good: trace{lists: [][]w.Record{in(1, heap(w.BrkGrow, 0)), none}}, kind: oracle.Memory},
		{name: "a heap that lost a page",
			bad:  trace{lists: [][]w.Record{in(1, heap(w.BrkLook, w.BrkLost)), none}},
			good: trace{lists: [][]w.Record{in(1, heap(w.BrkLook, 0)), none}}, kind: oracle.Memory},
		{name: "a heap that is still there",
			bad:  trace{lists: [][]w.Record{in(1, heap(w.BrkShrink, w.BrkThere)), none}},
			good: trace{lists: [][]w.Record{in(1, heap(w.BrkShrink, 0)), none}}, kind: oracle.Access},
		{name: "a heap that is missing",
			bad:  trace{lists: [][]w.Record{in(1, heap(w.BrkGrow, w.BrkMissing)), none}},
			good: trace{lists: [][]w.Record{in(1, heap(w.BrkGrow, 0)), none}}, kind: oracle.Access},
		{name: "old code in the new view",
			bad:  trace{lists: [][]w.Record{with(exec(0, w.BaseValue)), none}},
			good: trace{lists: [][]w.Record{with(exec(0, 0x51), exec(1, w.BaseValue+1)), none}}, kind: oracle.Code},
		{name: "new code in the base",
			bad:  trace{lists: [][]w.Record{with(call(w.OpEnter, -1, 0), exec(0, 0x51)), none}},
			good: trace{lists: [][]w.Record{with(call(w.OpEnter, -1, 0), exec(0, w.BaseValue)), none}}, kind: oracle.Code},
		{name: "a write after the seal", bad: trace{lists: [][]w.Record{with(patch(100, 0, 0x52)), none}},
			good: trace{lists: [][]w.Record{with(func() w.Record { r := patch(100, 0, 0x52); r.Ret = eBUSY; return r }()), none}}, kind: oracle.Errno},
		{name: "sealed twice at once",
			bad:  trace{lists: [][]w.Record{{at(1, 2, create(100)), at(3, 6, call(w.OpSeal, 100, 0))}, {at(4, 5, call(w.OpSeal, 100, 0))}, none}},
			good: trace{lists: [][]w.Record{{at(1, 2, create(100)), at(3, 6, call(w.OpSeal, 100, 0))}, {at(4, 5, call(w.OpSeal, 100, eBUSY))}, none}}, kind: oracle.Errno},
		{name: "an online thread is pulled",
			bad: trace{lists: [][]w.Record{
				in(1, append(slices.Clone(patched[:3]), call(w.OpPull, 100, 1))...), in(20, exec(0, 0x51)), none}},
			good: trace{lists: [][]w.Record{
				in(1, append(slices.Clone(patched[:3]), call(w.OpPull, 100, 1))...), {at(2, 19, asleep(1)), at(20, 21, exec(0, 0x51))}, none}}, kind: oracle.Code},
		{name: "a thread is moved some time after it came online",
			bad: trace{lists: [][]w.Record{in(1, append(slices.Clone(patched[:3]), call(w.OpPull, 100, 1))...),
				{at(2, 19, asleep(1)), at(20, 21, exec(0, w.BaseValue)), at(22, 23, exec(0, 0x51))}, none}},
			good: trace{lists: [][]w.Record{in(1, append(slices.Clone(patched[:3]), call(w.OpPull, 100, 1))...),
				{at(2, 19, asleep(1)), at(20, 21, exec(0, w.BaseValue)), at(22, 23, exec(0, w.BaseValue))}, none}}, kind: oracle.Code},
		{name: "a private page outlives munmap",
			bad: trace{lists: [][]w.Record{with(units(w.OpMmap, w.AreaCode, 0, 1, 0, w.MapPrivate|w.ProtRX<<8), exec(0, 0x51)), none}},
			good: trace{lists: [][]w.Record{with(units(w.OpMmap, w.AreaCode, 0, 1, 0, w.MapPrivate|w.ProtRX<<8), exec(0, w.BaseValue)),
				none}}, kind: oracle.Code},
		{name: "a private page becomes writable",
			bad:  trace{lists: [][]w.Record{with(units(w.OpMprotect, w.AreaCode, 0, 1, 0, w.ProtRWX)), none}},
			good: trace{lists: [][]w.Record{with(units(w.OpMprotect, w.AreaCode, 0, 1, eBUSY, w.ProtRWX)), none}}, kind: oracle.Errno},
		{name: "a forked child has the code of the base",
			bad: trace{lists: [][]w.Record{with(call(w.OpFork, -1, 42)), in(30, exec(0, w.BaseValue)), none}, by: map[int][3]int{1: {0, 4, 1}}},
			good: trace{lists: [][]w.Record{with(call(w.OpFork, -1, 42)), in(30, exec(0, 0x51)), none},
				by: map[int][3]int{1: {0, 4, 1}}}, kind: oracle.Code},
		{name: "a child sees what its parent writes later",
			bad:  trace{lists: [][]w.Record{in(1, call(w.OpFork, -1, 42), store(0, 7)), in(20, load(0, 7, 0)), none}, by: map[int][3]int{1: {0, 0, 1}}},
			good: trace{lists: [][]w.Record{in(1, call(w.OpFork, -1, 42), store(0, 7)), in(20, load(0, 0, 0)), none}, by: map[int][3]int{1: {0, 0, 1}}}, kind: oracle.Memory},
		{name: "a child does not see what is written to the file", areas: [w.DataAreas]int{w.MapPrivate},
			bad: trace{lists: [][]w.Record{in(1, call(w.OpFork, -1, 42)), in(20, units(w.OpFileWrite, 0, 0, 1, 8, 9), load(0, 0, 0)), none},
				by: map[int][3]int{1: {0, 0, 1}}},
			good: trace{lists: [][]w.Record{in(1, call(w.OpFork, -1, 42)), in(20, units(w.OpFileWrite, 0, 0, 1, 8, 9), load(0, 9, 0)), none},
				by: map[int][3]int{1: {0, 0, 1}}}, kind: oracle.Memory},
		{name: "a page that was copied before the fork follows the file", areas: [w.DataAreas]int{w.MapPrivate},
			bad: trace{lists: [][]w.Record{in(1, store(0, 7), call(w.OpFork, -1, 42)), in(20, units(w.OpFileWrite, 0, 0, 1, 8, 9), load(0, 9, 0)), none},
				by: map[int][3]int{1: {0, 1, 1}}},
			good: trace{lists: [][]w.Record{in(1, store(0, 7), call(w.OpFork, -1, 42)), in(20, units(w.OpFileWrite, 0, 0, 1, 8, 9), load(0, 7, 0)), none},
				by: map[int][3]int{1: {0, 1, 1}}}, kind: oracle.Memory},
		{name: "locked memory may have been copied before the file was written", areas: [w.DataAreas]int{w.MapPrivate},
			bad:  trace{lists: [][]w.Record{in(1, units(w.OpMlock, 0, 0, 1, 0, 1), units(w.OpFileWrite, 0, 0, 1, 8, 9), load(0, 8, 0)), none}},
			good: trace{lists: [][]w.Record{in(1, units(w.OpMlock, 0, 0, 1, 0, 1), units(w.OpFileWrite, 0, 0, 1, 8, 9), load(0, 0, 0)), none}},
			kind: oracle.Memory},
		{name: "a page is copied before what is stored is in it", areas: [w.DataAreas]int{w.MapPrivate},
			bad:  trace{lists: [][]w.Record{{at(1, 8, store(0, 7))}, in(9, units(w.OpFileWrite, 0, 0, 1, 8, 9), load(0, 0, 0)), none}},
			good: trace{lists: [][]w.Record{{at(1, 8, store(0, 7))}, in(2, units(w.OpFileWrite, 0, 0, 1, 8, 9), load(0, 0, 0)), none}},
			kind: oracle.Memory},
		{name: "a clone starts in the base",
			bad:  trace{lists: [][]w.Record{with(call(w.OpSpawn, -1, 0)), in(30, exec(0, w.BaseValue)), none}, by: map[int][3]int{1: {0, 4, 0}}},
			good: trace{lists: [][]w.Record{with(call(w.OpSpawn, -1, 0)), in(30, exec(0, 0x51)), none}, by: map[int][3]int{1: {0, 4, 0}}}, kind: oracle.Code},
		{name: "drained with a thread inside",
			bad:  trace{lists: [][]w.Record{with(call(w.OpPoll, 100, 1), exec(0, 0x51)), none}},
			good: trace{lists: [][]w.Record{with(call(w.OpPoll, 100, 0), exec(0, 0x51)), none}}, kind: oracle.Errno},
		{name: "not drained though empty",
			bad:  trace{lists: [][]w.Record{with(call(w.OpEnter, -1, 0), call(w.OpPoll, 100, 0)), none}},
			good: trace{lists: [][]w.Record{with(call(w.OpEnter, -1, 0), call(w.OpPoll, 100, 1)), none}}, kind: oracle.Errno},
		{name: "another process's view",
			bad:  trace{lists: [][]w.Record{in(1, create(100), call(w.OpFork, -1, 42)), in(20, call(w.OpSeal, 100, 0)), none}, by: map[int][3]int{1: {0, 1, 1}}},
			good: trace{lists: [][]w.Record{in(1, create(100), call(w.OpFork, -1, 42)), in(20, call(w.OpSeal, 100, ePERM)), none}, by: map[int][3]int{1: {0, 1, 1}}}, kind: oracle.Errno},
		{name: "rebase with a thread in the base",
			bad: trace{lists: [][]w.Record{with(call(w.OpRebase, 100, 0), exec(0, 0x51)), none, in(50, call(w.OpWho, -1, 0))}},
			good: trace{lists: [][]w.Record{with(call(w.OpRebase, 100, 0), exec(0, 0x51)),
				none, {at(1, 40, w.Record{Kind: w.OpSleep, FD: -1, Flags: w.FlagOffline})}}}, kind: oracle.Errno},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "rebase with a thread in the base" {
				// The thread that waits was pulled before.
				c.good.lists[0] = in(1, append(slices.Clone(patched), call(w.OpPull, 100, 1), call(w.OpRebase, 100, 0), exec(0, 0x51))...)
				c.bad.lists[2] = append(in(1, none...), at(1, 2, w.Record{Kind: w.OpRegister, FD: -1}), at(60, 61, w.Record{Kind: w.OpRegister, FD: -1}))
				c.bad.lists[0] = in(3, append(slices.Clone(patched), call(w.OpRebase, 100, 0), exec(0, 0x51))...)
			}
			if v := judge(c.good, c.areas); v.Status != oracle.Pass {
				t.Errorf("the sound one: %s: %v", v.Status, v.Violations)
			}
			v := judge(c.bad, c.areas)
			if v.Status != oracle.Violated || v.ByKind[c.kind] == 0 {
				t.Errorf("%s: %v", v.Status, v.Violations)
			}
			if Title(v) == "" || strings.ContainsAny(Title(v), "0123456789") {
				t.Errorf("title %q", Title(v))
			}
		})
	}
}

// Debuggers that write to one function all at the same time: each may have
// found there what any other left, which must not take a walk along every order.
func TestManyPokesAtOnce(t *testing.T) {
	const pokes = 24
	poke := func(to uint64) w.Record {
		return at(10, 100, w.Record{Kind: w.OpTaskWrite, FD: 0, Unit: 0, Val: to, Ret: w.FnBytes})
	}
	for _, c := range []struct {
		seen uint64
		want oracle.Status
	}{
		{w.BaseValue + 0x2200, oracle.Pass},
		{w.BaseValue + 0x1100, oracle.Pass},
		{w.BaseValue + 0x99000000, oracle.Violated},
	} {
		// Whether they write to the base or to the view is open, too.
		tr := trace{lists: [][]w.Record{append(in(1, create(100), patch(100, 0, w.BaseValue+0x2200), call(w.OpSeal, 100, 0)),
			at(10, 100, call(w.OpEnter, 100, 0)), at(200, 201, exec(0, c.seen)))}}
		for i := range uint64(pokes) {
			tr.lists = append(tr.lists, []w.Record{poke(w.BaseValue + i<<8)})
		}
		tr.lists = append(tr.lists, none)
		if v := judge(tr, [w.DataAreas]int{}); v.Status != c.want {
			t.Errorf("seen %#x: %s: %v", c.seen, v.Status, v.Violations)
		}
	}
}

// What ended before anything got stuck is judged; what came after is not.
func TestStuckIsJudgedAsFar(t *testing.T) {
	open := at(5, 0, call(w.OpSeal, 100, 0))
	for _, c := range []struct {
		list []w.Record
		want int
	}{
		{in(1, store(0, 7), load(0, 8, 0)), 1},
		{in(6, store(0, 7), load(0, 8, 0)), 0},
		{in(1, store(0, 7), load(0, 7, 0)), 0},
	} {
		if v := judge(trace{lists: [][]w.Record{c.list, {open}, none}}, [w.DataAreas]int{}); v.ByKind[oracle.Memory] != c.want {
			t.Errorf("%v: %v", c.list, v.Violations)
		}
	}
}

func TestEnds(t *testing.T) {
	s := &scenario.Scenario{Format: scenario.Format, Seed: 1, Lists: []scenario.List{{Start: true}}}
	whole := w.Trace{TraceHeader: w.TraceHeader{Seed: 1, HasViews: 1}, StreamList: make([]w.Stream, 2)}
	for _, c := range []struct {
		name string
		run  Run
		want oracle.Status
		kind oracle.Kind
	}{
		{"well", Run{Trace: whole.Encode()}, oracle.Pass, ""},
		{"nothing came back", Run{}, oracle.Broken, ""},
		{"timeout", Run{End: oracle.End{TimedOut: true}}, oracle.Unknown, ""},
		{"no machine", Run{End: oracle.End{NotRun: true}}, oracle.Unknown, ""},
		{"bad input", Run{End: oracle.End{Code: w.EndUsage}}, oracle.Broken, ""},
		{"complaint", Run{Trace: whole.Encode(), Complaints: []string{"BUG: x"}}, oracle.Violated, oracle.Kernel},
		{"crash", Run{End: oracle.End{Code: w.EndCrash}, Trace: whole.Encode()}, oracle.Violated, oracle.Crash},
		{"stuck", Run{End: oracle.End{Code: w.EndStuck}, Trace: whole.Encode()}, oracle.Violated, oracle.Hang},
		{"half a trace", Run{Trace: whole.Encode()[:100]}, oracle.Broken, ""},
		{"another's", Run{Trace: (&w.Trace{TraceHeader: w.TraceHeader{Seed: 2, HasViews: 1}, StreamList: make([]w.Stream, 2)}).Encode()}, oracle.Broken, ""},
	} {
		c.run.Scenario = s
		v := Check(c.run)
		if v.Status != c.want || c.kind != "" && v.ByKind[c.kind] == 0 {
			t.Errorf("%s: %s %v %s", c.name, v.Status, v.Violations, v.Note)
		}
	}
	no := w.Trace{TraceHeader: w.TraceHeader{Seed: 1}, StreamList: make([]w.Stream, 2)}
	if v := Check(Run{Scenario: s, Trace: no.Encode()}); v.Status != oracle.Unsupported {
		t.Errorf("a kernel without views: %s", v.Status)
	}
	if v := Check(Run{Scenario: s, Trace: no.Encode(), HasViews: true}); v.Status != oracle.Violated {
		t.Errorf("a kernel that lost its views: %s", v.Status)
	}
}

// slow searches all orders that the stamps allow for one that explains every
// read of one word.
func slow(rs []w.Record) bool {
	done := make([]bool, len(rs))
	var search func(left int, val uint64) bool
	search = func(left int, val uint64) bool {
		if left == 0 {
			return true
		}
		first := uint64(never) // nothing may come that began after this
		for i, r := range rs {
			if !done[i] {
				first = min(first, r.End)
			}
		}
		for i, r := range rs {
			if done[i] || r.Begin > first {
				continue
			}
			next := val
			if r.Kind == w.OpStore {
				next = r.Val
			} else if r.Val != val {
				continue
			}
			done[i] = true
			if search(left-1, next) {
				return true
			}
			done[i] = false
		}
		return false
	}
	return search(len(rs), 0)
}

// A history that some order explains is never a violation; and of those that no
// order explains, the model must find most.
func TestAgainstSearch(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	wrong, found := 0, 0
	for n := range 30000 {
		var tr trace
		var all []w.Record
		lists := 2 + rnd.IntN(2)
		ends := make([]uint64, lists)
		tr.lists = make([][]w.Record, lists+1)
		stamp := uint64(1)
		open := make([]*w.Record, lists)
		for step := 0; step < 14; step++ {
			l := rnd.IntN(lists)
			if open[l] == nil {
				r := store(0, uint64(n*100+step+1))
				if rnd.IntN(2) == 0 {
					r = load(0, 0, 0)
				}
				r.Begin = stamp
				open[l] = &r
			} else {
				open[l].End = stamp
				tr.lists[l] = append(tr.lists[l], *open[l])
				open[l] = nil
			}
			ends[l] = stamp
			stamp++
		}
		var written []uint64
		for _, rs := range tr.lists {
			for _, r := range rs {
				if r.Kind == w.OpStore {
					written = append(written, r.Val)
				}
			}
		}
		for i, rs := range tr.lists {
			for j := range rs {
				if r := &tr.lists[i][j]; r.Kind == w.OpLoad && len(written) > 0 && rnd.IntN(3) > 0 {
					r.Val = written[rnd.IntN(len(written))]
				}
				all = append(all, tr.lists[i][j])
			}
		}
		ok := slow(all)
		v := judge(tr, [w.DataAreas]int{})
		if ok && v.Status != oracle.Pass {
			t.Fatalf("history %d has an order and is refused: %v\n%s", n, v.Violations, fmt.Sprint(all))
		}
		if !ok {
			wrong++
			if v.Status == oracle.Violated {
				found++
			}
		}
	}
	t.Logf("%d of %d histories without an order found", found, wrong)
	if found < wrong*8/10 {
		t.Errorf("only %d of %d histories without an order are found", found, wrong)
	}
}
