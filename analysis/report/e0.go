// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/analysis/stats"
	"github.com/wflp/wflp/plots"
)

// A stall twice as long must look twice as long, within this.
const stallSlack = 0.15

// Of the bins after a stall began, those whose requests tell its length: later
// ones wait for each other as well.
const stallBins = 3

func hasLatencies(u record.Unit, experiment string) bool {
	for _, l := range u.Latencies {
		if l.Experiment == experiment {
			return true
		}
	}
	return false
}

// stallSeen is the length of the stalls of one run as its latencies tell it: what
// those requests took longer than usual that arrived when they began.
func (b *builder) stallSeen(l record.Latency) float64 {
	var points []stats.Point
	usual := b.dist(l.Steady).Quantile(0.5)
	for i := range stallBins {
		k := i - l.FirstBin
		if k < 0 || k >= len(l.Bins) {
			continue
		}
		since := (float64(i) + 0.5) * float64(l.BinNS)
		for _, p := range b.dist(l.Bins[k]) {
			points = append(points, stats.Point{V: p.V + since - usual, N: p.N})
		}
	}
	return stats.NewDist(points).Quantile(0.5)
}

// e0: does the instrument see what is there?
func (b *builder) e0() {
	sec := section{
		ID:       "E0",
		Question: "Does the instrument see what is there?",
		Method: "A light load as that of E2, with stalls of known length in place of patches: no thread begins a transaction until the stall is over. How long it looks is the median, over requests that arrived in its first " +
			plots.Nanoseconds.Format(stallBins*1e6) + ", of what they took longer than usual and how long after its beginning they came.",
	}
	var stalls verdicts
	for _, base := range b.bases(func(u record.Unit) bool { return hasLatencies(u, "E0") }) {
		seen := map[float64]map[string]float64{}
		units := map[string]bool{}
		for _, u := range b.units {
			for _, l := range u.Latencies {
				if u.Boot.TimeBase != base || l.Experiment != "E0" {
					continue
				}
				us := float64(l.Cell.StallUS)
				if seen[us] == nil {
					seen[us] = map[string]float64{}
				}
				seen[us][u.Key], units[u.Key] = b.stallSeen(l), true
			}
		}
		keys := sortedKeys(units)
		tab := &table{Name: "e0-stalls-" + string(base), Caption: "Stalls that were put in, and how long they look (" + baseName(base) + "), with 95 % intervals over boots.", Header: []string{"put in", "boots", "seen", "seen over put in"}}
		line, ideal := plots.Line{Label: "seen", Key: "create"}, plots.Line{Label: "put in", Key: "none"}
		for _, us := range sortedFloats(seen) {
			med := seen[us]
			id := fmt.Sprintf("e0.%s.stall.%.0fus", base, us)
			of := func(scale float64) func([]int) float64 {
				return func(idx []int) float64 { return medianOf(med, pick(keys, idx)) / scale }
			}
			n := b.num(id, "stall as the latencies tell it", "ns", medianOf(med, keys), b.bootstrap(id, len(keys), of(1)), int64(len(keys)), "boots", keys)
			r := b.num(id+".ratio", "stall as the latencies tell it, over what was put in", "ratio", medianOf(med, keys)/(us*1000), b.bootstrap(id+".ratio", len(keys), of(us*1000)), int64(len(keys)), "boots", keys)
			tab.Rows = append(tab.Rows, []tableCell{text(plots.Nanoseconds.Format(us * 1000)), text(fmt.Sprint(len(keys))), full(n), full(r)})
			if n.value() > 0 {
				iv := n.interval()
				line.X, line.Y, line.Lo, line.Hi = append(line.X, us*1000), append(line.Y, n.value()), append(line.Lo, iv.Lo), append(line.Hi, iv.Hi)
				ideal.X, ideal.Y = append(ideal.X, us*1000), append(ideal.Y, us*1000)
			}
		}
		if len(line.X) > 0 {
			f := plots.Cost("e0-stalls-"+string(base), fmt.Sprintf("%s · n = %s", base, boots(len(keys))), "Stall put in", plots.Nanoseconds, "Stall seen", plots.Nanoseconds, []plots.Line{line, ideal})
			sec.Parts = append(sec.Parts, part{Figure: &f, Caption: fmt.Sprintf("Stalls of known length, and how long they look (%s; n = %s).", baseName(base), boots(len(keys)))})
		}
		sec.Parts = append(sec.Parts, part{Table: tab})
		if len(seen) < 2 {
			continue
		}
		slope := func(us []string) float64 {
			var x, y []float64
			for _, s := range sortedFloats(seen) {
				x, y = append(x, s*1000), append(y, medianOf(seen[s], us))
			}
			return stats.LinearSlope(x, y)
		}
		id := fmt.Sprintf("e0.%s.stall.slope", base)
		n := b.num(id, "how much longer a stall looks, by how much longer it is", "ratio", slope(keys), b.bootstrap(id, len(keys), func(idx []int) float64 { return slope(pick(keys, idx)) }), int64(len(keys)), "boots", keys)
		holds := Unknown
		switch i := n.interval(); {
		case !i.Valid():
		case i.Lo >= 1-stallSlack && i.Hi <= 1+stallSlack:
			holds = True
		case i.Lo > 1+stallSlack || i.Hi < 1-stallSlack:
			holds = False
		}
		stalls.add(holds, fmt.Sprintf("%s: %s", base, n.Full()), n)
	}
	if t := b.instruments(); t != nil {
		sec.Parts = append(sec.Parts, part{Table: t})
	}
	if len(sec.Parts) == 0 {
		sec.Missing = "Nothing was calibrated."
	}
	b.sections = append(b.sections, sec)
	b.claim(Claim{ID: "e0-stall", Text: "A stall is seen at its length: one that is a millisecond longer looks a millisecond longer.",
		Expected: fmt.Sprintf("slope of the stall seen over the stall put in within 1 ± %.2f, with its whole interval", stallSlack), Refute: "an interval beyond",
		Measured: stalls.text("no stalls of two lengths"), Holds: stalls.holds()}, stalls.numbers...)
}
