// SPDX-License-Identifier: Apache-2.0

package oracle

// checkGenerations holds the transactions of one thread to the history.
//
// Which generation a transaction ran in is not always told by its evidence: a
// patch may touch none of its functions, or bring an old version back. So each
// has a set of candidates, and the thread is correct if one can be chosen from
// each set so that they never go down. Choosing the least that is not below the
// one before leaves the most room for the rest; so if that choice fails, all do.
func checkGenerations(v *verdict, h *history, txns []txn) {
	at := 0
	for _, x := range txns {
		if x.cut {
			continue
		}
		cand, alien := h.candidates(x)
		if alien != nil {
			v.violate(Outcome, x.worker, x.record, "function %d ran version %d, which is of no generation", alien[0], alien[1])
			continue
		}
		if cand == nil {
			continue // no evidence
		}
		most := cand.most()
		if most < 0 {
			v.violate(Mixed, x.worker, x.record, "%d functions, of no one generation", len(x.execs))
			continue
		}
		h.checkClaim(v, x, cand)
		h.checkStale(v, x, most)
		next := cand.least(at)
		if next < 0 {
			v.violate(Regression, x.worker, x.record, "generation %d at most, after %d", h.gens[most].id, h.gens[at].id)
			next = most
		}
		at = next
	}
}

// candidates returns the generations that fit all executions; nil without
// executions, and the function and version that are of none, if there is one.
func (h *history) candidates(x txn) (set, []int) {
	var all set
	for _, e := range x.sound(h.code) {
		has := h.has[e[0]][e[1]]
		if has == nil {
			return nil, []int{e[0], e[1]}
		}
		if all == nil {
			all = append(set(nil), has...)
			continue
		}
		for i := range all {
			all[i] &= has[i]
		}
	}
	return all, nil
}

// checkClaim: the generation that the library says the thread is in is the one
// that it runs.
func (h *history) checkClaim(v *verdict, x txn, cand set) {
	pos, ok := h.claimed(x.claimed)
	switch {
	case !ok:
		v.violate(Outcome, x.worker, x.record, "in generation %d, which no patch made", x.claimed)
	case cand.has(pos):
	case cand.most() < pos:
		v.violate(Stale, x.worker, x.record, "in generation %d, ran %d at most", x.claimed, h.gens[cand.most()].id)
	case cand.least(pos) >= 0:
		v.violate(Early, x.worker, x.record, "in generation %d, ran %d", x.claimed, h.gens[cand.least(pos)].id)
	}
}

func (h *history) claimed(id uint64) (int, bool) {
	for i := len(h.gens) - 1; i >= 0; i-- {
		if uint64(uint32(h.gens[i].id)) == id {
			return i, true
		}
	}
	return 0, false
}

// checkStale: two moments after which old code must not run.
//
// Publication: whoever waited for it and was told (seen) knows it to be before
// any quiescence point passed later. The time in the report would not do: it
// is taken before the threads are told.
//
// Last over: "no registered thread can reach the old code". A transaction of
// old code that was still open then contradicts it.
func (h *history) checkStale(v *verdict, x txn, most int) {
	if h.checkSeen(v, x, most) {
		return
	}
	for i := len(h.gens) - 1; i > most; i-- {
		g := h.gens[i]
		if g.lastOver != 0 && x.next > g.lastOver && !x.child {
			v.violate(Stale, x.worker, x.record, "ran generation %d at most, %d ns after the last thread was over to %d", h.gens[most].id, x.next-g.lastOver, g.id)
			return
		}
	}
}

// checkSeen is the first of the two; it tells whether it was violated.
func (h *history) checkSeen(v *verdict, x txn, most int) bool {
	for i := len(h.gens) - 1; i > most; i-- {
		if g := h.gens[i]; g.seen != 0 && x.at > g.seen && !x.child {
			v.violate(Stale, x.worker, x.record, "ran generation %d at most, %d ns after %d was published", h.gens[most].id, x.at-g.seen, g.id)
			return true
		}
	}
	return false
}
