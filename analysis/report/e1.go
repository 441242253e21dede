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

// What a quick run must contain to say anything about correctness.
const (
	wantPatches    = 20_000
	wantExecutions = 2_000_000
	wantSpecs      = 300
	wantBoots      = 10
	wantKinds      = 3
	// More undecided runs than this share, and an absence of violations is not news.
	undecidedLimit = 0.01
)

// tally is what the oracles said of one strategy.
type tally struct {
	verdicts  map[string]int64
	kinds     map[string]int64 // violations by kind
	kindRuns  map[string]int64 // runs that show the kind
	runs      int64
	specs     map[string]bool
	withOps   map[string]bool // specs with memory operations
	withBirth map[string]bool // specs with thread births
	units     []string
	counts    record.Counts
	// Of the decided runs only: what was not judged proves nothing.
	patches, executions int64
}

func (t *tally) decided() int64   { return t.verdicts[record.Pass] + t.verdicts[record.Violation] }
func (t *tally) undecided() int64 { return t.runs - t.decided() }

func (t *tally) add(unit string, x record.Trial) {
	if t.verdicts == nil {
		t.verdicts, t.kinds, t.kindRuns = map[string]int64{}, map[string]int64{}, map[string]int64{}
		t.specs, t.withOps, t.withBirth = map[string]bool{}, map[string]bool{}, map[string]bool{}
	}
	verdict := x.Verdict
	for k, n := range x.Violations {
		if n > 0 {
			t.kinds[k] += n
			t.kindRuns[k]++
			verdict = record.Violation // a violation wins over whatever else was said
		}
	}
	t.runs++
	t.verdicts[verdict]++
	t.units = append(t.units, unit)
	if verdict == record.Pass || verdict == record.Violation {
		t.patches += x.Counts.Patches
		t.executions += x.Counts.Executions
	}
	c := &t.counts
	c.Executions += x.Counts.Executions
	c.Patches += x.Counts.Patches
	c.PatchesFailed += x.Counts.PatchesFailed
	c.Transactions += x.Counts.Transactions
	c.Requests += x.Counts.Requests
	c.Migrated += x.Counts.Migrated
	c.Pulled += x.Counts.Pulled
	c.Births += x.Counts.Births
	c.Deaths += x.Counts.Deaths
	c.MemoryOps += x.Counts.MemoryOps
	c.Stops += x.Counts.Stops
	c.StopsActive += x.Counts.StopsActive
	c.StopsUnknown += x.Counts.StopsUnknown
	c.Mixed += x.Counts.Mixed
	t.specs[x.SpecID] = true
	if x.Counts.MemoryOps > 0 {
		t.withOps[x.SpecID] = true
	}
	if x.Counts.Births > 0 {
		t.withBirth[x.SpecID] = true
	}
}

// e1: is it correct? Every run that was judged counts, of whatever experiment: a
// violation during a latency measurement is one, too.
func (b *builder) e1() {
	sec := section{
		ID:       "E1",
		Question: "Is it correct?",
		Method: "Random programs run under each strategy while patches arrive at random moments. Every execution of a patchable function leaves evidence of which version each of its parts ran; " +
			"the oracles look for torn executions, mixed transactions, regressions, stale code, lost threads and requests, incoherent memory, crashes and kernel complaints. " +
			"The naive strategy changes code under running threads: it is the control that must be caught, or the checks are worthless. A timeout is counted as undecided, never as a pass. All judged runs of all experiments count here.",
	}
	by := map[record.Strategy]*tally{}
	for _, u := range b.units {
		for _, t := range u.Trials {
			// A hostile program that hangs is what E8 is about, and judged there.
			if t.Experiment == "E8" && t.Verdict == record.Unknown {
				continue
			}
			if by[t.Strategy] == nil {
				by[t.Strategy] = &tally{}
			}
			by[t.Strategy].add(u.Key, t)
		}
	}
	order := orderedStrategies(by)
	tab := &table{Name: "e1-outcomes", Caption: "Outcomes of all judged runs by strategy. The bounds are one-sided 95 % (Clopper-Pearson); per patch they take patches as independent.",
		Header: []string{"strategy", "boots", "specs", "runs", "with violation", "undecided", "patches", "executions", "violations", "bound per run", "bound per patch"}}
	volume := &table{Name: "e1-volume", Caption: "What happened in these runs.",
		Header: []string{"strategy", "transactions", "requests", "moved at own point", "pulled asleep", "thread births", "memory operations", "patches refused"}}
	stops := &table{Name: "e1-stops", Caption: "Stops of all threads under stopworld. In vain are those at which a function to be changed was on a stack, or a stack could not be walked to its end; " +
		"mixed are transactions whose functions, each whole, ran in different generations, which the strategy does not promise to avoid.",
		Header: []string{"strategy", "stops", "in vain, active code", "in vain, unknown stack", "patches", "transactions", "mixed"}}
	kindSet := map[string]bool{}
	var names []string
	var runs []int64
	for _, s := range order {
		for k := range by[s].kinds {
			kindSet[k] = true
		}
	}
	kinds := sortedKeys(kindSet)
	var caught [][]int64
	bounds := map[record.Strategy][]Number{}
	for _, s := range order {
		t := by[s]
		id := "e1." + string(s) + "."
		c := func(name, what string, v int64) Number {
			return b.num(id+name, what+" under "+string(s), "count", float64(v), stats.NoInterval, t.runs, "runs", t.units)
		}
		bootN := c("boots", "boots", int64(len(distinct(t.units))))
		specN := c("specs", "different programs", int64(len(t.specs)))
		runN := c("runs", "judged runs", t.runs)
		vio := c("violating_runs", "runs with a violation", t.verdicts[record.Violation])
		und := c("undecided", "undecided runs (unknown, broken, unsupported)", t.undecided())
		pat := c("patches", "published patches", t.counts.Patches)
		exe := c("executions", "recorded executions of patchable functions", t.counts.Executions)
		perRun := b.num(id+"bound_run", "upper 95 % bound on the share of runs with a violation, "+string(s), "share",
			stats.UpperRate(t.verdicts[record.Violation], t.decided()), stats.NoInterval, t.decided(), "decided runs", t.units)
		perPatchV := math.NaN()
		if t.verdicts[record.Violation] == 0 {
			perPatchV = stats.UpperRate(0, t.patches)
		}
		perPatch := b.num(id+"bound_patch", "upper 95 % bound on violations per patch, "+string(s), "share", perPatchV, stats.NoInterval, t.patches, "patches of decided runs", t.units)
		bounds[s] = []Number{vio, runN, pat, exe, perRun, perPatch, und}
		var list []string
		for _, k := range kinds {
			if n := t.kinds[k]; n > 0 {
				list = append(list, fmt.Sprintf("%s %s", k, plots.Thousands(n)))
				c("violations."+k, "violations of kind "+k, n)
				c("violating_runs."+k, "runs with a violation of kind "+k, t.kindRuns[k])
			}
		}
		if list == nil {
			list = []string{"none"}
		}
		tab.Rows = append(tab.Rows, []tableCell{text(string(s)), short(bootN), short(specN), short(runN), short(vio), short(und), short(pat), short(exe),
			text(strings.Join(list, ", ")), short(perRun), short(perPatch)})
		volume.Rows = append(volume.Rows, []tableCell{text(string(s)),
			short(c("transactions", "transactions", t.counts.Transactions)), short(c("requests", "requests", t.counts.Requests)),
			short(c("migrated", "threads moved at their own quiescence point", t.counts.Migrated)), short(c("pulled", "threads pulled over asleep", t.counts.Pulled)),
			short(c("births", "thread births", t.counts.Births)), short(c("memory_ops", "memory operations", t.counts.MemoryOps)), short(c("refused", "patches refused or failed", t.counts.PatchesFailed))})
		if t.counts.Stops > 0 {
			stops.Rows = append(stops.Rows, []tableCell{text(string(s)), short(c("stops", "stops of all threads", t.counts.Stops)),
				short(c("stops_active", "stops in vain, a function to be changed was on a stack", t.counts.StopsActive)),
				short(c("stops_unknown", "stops in vain, a stack could not be walked", t.counts.StopsUnknown)), short(pat),
				text(plots.Thousands(t.counts.Transactions)), short(c("mixed", "transactions of mixed generations, as not promised otherwise", t.counts.Mixed))})
		}
		names = append(names, string(s))
		runs = append(runs, t.runs)
		var row []int64
		for _, k := range kinds {
			row = append(row, t.kindRuns[k])
		}
		caught = append(caught, row)
	}
	if len(order) == 0 {
		sec.Missing = "No run was judged."
	} else {
		figKinds := kinds
		if len(figKinds) == 0 {
			figKinds = []string{"any violation"}
			for i := range caught {
				caught[i] = []int64{0}
			}
		}
		var total int64
		for _, n := range runs {
			total += n
		}
		foot := b.footer(func(u record.Unit) bool { return len(u.Trials) > 0 }, count(total, "run"))
		f := plots.Outcomes("e1-outcomes", foot, names, figKinds, 0, runs, caught)
		sec.Parts = append(sec.Parts,
			part{Figure: &f, Caption: "Runs in which each kind of violation was seen, by strategy. waitfree, barrier and stopworld must show zeros, naive must not: it runs the same programs and proves that the checks can see (" + foot + ")."},
			part{Table: tab}, part{Table: volume})
		if len(stops.Rows) > 0 {
			sec.Parts = append(sec.Parts, part{Table: stops})
		}
	}
	b.sections = append(b.sections, sec)

	for _, s := range []record.Strategy{record.WaitFree, record.Barrier, record.StopWorld} {
		if s == record.StopWorld && by[s] == nil { // a rival: where it did not run, nothing is said of it
			continue
		}
		c := Claim{
			ID: "e1-" + string(s), Text: fmt.Sprintf("No run under %s shows a violation.", s),
			Expected: "0 runs with a violation, at most 1 % of the runs undecided",
			Refute:   "one torn execution, mixed transaction, regression, stale execution, lost thread or request, incoherent read, crash or kernel complaint in any run",
			Holds:    Unknown, Measured: "no run", OneEvent: true,
		}
		if t := by[s]; t != nil {
			v := t.verdicts[record.Violation]
			bound := ""
			if bounds[s][5].Value != nil {
				bound = fmt.Sprintf(" and %s per patch", bounds[s][5])
			}
			c.Measured = fmt.Sprintf("%s of %s with a violation, %s undecided; upper 95 %% bound %s per run%s (%s, %s)",
				plots.Thousands(v), count(t.runs, "run"), plots.Thousands(t.undecided()), bounds[s][4], bound, count(t.counts.Patches, "patch"), count(t.counts.Executions, "execution"))
			switch {
			case v > 0:
				c.Holds = False
				c.Measured += ": " + strings.Join(seenKinds(t), ", ")
			case t.decided() > 0 && float64(t.undecided()) <= undecidedLimit*float64(t.runs):
				c.Holds = True
			}
		}
		b.claim(c, bounds[s]...)
	}
	b.control(by)
	b.volume(by)
}

func seenKinds(t *tally) []string {
	var out []string
	for _, k := range sortedKeys(t.kinds) {
		out = append(out, fmt.Sprintf("%s %s", k, plots.Thousands(t.kinds[k])))
	}
	if len(out) == 0 {
		out = []string{"kind not recorded"}
	}
	return out
}

// control: naive must be caught, on the very programs that the others ran. Only
// programs that all of the strategies ran count.
func (b *builder) control(by map[record.Strategy]*tally) {
	c := Claim{
		ID: "e1-control", Text: "The naive strategy is caught on the very same programs, in at least three kinds of violation.",
		Expected: fmt.Sprintf("at least %d kinds over the programs that waitfree and barrier ran, too", wantKinds),
		Refute:   "fewer kinds: then the checks cannot see what waitfree and barrier are said not to do",
		Holds:    Unknown, Measured: "no run under naive",
	}
	naive := by[record.Naive]
	if naive == nil {
		b.claim(c)
		return
	}
	kinds := map[string]bool{}
	shared := map[string]bool{}
	var units []string
	for _, u := range b.units {
		for _, t := range u.Trials {
			if t.Strategy != record.Naive || !ran(by, record.WaitFree, t.SpecID) || !ran(by, record.Barrier, t.SpecID) {
				continue
			}
			shared[t.SpecID] = true
			units = append(units, u.Key)
			for k, n := range t.Violations {
				if n > 0 {
					kinds[k] = true
				}
			}
		}
	}
	n := b.num("e1.naive.kinds", "kinds of violation seen under naive, on programs that waitfree and barrier ran, too", "count",
		float64(len(kinds)), stats.NoInterval, int64(len(shared)), "shared programs", units)
	c.Measured = fmt.Sprintf("%s on %s: %s", count(int64(len(kinds)), "kind"), count(int64(len(shared)), "shared program"), strings.Join(sortedKeys(kinds), ", "))
	switch {
	case len(shared) == 0:
		c.Measured = "naive shares no program with waitfree and barrier"
	case len(kinds) >= wantKinds:
		c.Holds = True
	default:
		c.Holds = False
	}
	b.claim(c, n)
}

func ran(by map[record.Strategy]*tally, s record.Strategy, spec string) bool {
	return by[s] != nil && by[s].specs[spec]
}

// volume: zero violations mean something only over enough of everything.
func (b *builder) volume(by map[record.Strategy]*tally) {
	c := Claim{
		ID: "e1-volume", Text: "The absence of violations rests on enough runs.",
		Expected: fmt.Sprintf("waitfree and barrier together: at least %s patches, %s executions, %d programs (most with memory operations and with thread births) and %d boots",
			plots.Thousands(wantPatches), plots.Thousands(wantExecutions), wantSpecs, wantBoots),
		Refute: "any of the numbers being smaller",
		Holds:  Unknown, Measured: "no run",
	}
	var units []string
	specs, ops, births := map[string]bool{}, map[string]bool{}, map[string]bool{}
	var patches, executions, runs int64
	for _, s := range []record.Strategy{record.WaitFree, record.Barrier} {
		t := by[s]
		if t == nil {
			continue
		}
		patches += t.patches
		executions += t.executions
		runs += t.decided()
		units = append(units, t.units...)
		for k := range t.specs {
			specs[k] = true
		}
		for k := range t.withOps {
			ops[k] = true
		}
		for k := range t.withBirth {
			births[k] = true
		}
	}
	if runs == 0 {
		b.claim(c)
		return
	}
	n := func(id, what string, v int) Number {
		return b.num("e1.volume."+id, what+", waitfree and barrier together", "count", float64(v), stats.NoInterval, runs, "decided runs", units)
	}
	nBoots := len(distinct(units))
	numbers := []Number{n("patches", "patches of decided runs", int(patches)), n("executions", "executions of decided runs", int(executions)), n("specs", "different programs", len(specs)),
		n("specs_memory", "programs with memory operations", len(ops)), n("specs_births", "programs with thread births", len(births)), n("boots", "boots", nBoots)}
	c.Measured = fmt.Sprintf("%s patches, %s executions, %s programs (%s with memory operations, %s with births), %s",
		numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], boots(nBoots))
	c.Holds = False
	if patches >= wantPatches && executions >= wantExecutions && len(specs) >= wantSpecs && nBoots >= wantBoots &&
		2*len(ops) > len(specs) && 2*len(births) > len(specs) {
		c.Holds = True
	}
	b.claim(c, numbers...)
}

// console: the kernel must have nothing to say.
func (b *builder) console() {
	type state struct {
		boots, complaints, bad, crashed, emulator int64
		units                                     []string
		kinds                                     map[string]int64
	}
	all := map[string]*state{}
	for _, u := range b.units {
		v := u.Boot.Variant
		if all[v] == nil {
			all[v] = &state{kinds: map[string]int64{}}
		}
		s := all[v]
		s.boots++
		s.units = append(s.units, u.Key)
		if u.EmulatorDefect() {
			s.emulator++
			continue
		}
		for _, c := range u.Boot.Complaints {
			s.complaints++
			s.kinds[c.Kind]++
		}
		switch u.Boot.End {
		case record.EndExited:
		case record.EndCrashed:
			s.crashed++
		default:
			s.bad++
		}
	}
	variants := sortedKeys(all)
	tab := &table{Name: "e1-console", Caption: "What the kernels said on their consoles.", Header: []string{"kernel", "boots", "complaints", "kinds", "crashed", "timed out or killed", "ended by the emulator, under naive alone"}}
	numbers := map[string]Number{}
	for _, v := range variants {
		s := all[v]
		var kinds []string
		for _, k := range sortedKeys(s.kinds) {
			kinds = append(kinds, fmt.Sprintf("%s %d", k, s.kinds[k]))
		}
		if kinds == nil {
			kinds = []string{"none"}
		}
		n := func(id, what string, x int64) Number {
			return b.num("console."+v+"."+id, what+", "+v+" kernel", "count", float64(x), stats.NoInterval, s.boots, "boots", s.units)
		}
		numbers[v] = n("complaints", "complaints on the console", s.complaints)
		tab.Rows = append(tab.Rows, []tableCell{text(v), short(n("boots", "boots", s.boots)), short(numbers[v]), text(strings.Join(kinds, ", ")),
			short(n("crashed", "boots that crashed", s.crashed)), short(n("cut", "boots that timed out or were killed", s.bad)),
			short(n("emulator", "boots with naive alone that ended by a defect of the emulator", s.emulator))})
	}
	if len(variants) > 0 {
		last := &b.sections[len(b.sections)-1]
		last.Parts = append(last.Parts, part{Table: tab})
	}
	judge := func(c Claim, vs []string, need int) {
		var said []string
		var nums []Number
		holds := True
		have := 0
		for _, v := range vs {
			s := all[v]
			if s == nil {
				continue
			}
			have++
			said = append(said, fmt.Sprintf("%s: %s in %s", v, count(s.complaints, "complaint"), boots(int(s.boots))))
			nums = append(nums, numbers[v])
			switch {
			case s.complaints > 0 || s.crashed > 0:
				holds = False
			case s.bad > 0 && holds == True:
				holds = Unknown
				said[len(said)-1] += fmt.Sprintf(", of which %d were cut short", s.bad)
			}
		}
		if have < need && holds == True {
			holds = Unknown
		}
		c.Measured, c.Holds = strings.Join(said, "; "), holds
		if have == 0 {
			c.Measured = "no such boot"
		}
		b.claim(c, nums...)
	}
	judge(Claim{ID: "console", Text: "No kernel complains, in any boot.", Expected: "no warning, bug, sanitiser or lockdep report, stall or panic on any console; no boot crashed",
		Refute: "one complaint", OneEvent: true}, variants, 1)
	judge(Claim{ID: "console-checked", Text: "The kernels with checks (debug: lockdep and list checks; kasan) do not complain either.", Expected: "at least one boot of each, without a complaint",
		Refute: "one complaint", OneEvent: true}, []string{"debug", "kasan"}, 2)
}

// footer says at the foot of a figure what its time base and n are.
func (b *builder) footer(keep func(record.Unit) bool, n string) string {
	by := map[record.TimeBase]int{}
	for _, u := range b.units {
		if keep(u) {
			by[u.Boot.TimeBase]++
		}
	}
	var parts []string
	for _, t := range sortedKeys(by) {
		parts = append(parts, fmt.Sprintf("%s, %s", t, boots(by[t])))
	}
	sort.Strings(parts)
	return strings.Join(parts, " + ") + " · n = " + n
}
