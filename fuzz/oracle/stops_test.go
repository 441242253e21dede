// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"slices"
	"testing"

	"github.com/wflp/wflp/workloads/wire"
)

// stopped is a correct run of small under stopworld: the second transaction of
// worker 0 begins in generation 1, and patch 0 comes after its function 0 and
// what that calls, before function 1. Patch 1 takes a second stop, since its
// function is on a stack at the first.
func stopped(t *testing.T) Run {
	r := clean()
	r.Strategy, r.Trace.Strategy = wire.StrategyStopworld, wire.StrategyStopworld
	s := streams(r.Trace)
	i := nth(t, s[0], wire.RecordTxn, 1)
	s[0][i].B, s[0][i].C = 1, 19000
	s[0][i+2], s[0][i+3] = execOf(r.Spec, 0, 0), execOf(r.Spec, 2, 0)
	for w := range s {
		s[w] = slices.DeleteFunc(s[w], func(x wire.Record) bool { return x.Kind == wire.RecordMoved })
	}
	setStreams(r.Trace, s...)
	for i := range r.Trace.CounterList {
		r.Trace.CounterList[i].Value = 3
	}
	r.Trace.StopList = []wire.Stop{
		{Patch: 0, Result: wire.StopApplied, Threads: 3, Walked: 9},
		{Patch: 1, Result: wire.StopActive, Threads: 3, Walked: 11, Frames: 2},
		{Patch: 1, Result: wire.StopUnknown, Threads: 3, Walked: 8, Frame: 2},
		{Patch: 1, Result: wire.StopApplied, Threads: 3, Walked: 10, Frame: 2, Frames: 1},
		{Patch: 3, Result: wire.StopApplied, Threads: 3, Walked: 9, Frame: 3},
	}
	r.Trace.FrameList = []wire.Frame{{TID: 7, Function: 2}, {TID: 7, Function: 0}, {TID: 7, Function: 1}}
	return r
}

func TestStops(t *testing.T) {
	v := Check(stopped(t))
	if v.Status != Pass {
		t.Fatalf("%s: %s", v.Status, v.Note)
	}
	if c := v.Counts; c.Stops != 5 || c.StopsActive != 1 || c.StopsUnknown != 1 || c.MixedAllowed != 1 {
		t.Errorf("counts %+v", c)
	}
	for name, c := range map[string]struct {
		kind   Kind
		change func(r *Run, s [][]wire.Record)
	}{
		"changed while on a stack": {Active, func(r *Run, _ [][]wire.Record) { r.Trace.FrameList[2].Function = 2 }},
		"changed without a stop":   {Active, func(r *Run, _ [][]wire.Record) { r.Trace.StopList = r.Trace.StopList[:4] }},
		"changed twice": {Active, func(r *Run, _ [][]wire.Record) {
			r.Trace.StopList[1].Result, r.Trace.StopList[1].Frames = wire.StopApplied, 0
		}},
		"a refused one was applied": {Active, func(r *Run, _ [][]wire.Record) { r.Trace.StopList[4].Patch = 2 }},
		"back to older code": {Regression, func(r *Run, s [][]wire.Record) {
			i := nth(t, s[0], wire.RecordTxn, 1)
			s[0][i+1], s[0][i+3] = execOf(r.Spec, 0, 1), execOf(r.Spec, 1, 0)
		}},
		"older than it began": {Stale, func(r *Run, s [][]wire.Record) {
			i := nth(t, s[0], wire.RecordTxn, 2)
			s[0][i+2] = execOf(r.Spec, 2, 0)
		}},
		"old after it was told": {Stale, func(r *Run, s [][]wire.Record) {
			i := nth(t, s[0], wire.RecordTxn, 1)
			s[0][i].C = 19511
			s[0][i+3] = execOf(r.Spec, 1, 0)
		}},
		"torn": {Torn, func(r *Run, s [][]wire.Record) {
			i := nth(t, s[0], wire.RecordTxn, 1)
			e := s[0][i+1].Exec()
			e.Last = 2
			s[0][i+1] = e.Record()
		}},
	} {
		r := stopped(t)
		s := streams(r.Trace)
		c.change(&r, s)
		setStreams(r.Trace, s...)
		if v := Check(r); v.Status != Violated || v.ByKind[c.kind] == 0 {
			t.Errorf("%s: %s %v: %s", name, v.Status, v.ByKind, v.Note)
		}
	}
	r := stopped(t)
	r.Trace.StopsLost = 1
	if v := Check(r); v.Status != Broken {
		t.Errorf("stops without record: %s", v.Status)
	}
}
