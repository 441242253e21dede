// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/analysis/stats"
	"github.com/wflp/wflp/plots"
)

const (
	// The library remembers this many finished patches at the most, and allocators
	// keep what they once had: growth before does not count.
	generationsSettle = 400
	// Over fewer, what happens to be on its way is more than what could be lost.
	generationsWanted = 1000
	// A view that was lost would be five pages; a lost structure of the kernel,
	// some hundred bytes.
	leakLimit = 256
)

// memorySeries is one series of E6, by what it counts and by boot.
type memorySeries map[int64]map[string]record.Memory

func (m memorySeries) counts() []int64 {
	f := map[float64]bool{}
	for n := range m {
		f[float64(n)] = true
	}
	var out []int64
	for _, n := range sortedFloats(f) {
		out = append(out, int64(n))
	}
	return out
}

func (m memorySeries) units() []string {
	var all []string
	for _, by := range m {
		all = append(all, sortedKeys(by)...)
	}
	return distinct(all)
}

// more is the median over boots of how much more there is than without any.
func (m memorySeries) more(n int64, units []string, of func(record.Memory) int64) float64 {
	var v []float64
	for _, u := range units {
		x, ok := m[n][u]
		base, too := m[0][u]
		if ok && too {
			v = append(v, float64(of(x)-of(base)))
		}
	}
	return stats.Median(v)
}

func usedKiB(m record.Memory) int64 { return m.UsedKiB }

// e6: what do views take of memory, and do they give it back?
func (b *builder) e6() {
	sec := section{
		ID:       "E6",
		Question: "What do views take of memory, and do they give it back?",
		Method: "Views that live side by side, patched pages of one view, and generations one after the other in a program of four threads. Private pages and own page tables are the kernel's count; " +
			"memory is all of the machine's that is not free, which nothing can hide from. Each look is the least of five.",
	}
	leak := Claim{ID: "e6-leak", Text: "Thousands of generations in a row leave nothing behind.",
		Expected: fmt.Sprintf("after %d generations the numbers of views, private pages, own tables and files, and the size of the page tables, are the same to the end in every boot; memory grows by less than %d bytes a generation, with the whole interval", generationsSettle, leakLimit),
		Refute:   "one of the counts being greater at the end, or an interval of growth above the limit", Measured: "no generations", Holds: Unknown}
	var leaks verdicts
	for _, base := range b.bases(func(u record.Unit) bool { return len(u.Memories) > 0 }) {
		data := map[string]memorySeries{}
		for _, u := range b.units {
			if u.Boot.TimeBase != base {
				continue
			}
			for _, m := range u.Memories {
				if data[m.Series] == nil {
					data[m.Series] = memorySeries{}
				}
				if data[m.Series][m.N] == nil {
					data[m.Series][m.N] = map[string]record.Memory{}
				}
				data[m.Series][m.N][u.Key] = m
			}
		}
		tab := &table{Name: "e6-memory-" + string(base), Caption: "Memory of views and of patched pages, more than without any (" + baseName(base) + "; medians over boots).",
			Header: []string{"series", "how many", "boots", "private pages", "own tables", "memory"}}
		each := &table{Name: "e6-each-" + string(base), Caption: "Memory that one more takes, by a straight line through all of them, with 95 % intervals over boots.", Header: []string{"series", "boots", "one more takes"}}
		var lines []plots.Line
		nBoots := 0
		for _, s := range []struct{ key, name, look string }{{record.SeriesViews, "views", "create"}, {record.SeriesPagesTogether, "pages together", "seal"}, {record.SeriesPagesApart, "pages apart", "fork"}} {
			m := data[s.key]
			if m == nil {
				continue
			}
			units := m.units()
			nBoots = max(nBoots, len(units))
			line := plots.Line{Label: s.name, Key: s.look}
			for _, n := range m.counts() {
				if n == 0 {
					continue
				}
				num := func(name, what, unit string, of func(record.Memory) int64) Number {
					return b.num(fmt.Sprintf("e6.%s.%s.%d.%s", base, s.key, n, name), fmt.Sprintf("%s, %d %s", what, n, s.name), unit, m.more(n, units, of), stats.NoInterval, int64(len(units)), "boots", units)
				}
				used := num("memory", "memory more than without", "KiB", usedKiB)
				tab.Rows = append(tab.Rows, []tableCell{text(s.name), text(fmt.Sprint(n)), text(fmt.Sprint(len(units))),
					short(num("private_pages", "private pages", "pages", func(x record.Memory) int64 { return x.PrivatePages })),
					short(num("own_tables", "own tables", "pages", func(x record.Memory) int64 { return x.OwnTables })), short(used)})
				if used.value() > 0 {
					line.X, line.Y = append(line.X, float64(n)), append(line.Y, used.value())
				}
			}
			slope := func(us []string) float64 {
				var x, y []float64
				for _, n := range m.counts() {
					x, y = append(x, float64(n)), append(y, m.more(n, us, usedKiB))
				}
				return stats.LinearSlope(x, y)
			}
			id := fmt.Sprintf("e6.%s.%s.each", base, s.key)
			iv := b.bootstrap(id, len(units), func(idx []int) float64 { return slope(pick(units, idx)) })
			each.Rows = append(each.Rows, []tableCell{text(s.name), text(fmt.Sprint(len(units))), full(b.num(id, "memory that one more takes, "+s.name, "KiB", slope(units), iv, int64(len(units)), "boots", units))})
			if len(line.X) > 0 {
				lines = append(lines, line)
			}
		}
		if len(lines) > 0 {
			f := plots.Cost("e6-memory-"+string(base), fmt.Sprintf("%s · n = %s", base, boots(nBoots)), "Views or patched pages", plots.Count, "Memory", plots.KiB, lines)
			sec.Parts = append(sec.Parts, part{Figure: &f, Caption: fmt.Sprintf("Memory over the number of views with one patched page each, and over the number of patched pages of one view: side by side, and each in 2 MiB of its own, which takes a page table more (%s; n = %s).", baseName(base), boots(nBoots))})
		}
		if len(tab.Rows) > 0 {
			sec.Parts = append(sec.Parts, part{Table: tab}, part{Table: each})
		}
		if m := data[record.SeriesGenerations]; m != nil {
			sec.Parts = append(sec.Parts, b.e6Generations(base, m, &leaks)...)
		}
	}
	if len(sec.Parts) == 0 {
		sec.Missing = "No memory was looked at."
	}
	b.sections = append(b.sections, sec)
	leak.Measured, leak.Holds = leaks.text("no generations"), leaks.holds()
	b.claim(leak, leaks.numbers...)
}

func (b *builder) e6Generations(base record.TimeBase, m memorySeries, leaks *verdicts) []part {
	units, counts := m.units(), m.counts()
	last := counts[len(counts)-1]
	from := last
	for i := len(counts) - 1; i >= 0 && counts[i] >= generationsSettle; i-- {
		from = counts[i]
	}
	var memory, resident plots.Line
	memory.Label, memory.Key, resident.Label, resident.Key = "memory that is not free", "fork", "resident", "create"
	median := func(n int64, us []string, of func(record.Memory) int64) float64 {
		var v []float64
		for _, u := range us {
			if x, ok := m[n][u]; ok {
				v = append(v, float64(of(x)))
			}
		}
		return stats.Median(v)
	}
	for _, n := range counts {
		if n > 0 {
			memory.X, memory.Y = append(memory.X, float64(n)), append(memory.Y, median(n, units, usedKiB))
			resident.X, resident.Y = append(resident.X, float64(n)), append(resident.Y, median(n, units, func(x record.Memory) int64 { return x.RSSKiB }))
		}
	}
	f := plots.Cost("e6-generations-"+string(base), fmt.Sprintf("%s · n = %s", base, boots(len(units))), "Generations", plots.Count, "Memory", plots.KiB, []plots.Line{memory, resident})
	out := []part{{Figure: &f, Caption: fmt.Sprintf("Memory over the number of generations, one after the other (%s; n = %s). A flat line gives back what it takes; the library remembers its last 256 patches, which is all the growth there is at first.", baseName(base), boots(len(units)))}}

	tab := &table{Name: "e6-leak-" + string(base), Caption: fmt.Sprintf("What there is after %s and after %s generations (%s; medians over boots).", plots.Thousands(from), plots.Thousands(last), baseName(base)),
		Header: []string{"of what", "boots", "then", "at the end", "boots with more"}}
	grown := 0
	var numbers []Number
	for _, c := range []struct {
		key, name string
		exact     bool
		of        func(record.Memory) int64
	}{
		{"views", "views", true, func(x record.Memory) int64 { return x.Views }},
		{"private_pages", "private pages", true, func(x record.Memory) int64 { return x.PrivatePages }},
		{"own_tables", "own tables", true, func(x record.Memory) int64 { return x.OwnTables }},
		{"files", "open files", true, func(x record.Memory) int64 { return x.Files }},
		{"page_tables", "page tables of the process, KiB", true, func(x record.Memory) int64 { return x.PTEKiB }},
		{"resident", "resident memory, KiB", false, func(x record.Memory) int64 { return x.RSSKiB }},
		{"memory", "memory of the machine that is not free, KiB", false, usedKiB},
	} {
		more := 0
		for _, u := range units {
			if x, ok := m[last][u]; ok && c.of(x) > c.of(m[from][u]) {
				more++
			}
		}
		if c.exact {
			grown += more
		}
		n := func(name, what string, v float64) Number {
			return b.num(fmt.Sprintf("e6.%s.generations.%s.%s", base, c.key, name), what+", "+c.name, "count", v, stats.NoInterval, int64(len(units)), "boots", units)
		}
		numbers = append(numbers, n("more", "boots with more at the end than after "+plots.Thousands(from)+" generations", float64(more)))
		tab.Rows = append(tab.Rows, []tableCell{text(c.name), text(fmt.Sprint(len(units))), short(n("then", "after "+plots.Thousands(from)+" generations", median(from, units, c.of))),
			short(n("end", "after "+plots.Thousands(last)+" generations", median(last, units, c.of))), short(numbers[len(numbers)-1])})
	}
	out = append(out, part{Table: tab})
	slope := func(us []string) float64 {
		var x, y []float64
		for _, n := range counts {
			if n >= from {
				x, y = append(x, float64(n)), append(y, 1024*median(n, us, usedKiB))
			}
		}
		return stats.LinearSlope(x, y)
	}
	id := fmt.Sprintf("e6.%s.generations.growth", base)
	enough := last-from >= generationsWanted
	if enough {
		v, iv := slope(units), b.bootstrap(id, len(units), func(idx []int) float64 { return slope(pick(units, idx)) })
		growth := b.num(id, "growth of all memory that is not free, bytes a generation", "bytes", v, iv, int64(len(units)), "boots", units)
		numbers = append([]Number{growth}, numbers...)
	}
	holds, said := Unknown, []string{fmt.Sprintf("%s, %s generations", base, plots.Thousands(last))}
	switch {
	case grown > 0:
		holds = False
		said = append(said, fmt.Sprintf("counts grew in %s", boots(grown)))
	case !enough:
		said = append(said, fmt.Sprintf("fewer than %d after the first %d", generationsWanted, generationsSettle))
	default:
		said = append(said, fmt.Sprintf("no count grew, memory by %s bytes a generation", numbers[0].Full()))
		holds = below(numbers[0], leakLimit)
	}
	leaks.add(holds, strings.Join(said, ": "), numbers...)
	return out
}
