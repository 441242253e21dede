// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/analysis/stats"
	"github.com/wflp/wflp/plots"
)

func hasOvers(u record.Unit, experiment string) bool {
	for _, o := range u.Overs {
		if o.Experiment == experiment {
			return true
		}
	}
	return false
}

// crowd is what one strategy did at one number of threads.
type crowd struct {
	units                          []string
	first, last, held              map[string][]stats.Point
	patches, behind, failed, stops int64
}

func (c *crowd) dists(of map[string][]stats.Point) []stats.Dist {
	var out []stats.Dist
	for _, u := range c.units {
		out = append(out, stats.NewDist(of[u]))
	}
	return out
}

func (c *crowd) add(unit string, o record.Over) {
	c.units = distinct(append(c.units, unit))
	if o.Error != 0 || o.PublishedNS == 0 {
		c.failed++
		return
	}
	c.patches++
	c.stops += int64(o.Stops)
	put := func(m map[string][]stats.Point, ns int64) {
		m[unit] = append(m[unit], stats.Point{V: float64(ns), N: 1})
	}
	put(c.held, o.HeldNS)
	if o.FirstOverNS != 0 {
		put(c.first, o.FirstOverNS-o.QueuedNS)
	}
	if o.LastOverNS != 0 {
		put(c.last, o.LastOverNS-o.QueuedNS)
	} else {
		c.behind++
	}
}

// e7: what do many threads change?
func (b *builder) e7() {
	sec := section{
		ID:       "E7",
		Question: "What do many threads change?",
		Method: "As E3, of programs with 1 to 1,024 threads as of a server with a thread for each connection: two run all the time, the others sleep at a safe point and wake for a transaction now and then; " +
			"threads are born and die while patches arrive. Held is the longest time for which a patch held one thread up: at a barrier, stopped, or in its own move.",
	}
	var left, published int64
	var leftNumbers []Number
	var held verdicts
	for _, base := range b.bases(func(u record.Unit) bool { return hasOvers(u, "E7") }) {
		data := map[float64]map[record.Strategy]*crowd{}
		strategies := map[record.Strategy]bool{}
		for _, u := range b.units {
			for _, o := range u.Overs {
				if u.Boot.TimeBase != base || o.Experiment != "E7" {
					continue
				}
				n := float64(o.Cell.Threads)
				if data[n] == nil {
					data[n] = map[record.Strategy]*crowd{}
				}
				if data[n][o.Strategy] == nil {
					data[n][o.Strategy] = &crowd{first: map[string][]stats.Point{}, last: map[string][]stats.Point{}, held: map[string][]stats.Point{}}
				}
				data[n][o.Strategy].add(u.Key, o)
				strategies[o.Strategy] = true
			}
		}
		tab := &table{Name: "e7-threads-" + string(base), Caption: "One patch over the number of threads (" + baseName(base) + "), with 95 % intervals over boots.",
			Header: []string{"threads", "strategy", "boots", "patches", "refused", "behind", "first p50", "last p50", "last max", "held p50", "held max", "stops"}}
		lasts, helds := map[record.Strategy]*plots.Line{}, map[record.Strategy]*plots.Line{}
		for s := range strategies {
			lasts[s], helds[s] = &plots.Line{Label: string(s), Key: string(s)}, &plots.Line{Label: string(s), Key: string(s)}
		}
		var n int64
		nBoots := 0
		sizes := sortedFloats(data)
		for _, x := range sizes {
			for _, s := range orderedStrategies(data[x]) {
				c := data[x][s]
				n += c.patches
				nBoots = max(nBoots, len(c.units))
				id := fmt.Sprintf("e7.%s.%.0f.%s.", base, x, s)
				q := func(which, what string, of map[string][]stats.Point, share float64, name string) Number {
					v, iv := b.quantiles(id+which+"."+name, c.dists(of), []float64{share})
					return b.num(id+which+"."+name, fmt.Sprintf("%s of %s, %s, %.0f threads", name, what, s, x), "ns", v[0], iv[0], stats.Merge(c.dists(of)...).N(), "patches", c.units)
				}
				k := func(name, what string, v int64) Number {
					return b.num(id+name, fmt.Sprintf("%s, %s, %.0f threads", what, s, x), "count", float64(v), stats.NoInterval, int64(len(c.units)), "boots", c.units)
				}
				const toFirst, toLast, holding = "the time until the first thread runs new code", "the time until the last thread runs new code", "the longest time for which one thread was held up"
				l50, h50 := q("last", toLast, c.last, 0.5, "p50"), q("held", holding, c.held, 0.5, "p50")
				behind := k("left_behind", "patches that left a thread in the old code", c.behind)
				left, published, leftNumbers = left+c.behind, published+c.patches, append(leftNumbers, behind)
				tab.Rows = append(tab.Rows, []tableCell{text(fmt.Sprintf("%.0f", x)), text(string(s)), short(k("boots", "boots", int64(len(c.units)))), short(k("patches", "published patches", c.patches)),
					short(k("refused", "refused patches", c.failed)), short(behind), short(q("first", toFirst, c.first, 0.5, "p50")), full(l50), short(q("last", toLast, c.last, 1, "max")),
					full(h50), short(q("held", holding, c.held, 1, "max")), short(k("stops", "stops of all threads", c.stops))})
				for line, num := range map[*plots.Line]Number{lasts[s]: l50, helds[s]: h50} {
					if num.value() > 0 { // a logarithm is drawn
						iv := num.interval()
						line.X, line.Y, line.Lo, line.Hi = append(line.X, x), append(line.Y, num.value()), append(line.Lo, iv.Lo), append(line.Hi, iv.Hi)
					}
				}
			}
		}
		foot := fmt.Sprintf("%s · %s, n = %s", base, boots(nBoots), count(n, "patch"))
		for _, f := range []struct {
			name, y, caption string
			of               map[record.Strategy]*plots.Line
		}{
			{"last", "Time to the last thread", "Median time from asking for a patch until the last thread runs new code, over the number of threads", lasts},
			{"held", "Longest hold of a thread", "Median of the longest time for which a patch held one thread up, over the number of threads: to stop all of them takes the longer the more there are", helds},
		} {
			var lines []plots.Line
			for _, s := range orderedStrategies(f.of) {
				if len(f.of[s].X) > 0 {
					lines = append(lines, *f.of[s])
				}
			}
			if len(lines) > 0 {
				fig := plots.Cost("e7-"+f.name+"-"+string(base), foot, "Threads", plots.Count, f.y, plots.Nanoseconds, lines)
				sec.Parts = append(sec.Parts, part{Figure: &fig, Caption: fmt.Sprintf("%s (%s; n = %s).", f.caption, baseName(base), count(n, "patch"))})
			}
		}
		sec.Parts = append(sec.Parts, part{Table: tab})
		if len(sizes) == 0 {
			continue
		}
		most := sizes[len(sizes)-1]
		w := data[most][record.WaitFree]
		for _, rival := range []record.Strategy{record.StopWorld, record.Barrier} {
			r := data[most][rival]
			if w == nil || r == nil {
				continue
			}
			id := fmt.Sprintf("e7.%s.%.0f.waitfree/%s.held", base, most, rival)
			all := distinct(append(append([]string{}, w.units...), r.units...))
			paired := len(w.units) == len(r.units) && len(intersect(w.units, r.units)) == len(w.units)
			v, iv := b.quantileRatios(id, w.dists(w.held), r.dists(r.held), paired, []float64{0.5})
			num := b.num(id, fmt.Sprintf("median of the longest time for which one thread was held up, waitfree over %s, %.0f threads", rival, most), "ratio", v[0], iv[0], int64(len(all)), "boots", all)
			if rival == record.StopWorld {
				held.add(below(num, 1), fmt.Sprintf("%s, %.0f threads: ratio %s", base, most, num.Full()), num)
			} else {
				b.note("E7, longest time for which one thread was held up, waitfree against %s, %s, %.0f threads: ratio %s.", rival, base, most, num.Full())
			}
		}
	}
	if len(sec.Parts) == 0 {
		sec.Missing = "No program of many threads was patched."
	}
	b.sections = append(b.sections, sec)
	b.claim(Claim{ID: "e7-held", Text: "With the most threads, waitfree holds no thread up for as long as stopping all of them does.",
		Expected: "ratio of the medians, waitfree over stopworld, below 1 with its whole interval", Refute: "an interval at or above 1",
		Measured: held.text("not measured under both"), Holds: held.holds()}, held.numbers...)
	all := Claim{ID: "e7-all", Text: "Births and deaths of threads leave nobody behind in the old code.", Expected: "the last thread is over in every patch", Refute: "a patch without a last thread",
		Measured: "no patch", Holds: Unknown, OneEvent: true}
	if published > 0 {
		all.Measured = fmt.Sprintf("%s of %s left a thread behind", plots.Thousands(left), count(published, "patch"))
		all.Holds = True
		if left > 0 {
			all.Holds = False
		}
	}
	b.claim(all, leftNumbers...)
}
