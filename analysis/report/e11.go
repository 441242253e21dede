// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/plots"
)

// A call in one of several variants is the same instructions as in the only one.
const variantLimit = 1.02

// e11: what does it cost to have threads in different variants for good?
func (b *builder) e11() {
	sec := section{
		ID:       "E11",
		Question: "What does it cost to have threads in different variants for good?",
		Method: "One: all threads run the same variant. Variant: each its own. Branch and pointer: the same choice without views, by asking each time, and by a pointer of the thread. " +
			"A switch is to another thread and back, through pipes; a second touch is one of memory that a thread in the first variant has touched before. Both settings ran in the same boots, and ratios pair them.",
	}
	var calls verdicts
	names := map[string]string{"call": "a call", "switch-thread": "a switch of threads and back", "second-touch": "a second touch of a page"}
	for _, base := range b.bases(func(u record.Unit) bool { return anyMicro(u, "E11") }) {
		unit, _ := unitOf(base)
		data := b.bySetting("E11", base)
		tab := &table{Name: "e11-variants-" + string(base), Caption: "Cost with different code for different threads, relative to one variant for all (" + baseName(base) + "), with 95 % intervals over boots.",
			Header: []string{"operation", "how", "boots", "cost", "ratio"}}
		var rows []plots.Ratio
		nBoots := 0
		for _, bench := range []string{"call", "switch-thread", "second-touch"} {
			one := data[bench]["one"]
			if one == nil || len(one.units()) == 0 {
				continue
			}
			for _, how := range []string{"one", "variant", "branch", "pointer"} {
				s := data[bench][how]
				if s == nil || len(s.units()) == 0 {
					continue
				}
				id := fmt.Sprintf("e11.%s.%s.%s", base, bench, how)
				units := intersect(one.units(), s.units())
				nBoots = max(nBoots, len(units))
				x, y := s.medians(), one.medians()
				cost := b.num(id+".cost", fmt.Sprintf("cost of %s, %s", names[bench], how), unit, medianOf(x, units),
					b.bootstrap(id+".cost", len(units), func(idx []int) float64 { return medianOf(x, pick(units, idx)) }), int64(len(units)), "boots", units)
				row := []tableCell{text(names[bench]), text(how), text(fmt.Sprint(len(units))), full(cost)}
				if how == "one" {
					tab.Rows = append(tab.Rows, append(row, text("1")))
					continue
				}
				ratio := b.num(id+".ratio", fmt.Sprintf("cost of %s, %s over one variant for all", names[bench], how), "ratio", medianOf(x, units)/medianOf(y, units),
					b.bootstrap(id+".ratio", len(units), func(idx []int) float64 {
						return medianOf(x, pick(units, idx)) / medianOf(y, pick(units, idx))
					}), int64(len(units)), "boots", units)
				tab.Rows = append(tab.Rows, append(row, full(ratio)))
				iv := ratio.interval()
				rows = append(rows, plots.Ratio{Group: names[bench], Label: how, Value: ratio.value(), Lo: iv.Lo, Hi: iv.Hi})
				if bench == "call" && how == "variant" && base != record.TCG {
					holds := Unknown
					switch {
					case !iv.Valid():
					case iv.Hi <= variantLimit:
						holds = True
					case iv.Lo > variantLimit:
						holds = False
					}
					calls.add(holds, fmt.Sprintf("%s: ratio %s, %s", base, ratio.Full(), boots(len(units))), ratio, cost)
				}
			}
		}
		if len(rows) > 0 {
			f := plots.Ratios("e11-variants-"+string(base), fmt.Sprintf("%s · n = %s", base, boots(nBoots)), "Cost relative to one variant for all", variantLimit, rows)
			sec.Parts = append(sec.Parts, part{Figure: &f, Caption: fmt.Sprintf("Cost with different code for different threads, relative to one variant for all (%s; n = %s). The shaded band, up to %.2f, is the goal for a call.", baseName(base), boots(nBoots), variantLimit)}, part{Table: tab})
		}
	}
	if len(sec.Parts) == 0 {
		sec.Missing = "No variants were measured."
	}
	b.sections = append(b.sections, sec)
	b.claim(Claim{ID: "e11-call", Text: "Code of a thread's own variant runs as fast as code that all share.",
		Expected: fmt.Sprintf("ratio of the cost of a call of at most %.2f with its whole interval, counted in instructions, and in time where that is real", variantLimit), Refute: "an interval above it",
		Measured: calls.text("not measured in a time base that could tell"), Holds: calls.holds()}, calls.numbers...)
}

// instruments states what the clock and the records cost, of which the executor
// takes three and four for each request.
func (b *builder) instruments() *table {
	tab := &table{Name: "e0-instruments", Caption: "What the instruments cost themselves: each reading of the clock, and each record. A request of E2 takes three readings and four records besides those of its functions.",
		Header: []string{"time base", "instrument", "boots", "cost"}}
	for _, base := range b.bases(func(u record.Unit) bool { return anyMicro(u, "E0") }) {
		unit, _ := unitOf(base)
		for _, bench := range []string{"clock", "record"} {
			s := &series{}
			for _, u := range b.units {
				for _, m := range u.Micros {
					if u.Boot.TimeBase == base && m.Experiment == "E0" && m.Bench == bench {
						s.add(u.Key, u.Boot, m)
					}
				}
			}
			units, med := s.units(), s.medians()
			if len(units) == 0 {
				continue
			}
			id := fmt.Sprintf("e0.%s.%s", base, bench)
			n := b.num(id, map[string]string{"clock": "cost of one reading of the clock", "record": "cost of writing one record"}[bench], unit, medianOf(med, units),
				b.bootstrap(id, len(units), func(idx []int) float64 { return medianOf(med, pick(units, idx)) }), int64(len(units)), "boots", units)
			tab.Rows = append(tab.Rows, []tableCell{text(string(base)), text(bench), text(fmt.Sprint(len(units))), full(n)})
		}
	}
	if len(tab.Rows) == 0 {
		return nil
	}
	return tab
}
