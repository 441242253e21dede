// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/wire"
)

// The second implementations: from the definitions, by trying everything.

// slowVersion: an execution is sound if it is exactly what some version leaves.
func slowVersion(s *workloads.Spec, fn int, r wire.Record) (int, bool) {
	for v := range s.Functions[fn].Versions {
		if r == execOf(s, fn, v) {
			return v, true
		}
	}
	return 0, false
}

func slowTree(s *workloads.Spec, fn int, visit func(int)) {
	visit(fn)
	for part := 0; part < s.Functions[fn].Parts; part++ {
		for _, c := range s.Functions[fn].Calls {
			if c.After == part {
				slowTree(s, c.Callee, visit)
			}
		}
	}
}

// slowKinds says which kinds of violation each transaction of a thread shows.
func slowKinds(s *workloads.Spec, gens []generation, txns []txn) []map[Kind]bool {
	out := make([]map[Kind]bool, len(txns))
	reach := []int{0} // generations that the thread may be in
	for i, x := range txns {
		k := map[Kind]bool{}
		out[i] = k
		var want []int
		w := s.Workers[x.worker]
		for j := range w.Interval {
			slowTree(s, w.Roots[(x.n*w.Interval+j)%len(w.Roots)], func(f int) { want = append(want, f) })
		}
		if len(want) != len(x.execs) {
			k[Torn] = true
		}
		var sound [][2]int
		step := true
		for j, r := range x.execs {
			f := int(r.Kind) - wire.RecordExec
			if j < len(want) && step && f != want[j] {
				k[Torn] = true
				step = false
			}
			if v, ok := slowVersion(s, f, r); ok {
				sound = append(sound, [2]int{f, v})
			} else if j < len(want) && step {
				k[Torn] = true
			}
		}
		if len(sound) == 0 {
			continue
		}
		alien := slices.ContainsFunc(sound, func(e [2]int) bool {
			return !slices.ContainsFunc(gens, func(g generation) bool { return g.content[e[0]] == e[1] })
		})
		if alien {
			k[Outcome] = true
			continue
		}
		var cand []int
		for g := range gens {
			if !slices.ContainsFunc(sound, func(e [2]int) bool { return gens[g].content[e[0]] != e[1] }) {
				cand = append(cand, g)
			}
		}
		if len(cand) == 0 {
			k[Mixed] = true
			continue
		}
		claim := slices.IndexFunc(gens, func(g generation) bool { return g.id == x.claimed })
		switch {
		case claim < 0:
			k[Outcome] = true
		case slices.Contains(cand, claim):
		case slices.Max(cand) < claim:
			k[Stale] = true
		default:
			k[Early] = true
		}
		for j, g := range gens {
			if slices.Max(cand) < j && (g.seen != 0 && g.seen < x.at || g.lastOver != 0 && g.lastOver < x.next) {
				k[Stale] = true
			}
		}
		var next []int
		for _, g := range cand {
			if slices.ContainsFunc(reach, func(p int) bool { return p <= g }) {
				next = append(next, g)
			}
		}
		if len(next) == 0 {
			k[Regression] = true
			next = []int{slices.Max(cand)}
		}
		reach = next
	}
	return out
}

// TestAgainstSlow makes random histories and threads that mostly follow them,
// and compares what both implementations find, transaction by transaction.
func TestAgainstSlow(t *testing.T) {
	found := map[Kind]int{}
	quiet := 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		s := workloads.Wild(seed, workloads.WildParams{Patches: 1 + rng.IntN(90), Records: 500})
		h := &history{code: s.Functions}
		content := make([]int, len(s.Functions))
		h.gens = append(h.gens, generation{id: 1, content: slices.Clone(content)})
		at := uint64(0)
		for i, p := range s.Patches {
			if p.Wrong {
				continue
			}
			for _, c := range p.Changes {
				content[c.Function] = c.Version
			}
			at += uint64(rng.IntN(2000))
			g := generation{id: uint64(i + 2), content: slices.Clone(content)}
			if rng.IntN(4) > 0 {
				g.seen, g.lastOver = at+50, at+200
			}
			h.gens = append(h.gens, g)
		}
		h.index()
		var txns []txn
		now := uint64(100)
		for n := range 40 {
			next := now + uint64(rng.IntN(int(2*at/40+100)))
			g := 0 // the newest that the thread must run
			for i := range h.gens {
				if h.gens[i].seen != 0 && h.gens[i].seen < now || h.gens[i].lastOver != 0 && h.gens[i].lastOver < next {
					g = i
				}
			}
			x := txn{n: n, record: n, at: now, next: next, claimed: h.gens[g].id, want: s.Transaction(0, n)}
			if rng.IntN(30) == 0 {
				g = rng.IntN(len(h.gens))
			}
			if rng.IntN(30) == 0 {
				x.claimed = uint64(rng.IntN(len(s.Patches) + 3))
			}
			for _, f := range x.want {
				r := execOf(s, f, h.gens[g].content[f])
				switch rng.IntN(150) {
				case 0: // another version, whole
					r = execOf(s, f, rng.IntN(len(s.Functions[f].Versions)))
				case 1: // a byte of it
					r.C ^= uint64(1+rng.IntN(3)) << (8 * rng.IntN(8))
				case 2:
					r.B++
				case 3: // another function
					f = rng.IntN(len(s.Functions))
					r = execOf(s, f, h.gens[g].content[f])
				}
				if rng.IntN(300) > 0 {
					x.execs = append(x.execs, r)
				}
			}
			txns = append(txns, x)
			now = next
		}
		want := slowKinds(s, h.gens, txns)
		v := &verdict{}
		v.ByKind = map[Kind]int{}
		checkExecutions(v, s, txns)
		checkGenerations(v, h, txns)
		got := make([]map[Kind]bool, len(txns))
		for i := range got {
			got[i] = map[Kind]bool{}
		}
		for _, x := range v.Violations {
			// Executions are reported at the transaction's record plus theirs.
			if x.Kind != Torn {
				got[x.Record][x.Kind] = true
			}
		}
		for i, x := range txns {
			one := &verdict{}
			one.ByKind = map[Kind]int{}
			checkExecutions(one, s, []txn{x})
			if one.ByKind[Torn] > 0 {
				got[i][Torn] = true
			}
		}
		for i := range txns {
			if !maps.Equal(got[i], want[i]) {
				t.Fatalf("seed %d transaction %d: found %v, slowly %v", seed, i, got[i], want[i])
			}
			for k := range want[i] {
				found[k]++
			}
			if len(want[i]) == 0 {
				quiet++
			}
		}
	}
	for _, k := range []Kind{Torn, Mixed, Regression, Stale, Early, Outcome} {
		if found[k] < 20 {
			t.Errorf("%s came up %d times: compared too little", k, found[k])
		}
	}
	if quiet < 1000 {
		t.Errorf("%d transactions without fault: compared too little", quiet)
	}
}

// TestRequestsAgainstSlow counts request by request.
func TestRequestsAgainstSlow(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 2))
		r := clean()
		var recs []wire.Record
		for range rng.IntN(9) {
			recs = append(recs, wire.Record{Kind: uint16(wire.RecordReqStart + rng.IntN(2)), B: uint32(rng.IntN(3)), C: uint64(rng.IntN(8000))})
		}
		setStreams(r.Trace, nil, recs)
		v := &verdict{}
		v.ByKind = map[Kind]int{}
		checkRequests(v, r, 1)
		lost, twice := 0, 0
		for id := range uint32(3) {
			for _, kind := range []uint16{wire.RecordReqStart, wire.RecordReqEnd} {
				n := 0
				for _, x := range recs {
					if x.B != id || x.Kind != kind {
						continue
					}
					n++
					if id < 2 && x.C < 1000+1000*uint64(id+1) {
						lost++
					}
					if id == 2 || n == 2 {
						twice++
					}
				}
			}
			has := func(kind uint16) bool {
				return slices.ContainsFunc(recs, func(x wire.Record) bool { return x.B == id && x.Kind == kind })
			}
			if id < 2 && !(has(wire.RecordReqStart) && has(wire.RecordReqEnd)) {
				lost++
			}
		}
		if v.ByKind[LostRequest] != lost || v.ByKind[DuplicateRequest] != twice {
			t.Fatalf("seed %d: %v, slowly %d lost, %d twice", seed, v.ByKind, lost, twice)
		}
	}
}
