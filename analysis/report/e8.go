// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"sort"
	"strings"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/analysis/stats"
	"github.com/wflp/wflp/plots"
)

// What became of a hostile program and its patch, from good to bad.
const (
	fateOver     = "patched"
	fateOthers   = "others patched" // and nobody held up; some thread came late
	fateRefused  = "not patched"
	fateHeld     = "held up"
	fateDeadlock = "stuck"
	fateUnknown  = "unknown"
)

var fates = []string{fateOver, fateOthers, fateRefused, fateHeld, fateDeadlock, fateUnknown}

// A thread that was held up for this long waited for one that did not come: the
// programs have it come after 1.2 seconds.
const heldForever = 800_000_000

func fate(o record.Outcome) string {
	switch {
	case !o.Ended && o.Stuck > 0:
		return fateDeadlock
	case !o.Ended:
		return fateUnknown
	case o.HeldNS >= heldForever:
		return fateHeld
	case o.Error != 0:
		return fateRefused
	case o.LastNS == 0:
		return fateUnknown
	case o.LastNS >= heldForever:
		return fateOthers
	}
	return fateOver
}

var hostileNames = map[string]string{
	"busy": "a thread never comes to a quiescence point", "asleep": "threads block for ever, and said so",
	"blocked": "threads block for ever, and did not say so", "lock": "a lock is held across quiescence points",
}

// e8: what do hostile programs do?
func (b *builder) e8() {
	sec := section{
		ID:       "E8",
		Question: "What do hostile programs do?",
		Method: "Programs of four threads and one patch. For ever is 1.2 seconds: whoever waited for a thread that does not come has waited about that long. " +
			"patched: all threads, soon. others patched: all but those that do not come, and nobody was held up for them. not patched: the patch was given up. held up: threads were, for as long as the one did not come. " +
			"stuck: threads did nothing any more when the watchdog ended the program.",
	}
	type cell struct {
		program  string
		strategy record.Strategy
	}
	type outcome struct {
		units []string
		count map[string]int64
		n     int64
	}
	by := map[cell]*outcome{}
	programs, strategies := map[string]bool{}, map[record.Strategy]bool{}
	var total int64
	for _, u := range b.units {
		for _, o := range u.Outcomes {
			c := cell{o.Program, o.Strategy}
			if by[c] == nil {
				by[c] = &outcome{count: map[string]int64{}}
			}
			by[c].units = append(by[c].units, u.Key)
			by[c].count[fate(o)]++
			by[c].n++
			programs[o.Program], strategies[o.Strategy] = true, true
			total++
		}
	}
	// Numbers of durations belong to a time base, outcomes do not.
	tab := &table{Name: "e8-outcomes", Caption: "What became of hostile programs and their patches, in how many runs.", Header: append([]string{"program", "strategy", "runs"}, fates...)}
	cells := map[cell]map[string]Number{}
	var rows []string
	var runs []int64
	var counts [][]int64
	for _, p := range sortedKeys(programs) {
		for _, s := range orderedStrategies(strategies) {
			o := by[cell{p, s}]
			if o == nil {
				continue
			}
			row := []tableCell{text(hostileNames[p]), text(string(s)), text(fmt.Sprint(o.n))}
			cells[cell{p, s}] = map[string]Number{}
			var line []int64
			for _, f := range fates {
				n := b.num(fmt.Sprintf("e8.%s.%s.%s", p, s, strings.ReplaceAll(f, " ", "_")), fmt.Sprintf("runs of the hostile program %q under %s that ended %q", p, s, f), "count",
					float64(o.count[f]), stats.NoInterval, o.n, "runs", o.units)
				row, line = append(row, short(n)), append(line, o.count[f])
				cells[cell{p, s}][f] = n
			}
			tab.Rows = append(tab.Rows, row)
			rows, runs, counts = append(rows, p+", "+string(s)), append(runs, o.n), append(counts, line)
		}
	}
	if total == 0 {
		sec.Missing = "No hostile program was run."
	} else {
		foot := b.footer(func(u record.Unit) bool { return len(u.Outcomes) > 0 }, count(total, "run"))
		f := plots.Outcomes("e8-outcomes", foot, rows, fates, 2, runs, counts)
		sec.Parts = append(sec.Parts, part{Figure: &f, Caption: "What became of hostile programs: runs by program and strategy. Global quiescence gets stuck where a lock is held across a quiescence point, and waits for whoever does not come; waitfree does neither (" + foot + ")."}, part{Table: tab})
		sec.Parts = append(sec.Parts, b.e8Times()...)
	}
	b.sections = append(b.sections, sec)

	// Claims: of every run of a program under a strategy, one of these fates.
	claim := func(id, words, expected, refute, program string, s record.Strategy, allowed ...string) {
		c := Claim{ID: id, Text: words, Expected: expected, Refute: refute, Holds: Unknown, Measured: "no run", OneEvent: true}
		o := by[cell{program, s}]
		if o == nil {
			b.claim(c)
			return
		}
		var good int64
		var said []string
		var numbers []Number
		for _, f := range fates {
			if o.count[f] > 0 {
				said = append(said, fmt.Sprintf("%s %d", f, o.count[f]))
				numbers = append(numbers, cells[cell{program, s}][f])
			}
		}
		for _, f := range allowed {
			good += o.count[f]
		}
		sort.Strings(said)
		c.Measured = fmt.Sprintf("%s: %s", count(o.n, "run"), strings.Join(said, ", "))
		switch {
		case good == o.n:
			c.Holds = True
		case good+o.count[fateUnknown] < o.n:
			c.Holds = False
		}
		b.claim(c, numbers...)
	}
	claim("e8-lock-waitfree", "A lock held across quiescence points does not keep waitfree from patching.", "every run ends patched", "a run that does not", "lock", record.WaitFree, fateOver)
	claim("e8-lock-barrier", "The same program deadlocks global quiescence: the hostile case is one.", "every run ends stuck", "a run that does not", "lock", record.Barrier, fateDeadlock)
	claim("e8-busy-waitfree", "A thread that never comes to a quiescence point holds nobody up under waitfree.", "every run: the others patched, nobody held up", "a run that does not", "busy", record.WaitFree, fateOthers)
	claim("e8-blocked-waitfree", "Nor do threads that block for ever and did not say so.", "every run: the others patched, nobody held up", "a run that does not", "blocked", record.WaitFree, fateOthers)
	claim("e8-asleep-waitfree", "Threads that block for ever at a safe point are patched in their sleep.", "every run ends patched", "a run that does not", "asleep", record.WaitFree, fateOver)
}

// e8Times has how long it took, by time base.
func (b *builder) e8Times() []part {
	var out []part
	for _, base := range b.bases(func(u record.Unit) bool { return len(u.Outcomes) > 0 }) {
		type key struct {
			program  string
			strategy record.Strategy
		}
		tab := &table{Name: "e8-times-" + string(base), Caption: "Times of the same patches, medians (" + baseName(base) + "): until the first and the last thread ran new code, and the longest time for which one thread was held up. Patches that were not over are left out of the times that they did not reach.",
			Header: []string{"program", "strategy", "runs", "first", "last", "held"}}
		data := map[key]map[string][]float64{}
		units := map[key][]string{}
		var keys []key
		for _, u := range b.units {
			for _, o := range u.Outcomes {
				if u.Boot.TimeBase != base {
					continue
				}
				k := key{o.Program, o.Strategy}
				if data[k] == nil {
					data[k] = map[string][]float64{}
					keys = append(keys, k)
				}
				units[k] = append(units[k], u.Key)
				for what, ns := range map[string]int64{"first": o.FirstNS, "last": o.LastNS, "held": o.HeldNS} {
					if o.Ended && (ns > 0 || what == "held") {
						data[k][what] = append(data[k][what], float64(ns))
					}
				}
			}
		}
		sort.Slice(keys, func(i, j int) bool {
			if keys[i].program != keys[j].program {
				return keys[i].program < keys[j].program
			}
			return keys[i].strategy < keys[j].strategy
		})
		for _, k := range keys {
			row := []tableCell{text(hostileNames[k.program]), text(string(k.strategy)), text(fmt.Sprint(len(units[k])))}
			for _, what := range []string{"first", "last", "held"} {
				v := data[k][what]
				row = append(row, short(b.num(fmt.Sprintf("e8.%s.%s.%s.%s", base, k.program, k.strategy, what), fmt.Sprintf("median of %s, hostile program %q under %s",
					map[string]string{"first": "the time until the first thread ran new code", "last": "the time until the last did", "held": "the longest time for which one thread was held up"}[what], k.program, k.strategy),
					"ns", stats.Median(v), stats.NoInterval, int64(len(v)), "runs", units[k])))
			}
			tab.Rows = append(tab.Rows, row)
		}
		out = append(out, part{Table: tab})
	}
	return out
}
