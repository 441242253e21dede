// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/analysis/stats"
	"github.com/wflp/wflp/plots"
)

const (
	// A slope within ±flatSlope is flat: less than twice the cost at a thousand
	// times the size. That a slope's interval holds 0 would be a weaker claim, which
	// noise alone could support.
	flatSlope = 0.1
	// Against fork at this size.
	forkKiB   = 1 << 20
	forkRatio = 100
	// Goal for everyone else's operations: in views, and where there are none.
	costLimit  = 1.02
	stockLimit = 1.002
	// Bounds on the instructions of one mm_view_enter(): with few views, whatever
	// else the process has; and for each live view more. At 64 views that is
	// less than four page faults.
	enterLimit, enterPerView = 1000, 16
)

// series are the costs of one operation at one setting, by boot.
type series struct {
	values map[string][]float64 // per operation, warm-up left out
	warmup int64
	n      int64
}

func (s *series) add(unit string, boot record.Boot, m record.Micro) {
	if m.Batch <= 0 {
		return
	}
	div := float64(m.Batch)
	if boot.TimeBase == record.ICount {
		div *= math.Exp2(float64(boot.IcountShift)) // to instructions
	}
	v := make([]float64, len(m.ValuesNS))
	for i, ns := range m.ValuesNS {
		v[i] = float64(ns) / div
	}
	w := stats.WarmUp(v)
	if s.values == nil {
		s.values = map[string][]float64{}
	}
	s.values[unit] = append(s.values[unit], v[w:]...)
	s.warmup += int64(w)
	s.n += int64(len(v) - w)
}

func (s *series) units() []string {
	var out []string
	for _, u := range sortedKeys(s.values) {
		if len(s.values[u]) > 0 {
			out = append(out, u)
		}
	}
	return out
}

// cost is the median over boots of each boot's median.
func (s *series) cost(units []string) float64 {
	var m []float64
	for _, u := range units {
		if v := s.values[u]; len(v) > 0 {
			m = append(m, stats.Median(v))
		}
	}
	return stats.Median(m)
}

func pick(units []string, idx []int) []string {
	out := make([]string, len(idx))
	for i, k := range idx {
		out[i] = units[k]
	}
	return out
}

// medians makes resampling cheap: each boot's median, computed once.
func (s *series) medians() map[string]float64 {
	out := map[string]float64{}
	for u, v := range s.values {
		if len(v) > 0 {
			out[u] = stats.Median(v)
		}
	}
	return out
}

func medianOf(m map[string]float64, units []string) float64 {
	v := make([]float64, 0, len(units))
	for _, u := range units {
		if x, ok := m[u]; ok {
			v = append(v, x)
		}
	}
	return stats.Median(v)
}

func unitOf(base record.TimeBase) (string, plots.Unit) {
	if base == record.ICount {
		return "instructions", plots.Instructions
	}
	return "ns", plots.Nanoseconds
}

func size(sweep string, m record.Micro) float64 {
	switch sweep {
	case record.SweepResident:
		return float64(m.ResidentKiB)
	case record.SweepMappings:
		return float64(m.Mappings)
	case record.SweepViews:
		return float64(m.Views)
	case record.SweepThreads:
		return float64(m.Threads)
	}
	return math.NaN()
}

var sweeps = []struct {
	key, name string
	unit      plots.Unit
}{
	{record.SweepResident, "Resident size", plots.KiB},
	{record.SweepMappings, "Mappings", plots.Count},
	{record.SweepViews, "Views", plots.Count},
	{record.SweepThreads, "Threads", plots.Count},
}

var benchOrder = []string{record.BenchCreate, record.BenchWrite, record.BenchSeal, record.BenchEnter, record.BenchEnterLast, "pull", record.BenchClose, record.BenchFork}

func orderedBenches[V any](m map[string]V) []string {
	rank := func(b string) int {
		for i, o := range benchOrder {
			if o == b {
				return i
			}
		}
		return len(benchOrder)
	}
	keys := sortedKeys(m)
	sort.SliceStable(keys, func(i, j int) bool { return rank(keys[i]) < rank(keys[j]) })
	return keys
}

// e4: what does each operation cost, and how does it grow?
func (b *builder) e4() {
	sec := section{
		ID:       "E4",
		Question: "What does each operation cost, and how does it grow with the process?",
		Method: "Each operation is timed in batches while one factor of the process varies; fork at the same size stands beside it, for cloning the address space is the cost that copying per generation cannot go below. " +
			"A point is the median over boots of the boots' medians; warm-up is detected (MSER) and left out. Slopes are exponents of a power law fitted on log-log axes; their intervals are the wider of that from the scatter of the points and that from bootstrapping boots.",
	}
	has := func(u record.Unit) bool { return anyMicro(u, "E4") }
	bases := b.bases(has)
	var predicted verdicts
	for _, base := range bases {
		unit, axis := unitOf(base)
		fit := newModel(base)
		tab := &table{Name: "e4-costs-" + string(base), Caption: "Cost of one operation (" + baseName(base) + "), medians with 95 % intervals over boots.",
			Header: []string{"factor", "operation", "size", "boots", "batches", "cost"}}
		slopes := &table{Name: "e4-slopes-" + string(base), Caption: "Exponents of cost over size (" + baseName(base) + "), with 95 % intervals. 0 is flat, 1 is proportional.",
			Header: []string{"factor", "operation", "points", "from", "to", "exponent"}}
		var warm int64
		enters := map[string]map[float64]*series{}
		enterSlopes := map[string]Number{}
		for _, sw := range sweeps {
			data := map[string]map[float64]*series{}
			for _, u := range b.units {
				if u.Boot.TimeBase != base {
					continue
				}
				for _, m := range u.Micros {
					x := size(sw.key, m)
					if m.Experiment != "E4" || m.Sweep != sw.key || !(x > 0) {
						continue
					}
					if data[m.Bench] == nil {
						data[m.Bench] = map[float64]*series{}
					}
					if data[m.Bench][x] == nil {
						data[m.Bench][x] = &series{}
					}
					data[m.Bench][x].add(u.Key, u.Boot, m)
				}
			}
			if len(data) == 0 {
				if sw.key == record.SweepResident {
					b.e4Claims(base, nil, nil)
				}
				continue
			}
			var lines []plots.Line
			slope := map[string]Number{}
			inFigure := map[string]bool{}
			var batches int64
			for _, bench := range orderedBenches(data) {
				line := plots.Line{Label: bench, Key: bench}
				for _, x := range sortedFloats(data[bench]) {
					s := data[bench][x]
					units := s.units()
					if len(units) == 0 {
						continue
					}
					for _, u := range units {
						inFigure[u] = true
					}
					batches += s.n
					warm += s.warmup
					med := s.medians()
					id := fmt.Sprintf("e4.%s.%s.%s.%s", base, sw.key, bench, plots.Share.Format(x))
					iv := b.bootstrap(id, len(units), func(idx []int) float64 { return medianOf(med, pick(units, idx)) })
					n := b.num(id, fmt.Sprintf("cost of one %s, %s %s", bench, strings.ToLower(sw.name), sw.unit.Format(x)), unit, s.cost(units), iv, int64(len(units)), "boots", units)
					nb := b.num(id+".batches", "batches", "count", float64(s.n), stats.NoInterval, s.n, "batches", units)
					tab.Rows = append(tab.Rows, []tableCell{text(sw.key), text(bench), text(sw.unit.Format(x)), text(fmt.Sprint(len(units))), short(nb), full(n)})
					line.X, line.Y = append(line.X, x), append(line.Y, n.value())
					i := n.interval()
					line.Lo, line.Hi = append(line.Lo, i.Lo), append(line.Hi, i.Hi)
				}
				if len(line.X) >= 2 {
					n := b.slope(fmt.Sprintf("e4.%s.%s.%s.slope", base, sw.key, bench), fmt.Sprintf("exponent of the cost of %s over %s", bench, strings.ToLower(sw.name)), data[bench])
					slope[bench] = n
					slopes.Rows = append(slopes.Rows, []tableCell{text(sw.key), text(bench), text(fmt.Sprint(len(line.X))), text(sw.unit.Format(line.X[0])), text(sw.unit.Format(line.X[len(line.X)-1])), full(n)})
					if n.Value != nil {
						line.Label = fmt.Sprintf("%s, slope %s", bench, noMinus(fmt.Sprintf("%.2f", *n.Value)))
					}
				}
				if len(line.X) > 0 {
					lines = append(lines, line)
				}
			}
			if len(lines) > 0 {
				foot := fmt.Sprintf("%s · n = %s, %s", base, boots(len(inFigure)), count(batches, "batch"))
				yName := "Cost of one call"
				if base == record.ICount {
					yName += " (instructions)"
				}
				f := plots.Cost("e4-"+sw.key+"-"+string(base), foot, sw.name, sw.unit, yName, axis, lines)
				caption := fmt.Sprintf("Cost of each operation over %s (%s; n = %s), with fitted exponents.", lowerFirst(sw.name), baseName(base), boots(len(inFigure)))
				if sw.key == record.SweepResident {
					caption += " A flat line does not depend on how much memory the process has; fork climbs with it."
				}
				sec.Parts = append(sec.Parts, part{Figure: &f, Caption: caption})
			}
			if sw.key == record.SweepResident {
				b.e4Claims(base, data, slope)
			}
			fit.add(b, base, sw.key, sw.name, sw.unit, data)
			enters[sw.key], enterSlopes[sw.key] = data[record.BenchEnterLast], slope[record.BenchEnterLast]
		}
		if base == record.ICount {
			if t := b.e4Enter(base, enters, enterSlopes); t != nil {
				sec.Parts = append(sec.Parts, part{Table: t})
			}
		}
		if warm > 0 {
			b.note("E4, %s: %s left out as detected warm-up.", base, count(warm, "leading batch"))
		}
		sec.Parts = append(append(sec.Parts, part{Table: slopes}), fit.parts()...)
		sec.Parts = append(sec.Parts, part{Table: tab})
		if base == record.ICount {
			predicted = fit.verdicts
		}
	}
	if len(sec.Parts) == 0 {
		sec.Missing = "No operation was timed."
	}
	b.modelClaim(predicted)
	if len(bases) == 0 {
		b.e4Claims(b.summary.Run.Main, nil, nil)
	}
	if !slices.Contains(bases, record.ICount) {
		b.e4Enter(record.ICount, nil, nil)
	}
	b.sections = append(b.sections, sec)
}

// e4Enter: is there a bound on the steps of entering, and on what does it depend?
func (b *builder) e4Enter(base record.TimeBase, data map[string]map[float64]*series, slopes map[string]Number) *table {
	tab := &table{Name: "e4-enter-" + string(base), Caption: "Instructions of one mm_view_enter() into the last of the live views, over each factor (" + baseName(base) + "): the least and the greatest median of a boot at any size.",
		Header: []string{"factor", "from", "to", "boots", "least", "greatest", "exponent", "for each more"}}
	var worst, perView, atMost *Number
	for _, sw := range sweeps {
		xs := sortedFloats(data[sw.key])
		lo, hi := math.Inf(1), math.Inf(-1)
		var units []string
		meds := make([]map[string]float64, len(xs))
		for i, x := range xs {
			meds[i] = data[sw.key][x].medians()
			for u, m := range meds[i] {
				lo, hi = min(lo, m), max(hi, m)
				units = append(units, u)
			}
		}
		units = distinct(units)
		if len(xs) < 2 || len(units) == 0 {
			continue
		}
		id := fmt.Sprintf("e4.%s.%s.enter", base, sw.key)
		low := b.num(id+".least", "instructions of entering the last view, least median of a boot over "+lowerFirst(sw.name), "instructions", lo, stats.NoInterval, int64(len(units)), "boots", units)
		high := b.num(id+".greatest", "instructions of entering the last view, greatest median of a boot over "+lowerFirst(sw.name), "instructions", hi, stats.NoInterval, int64(len(units)), "boots", units)
		line := func(us []string) float64 {
			var x, y []float64
			for i := range xs {
				if v := medianOf(meds[i], us); v > 0 {
					x, y = append(x, xs[i]), append(y, v)
				}
			}
			return stats.LinearSlope(x, y)
		}
		more := b.num(id+".more", "instructions of entering the last view, for each more of "+lowerFirst(sw.name), "instructions", line(units),
			b.bootstrap(id+".more", len(units), func(idx []int) float64 { return line(pick(units, idx)) }), int64(len(units)), "boots", units)
		slope := "–"
		if n, ok := slopes[sw.key]; ok && n.Value != nil {
			slope = n.Full()
		}
		tab.Rows = append(tab.Rows, []tableCell{text(sw.name), text(sw.unit.Format(xs[0])), text(sw.unit.Format(xs[len(xs)-1])), text(fmt.Sprint(len(units))), full(low), full(high), text(slope), full(more)})
		if sw.key == record.SweepViews {
			perView, atMost = &more, &high
		} else if worst == nil || high.value() > worst.value() {
			worst = &high
		}
	}
	for _, sw := range sweeps {
		if sw.key != record.SweepResident && sw.key != record.SweepViews {
			b.flatClaim(record.BenchEnter, sw.key+"-"+string(base), fmt.Sprintf("The cost of entering a view does not depend on the number of %s (%s).", lowerFirst(sw.name), base), slopes[sw.key])
		}
	}
	c := Claim{
		ID: "e4-enter-bound-" + string(base), Text: fmt.Sprintf("Entering takes a bounded number of instructions: at most %d, and %d more for each of the at most 64 live views (%s).", enterLimit, enterPerView, base),
		Expected: fmt.Sprintf("no boot with a median above %d at any resident size and any number of mappings and threads; at most %d for each live view more, with the whole interval; and none above the two together with all views", enterLimit, enterPerView),
		Refute:   "one boot with a median above that at one size, or an interval for each view more that lies above it",
		Holds:    Unknown, Measured: "not measured over all factors",
	}
	const all = enterLimit + 64*enterPerView
	if len(tab.Rows) == len(sweeps) {
		i := perView.interval()
		c.Measured = fmt.Sprintf("at most %s instructions over resident size, mappings and threads; %s for each live view more, at most %s with all of them", worst.Full(), perView.Full(), atMost.Full())
		switch {
		case worst.value() > enterLimit || atMost.value() > all || i.Valid() && i.Lo > enterPerView:
			c.Holds = False
		case !i.Valid():
			c.Measured += "; no interval"
		case i.Hi <= enterPerView:
			c.Holds = True
		}
		b.claim(c, *worst, *perView, *atMost)
		return tab
	}
	b.claim(c)
	if len(tab.Rows) == 0 {
		return nil
	}
	return tab
}

// flatClaim: what does not grow has an exponent within the band, with its interval.
func (b *builder) flatClaim(op, suffix, text string, n Number) {
	c := Claim{
		ID: fmt.Sprintf("e4-flat-%s-%s", op, suffix), Text: text,
		Expected: fmt.Sprintf("exponent within ±%.1f with its whole interval: less than doubling per thousandfold size", flatSlope),
		Refute:   fmt.Sprintf("an interval that lies beyond ±%.1f", flatSlope),
		Holds:    Unknown, Measured: "not measured at two sizes",
	}
	if n.ID == "" {
		b.claim(c)
		return
	}
	i := n.interval()
	c.Measured = fmt.Sprintf("exponent %s over %d sizes", n.Full(), n.N)
	switch {
	case !i.Valid():
		c.Measured += "; no interval"
	case i.Lo >= -flatSlope && i.Hi <= flatSlope:
		c.Holds = True
	case i.Lo > flatSlope || i.Hi < -flatSlope:
		c.Holds = False
	}
	b.claim(c, n)
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

func anyMicro(u record.Unit, experiment string) bool {
	for _, m := range u.Micros {
		if m.Experiment == experiment {
			return true
		}
	}
	return false
}

func sortedFloats[V any](m map[float64]V) []float64 {
	out := make([]float64, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Float64s(out)
	return out
}

// slope fits the medians over boots.
func (b *builder) slope(id, what string, data map[float64]*series) Number {
	xs := sortedFloats(data)
	meds := make([]map[string]float64, len(xs))
	var all []string
	for i, x := range xs {
		meds[i] = data[x].medians()
		all = append(all, data[x].units()...)
	}
	units := distinct(all)
	points := func(us []string) (fx, fy []float64) {
		for i, x := range xs {
			if y := medianOf(meds[i], us); y > 0 {
				fx, fy = append(fx, x), append(fy, y)
			}
		}
		return fx, fy
	}
	s := stats.LogLogSlope(points(units))
	iv := s.Interval
	if iv.Valid() {
		iv = iv.Hull(b.bootstrap(id, len(units), func(idx []int) float64 { return stats.LogLogExponent(points(pick(units, idx))) }))
	}
	return b.num(id, what, "exponent", s.B, iv, int64(s.N), "sizes", units)
}

// e4Claims: flat over resident size, and far below fork.
func (b *builder) e4Claims(base record.TimeBase, data map[string]map[float64]*series, slope map[string]Number) {
	ops := []string{record.BenchCreate, record.BenchSeal, record.BenchEnter}
	for _, op := range ops {
		b.flatClaim(op, string(base), fmt.Sprintf("The cost of %s does not grow with resident size (%s).", op, base), slope[op])
	}
	c := Claim{
		ID: fmt.Sprintf("e4-fork-%s", base), Text: fmt.Sprintf("At 1 GiB resident, create, seal and enter together cost at least %d times less than fork (%s).", forkRatio, base),
		Expected: fmt.Sprintf("ratio fork / (create + seal + enter) of at least %d with its whole interval", forkRatio),
		Refute:   fmt.Sprintf("an interval that lies below %d", forkRatio),
		Holds:    Unknown, Measured: "not measured at 1 GiB",
	}
	at := func(bench string) map[string]float64 {
		if s := data[bench][forkKiB]; s != nil {
			return s.medians()
		}
		return nil
	}
	fork := at(record.BenchFork)
	units := sortedKeys(fork)
	parts := make([]map[string]float64, len(ops))
	for i, op := range ops {
		parts[i] = at(op)
		units = intersect(sortedKeys(parts[i]), units)
	}
	if len(units) == 0 {
		b.claim(c)
		return
	}
	ratio := func(us []string) float64 {
		sum := 0.0
		for _, p := range parts {
			sum += medianOf(p, us)
		}
		return medianOf(fork, us) / sum
	}
	id := fmt.Sprintf("e4.%s.fork_ratio_1GiB", base)
	iv := b.bootstrap(id, len(units), func(idx []int) float64 { return ratio(pick(units, idx)) })
	n := b.num(id, "cost of fork over that of create, seal and enter together, at 1 GiB resident", "ratio", ratio(units), iv, int64(len(units)), "boots", units)
	c.Measured = fmt.Sprintf("%s times less, %s", n.Full(), boots(len(units)))
	switch i := n.interval(); {
	case !i.Valid():
		c.Measured += "; no interval"
	case i.Lo >= forkRatio:
		c.Holds = True
	case i.Hi < forkRatio:
		c.Holds = False
	}
	b.claim(c, n)
}

var settingNames = map[string]string{
	record.SettingBase: "no views", record.SettingBaseViews: "base, views exist", record.SettingView: "in a view", record.SettingRebased: "after rebase",
}

// bySetting is what the operations of an experiment cost, by operation and setting.
func (b *builder) bySetting(experiment string, base record.TimeBase) map[string]map[string]*series {
	data := map[string]map[string]*series{}
	for _, u := range b.units {
		if u.Boot.TimeBase != base {
			continue
		}
		for _, m := range u.Micros {
			if m.Experiment != experiment {
				continue
			}
			if data[m.Bench] == nil {
				data[m.Bench] = map[string]*series{}
			}
			if data[m.Bench][m.Setting] == nil {
				data[m.Bench][m.Setting] = &series{}
			}
			data[m.Bench][m.Setting].add(u.Key, u.Boot, m)
		}
	}
	return data
}

// e5: what does everyone else pay?
func (b *builder) e5() {
	sec := section{
		ID:       "E5",
		Question: "What does everyone else pay?",
		Method: "The same operations on the stock kernel (the same source and configuration without the series) and on the patched one: without views, beside views, and in a view. " +
			"The ratio is of the medians over boots; boots of different kernels are resampled independently. With instruction counting there is no noise to hide a difference: it is the primary time base here.",
	}
	has := func(u record.Unit) bool { return anyMicro(u, "E5") }
	bases := b.bases(has)
	// Instructions first: repeatable anywhere, and not drowned in noise.
	sort.SliceStable(bases, func(i, j int) bool { return bases[i] == record.ICount && bases[j] != record.ICount })
	claimed := []string{record.BenchPageFault, record.BenchMapUnmap}
	for _, base := range bases {
		unit, _ := unitOf(base)
		data := b.bySetting("E5", base)
		tab := &table{Name: "e5-ratios-" + string(base), Caption: "Cost of operations relative to the stock kernel (" + baseName(base) + "), with 95 % intervals.",
			Header: []string{"operation", "setting", "boots", "batches", "cost", "stock boots", "stock cost", "ratio"}}
		var rows []plots.Ratio
		ratios := map[string]Number{}
		inFigure := map[string]bool{}
		for _, bench := range sortedKeys(data) {
			stock := data[bench][record.SettingStock]
			for _, setting := range []string{record.SettingBase, record.SettingBaseViews, record.SettingView, record.SettingRebased} {
				s := data[bench][setting]
				if s == nil || stock == nil || len(s.units()) == 0 || len(stock.units()) == 0 {
					continue
				}
				id := fmt.Sprintf("e5.%s.%s.%s", base, bench, setting)
				su, tu := s.units(), stock.units()
				for _, u := range append(append([]string{}, su...), tu...) {
					inFigure[u] = true
				}
				r, of := b.e5Ratio(id, bench, setting, s, stock)
				ratios[bench+"/"+setting] = r
				cost := b.num(id+".cost", fmt.Sprintf("cost of one %s, %s", bench, settingNames[setting]), unit, s.cost(su), stats.NoInterval, int64(len(su)), "boots", su)
				bn := b.num(id+".batches", "batches", "count", float64(s.n), stats.NoInterval, s.n, "batches", su)
				stockID := fmt.Sprintf("e5.%s.%s.stock", base, bench)
				var st Number
				if b.ids[stockID] {
					st = b.find(stockID)
				} else {
					st = b.num(stockID, fmt.Sprintf("cost of one %s, stock kernel", bench), unit, stock.cost(tu), stats.NoInterval, int64(len(tu)), "boots", tu)
				}
				tab.Rows = append(tab.Rows, []tableCell{text(bench), text(settingNames[setting] + of), text(fmt.Sprint(len(su))), short(bn), short(cost), text(fmt.Sprint(len(tu))), short(st), full(r)})
				iv := r.interval()
				rows = append(rows, plots.Ratio{Group: bench, Label: settingNames[setting], Value: r.value(), Lo: iv.Lo, Hi: iv.Hi})
			}
		}
		for _, bench := range sortedKeys(data) {
			if data[bench][record.SettingStock] == nil {
				b.note("E5, %s: %s was not measured on the stock kernel, so it has no ratio.", base, bench)
			}
		}
		if len(rows) > 0 {
			f := plots.Ratios("e5-ratios-"+string(base), fmt.Sprintf("%s · n = %s", base, boots(len(inFigure))), "Cost relative to the stock kernel", costLimit, rows)
			sec.Parts = append(sec.Parts, part{Figure: &f, Caption: fmt.Sprintf("Cost of ordinary operations relative to the stock kernel (%s; n = %s), with 95 %% intervals. The shaded band, up to %.2f, is the goal.", baseName(base), boots(len(inFigure)), costLimit)},
				part{Table: tab})
		}
		for _, bench := range claimed {
			b.e5Claim(base, bench, ratios)
		}
		if base == record.ICount {
			b.e5StockClaims(ratios)
		}
	}
	if len(bases) == 0 {
		for _, bench := range claimed {
			b.e5Claim(record.ICount, bench, nil)
		}
	}
	if !slices.Contains(bases, record.ICount) {
		b.e5StockClaims(nil)
	}
	if len(sec.Parts) == 0 {
		sec.Missing = "No operation was timed on both kernels."
	}
	b.sections = append(b.sections, sec)
}

// e5Ratio bootstraps over boots where there are several of both kernels; where
// there is only one of either, over the batches of what there is, and says so:
// such an interval knows nothing of how boots differ.
func (b *builder) e5Ratio(id, bench, setting string, s, stock *series) (Number, string) {
	su, tu := s.units(), stock.units()
	sm, tm := s.medians(), stock.medians()
	v := s.cost(su) / stock.cost(tu)
	all := append(append([]string{}, su...), tu...)
	what := fmt.Sprintf("cost of one %s relative to the stock kernel, %s", bench, settingNames[setting])
	if len(su) >= 2 && len(tu) >= 2 {
		iv := b.bootstrap2(id, len(su), len(tu), func(i, j []int) float64 { return medianOf(sm, pick(su, i)) / medianOf(tm, pick(tu, j)) })
		return b.num(id, what, "ratio", v, iv, int64(len(distinct(all))), "boots", all), ""
	}
	x, y := pooled(s), pooled(stock)
	at := func(v []float64, idx []int) float64 {
		w := make([]float64, len(idx))
		for i, k := range idx {
			w[i] = v[k]
		}
		return stats.Median(w)
	}
	iv := b.bootstrap2(id, len(x), len(y), func(i, j []int) float64 { return at(x, i) / at(y, j) })
	return b.num(id, what+" (interval over the batches of one boot)", "ratio", v, iv, int64(len(x)+len(y)), "batches", all), " (interval over batches)"
}

func pooled(s *series) (out []float64) {
	for _, u := range s.units() {
		out = append(out, s.values[u]...)
	}
	return out
}

func (b *builder) find(id string) Number {
	for _, n := range b.summary.Numbers {
		if n.ID == id {
			return n
		}
	}
	panic("report: no number " + id)
}

func (b *builder) e5Claim(base record.TimeBase, bench string, ratios map[string]Number) {
	name := map[string]string{record.BenchPageFault: "A page fault", record.BenchMapUnmap: "Mapping and unmapping"}[bench]
	primary := ""
	if base == record.ICount {
		primary = ", primary"
	}
	c := Claim{
		ID: fmt.Sprintf("e5-%s-%s", bench, base), Text: fmt.Sprintf("%s in a view costs at most 2 %% more than on the stock kernel (%s%s).", name, base, primary),
		Expected: fmt.Sprintf("ratio of at most %.2f with its whole interval", costLimit), Refute: fmt.Sprintf("an interval that lies above %.2f", costLimit),
		Holds: Unknown, Measured: "not measured on both kernels",
	}
	n, ok := ratios[bench+"/"+record.SettingView]
	if !ok {
		b.claim(c)
		return
	}
	c.Measured = fmt.Sprintf("ratio %s, n = %s %s", n.Full(), plots.Thousands(n.N), n.Of)
	switch i := n.interval(); {
	case !i.Valid():
		c.Measured += "; no interval"
	case i.Hi <= costLimit:
		c.Holds = True
	case i.Lo > costLimit:
		c.Holds = False
	}
	b.claim(c, n)
}

// everyones are the operations that a user without views is to pay nothing for.
var everyones = []struct{ bench, name string }{
	{record.BenchPageFault, "a page fault"},
	{record.BenchMapUnmap, "mapping and unmapping"},
	{record.BenchMapTouchUnmap, "mapping, touching and unmapping"},
	{record.BenchMprotect, "a change of protection"},
	{record.BenchForkExit, "a process that is made and ends"},
	{record.BenchExecExit, "a program that is executed and ends"},
	{record.BenchThread, "a thread that is made and ends"},
	{record.BenchSwitchThread, "a switch to another thread and back"},
	{record.BenchSwitchProcess, "a switch to another process and back"},
}

// e5StockClaims: where no process has a view, the series costs next to nothing.
// Of instructions only: no other time base knows 0.2 % from its own noise.
func (b *builder) e5StockClaims(ratios map[string]Number) {
	for _, e := range everyones {
		c := Claim{
			ID: fmt.Sprintf("e5-stock-%s-%s", e.bench, record.ICount), Text: fmt.Sprintf("Where there are no views, %s costs at most 0.2 %% more than on the stock kernel (%s).", e.name, record.ICount),
			Expected: fmt.Sprintf("ratio of at most %.3f with its whole interval", stockLimit), Refute: fmt.Sprintf("an interval that lies above %.3f", stockLimit),
			Holds: Unknown, Measured: "not measured on both kernels",
		}
		n, ok := ratios[e.bench+"/"+record.SettingBase]
		if !ok {
			b.claim(c)
			continue
		}
		c.Measured = fmt.Sprintf("ratio %s, n = %s %s", n.Full(), plots.Thousands(n.N), n.Of)
		switch i := n.interval(); {
		case !i.Valid():
			c.Measured += "; no interval"
		case i.Hi <= stockLimit:
			c.Holds = True
		case i.Lo > stockLimit:
			c.Holds = False
		}
		b.claim(c, n)
	}
}

// notes says what a reader must know before believing the rest.
func (b *builder) notes() {
	seen := map[record.TimeBase]int{}
	ends := map[string]int{}
	for _, u := range b.units {
		seen[u.Boot.TimeBase]++
		ends[u.Boot.End]++
	}
	if seen[record.KVM] == 0 && len(b.units) > 0 {
		b.note("Hardware virtualisation was not available: no duration here is that of a real machine. Under tcg an emulated instruction costs many real ones, unevenly, and the host's cores are shared; only ratios between things measured in the same boot mean something.")
	}
	if seen[record.ICount] > 0 {
		b.note("icount counts instructions, one vCPU at a time: it knows no caches, no TLB misses and no contention, and it is sequentially consistent, so a missing memory barrier cannot show in it. Its numbers are the same on every machine.")
	}
	if seen[record.TCG] > 0 || seen[record.ICount] > 0 {
		b.note("The emulator tracks writes to code coherently and has neither PCID nor INVPCID: a missing serialisation of modified code, or a missing flush that only tagged TLBs show, stays unseen.")
	}
	for _, e := range sortedKeys(ends) {
		if e != record.EndExited {
			b.note("%s ended as %q; what they had delivered is in the records.", boots(ends[e]), e)
		}
	}
	for _, u := range b.units {
		for _, what := range u.Boot.Incidents {
			b.note("%s: %s.", u.Key, strings.TrimSuffix(what, "."))
		}
	}
	few := 0
	for _, n := range b.summary.Numbers {
		if n.Of == "boots" && n.N == 1 && (n.Unit == "ns" || n.Unit == "ratio" || n.Unit == "instructions") {
			few++
		}
	}
	if few > 0 {
		b.note("%s rest on a single boot and have no interval over boots.", count(int64(few), "number"))
	}
	b.note("Intervals are percentile bootstraps over boots at 95 %%, which cover somewhat less with ten boots or fewer. Claims are judged one by one, without a correction for their number.")
	if b.manifest.Profile == "quick" {
		b.note("This is the quick profile: fewer boots, cells and sizes than the full one.")
	}
}
