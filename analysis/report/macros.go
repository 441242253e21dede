// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"

	"github.com/wflp/wflp/analysis/record"
)

var digitNames = [...]string{"Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"}

// macroName makes the name of a macro of that of a number. TeX takes letters only:
// each word gets a capital, each digit is spelled, a decimal point is Point, a
// slash Over.
//
//	e2.tcg.threads=4 util=60%.waitfree.p99.9 → wflpETwoTcgThreadsFourUtilSixZeroWaitfreePNineNinePointNine
func macroName(id string) string {
	var b strings.Builder
	b.WriteString("wflp")
	up := true
	digit := func(i int) bool { return i >= 0 && i < len(id) && id[i] >= '0' && id[i] <= '9' }
	for i := range len(id) {
		switch c := id[i]; {
		case digit(i):
			b.WriteString(digitNames[c-'0'])
			up = true
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			if up && c >= 'a' {
				c -= 'a' - 'A'
			}
			b.WriteByte(c)
			up = false
		case c == '.' && digit(i-1) && digit(i+1):
			b.WriteString("Point")
		case c == '/':
			b.WriteString("Over")
			up = true
		default:
			up = true
		}
	}
	return b.String()
}

// macros is tables/numbers.tex: every number of the report, every claim, and short
// names for what a text cites first. Whoever writes with them stays true when the
// run is made again.
func (b *builder) macros() ([]byte, error) {
	var out strings.Builder
	used := map[string]string{}
	var clash error
	define := func(name, value, what string) {
		if was, dup := used[name]; dup && clash == nil {
			clash = fmt.Errorf("name macros: %s and %s would both be \\%s", was, what, name)
		}
		used[name] = what
		// The line ends in a comment, so that a macro adds no space.
		fmt.Fprintf(&out, "\\newcommand{\\%s}{%s}%% %s\n", name, value, tex(what))
	}
	number := func(name string, n Number, what string) {
		define(name, texValue(n.Value, n.Unit), fmt.Sprintf("%s; n = %s", what, countOf(n)))
		if n.Lo != nil && n.Hi != nil {
			define(name+"Lo", texValue(n.Lo, n.Unit), "lower end of the 95 % interval")
			define(name+"Hi", texValue(n.Hi, n.Unit), "upper end")
		}
		define(name+"N", tex(format(float64(n.N), "count")), "n: "+n.Of)
	}
	fmt.Fprintf(&out, "%% Every number of the report, made from the records; \\input it in the preamble.\n%% Needs \\usepackage{textcomp}. Profile %s, begun %s, wflp %s.\n", tex(b.summary.Run.Profile), b.summary.Run.Started, tex(b.summary.Run.Version))

	fmt.Fprintf(&out, "\n%% Short names.\n")
	held := 0
	for _, c := range b.summary.Claims {
		if c.Holds == True {
			held++
		}
	}
	define("wflpClaims", fmt.Sprint(len(b.summary.Claims)), "number of claims")
	define("wflpClaimsHeld", fmt.Sprint(held), "of which hold")
	all := map[string]Number{}
	for _, n := range b.summary.Numbers {
		all[n.ID] = n
	}
	short := func(name, id string) {
		n, ok := all[id]
		if !ok {
			define(name, `\textbf{??}`, "not measured: "+id)
			return
		}
		number(name, n, id)
	}
	define("wflpTimeBase", tex(string(b.summary.Run.Main)), "time base of the short names of E2 and E3")
	e2, e3 := b.tailCell(), b.mostThreads(func(u record.Unit) (cells []record.Cell) {
		for _, o := range u.Overs {
			if o.Experiment == "E3" {
				cells = append(cells, o.Cell)
			}
		}
		return cells
	})
	define("wflpTailCell", tex(cellText(e2)), "cell of Tail: that of E2 with most threads")
	define("wflpOverCell", tex(cellText(e3)), "cell of First and Last: that of E3 with most threads")
	main := b.summary.Run.Main
	for _, s := range strategyOrder {
		name := strings.ToUpper(string(s[:1])) + string(s[1:])
		short("wflpTail"+name, fmt.Sprintf("e2.%s.%s.%s.p99.9", main, e2, s))
		short("wflpFirst"+name, fmt.Sprintf("e3.%s.%s.%s.first.p50", main, e3, s))
		short("wflpLast"+name, fmt.Sprintf("e3.%s.%s.%s.last.p50", main, e3, s))
		short("wflpRuns"+name, fmt.Sprintf("e1.%s.runs", s))
		short("wflpViolating"+name, fmt.Sprintf("e1.%s.violating_runs", s))
		short("wflpBound"+name, fmt.Sprintf("e1.%s.bound_run", s))
	}
	short("wflpTailRatio", fmt.Sprintf("e2.%s.%s.waitfree/barrier.p99.9", main, e2))
	short("wflpForkRatio", fmt.Sprintf("e4.%s.fork_ratio_1GiB", record.ICount))
	short("wflpEnterMost", fmt.Sprintf("e4.%s.resident.enter.greatest", record.ICount))
	short("wflpFaultRatio", fmt.Sprintf("e5.%s.page-fault.view", record.ICount))

	fmt.Fprintf(&out, "\n%% Claims: holds, does not hold, or unknown.\n")
	for _, c := range b.summary.Claims {
		define(macroName("claim-"+c.ID), mark(c.Holds), c.ID)
	}
	fmt.Fprintf(&out, "\n%% All numbers, by their names in summary.json.\n")
	for _, n := range b.summary.Numbers {
		number(macroName(n.ID), n, n.ID)
	}
	return []byte(out.String()), clash
}

// tailCell is the cell that short names of latencies are of.
func (b *builder) tailCell() record.Cell {
	return b.mostThreads(func(u record.Unit) (cells []record.Cell) {
		for _, l := range u.Latencies {
			if l.Experiment == "E2" {
				cells = append(cells, l.Cell)
			}
		}
		return cells
	})
}

// mostThreads is the cell with most threads among those of the main time base, and
// of these the last.
func (b *builder) mostThreads(of func(record.Unit) []record.Cell) record.Cell {
	cells := map[string]record.Cell{}
	for _, u := range b.units {
		if u.Boot.TimeBase == b.summary.Run.Main {
			for _, c := range of(u) {
				cells[c.String()] = c
			}
		}
	}
	if keys := sortedCells(cells); len(keys) > 0 {
		return cells[keys[len(keys)-1]]
	}
	return record.Cell{}
}

func countOf(n Number) string { return format(float64(n.N), "count") + " " + n.Of }

// texValue keeps a number and its unit on one line.
func texValue(v *float64, unit string) string {
	if v == nil {
		return "--"
	}
	return strings.ReplaceAll(tex(format(*v, unit)), " ", "~")
}
