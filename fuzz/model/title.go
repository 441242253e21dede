// SPDX-License-Identifier: Apache-2.0

package model

import (
	"hash/fnv"
	"regexp"
	"slices"
	"strings"

	w "github.com/wflp/wflp/fuzz/fuzzwire"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/fuzz/scenario"
)

var numbers = regexp.MustCompile(`0x[0-9a-f]+|\b[0-9a-f]{8,}\b|[0-9]+`)

// rank says which kind of violation names a run: what the kernel said itself,
// then what ended the run, then the order of time.
func rank(k oracle.Kind) int {
	switch k {
	case oracle.Kernel:
		return 0
	case oracle.Crash:
		return 1
	case oracle.Hang:
		return 2
	case oracle.Leak:
		return 4
	}
	return 3
}

// Title names the kind of failure in a line without numbers, the same for the
// same defect as far as one can tell; "" for a run without violation.
func Title(v Verdict) string {
	if len(v.Violations) == 0 {
		return ""
	}
	vs := slices.Clone(v.Violations)
	slices.SortStableFunc(vs, func(a, b oracle.Violation) int { return rank(a.Kind) - rank(b.Kind) })
	what, _, _ := strings.Cut(vs[0].Detail, ";")
	what, _, _ = strings.Cut(what, "\n")
	what = strings.Join(strings.Fields(numbers.ReplaceAllString(what, "N")), " ")
	return string(vs[0].Kind) + ": " + what
}

// op is the operation of a record.
func (m *model) op(r *rec) (scenario.Op, bool) {
	if r.list >= len(m.s.Lists) || int(r.Op) >= len(m.s.Lists[r.list].Ops) {
		return scenario.Op{}, false
	}
	return m.s.Lists[r.list].Ops[r.Op], true
}

// pairs hashes which operations of different threads met, how they lay in time,
// and what they had in common.
func (m *model) pairs() []uint32 {
	var out []uint32
	for i, a := range m.recs {
		for j := i + 1; j < len(m.recs) && j <= i+8; j++ {
			b := m.recs[j]
			if b.t == a.t {
				continue
			}
			how := byte(0) // after
			switch {
			case b.b < a.e && b.e < a.e:
				how = 1 // within
			case b.b < a.e:
				how = 2 // overlapping
			}
			h := fnv.New32a()
			h.Write([]byte{byte(a.Kind), byte(b.Kind), how, relation(a, b), outcome(a), outcome(b)})
			out = append(out, h.Sum32())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func outcome(r *rec) byte {
	switch {
	case r.End == 0 || r.e == never:
		return 255
	case r.Ret >= 0:
		return 0
	}
	return byte(-r.Ret)
}

// relation says what two operations have in common.
func relation(a, b *rec) byte {
	rel := byte(0)
	if a.p != b.p {
		rel = 16
	}
	ca, ua, na := a.place()
	cb, ub, nb := b.place()
	switch {
	case ca < 0 || cb < 0:
		if a.FD >= w.FirstFD && a.FD == b.FD {
			rel |= 1
		}
	case ca != cb:
		rel |= 2
	case ua < ub+nb && ub < ua+na:
		rel |= 3
	default:
		rel |= 4
	}
	return rel
}

// place is the area and the units that an operation is about, -1 for none.
func (r *rec) place() (area, unit, n int) {
	switch r.Kind {
	case w.OpExec, w.OpWrite, w.OpRead, w.OpTaskRead, w.OpTaskWrite, w.OpTrace, w.OpVMRead:
		return w.AreaCode, int(r.Unit) / 2, 1
	case w.OpLoad, w.OpStore, w.OpFileRead, w.OpFileWrite:
		return int(r.Unit >> 8), int(r.Unit & 0xff), 1
	case w.OpMmap, w.OpMunmap, w.OpMprotect, w.OpMremap, w.OpMadvise, w.OpMlock, w.OpTruncate, w.OpUserfault:
		a, from, to := r.where()
		return a, from, to - from
	}
	return -1, 0, 0
}
