// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/wire"
)

// generation is the whole text after one more patch took effect.
type generation struct {
	id       uint64
	content  []int // by function: version
	seen     uint64
	lastOver uint64
}

// history is all generations of a run, oldest first. Positions in it, not ids,
// are what the checks compare.
type history struct {
	gens []generation
	code []workloads.Function
	// by function and version: the positions that have it, as a bit set
	has []map[int]set
}

type set []uint64

func (s set) has(i int) bool { return s[i/64]>>(i%64)&1 == 1 }

// least returns the lowest member from at on, or -1.
func (s set) least(at int) int {
	for i := max(at, 0); i < 64*len(s); i++ {
		if w := s[i/64] >> (i % 64); w != 0 {
			return i + bits.TrailingZeros64(w)
		}
		i |= 63
	}
	return -1
}

// most returns the highest member, or -1.
func (s set) most() int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] != 0 {
			return 64*i + 63 - bits.LeadingZeros64(s[i])
		}
	}
	return -1
}

func (h *history) index() {
	h.has = make([]map[int]set, len(h.code))
	for f := range h.has {
		h.has[f] = map[int]set{}
	}
	for i, g := range h.gens {
		for f, v := range g.content {
			if h.has[f][v] == nil {
				h.has[f][v] = make(set, (len(h.gens)+63)/64)
			}
			h.has[f][v][i/64] |= 1 << (i % 64)
		}
	}
}

// Stages of a report, as wflp.h numbers them.
const (
	stagePublished = 2
	stageReleased  = 5
	stageFailed    = 6
)

// Errors that say that a patch was refused for want of something, which is not
// a wrong outcome: no view left, no memory.
const (
	errnoMEM   = -12
	errnoBUSY  = -16
	errnoMFILE = -24
	errnoSTALE = -116
)

// checkPatches holds the reports to what the spec asks, and makes the history.
//
// In a run that was cut short the last patches have no report yet. They are
// presumed to take effect in their order, since a thread may have run them.
func checkPatches(v *verdict, run Run) *history {
	s, t := run.Spec, run.Trace
	h := &history{code: s.Functions}
	content := make([]int, len(s.Functions))
	h.gens = append(h.gens, generation{id: t.BaseGeneration, content: slices.Clone(content)})
	cut := t.End != wire.EndComplete
	if !cut && len(t.ReportList) != len(s.Patches) {
		v.note(Broken, "%d reports of %d patches", len(t.ReportList), len(s.Patches))
	}
	for _, r := range t.ReportList {
		if int(r.Patch) >= len(s.Patches) {
			v.note(Broken, "report of patch %d of %d", r.Patch, len(s.Patches))
			continue
		}
		if run.Strategy == wire.StrategyNone {
			continue
		}
		p := s.Patches[r.Patch]
		wanting := r.Error == errnoMEM || r.Error == errnoMFILE || r.Result == errnoMEM
		effect := r.Stage >= stagePublished && r.Stage < stageFailed
		switch {
		case p.Try && r.Result == errnoBUSY:
		case r.Result != 0 && !wanting:
			v.violate(Outcome, -1, -1, "patch %d was not accepted: %d", r.Patch, r.Result)
		case r.Result != 0:
		case p.Wrong && effect:
			v.violate(Outcome, -1, -1, "patch %d took effect over other code than it was made for", r.Patch)
		case p.Wrong && r.Stage == stageFailed && r.Error != errnoSTALE && !wanting:
			v.violate(Outcome, -1, -1, "patch %d was refused with %d, want %d", r.Patch, r.Error, errnoSTALE)
		case p.Wrong && r.Stage == stageFailed:
		case r.Stage == stageFailed && r.Error == errnoBUSY && run.Strategy == wire.StrategyStopworld: // never a moment for it
		case r.Stage == stageFailed && !wanting:
			v.violate(Outcome, -1, -1, "patch %d failed: %d", r.Patch, r.Error)
		case !effect && r.Stage != stageFailed && !cut:
			v.violate(Outcome, -1, -1, "patch %d is still at stage %d", r.Patch, r.Stage)
		case effect && r.Stage != stageReleased && !cut:
			v.violate(Leak, -1, -1, "patch %d: what came before generation %d was not released", r.Patch, r.Generation)
		}
		presumed := cut && !effect && r.Stage != stageFailed && r.Result == 0 && !p.Wrong
		if !effect && !presumed {
			v.Counts.Refused++
			continue
		}
		for _, c := range p.Changes {
			content[c.Function] = c.Version
		}
		g := generation{id: r.Generation, content: slices.Clone(content), seen: r.SeenNS, lastOver: r.LastOverNS}
		last := h.gens[len(h.gens)-1].id
		if presumed && g.id == 0 {
			g.id = last + 1
		}
		if g.id <= last {
			v.violate(Outcome, -1, -1, "patch %d made generation %d after %d", r.Patch, g.id, last)
		}
		h.gens = append(h.gens, g)
		if effect {
			v.Counts.Published++
			v.Counts.Migrated += int(r.Migrated)
			v.Counts.Pulled += int(r.Pulled)
		}
	}
	h.index()
	return h
}

// txn is one transaction as recorded.
type txn struct {
	worker, record int
	n              int    // which of the worker's transactions
	claimed        uint64 // generation that the thread was in, low 32 bits
	at             uint64 // before the quiescence point that it starts with
	next           uint64 // a moment after it and before the next one; 0: unknown
	child, cut     bool
	want           []int // functions
	execs          []wire.Record
}

// transactions takes a stream apart.
func transactions(s *workloads.Spec, t *wire.Trace, worker int) []txn {
	recs := t.Of(t.StreamList[worker])
	var out []txn
	n := 0
	open := -1 // transaction that waits for a next moment
	for i := 0; i < len(recs); i++ {
		r := recs[i]
		if timed(r.Kind) && open >= 0 {
			out[open].next = r.C
			open = -1
		}
		if r.Kind != wire.RecordTxn {
			continue
		}
		x := txn{worker: worker, record: i, n: n, claimed: uint64(r.B), at: r.C, child: r.A&wire.TxnChild != 0}
		from := i + 1
		for from < len(recs) && recs[from].Kind == wire.RecordMoved {
			from++
		}
		to := from
		for to < len(recs) && recs[to].Kind&wire.RecordExec != 0 {
			to++
		}
		x.execs = recs[from:to]
		if r.A&wire.TxnEmpty == 0 {
			x.want = s.Transaction(worker, n)
			if !x.child {
				n++
			}
		}
		x.cut = to == len(recs) && t.End != wire.EndComplete
		out = append(out, x)
		open = len(out) - 1
		i = to - 1
	}
	return out
}

// timed tells whether c of a record is a time at which no transaction ran that
// was recorded before it.
func timed(kind uint16) bool {
	switch kind {
	case wire.RecordTxn, wire.RecordReqStart, wire.RecordReqEnd, wire.RecordOffline, wire.RecordDeath, wire.RecordOp:
		return true
	}
	return false
}

// version returns the version that one execution ran, if it ran one.
func version(f workloads.Function, e wire.Exec) (int, error) {
	v := int(e.First)
	if v == 0 || v > len(f.Versions) {
		return 0, fmt.Errorf("entered in version %d of %d", v, len(f.Versions))
	}
	if e.Last != e.First {
		return 0, fmt.Errorf("entered in version %d, left in %d", e.First, e.Last)
	}
	for i, p := range e.Parts {
		switch {
		case i < f.Parts && p == 0:
			return 0, fmt.Errorf("part %d of version %d did not run", i, v)
		case i < f.Parts && int(p) != v:
			return 0, fmt.Errorf("part %d ran in version %d, the rest in %d", i, p, v)
		case i >= f.Parts && p != 0:
			return 0, fmt.Errorf("part %d ran and does not exist", i)
		}
	}
	if want := f.LoopSum(v - 1); e.Loop != want {
		return 0, fmt.Errorf("loops of version %d added up to %d, want %d", v, e.Loop, want)
	}
	return v - 1, nil
}

// checkExecutions is the oracle for torn executions. A transaction that a crash
// or the watchdog cut off is left out.
func checkExecutions(v *verdict, s *workloads.Spec, txns []txn) {
	for _, x := range txns {
		v.Counts.Executions += len(x.execs)
		v.Counts.Transactions++
		if x.child {
			v.Counts.Forks++
		}
		if x.cut {
			continue
		}
		if len(x.execs) != len(x.want) {
			v.violate(Torn, x.worker, x.record, "%d executions, want %d", len(x.execs), len(x.want))
		}
		for i, r := range x.execs[:min(len(x.execs), len(x.want))] {
			f, _ := r.IsExec()
			if f != x.want[i] {
				v.violate(Torn, x.worker, x.record+i, "execution %d is of function %d, want %d", i, f, x.want[i])
				break // all that follows is out of step
			}
			if _, err := version(s.Functions[f], r.Exec()); err != nil {
				v.violate(Torn, x.worker, x.record+i, "function %d: %v", f, err)
			}
		}
	}
}

// sound lists function and version of the executions that were not torn.
func (x txn) sound(s []workloads.Function) [][2]int {
	var out [][2]int
	for _, r := range x.execs {
		if f, _ := r.IsExec(); f < len(s) {
			if ver, err := version(s[f], r.Exec()); err == nil {
				out = append(out, [2]int{f, ver})
			}
		}
	}
	return out
}
