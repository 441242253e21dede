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

// Shares of the quantiles that are stated, decreasing, and their names.
var (
	shares     = []float64{1, 0.9999, 0.999, 0.99, 0.9, 0.5}
	shareNames = []string{"max", "p99.99", "p99.9", "p99", "p90", "p50"}
)

const p999 = 2 // index of p99.9 in shares

// runs of one strategy in one cell, by boot.
type latencies struct {
	units          []string // keys, sorted
	window, steady map[string][]stats.Dist
	raw            []record.Latency
	patches        int64
	warmup         int64
	handed, lost   int64 // under restart
}

// pool is a distribution for each boot, and that of all.
type pool struct {
	each []stats.Dist
	all  stats.Dist
}

func (l *latencies) pool(of map[string][]stats.Dist) pool {
	var p pool
	for _, u := range l.units {
		p.each = append(p.each, stats.Merge(of[u]...))
	}
	p.all = stats.Merge(p.each...)
	return p
}

// e2: what do requests feel?
func (b *builder) e2() {
	sec := section{
		ID:       "E2",
		Question: "What do requests feel?",
		Method: "An open-loop load: arrivals are scheduled ahead, and latency counts from the scheduled time, so a stall is charged to every request that it delays. " +
			"The window of a patch begins when the caller asks for it and has the same length for every strategy, also for none, which patches nothing. " +
			"Strategies are interleaved within each boot; intervals are bootstrapped over boots, and ratios pair the strategies of a boot.",
	}
	has := func(u record.Unit) bool { return hasLatencies(u, "E2") }
	for _, base := range b.bases(has) {
		cells := map[string]map[record.Strategy]*latencies{}
		first := map[string]record.Cell{}
		for _, u := range b.units {
			if u.Boot.TimeBase != base {
				continue
			}
			for _, l := range u.Latencies {
				if l.Experiment != "E2" {
					continue
				}
				key := l.Cell.String()
				if cells[key] == nil {
					cells[key], first[key] = map[record.Strategy]*latencies{}, l.Cell
				}
				x := cells[key][l.Strategy]
				if x == nil {
					x = &latencies{window: map[string][]stats.Dist{}, steady: map[string][]stats.Dist{}}
					cells[key][l.Strategy] = x
				}
				x.units = distinct(append(x.units, u.Key))
				x.window[u.Key] = append(x.window[u.Key], b.dist(l.Window))
				x.steady[u.Key] = append(x.steady[u.Key], b.dist(l.Steady))
				x.raw = append(x.raw, l)
				x.patches += l.Patches
				x.warmup += l.WarmupRequests
				x.handed += l.HandedOver
				x.lost += l.LostKiB
			}
		}
		tab := &table{Name: "e2-window-" + string(base), Caption: "Latency of requests in the window of a patch (" + baseName(base) + "), with 95 % intervals over boots.",
			Header: []string{"cell", "strategy", "boots", "patches", "requests", "p50", "p99", "p99.9", "p99.99", "max", "steady p99.9"}}
		ratios := &table{Name: "e2-ratios-" + string(base), Caption: "Ratios of latencies in the window of a patch (" + baseName(base) + "), paired by boot, with 95 % intervals over boots.",
			Header: []string{"cell", "ratio", "boots", "p50", "p99", "p99.9", "max", "Cliff's delta of p99.9"}}
		restarts := &table{Name: "e2-restart-" + string(base), Caption: "What a restart costs besides time (" + baseName(base) + "): requests that waited for the new process, and private memory of the old one, which is lost.",
			Header: []string{"cell", "boots", "restarts", "requests handed over", "requests lost", "memory lost per restart, KiB"}}
		for _, key := range sortedCells(first) {
			b.e2Restarts(restarts, base, first[key], cells[key][record.Restart])
		}
		var around, ccdf []part
		for _, key := range sortedCells(first) {
			a, c := b.e2Cell(base, first[key], cells[key], tab, ratios)
			around, ccdf = append(around, a...), append(ccdf, c...)
		}
		// Wide figures first, so that the narrow ones stand side by side.
		sec.Parts = append(append(sec.Parts, around...), ccdf...)
		sec.Parts = append(sec.Parts, part{Table: tab}, part{Table: ratios})
		if len(restarts.Rows) > 0 {
			sec.Parts = append(sec.Parts, part{Table: restarts})
		}
	}
	if len(sec.Parts) == 0 {
		sec.Missing = "No latency was recorded."
		b.claim(Claim{ID: "e2-tail", Text: "In the window of a patch, the p99.9 latency under waitfree is below that under barrier.", Expected: "ratio and its whole interval below 1",
			Measured: "no record", Holds: Unknown, Refute: "an interval above 1"})
	}
	b.sections = append(b.sections, sec)
}

// sortedCells orders cells by their numbers, not by their names.
func sortedCells(m map[string]record.Cell) []string {
	keys := sortedKeys(m)
	less := func(a, b record.Cell) bool {
		for _, p := range [][2]int{{a.Threads, b.Threads}, {a.UtilisationPct, b.UtilisationPct}, {a.IntervalUS, b.IntervalUS}, {a.LongPct, b.LongPct}, {a.LongUS, b.LongUS}} {
			if p[0] != p[1] {
				return p[0] < p[1]
			}
		}
		return a.BlockedThreads < b.BlockedThreads
	}
	for i := 1; i < len(keys); i++ {
		for j := i; j > 0 && less(m[keys[j]], m[keys[j-1]]); j-- {
			keys[j], keys[j-1] = keys[j-1], keys[j]
		}
	}
	return keys
}

// e2Cell files the numbers of one cell and returns its figures.
func (b *builder) e2Cell(base record.TimeBase, cell record.Cell, by map[record.Strategy]*latencies, tab, ratios *table) (aroundParts, ccdfParts []part) {
	key, words := cell.String(), cellText(cell)
	id := fmt.Sprintf("e2.%s.%s.", base, key)
	p := map[record.Strategy]Number{}
	windows := map[record.Strategy]pool{}
	var ccdf []plots.Line
	var around []plots.TimeLine
	var total, windowNS int64
	nBoots := 0
	high := b.binQuantile(by)
	for _, s := range orderedStrategies(by) {
		l := by[s]
		window, outside := l.pool(l.window), l.pool(l.steady)
		windows[s] = window
		n := window.all.N()
		total += n
		nBoots = max(nBoots, len(l.units))
		q, iv := b.quantiles(id+string(s), window.each, shares)
		row := map[string]Number{}
		for i, name := range shareNames {
			v, interval := q[i], iv[i]
			// A quantile beyond the last request would be the maximum by another name.
			if shares[i] < 1 && float64(n)*(1-shares[i]) < 1-1e-9 {
				v, interval = math.NaN(), stats.NoInterval
			}
			row[name] = b.num(id+string(s)+"."+name, fmt.Sprintf("%s latency in the window of a patch, %s, %s", name, s, words), "ns", v, interval, n, "requests", l.units)
		}
		p[s] = row["p99.9"]
		sq, siv := b.quantiles(id+"steady"+string(s), outside.each, shares)
		steady := b.num(id+string(s)+".steady.p99.9", fmt.Sprintf("p99.9 latency outside of the windows, %s, %s", s, words), "ns", sq[p999], siv[p999],
			outside.all.N(), "requests", l.units)
		c := func(name, what string, v int64) Number {
			return b.num(id+string(s)+"."+name, what, "count", float64(v), stats.NoInterval, int64(len(l.units)), "boots", l.units)
		}
		tab.Rows = append(tab.Rows, []tableCell{text(words), text(string(s)), short(c("boots", "boots", int64(len(l.units)))), short(c("patches", "patches", l.patches)), short(c("requests", "requests in windows", n)),
			short(row["p50"]), full(row["p99"]), full(row["p99.9"]), short(row["p99.99"]), short(row["max"]), short(steady)})
		if l.warmup > 0 {
			c("warmup", "requests left out as warm-up", l.warmup)
		}
		if b.bare {
			continue
		}
		ccdf = append(ccdf, ccdfLine(string(s), window.all))
		if t, w, ok := b.aroundLine(string(s), l.raw, high); ok {
			around = append(around, t)
			windowNS = max(windowNS, w)
		} else if w > 0 {
			b.note("E2, %s, %s, %s: the runs differ in bins or window, so they are left out of the figure over time; the tables have them.", base, words, s)
		}
	}
	foot := fmt.Sprintf("%s · %s · %s, n = %s in windows", base, words, boots(nBoots), count(total, "request"))
	name := slug(string(base) + " " + key)
	if len(around) > 0 {
		f := plots.Around("e2-around-"+name, foot, float64(windowNS), around)
		aroundParts = append(aroundParts, part{Figure: &f, Caption: fmt.Sprintf("Latency around a patch, %s (%s; n = %s, %s). Each panel lays all patches of a strategy over each other; time runs from the moment the patch is asked for. "+
			"Look for a rise at 0: under barrier, requests that arrive while threads wait are delayed; under waitfree the panel should look like that of none.", words, baseName(base), boots(nBoots), count(total, "request"))})
	}
	if total > 0 {
		f := plots.CCDF("e2-ccdf-"+name, foot, "Latency of requests in the window", ccdf)
		ccdfParts = append(ccdfParts, part{Figure: &f, Caption: fmt.Sprintf("Share of the requests in the window of a patch that took longer than a given time, %s (%s; n = %s). Both axes are logarithmic: one in a thousand requests is at 0.001. The farther right a curve reaches there, the longer the tail that the strategy gives to requests; none is the tail without a patch.",
			words, baseName(base), count(total, "request"))})
	}
	// Ratios.
	ratioRow := func(x, y record.Strategy) (Number, bool) {
		lx, ly := by[x], by[y]
		if lx == nil || ly == nil {
			return Number{}, false
		}
		units := intersect(lx.units, ly.units)
		paired := len(units) == len(lx.units) && len(units) == len(ly.units)
		wx, wy := windows[x], windows[y]
		rid := fmt.Sprintf("%s%s/%s.", id, x, y)
		r, iv := b.quantileRatios(rid, wx.each, wy.each, paired, shares)
		all := distinct(append(append([]string{}, lx.units...), ly.units...))
		out := map[string]Number{}
		nx, ny := wx.all.N(), wy.all.N()
		for i, name := range shareNames {
			v, interval := r[i], iv[i]
			if shares[i] < 1 && float64(min(nx, ny))*(1-shares[i]) < 1-1e-9 {
				v, interval = math.NaN(), stats.NoInterval
			}
			out[name] = b.num(rid+name, fmt.Sprintf("%s latency in the window, %s over %s, %s", name, x, y, words), "ratio", v, interval, int64(len(all)), "boots", all)
		}
		perBoot := func(ds []stats.Dist) (v []float64) {
			for _, d := range ds {
				if d.N() > 0 {
					v = append(v, d.Quantile(shares[p999]))
				}
			}
			return v
		}
		delta := b.num(rid+"cliff", fmt.Sprintf("Cliff's delta of the boots' p99.9 latencies, %s against %s, %s", x, y, words), "exponent",
			stats.CliffDelta(perBoot(wx.each), perBoot(wy.each)), stats.NoInterval, int64(len(all)), "boots", all)
		nb := b.num(rid+"boots", "boots", "count", float64(len(all)), stats.NoInterval, int64(len(all)), "boots", all)
		ratios.Rows = append(ratios.Rows, []tableCell{text(words), text(fmt.Sprintf("%s / %s", x, y)), short(nb), full(out["p50"]), full(out["p99"]), full(out["p99.9"]), full(out["max"]), short(delta)})
		return out["p99.9"], true
	}
	claim := Claim{
		ID:       fmt.Sprintf("e2-tail-%s-%s", base, slug(key)),
		Text:     fmt.Sprintf("In the window of a patch, the p99.9 latency under waitfree is below that under barrier (%s, %s).", words, base),
		Expected: "ratio waitfree / barrier below 1 with its whole interval",
		Refute:   "an interval that lies at or above 1",
		Holds:    Unknown, Measured: "one of the two was not measured",
	}
	var numbers []Number
	var said []string
	for _, s := range orderedStrategies(by) {
		numbers = append(numbers, p[s])
		said = append(said, fmt.Sprintf("%s %s", s, p[s]))
	}
	if r, ok := ratioRow(record.WaitFree, record.Barrier); ok {
		claim.Measured = fmt.Sprintf("%s; ratio %s, %s", strings.Join(said, ", "), r.Full(), boots(int(r.N)))
		claim.Holds = below(r, 1)
		numbers = append(numbers, r)
	}
	ratioRow(record.WaitFree, record.StopWorld)
	for _, s := range []record.Strategy{record.StopWorld, record.Restart} {
		ratioRow(s, record.None)
	}
	for _, s := range []record.Strategy{record.WaitFree, record.Barrier} {
		if r, ok := ratioRow(s, record.None); ok {
			numbers = append(numbers, r)
		}
	}
	b.claim(claim, numbers...)
	return aroundParts, ccdfParts
}

// e2Restarts counts what restarts handed over and lost. Requests that are lost are
// violations, which E1 counts.
func (b *builder) e2Restarts(tab *table, base record.TimeBase, cell record.Cell, l *latencies) {
	if l == nil || l.patches == 0 {
		return
	}
	id := fmt.Sprintf("e2.%s.%s.restart.", base, cell)
	n := func(name, what, unit string, v float64) tableCell {
		return short(b.num(id+name, what+", restart, "+cellText(cell), unit, v, stats.NoInterval, l.patches, "restarts", l.units))
	}
	var lost int64
	for _, u := range b.units {
		for _, t := range u.Trials {
			if u.Boot.TimeBase == base && t.Strategy == record.Restart && t.Cell == cell {
				lost += t.Violations["lost-request"]
			}
		}
	}
	tab.Rows = append(tab.Rows, []tableCell{text(cellText(cell)), text(fmt.Sprint(len(l.units))), n("restarts", "restarts", "count", float64(l.patches)),
		n("handed_over", "requests that waited for the new process", "count", float64(l.handed)), n("requests_lost", "requests lost", "count", float64(lost)),
		n("memory_lost", "private memory lost per restart, in KiB", "count", math.Round(float64(l.lost)/float64(l.patches)))})
}

// below judges a number by its interval: true if all of it lies below the limit,
// false if none of it does, unknown if there is none or it straddles.
func below(n Number, limit float64) string {
	i := n.interval()
	switch {
	case !i.Valid():
		return Unknown
	case i.Hi < limit:
		return True
	case i.Lo >= limit:
		return False
	}
	return Unknown
}

func intersect(a, b []string) []string {
	in := map[string]bool{}
	for _, k := range a {
		in[k] = true
	}
	var out []string
	for _, k := range b {
		if in[k] {
			out = append(out, k)
		}
	}
	return out
}

// ccdfLine is the share of values above each value, thinned to what a figure can
// show and never losing the largest.
func ccdfLine(s string, d stats.Dist) plots.Line {
	l := plots.Line{Label: s, Key: s}
	n := d.N()
	above := n
	last := math.Inf(1)
	for i, p := range d {
		share := float64(above) / float64(n) // at least p.V
		above -= p.N
		if i == 0 || i == len(d)-1 || last/share > 1.02 {
			l.X, l.Y = append(l.X, p.V), append(l.Y, share)
			last = share
		}
	}
	return l
}

// quantile is a share with its name.
type quantile struct {
	share float64
	name  string
}

// binQuantile is the one that the bins of all strategies have enough requests for:
// so no line leaps over some bins, and the panels of a figure show the same.
func (b *builder) binQuantile(by map[record.Strategy]*latencies) quantile {
	if b.bare {
		return quantile{}
	}
	for _, l := range by {
		var n []int64
		for _, raw := range l.raw {
			n = append(n, make([]int64, max(0, len(raw.Bins)-len(n)))...)
			for i, h := range raw.Bins {
				n[i] += b.dist(h).N()
			}
		}
		for _, k := range n {
			if k > 0 && k < 100 {
				return quantile{0.9, "p90"}
			}
		}
	}
	return quantile{0.99, "p99"}
}

// aroundLine pools the bins of runs that have the same ones.
func (b *builder) aroundLine(s string, raw []record.Latency, high quantile) (plots.TimeLine, int64, bool) {
	t := plots.TimeLine{Title: s}
	if len(raw) == 0 {
		return t, 0, false
	}
	f := raw[0]
	pooled := make([][]stats.Dist, len(f.Bins))
	for _, l := range raw {
		if l.BinNS != f.BinNS || l.FirstBin != f.FirstBin || len(l.Bins) != len(f.Bins) || l.WindowNS != f.WindowNS {
			return t, f.WindowNS, false
		}
		for i, h := range l.Bins {
			pooled[i] = append(pooled[i], b.dist(h))
		}
	}
	lines := []plots.Line{{Label: "max", Key: "max"}, {Label: high.name, Key: "p99"}, {Label: "median", Key: "p50"}}
	qs := []float64{1, high.share, 0.5}
	any := false
	for i, ds := range pooled {
		d := stats.Merge(ds...)
		if d.N() == 0 {
			continue
		}
		any = true
		x := (float64(f.FirstBin+i) + 0.5) * float64(f.BinNS)
		for k := range lines {
			lines[k].X, lines[k].Y = append(lines[k].X, x), append(lines[k].Y, d.Quantile(qs[k]))
		}
	}
	if !any {
		return t, 0, false
	}
	t.Lines = lines
	return t, f.WindowNS, true
}
