// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"math"
	"sort"
	"strings"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/analysis/stats"
	"github.com/wflp/wflp/plots"
)

// overs of one strategy in one cell.
type overs struct {
	units       []string
	first, last map[string][]stats.Point // by unit
	total       int64                    // published patches
	behind      int64                    // of which some thread never got over
	failed      int64
	held        map[string][]stats.Point // by unit: the longest that one thread was held up
	stops       int64                    // of all threads
	raw         []record.Over
}

func (o *overs) dists(of map[string][]stats.Point) []stats.Dist {
	var out []stats.Dist
	for _, u := range o.units {
		out = append(out, stats.NewDist(of[u]))
	}
	return out
}

// e3: how long until the first and the last thread runs new code?
func (b *builder) e3() {
	sec := section{
		ID:       "E3",
		Question: "How long until the first and the last thread runs new code?",
		Method: "Time from the moment the caller asks for a patch until the first thread runs the new code, and until no thread can reach the old code any more. " +
			"A patch that leaves a thread behind keeps its place in the distribution, which then ends below 1. Intervals are bootstrapped over boots.",
	}
	var firsts, lasts verdicts
	var left, published int64
	var leftNumbers []Number
	has := func(u record.Unit) bool { return hasOvers(u, "E3") }
	for _, base := range b.bases(has) {
		cells := map[string]map[record.Strategy]*overs{}
		first := map[string]record.Cell{}
		for _, u := range b.units {
			if u.Boot.TimeBase != base {
				continue
			}
			for _, o := range u.Overs {
				if o.Experiment != "E3" {
					continue
				}
				key := o.Cell.String()
				if cells[key] == nil {
					cells[key], first[key] = map[record.Strategy]*overs{}, o.Cell
				}
				x := cells[key][o.Strategy]
				if x == nil {
					x = &overs{first: map[string][]stats.Point{}, last: map[string][]stats.Point{}, held: map[string][]stats.Point{}}
					cells[key][o.Strategy] = x
				}
				x.units = distinct(append(x.units, u.Key))
				if o.Error != 0 || o.PublishedNS == 0 {
					x.failed++
					continue
				}
				x.total++
				x.raw = append(x.raw, o)
				x.stops += int64(o.Stops)
				x.held[u.Key] = append(x.held[u.Key], stats.Point{V: float64(o.HeldNS), N: 1})
				if o.FirstOverNS != 0 {
					x.first[u.Key] = append(x.first[u.Key], stats.Point{V: float64(o.FirstOverNS - o.QueuedNS), N: 1})
				}
				if o.LastOverNS != 0 {
					x.last[u.Key] = append(x.last[u.Key], stats.Point{V: float64(o.LastOverNS - o.QueuedNS), N: 1})
				} else {
					x.behind++
				}
			}
		}
		tab := &table{Name: "e3-over-" + string(base), Caption: "Time from asking for a patch to the first and to the last thread in the new code (" + baseName(base) + "), with 95 % intervals over boots.",
			Header: []string{"cell", "strategy", "boots", "patches", "refused", "behind", "first p50", "first p99", "last p50", "last p99", "last max", "held p50", "held max", "stops"}}
		for _, key := range sortedCells(first) {
			by, words := cells[key], cellText(first[key])
			id := fmt.Sprintf("e3.%s.%s.", base, key)
			panels := []plots.TimeLine{{Title: "first thread"}, {Title: "last thread"}}
			medians := map[record.Strategy][2]Number{}
			var n int64
			nBoots := 0
			for _, s := range orderedStrategies(by) {
				o := by[s]
				n += o.total
				nBoots = max(nBoots, len(o.units))
				q := func(which string, of map[string][]stats.Point, share float64, name string) Number {
					d := o.dists(of)
					v, iv := b.quantiles(id+string(s)+which+name, d, []float64{share})
					what := fmt.Sprintf("%s of the time until the %s thread runs new code, %s, %s", name, which, s, words)
					if which == "held" {
						what = fmt.Sprintf("%s of the longest time for which a patch held one thread up, %s, %s", name, s, words)
					}
					return b.num(id+string(s)+"."+which+"."+name, what, "ns",
						v[0], iv[0], stats.Merge(d...).N(), "patches", o.units)
				}
				c := func(name, what string, v int64) Number {
					return b.num(id+string(s)+"."+name, what, "count", float64(v), stats.NoInterval, o.total, "patches", o.units)
				}
				f50, l50 := q("first", o.first, 0.5, "p50"), q("last", o.last, 0.5, "p50")
				medians[s] = [2]Number{f50, l50}
				behind := c("left_behind", "patches that left a thread in the old code", o.behind)
				if s != record.Naive {
					left += o.behind
					published += o.total
					leftNumbers = append(leftNumbers, behind)
				}
				tab.Rows = append(tab.Rows, []tableCell{text(words), text(string(s)), short(c("boots", "boots", int64(len(o.units)))), short(c("patches", "published patches", o.total)),
					short(c("refused", "refused or failed patches", o.failed)), short(behind),
					full(f50), short(q("first", o.first, 0.99, "p99")), full(l50), short(q("last", o.last, 0.99, "p99")), short(q("last", o.last, 1, "max")),
					short(q("held", o.held, 0.5, "p50")), short(q("held", o.held, 1, "max")), short(c("stops", "stops of all threads", o.stops))})
				for i, of := range []map[string][]stats.Point{o.first, o.last} {
					panels[i].Lines = append(panels[i].Lines, cdfLine(string(s), stats.Merge(o.dists(of)...), o.total))
				}
			}
			if n > 0 {
				name := slug(string(base) + " " + key)
				foot := fmt.Sprintf("%s · %s · %s, n = %s", base, words, boots(nBoots), count(n, "patch"))
				f := plots.CDFs("e3-over-"+name, foot, "Time after the patch was asked for", "Share of patches", panels)
				sec.Parts = append(sec.Parts, part{Figure: &f, Caption: fmt.Sprintf("Share of patches for which the first thread (left) and the last (right) runs new code within a given time, %s (%s; n = %s). "+
					"Under barrier the first is over hardly before the last, for all wait for all; under waitfree the first does not wait.", words, baseName(base), count(n, "patch"))})
			}
			w, wok := by[record.WaitFree]
			ba, bok := by[record.Barrier]
			if wok && bok {
				for k, which := range []string{"first", "last"} {
					of := func(o *overs) []stats.Dist { return o.dists([]map[string][]stats.Point{o.first, o.last}[k]) }
					paired := len(w.units) == len(ba.units) && len(intersect(w.units, ba.units)) == len(w.units)
					rid := id + "waitfree/barrier." + which
					r, iv := b.quantileRatios(rid, of(w), of(ba), paired, []float64{0.5})
					all := distinct(append(append([]string{}, w.units...), ba.units...))
					num := b.num(rid, fmt.Sprintf("median time until the %s thread runs new code, waitfree over barrier, %s", which, words), "ratio", r[0], iv[0], int64(len(all)), "boots", all)
					into := []*verdicts{&firsts, &lasts}[k]
					into.add(below(num, 1), fmt.Sprintf("%s, %s: %s against %s, ratio %s", base, words, medians[record.WaitFree][k], medians[record.Barrier][k], num.Full()),
						medians[record.WaitFree][k], medians[record.Barrier][k], num)
				}
			}
		}
		sec.Parts = append(sec.Parts, part{Table: tab})
		if p, ok := b.gantt(base, cells, first); ok {
			sec.Parts = append(sec.Parts, p)
		}
	}
	if len(sec.Parts) == 0 {
		sec.Missing = "No patch was followed."
	}
	b.sections = append(b.sections, sec)

	b.claim(Claim{ID: "e3-first", Text: "Under waitfree the first thread runs new code sooner than under barrier.",
		Expected: "ratio of the medians below 1 with its whole interval, in every cell", Refute: "one cell whose interval lies at or above 1",
		Measured: firsts.text("no cell has both"), Holds: firsts.holds()}, firsts.numbers...)
	all := Claim{ID: "e3-all", Text: "No published patch leaves a thread behind in the old code.", Expected: "the last thread is over in every patch that was followed (naive aside)",
		Refute: "a patch without a last thread", Measured: "no patch", Holds: Unknown, OneEvent: true}
	if published > 0 {
		all.Measured = fmt.Sprintf("%s of %s left a thread behind", plots.Thousands(left), count(published, "patch"))
		all.Holds = True
		if left > 0 {
			all.Holds = False
		}
	}
	b.claim(all, leftNumbers...)
	// No claim: whether the last thread is sooner depends on the load. It is said nevertheless.
	for _, s := range lasts.said {
		b.note("E3, last thread, waitfree against barrier: %s.", s)
	}
}

// verdicts combines what was found in several cells: one refutation refutes, and
// all must hold.
type verdicts struct {
	all     []string
	said    []string
	numbers []Number
}

func (v *verdicts) add(holds, said string, n ...Number) {
	v.all, v.said, v.numbers = append(v.all, holds), append(v.said, said), append(v.numbers, n...)
}

func (v *verdicts) holds() string {
	out := Unknown
	for i, h := range v.all {
		switch {
		case h == False:
			return False
		case i == 0:
			out = h
		case h != out:
			out = Unknown
		}
	}
	return out
}

func (v *verdicts) text(none string) string {
	if len(v.said) == 0 {
		return none
	}
	return strings.Join(v.said, "; ")
}

// cdfLine is the share of total values up to each value, thinned.
func cdfLine(s string, d stats.Dist, total int64) plots.Line {
	l := plots.Line{Label: s, Key: s}
	var upTo int64
	last := -1.0
	for i, p := range d {
		upTo += p.N
		share := float64(upTo) / float64(total)
		if i == 0 || i == len(d)-1 || share-last > 0.005 {
			l.X, l.Y = append(l.X, p.V), append(l.Y, share)
			last = share
		}
	}
	return l
}

// gantt shows one patch of each strategy in the cell with most threads: the one
// whose last thread was over at the median, so that it is typical and nobody's
// choice.
func (b *builder) gantt(base record.TimeBase, cells map[string]map[record.Strategy]*overs, first map[string]record.Cell) (part, bool) {
	keys := sortedCells(first)
	for i := len(keys) - 1; i >= 0; i-- {
		var charts []plots.Gantt
		var to float64
		var strategies []string
		key := keys[i]
		for _, s := range []record.Strategy{record.WaitFree, record.Barrier, record.StopWorld} {
			o := cells[key][s]
			if o == nil {
				continue
			}
			var with []record.Over
			for _, x := range o.raw {
				if len(x.Moves) > 0 && x.LastOverNS != 0 {
					with = append(with, x)
				}
			}
			if len(with) == 0 {
				continue
			}
			sort.SliceStable(with, func(a, c int) bool {
				return with[a].LastOverNS-with[a].QueuedNS < with[c].LastOverNS-with[c].QueuedNS
			})
			g := ganttOf(with[(len(with)-1)/2])
			g.Title = string(s)
			to = max(to, g.To)
			charts = append(charts, g)
			strategies = append(strategies, string(s))
		}
		if len(charts) == 0 {
			continue
		}
		for i := range charts {
			charts[i].From, charts[i].To = -0.15*to, 1.2*to
		}
		f := plots.Gantts("e3-gantt-"+string(base), fmt.Sprintf("%s · %s · n = 1 patch each", base, cellText(first[key])), charts)
		return part{Figure: &f, Caption: fmt.Sprintf("The way of one patch through the program under %s, thread by thread (%s, %s, n = 1 patch each: the one whose last thread was over at the median). "+
			"Under waitfree each thread changes over at its own quiescence point and none waits; under barrier those that arrive early wait (hatched) for the last; under stopworld all are stopped (hatched), as often as it takes.", strings.Join(strategies, " and under "), cellText(first[key]), baseName(base))}, true
	}
	return part{}, false
}

func ganttOf(o record.Over) plots.Gantt {
	rel := func(ns int64) float64 { return float64(ns - o.QueuedNS) }
	g := plots.Gantt{To: rel(o.LastOverNS), Marks: []plots.Mark{{At: 0, Name: "asked"}}}
	if o.PublishedNS != 0 {
		g.Marks = append(g.Marks, plots.Mark{At: rel(o.PublishedNS), Name: "published"})
	}
	g.Marks = append(g.Marks, plots.Mark{At: rel(o.LastOverNS), Name: "last over"})
	moves := append([]record.Move(nil), o.Moves...)
	sort.SliceStable(moves, func(i, j int) bool { return moves[i].Thread < moves[j].Thread })
	for _, m := range moves {
		t := plots.Track{Over: math.NaN(), Pulled: m.How == record.HowPulled}
		if m.AtNS != 0 && (m.How == record.HowOwn || m.How == record.HowPulled) {
			t.Over = rel(m.AtNS)
		}
		for _, s := range m.Spans {
			t.Spans = append(t.Spans, plots.Span{From: rel(s.FromNS), To: rel(s.ToNS), State: s.State})
		}
		if len(m.Spans) == 0 {
			const ever = 1e18
			switch {
			case m.How == record.HowBorn && m.AtNS != 0:
				t.Spans = []plots.Span{{From: rel(m.AtNS), To: ever, State: record.SpanNew}}
			case m.How == record.HowGone && m.AtNS != 0:
				t.Spans = []plots.Span{{From: -ever, To: rel(m.AtNS), State: record.SpanOld}}
			case m.AtNS != 0:
				t.Spans = []plots.Span{{From: -ever, To: rel(m.AtNS), State: record.SpanOld}, {From: rel(m.AtNS), To: ever, State: record.SpanNew}}
			default:
				t.Spans = []plots.Span{{From: -ever, To: ever, State: record.SpanOld}}
			}
		}
		g.Tracks = append(g.Tracks, t)
	}
	return g
}
