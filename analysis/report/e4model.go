// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/analysis/stats"
	"github.com/wflp/wflp/plots"
)

// The model is a straight line, which is what the code suggests: a part that is
// the same for all, and so much for each of what is gone through. It is worth
// something if it tells the next size from the ones before.
const (
	modelSizes = 3    // to fit it to, besides the one that it is to predict
	modelSlack = 0.25 // of a prediction, where instructions are counted
)

// Where the model is taken to where nothing was measured.
var modelAt = map[string]float64{record.SweepResident: 1 << 30 /* KiB: 1 TiB */, record.SweepThreads: 10_000}

// model collects predictions over the sweeps of one time base.
type model struct {
	next, far *table
	verdicts  verdicts
}

func newModel(base record.TimeBase) *model {
	return &model{
		next: &table{Name: "e4-model-" + string(base), Caption: "A straight line fitted to all sizes but the greatest (by least relative squares), and what it says of that one (" + baseName(base) + "), with 95 % intervals over boots.",
			Header: []string{"over", "operation", "sizes", "predicted size", "predicted", "measured", "predicted over measured"}},
		far: &table{Name: "e4-extrapolated-" + string(base), Caption: "The same line, fitted to all sizes, far beyond them (" + baseName(base) + "). On paper only: it takes the cost to stay a straight line, no huge pages, memory as near as here, and for threads that they sleep.",
			Header: []string{"over", "operation", "greatest measured", "size", "cost on paper"}},
	}
}

// add fits the operations over one factor.
func (m *model) add(b *builder, base record.TimeBase, key, name string, x plots.Unit, data map[string]map[float64]*series) {
	unit, _ := unitOf(base)
	for _, bench := range []string{record.BenchCreate, record.BenchSeal, record.BenchEnter, record.BenchEnterLast, "pull", record.BenchFork} {
		var sizes []float64
		var meds []map[string]float64
		var all []string
		for _, s := range sortedFloats(data[bench]) {
			if med := data[bench][s].medians(); len(med) > 0 {
				sizes, meds = append(sizes, s), append(meds, med)
				all = append(all, sortedKeys(med)...)
			}
		}
		last := len(sizes) - 1
		if last < modelSizes {
			continue
		}
		units := distinct(all)
		costs := func(us []string) []float64 {
			y := make([]float64, len(sizes))
			for i := range sizes {
				y[i] = medianOf(meds[i], us)
			}
			return y
		}
		predict := func(us []string, n int, at float64) float64 {
			a, slope := stats.RelativeLine(sizes[:n], costs(us)[:n])
			return a + slope*at
		}
		id := fmt.Sprintf("e4.%s.%s.%s.model", base, key, bench)
		said := fmt.Sprintf("%s over %s", bench, strings.ToLower(name))
		num := func(suffix, what, unit string, f func(us []string) float64) Number {
			return b.num(id+"."+suffix, what, unit, f(units), b.bootstrap(id+"."+suffix, len(units), func(idx []int) float64 { return f(pick(units, idx)) }), int64(len(units)), "boots", units)
		}
		p := num("predicted", "predicted cost of "+said+" "+x.Format(sizes[last]), unit, func(us []string) float64 { return predict(us, last, sizes[last]) })
		r := num("ratio", "predicted over measured cost of "+said+" "+x.Format(sizes[last]), "ratio", func(us []string) float64 { return predict(us, last, sizes[last]) / costs(us)[last] })
		measured := num("measured", "measured cost of "+said+" "+x.Format(sizes[last]), unit, func(us []string) float64 { return costs(us)[last] })
		m.next.Rows = append(m.next.Rows, []tableCell{text(key), text(bench), text(fmt.Sprint(last)), text(x.Format(sizes[last])), short(p), short(measured), full(r)})
		if base == record.ICount {
			holds := Unknown
			switch i := r.interval(); {
			case !i.Valid():
			case i.Lo >= 1-modelSlack && i.Hi <= 1+modelSlack:
				holds = True
			case i.Lo > 1+modelSlack || i.Hi < 1-modelSlack:
				holds = False
			}
			m.verdicts.add(holds, fmt.Sprintf("%s %s", said, r.Full()), r)
		}
		if at, ok := modelAt[key]; ok {
			far := num("far", "cost on paper of "+said+" "+x.Format(at), unit, func(us []string) float64 { return predict(us, len(sizes), at) })
			m.far.Rows = append(m.far.Rows, []tableCell{text(key), text(bench), text(x.Format(sizes[last])), text(x.Format(at)), full(far)})
		}
	}
}

func (m *model) parts() []part {
	var out []part
	for _, t := range []*table{m.next, m.far} {
		if len(t.Rows) > 0 {
			out = append(out, part{Table: t})
		}
	}
	return out
}

func (b *builder) modelClaim(v verdicts) {
	b.claim(Claim{ID: "e4-model-icount", Text: "A straight line fitted to smaller sizes tells the cost at the greatest (icount).",
		Expected: fmt.Sprintf("predicted over measured within 1 ± %.2f, with its whole interval, for each operation over each factor with at least %d sizes more", modelSlack, modelSizes),
		Refute:   "one interval beyond", Measured: v.text("not measured at enough sizes"), Holds: v.holds()}, v.numbers...)
}
