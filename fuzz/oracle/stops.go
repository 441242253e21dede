// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"slices"

	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/wire"
)

// checkStops holds the stops of all threads to what makes them safe: when code
// was changed, every stack had been walked, and no function of the patch was on
// one; and code was changed in no other way. That the stacks were those of the
// program is what the torn executions would refute.
func checkStops(v *verdict, run Run) {
	s, t := run.Spec, run.Trace
	applied := map[uint32]int{}
	for i, x := range t.StopList {
		if int(x.Patch) >= len(s.Patches) {
			v.note(Broken, "stop for patch %d of %d", x.Patch, len(s.Patches))
			continue
		}
		v.Counts.Stops++
		switch x.Result {
		case wire.StopActive:
			v.Counts.StopsActive++
			continue
		case wire.StopUnknown:
			v.Counts.StopsUnknown++
			continue
		}
		applied[x.Patch]++
		for _, f := range t.FrameList[x.Frame : x.Frame+x.Frames] {
			if slices.ContainsFunc(s.Patches[x.Patch].Changes, func(c workloads.Change) bool { return c.Function == int(f.Function) }) {
				v.violate(Active, -1, -1, "stop %d: patch %d changed function %d, which thread %d was in at %#x", i, x.Patch, f.Function, f.TID, f.IP)
			}
		}
	}
	if t.StopsLost > 0 {
		v.note(Broken, "%d stops or frames were not recorded", t.StopsLost)
		return
	}
	if run.Strategy != wire.StrategyStopworld {
		return
	}
	for _, r := range t.ReportList {
		want := 0
		if r.Stage >= stagePublished && r.Stage < stageFailed {
			want = 1
		}
		if applied[r.Patch] != want && t.End == wire.EndComplete {
			v.violate(Active, -1, -1, "patch %d was applied in %d stops, want %d", r.Patch, applied[r.Patch], want)
		}
	}
}

// checkOrder is checkGenerations for a strategy that changes code at any moment
// in a transaction. It promises that no function is changed while it is active,
// so each execution is of one generation, and the next, in the order in which
// they were entered, of none older: while one is on the stack its code stays, so
// that of its caller holds all that time. The generation of a transaction is the
// one that it began in at the least.
func checkOrder(v *verdict, h *history, txns []txn) {
	at := 0
	for _, x := range txns {
		if x.cut {
			continue
		}
		from, ok := h.claimed(x.claimed)
		if !ok {
			v.violate(Outcome, x.worker, x.record, "in generation %d, which no patch made", x.claimed)
			continue
		}
		all, alien := h.candidates(x)
		if alien == nil && all != nil && all.most() < 0 {
			v.Counts.MixedAllowed++
		}
		for i := range x.execs {
			one := x
			one.execs = x.execs[i : i+1]
			cand, alien := h.candidates(one)
			if alien != nil {
				v.violate(Outcome, x.worker, x.record, "function %d ran version %d, which is of no generation", alien[0], alien[1])
				break
			}
			if cand == nil {
				continue // torn, which is told elsewhere
			}
			most := cand.most()
			if most < from {
				v.violate(Stale, x.worker, x.record, "in generation %d, ran %d at most", x.claimed, h.gens[most].id)
				break
			}
			h.checkSeen(v, one, most)
			next := cand.least(at)
			if next < 0 {
				v.violate(Regression, x.worker, x.record, "generation %d at most, after %d", h.gens[most].id, h.gens[at].id)
				next = most
			}
			at = next
		}
	}
}
