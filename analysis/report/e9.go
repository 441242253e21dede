// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/analysis/stats"
	"github.com/wflp/wflp/plots"
)

// programs are the runs of one program with one fix under one strategy.
type programs struct {
	units                []string
	window               map[string][]stats.Dist
	first, last          map[string][]stats.Point
	published, failed    int64
	sent                 int64
	lost, wrong, dropped int64
}

func (p *programs) add(unit string, r record.Program, window stats.Dist) {
	p.units = distinct(append(p.units, unit))
	p.window[unit] = append(p.window[unit], window)
	for i, of := range []map[string][]stats.Point{p.first, p.last} {
		for _, ns := range [][]int64{r.FirstNS, r.LastNS}[i] {
			if ns != 0 {
				of[unit] = append(of[unit], stats.Point{V: float64(ns), N: 1})
			}
		}
	}
	p.published, p.failed, p.sent = p.published+r.Patches, p.failed+r.PatchesFailed, p.sent+r.Requests
	p.lost, p.wrong, p.dropped = p.lost+r.Lost, p.wrong+r.Wrong, p.dropped+r.Dropped
}

func (p *programs) windows() (out []stats.Dist) {
	for _, u := range p.units {
		out = append(out, stats.Merge(p.window[u]...))
	}
	return out
}

func longest(windows []stats.Dist) float64 {
	d := stats.Merge(windows...)
	if d.N() == 0 {
		return math.NaN()
	}
	return d.Max()
}

func (p *programs) times(of map[string][]stats.Point) (out []stats.Dist) {
	for _, u := range p.units {
		out = append(out, stats.NewDist(of[u]))
	}
	return out
}

// e9: real programs with real fixes.
func (b *builder) e9() {
	sec := section{
		ID:       "E9",
		Question: "Do real programs take real fixes under load?",
		Method: "Each program serves an open-loop load while a fix that its authors published is applied to it and taken back. The client checks every answer. " +
			"The window of a patch has the same length for every strategy, also for none.",
	}
	type key struct{ program, version, fix, cell string }
	var events, tails verdicts
	has := func(u record.Unit) bool { return len(u.Programs) > 0 }
	for _, base := range b.bases(has) {
		by := map[string]map[record.Strategy]*programs{}
		what := map[string]record.Program{}
		for _, u := range b.units {
			if u.Boot.TimeBase != base {
				continue
			}
			for _, r := range u.Programs {
				k := fmt.Sprint(key{r.Program, r.Version, r.Fix, r.Cell.String()})
				if by[k] == nil {
					by[k], what[k] = map[record.Strategy]*programs{}, r
				}
				if by[k][r.Strategy] == nil {
					by[k][r.Strategy] = &programs{window: map[string][]stats.Dist{}, first: map[string][]stats.Point{}, last: map[string][]stats.Point{}}
				}
				by[k][r.Strategy].add(u.Key, r, b.dist(r.Window))
			}
		}
		tab := &table{Name: "e9-programs-" + string(base), Caption: "Real programs that were patched under load (" + baseName(base) + "), with 95 % intervals over boots.",
			Header: []string{"program", "fix", "load", "strategy", "boots", "patches", "refused", "requests", "lost", "wrong", "dropped", "first p50", "last p50", "p50 in window", "p99 in window", "p99.9 in window", "max in window", "p99.9 over none"}}
		var figures []part
		for _, k := range sortedKeys(by) {
			w := what[k]
			name := fmt.Sprintf("%s %s, %s, %s", w.Program, w.Version, w.Fix, cellText(w.Cell))
			id := fmt.Sprintf("e9.%s.%s-%s.%s.%s.", base, w.Program, w.Version, w.Fix, w.Cell)
			var ccdf []plots.Line
			var total int64
			nBoots := 0
			tail := func(x, y record.Strategy) (Number, bool) {
				p, q := by[k][x], by[k][y]
				if p == nil || q == nil {
					return Number{}, false
				}
				rid := fmt.Sprintf("%s%s/%s.p99.9", id, x, y)
				paired := len(intersect(p.units, q.units)) == len(p.units) && len(p.units) == len(q.units)
				v, iv := b.quantileRatios(rid, p.windows(), q.windows(), paired, []float64{0.999})
				all := distinct(append(append([]string{}, p.units...), q.units...))
				return b.num(rid, fmt.Sprintf("p99.9 latency in the window of a patch, %s over %s, %s", x, y, name), "ratio", v[0], iv[0], int64(len(all)), "boots", all), true
			}
			for _, s := range orderedStrategies(by[k]) {
				p := by[k][s]
				c := func(n, text string, v int64) Number {
					return b.num(id+string(s)+"."+n, fmt.Sprintf("%s, %s, %s", text, s, name), "count", float64(v), stats.NoInterval, int64(len(p.units)), "boots", p.units)
				}
				q := func(n, text string, ds []stats.Dist, share float64, of string) Number {
					v, iv := b.quantiles(id+string(s)+"."+n, ds, []float64{share})
					all := stats.Merge(ds...).N()
					if float64(all)*(1-share) < 1-1e-9 {
						v[0], iv[0] = math.NaN(), stats.NoInterval
					}
					return b.num(id+string(s)+"."+n, fmt.Sprintf("%s, %s, %s", text, s, name), "ns", v[0], iv[0], all, of, p.units)
				}
				lost, wrong, dropped := c("lost", "requests without an answer", p.lost), c("wrong", "wrong answers", p.wrong), c("dropped", "requests lost with their connection", p.dropped)
				over := text("–")
				if s != record.None {
					if n, ok := tail(s, record.None); ok {
						over = full(n)
					}
				}
				tab.Rows = append(tab.Rows, []tableCell{text(w.Program + " " + w.Version), text(w.Fix), text(cellText(w.Cell)), text(string(s)),
					short(c("boots", "boots", int64(len(p.units)))), short(c("patches", "published patches", p.published)), short(c("refused", "refused or failed patches", p.failed)),
					short(c("requests", "requests", p.sent)), short(lost), short(wrong), short(dropped),
					full(q("first.p50", "median time until the first thread runs new code", p.times(p.first), 0.5, "patches")),
					full(q("last.p50", "median time until the last thread runs new code", p.times(p.last), 0.5, "patches")),
					full(q("p50", "median latency in the window of a patch", p.windows(), 0.5, "requests")),
					full(q("p99", "p99 latency in the window of a patch", p.windows(), 0.99, "requests")),
					full(q("p99.9", "p99.9 latency in the window of a patch", p.windows(), 0.999, "requests")),
					short(b.num(id+string(s)+".max", fmt.Sprintf("longest latency in the window of a patch, %s, %s", s, name), "ns", longest(p.windows()), stats.NoInterval, stats.Merge(p.windows()...).N(), "requests", p.units)), over})
				if s == record.WaitFree {
					holds := True
					if p.lost+p.wrong+p.dropped > 0 {
						holds = False
					}
					events.add(holds, fmt.Sprintf("%s (%s): %s lost, %s wrong, %s dropped of %s", name, base, lost, wrong, dropped, count(p.sent, "request")), lost, wrong, dropped)
				}
				pooled := stats.Merge(p.windows()...)
				total += pooled.N()
				nBoots = max(nBoots, len(p.units))
				if pooled.N() > 0 && !b.bare {
					ccdf = append(ccdf, ccdfLine(string(s), pooled))
				}
			}
			if n, ok := tail(record.WaitFree, record.Barrier); ok {
				holds := below(n, 1)
				// Of fewer requests the greatest is not at p99.9 yet, whatever it is.
				for _, s := range []record.Strategy{record.WaitFree, record.Barrier} {
					if stats.Merge(by[k][s].windows()...).N() < 1000 {
						holds = Unknown
					}
				}
				tails.add(holds, fmt.Sprintf("%s (%s): ratio %s", name, base, n.Full()), n)
			}
			if len(ccdf) > 0 {
				f := plots.CCDF("e9-"+slug(strings.Join([]string{string(base), w.Program, w.Version, w.Fix, w.Cell.String()}, " ")),
					fmt.Sprintf("%s · %s %s · %s, n = %s in windows", base, w.Program, w.Version, boots(nBoots), count(total, "request")), "Latency of requests in the window", ccdf)
				figures = append(figures, part{Figure: &f, Caption: fmt.Sprintf("Share of the requests in the window of a patch that took longer than a given time, %s (%s; n = %s). The farther right a curve reaches, the longer the tail that a patch gives to requests; none is the tail without a patch.",
					name, baseName(base), count(total, "request"))})
			}
		}
		sec.Parts = append(append(sec.Parts, figures...), part{Table: tab})
	}
	if tab := b.packages(); len(tab.Rows) > 0 {
		sec.Parts = append(sec.Parts, part{Table: tab})
	}
	if len(sec.Parts) == 0 {
		sec.Missing = "No real program was run: there is no record of kind program."
	} else {
		b.claim(Claim{ID: "e9-answers", Text: "Real programs that are patched under load with waitfree lose no request and answer none wrongly.",
			Expected: "no request without an answer, with a wrong one, or lost with its connection", Refute: "one such request in any program",
			Measured: events.text("no program was run under waitfree"), Holds: events.holds(), OneEvent: true}, events.numbers...)
		b.claim(Claim{ID: "e9-tail", Text: "In real programs, too, the p99.9 latency in the window of a patch is lower under waitfree than under barrier.",
			Expected: "ratio below 1 with its whole interval, for every program", Refute: "one program whose interval lies at or above 1",
			Measured: tails.text("no program was run under both"), Holds: tails.holds()}, tails.numbers...)
	}
	b.sections = append(b.sections, sec)
}

// packages lists what the file systems of the programs were made of.
func (b *builder) packages() *table {
	tab := &table{Name: "e9-packages", Caption: "Debian packages that the programs ran with. More than one version of a package means that the archive changed between two boots.",
		Header: []string{"package", "version", "programs", "boots"}}
	type row struct {
		programs []string
		boots    int
	}
	by := map[string]*row{}
	for _, u := range b.units {
		for name, version := range u.Boot.Packages {
			k := name + " " + version
			if by[k] == nil {
				by[k] = &row{}
			}
			by[k].boots++
			for _, p := range u.Programs {
				by[k].programs = distinct(append(by[k].programs, p.Program))
			}
		}
	}
	for _, k := range sortedKeys(by) {
		name, version, _ := strings.Cut(k, " ")
		tab.Rows = append(tab.Rows, []tableCell{text(name), text(version), text(strings.Join(by[k].programs, ", ")), text(fmt.Sprint(by[k].boots))})
	}
	return tab
}

// e10: how good is the fuzzer? Its record is the kill matrix beside the log.
func (b *builder) e10() {
	sec := section{
		ID:       "E10",
		Question: "How good is the fuzzer?",
		Method: "Defects are put into the kernel and the library one at a time, and campaigns look for each, with several seeds, up to a cap. A finding counts only if the unmutated kernel does not show it, too. " +
			"Times are of the host; a search that found nothing is censored, and shares are by Kaplan and Meier.",
		Command: "wflp fuzz matrix",
	}
	if b.matrix == nil || len(b.matrix.Cells) == 0 {
		sec.Missing = fmt.Sprintf("There is no %s beside the records: run wflp fuzz matrix, and copy that file here.", record.MatrixName)
		b.sections = append(b.sections, sec)
		return
	}
	m := b.matrix
	from := []string{record.MatrixName}
	tab := &table{Name: "e10-defects", Caption: "Seeded defects, and how long it took to find them (times of the host).",
		Header: []string{"way of looking", "defect", "kind", "searches", "found", "median time"}}
	sum := &table{Name: "e10-found", Caption: "Seeded defects found by at least one seed (times of the host).", Header: []string{"way of looking", "defects", "found", "searches", "found in", "median time of all"}}
	var lines []plots.Line
	cells := int64(0)
	for _, t := range m.Settings.Treatments {
		var all []stats.Life
		defects, found, hits := int64(0), int64(0), int64(0)
		median := func(id, what string, lives []stats.Life) Number {
			v, iv := stats.MedianTime(seed(id), lives)
			return b.num(id, "median time until "+what+" is found, "+t.Name, "ns", v*1e9, stats.Interval{Lo: iv.Lo * 1e9, Hi: iv.Hi * 1e9}, int64(len(lives)), "searches", from)
		}
		for _, d := range m.Settings.Mutants {
			var lives []stats.Life
			n := int64(0)
			for _, c := range m.Cells {
				if c.Mutant != d.ID || c.Treatment != t.Name || c.State == "machine" {
					continue
				}
				lives = append(lives, stats.Life{T: c.Seconds, Event: c.State == "found"})
				if c.State == "found" {
					n++
				}
			}
			if len(lives) == 0 {
				continue
			}
			defects, hits = defects+1, hits+n
			if n > 0 {
				found++
			}
			all = append(all, lives...)
			id := fmt.Sprintf("e10.%s.%s.", t.Name, d.ID)
			tab.Rows = append(tab.Rows, []tableCell{text(t.Name), text(d.ID + " " + d.Name), text(d.Kind), text(fmt.Sprint(len(lives))),
				short(b.num(id+"found", "searches that found "+d.Name+", "+t.Name, "count", float64(n), stats.NoInterval, int64(len(lives)), "searches", from)),
				full(median(id+"time", d.Name, lives))})
		}
		if len(all) == 0 {
			continue
		}
		cells += int64(len(all))
		id := fmt.Sprintf("e10.%s.", t.Name)
		c := func(name, what string, v, n int64, of string) Number {
			return b.num(id+name, what+", "+t.Name, "count", float64(v), stats.NoInterval, n, of, from)
		}
		sum.Rows = append(sum.Rows, []tableCell{text(t.Name), short(c("defects", "defects looked for", defects, defects, "defects")), short(c("found", "defects found by at least one seed", found, defects, "defects")),
			short(c("searches", "searches", int64(len(all)), int64(len(all)), "searches")), short(c("hits", "searches that found their defect", hits, int64(len(all)), "searches")), full(median(id+"time", "a defect", all))})
		lines = append(lines, plots.Survival(t.Name, stats.KaplanMeier(all)))
	}
	f := plots.CDF("e10-survival", "time of the host · n = "+count(cells, "search"), "Time of looking for it", "Share not found yet", lines)
	sec.Parts = append(sec.Parts, part{Figure: &f, Caption: fmt.Sprintf("Share of the searches for seeded defects that have found nothing yet, over the time that they took (time of the host, of no time base; n = %s). "+
		"A curve that falls early finds much soon; where it ends level, the rest was not found before the cap of %s.", count(cells, "search"), plots.Nanoseconds.Format(m.Settings.CapS*1e9))}, part{Table: sum}, part{Table: tab})
	b.sections = append(b.sections, sec)
}
