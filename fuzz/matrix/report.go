// SPDX-License-Identifier: Apache-2.0

package matrix

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wflp/wflp/analysis/stats"
	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/plots"
)

// Report is a matrix as far as it is: what matrix.json holds. All else is made of
// it.
type Report struct {
	Settings Settings `json:"settings"`
	// Cells that are done, in the order of Settings.Cells.
	Cells []Result `json:"cells"`
}

// Read reads the folder of a matrix, also of one that is being made, or of which
// only the result was kept.
func Read(dir string) (Report, error) {
	s, err := readSettings(dir)
	if errors.Is(err, os.ErrNotExist) {
		if r, e := ReadResult(filepath.Join(dir, ResultName)); !errors.Is(e, os.ErrNotExist) {
			return r, e
		}
	}
	if err != nil {
		return Report{}, err
	}
	r := Report{Settings: s}
	for _, c := range s.Cells() {
		got, err := readCell(cellDir(dir, c))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return r, err
		}
		got.Cell = c
		r.Cells = append(r.Cells, got)
	}
	r.takeBack()
	return r, nil
}

// takeBack censors the cells that ended with a title which a control cell shows.
func (r Report) takeBack() {
	alarms := map[string]bool{}
	for _, c := range r.Cells {
		if c.Mutant == Control {
			for _, t := range c.False {
				alarms[c.Target+" "+t] = true
			}
		}
	}
	for i := range r.Cells {
		c := &r.Cells[i]
		if c.State == Found && alarms[c.Target+" "+c.Title] {
			c.False = append(c.False, c.Title)
			c.State, c.Title, c.Kinds = Censored, "", nil
			c.Note = "ended with what the unmutated kernel shows as well"
		}
	}
}

// seed of the bootstraps.
const seed = 1

// Line is what is known of a mutant under a treatment.
type Line struct {
	Mutant    Mutant
	Treatment string
	// Of as many cells as are done, Found found it, Within of them before the cap;
	// Machine cells say nothing.
	Cells, Found, Within, Machine int
	Lives                         []stats.Life
	// Median of the time, in seconds: NaN if it was not found by half of the cells,
	// then the true one is later. Interval by bootstrap over seeds; an end may be
	// +Inf.
	Median   float64
	Interval stats.Interval
	Kinds    []string       // of violation, the most frequent first
	Titles   map[string]int // of what counted
}

// Lines are all mutants, by treatment and number.
func (r Report) Lines() []Line {
	var out []Line
	for _, t := range r.Settings.Treatments {
		for _, m := range r.Settings.Mutants {
			if m.Target == kernel.TargetLibrary && t.Blind {
				continue
			}
			l := Line{Mutant: m, Treatment: t.Name, Titles: map[string]int{}}
			kinds := map[string]int{}
			for _, c := range r.Cells {
				if c.Mutant != m.ID || c.Treatment != t.Name || c.Target != m.Target {
					continue
				}
				if c.State == Machine {
					l.Machine++
					continue
				}
				l.Cells++
				l.Lives = append(l.Lives, stats.Life{T: c.Seconds, Event: c.State == Found})
				if c.State != Found {
					continue
				}
				l.Found++
				if c.Seconds <= r.Settings.CapS {
					l.Within++
				}
				l.Titles[c.Title]++
				for _, k := range c.Kinds {
					kinds[k]++
				}
			}
			for k := range kinds {
				l.Kinds = append(l.Kinds, k)
			}
			slices.SortFunc(l.Kinds, func(a, b string) int {
				return cmp.Or(cmp.Compare(kinds[b], kinds[a]), cmp.Compare(a, b))
			})
			l.Median, l.Interval = stats.MedianTime(seed, l.Lives)
			out = append(out, l)
		}
	}
	return out
}

// Comparison of a treatment with the first one.
type Comparison struct {
	A, B string
	// Mutants that both have cells of, of the kernel: the library is searched in
	// another way.
	Mutants int
	// FoundA and FoundB are shares of the cells.
	FoundA, CellsA, FoundB, CellsB int
	// Excess are the findings of A beyond what was to be expected if both were
	// equal; P is that of the log-rank test, stratified by mutant.
	Excess, P float64
	// LongerB is by how many seconds it takes longer in B on the mean, where all
	// that takes longer than the cap counts as the cap.
	LongerB  float64
	Interval stats.Interval
}

// Comparisons are those of each treatment with the first.
func (r Report) Comparisons() []Comparison {
	if len(r.Settings.Treatments) == 0 {
		return nil
	}
	by := map[string]map[string]Line{}
	for _, l := range r.Lines() {
		if l.Mutant.Target != kernel.TargetKernel || l.Cells == 0 {
			continue
		}
		if by[l.Treatment] == nil {
			by[l.Treatment] = map[string]Line{}
		}
		by[l.Treatment][l.Mutant.ID] = l
	}
	first := r.Settings.Treatments[0].Name
	var out []Comparison
	for _, t := range r.Settings.Treatments[1:] {
		c := Comparison{A: first, B: t.Name}
		var pairs []stats.Pair
		for _, m := range r.Settings.Mutants {
			a, ok := by[first][m.ID]
			b, too := by[t.Name][m.ID]
			if !ok || !too {
				continue
			}
			c.Mutants++
			c.FoundA, c.CellsA = c.FoundA+a.Found, c.CellsA+a.Cells
			c.FoundB, c.CellsB = c.FoundB+b.Found, c.CellsB+b.Cells
			pairs = append(pairs, stats.Pair{A: a.Lives, B: b.Lives})
		}
		if c.Mutants == 0 {
			continue
		}
		c.Excess, c.P = stats.LogRank(pairs...)
		swapped := make([]stats.Pair, len(pairs))
		for i, p := range pairs {
			swapped[i] = stats.Pair{A: p.B, B: p.A}
		}
		c.LongerB, c.Interval = stats.RestrictedMeanDifference(seed, r.Settings.CapS, swapped)
		out = append(out, c)
	}
	return out
}

// Survivors are mutants of which no cell of any treatment found anything.
func (r Report) Survivors() []Mutant {
	found, looked := map[string]bool{}, map[string]bool{}
	for _, l := range r.Lines() {
		looked[l.Mutant.ID] = looked[l.Mutant.ID] || l.Cells > 0
		found[l.Mutant.ID] = found[l.Mutant.ID] || l.Found > 0
	}
	return slices.DeleteFunc(slices.Clone(r.Settings.Mutants), func(m Mutant) bool { return found[m.ID] || !looked[m.ID] })
}

// Figure is the share of mutants, over all seeds, that is not found yet.
func (r Report) Figure() plots.Figure {
	var lines []plots.Line
	cells := 0
	for _, t := range r.Settings.Treatments {
		var lives []stats.Life
		for _, l := range r.Lines() {
			if l.Treatment == t.Name {
				lives = append(lives, l.Lives...)
			}
		}
		if len(lives) == 0 {
			continue
		}
		cells += len(lives)
		lines = append(lines, plots.Survival(t.Name, stats.KaplanMeier(lives)))
	}
	note := fmt.Sprintf("Time of the host, Kaplan-Meier, at most %s; n = %d cells, %d defects.", clock(r.Settings.CapS), cells, len(r.Settings.Mutants))
	return plots.CDF(FigureName, note, "Time of looking for it", "Share not found yet", lines)
}

// Write makes matrix.json, matrix.md and the figure in the folder.
func (r Report) Write(dir string) error {
	if err := writeCompact(filepath.Join(dir, ResultName), r); err != nil {
		return fmt.Errorf("write matrix: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, PageName), []byte(r.Page()), 0o644); err != nil {
		return fmt.Errorf("write matrix: %w", err)
	}
	if err := r.Figure().Save(dir); err != nil {
		return fmt.Errorf("write matrix: %w", err)
	}
	return nil
}

// clock is a time for people.
func clock(s float64) string {
	switch {
	case math.IsNaN(s):
		return "–"
	case math.IsInf(s, 1):
		return "later"
	case s < 10:
		return fmt.Sprintf("%.1f s", s)
	case s < 120:
		return fmt.Sprintf("%.0f s", s)
	}
	return fmt.Sprintf("%.1f min", s/60)
}

func (l Line) time(capS float64) string {
	switch {
	case l.Cells == 0:
		return "–"
	case math.IsNaN(l.Median):
		return "> " + clock(capS)
	case !l.Interval.Valid():
		return clock(l.Median)
	}
	return fmt.Sprintf("%s (%s … %s)", clock(l.Median), clock(l.Interval.Lo), clock(l.Interval.Hi))
}

// Page is the report for people.
func (r Report) Page() string {
	var b strings.Builder
	lines := r.Lines()
	done := map[State]int{}
	var alarms []string
	for _, c := range r.Cells {
		if c.Mutant != Control {
			done[c.State]++
			continue
		}
		for _, t := range c.False {
			if !slices.Contains(alarms, t) {
				alarms = append(alarms, t)
			}
		}
	}
	all := 0
	for _, c := range r.Settings.Cells() {
		if c.Mutant != Control {
			all++
		}
	}
	fmt.Fprintf(&b, "# Seeded defects\n\n%d defects, %d seeds, at most %s each: of %d cells %d found theirs, %d are censored, %d say nothing since machines failed, %d are yet to be run.\n\n",
		len(r.Settings.Mutants), r.Settings.Seeds, clock(r.Settings.CapS), all, done[Found], done[Censored], done[Machine],
		all-done[Found]-done[Censored]-done[Machine])
	fmt.Fprintf(&b, "Median time by Kaplan and Meier, with a %.0f %% bootstrap interval over seeds; *later*: beyond the cap, or never.\n", 100*stats.Level)
	if len(alarms) > 0 {
		slices.Sort(alarms)
		fmt.Fprintf(&b, "\nThe unmutated kernel showed these titles, which count nowhere:\n\n")
		for _, a := range alarms {
			fmt.Fprintf(&b, "- %s\n", a)
		}
	}
	for _, t := range r.Settings.Treatments {
		var names []string
		for _, l := range t.Lanes {
			names = append(names, l.String())
		}
		fmt.Fprintf(&b, "\n## %s\n\nMachines: %s. ", t.Name, strings.Join(names, ", "))
		found, looked := 0, 0
		for _, l := range lines {
			if l.Treatment == t.Name && l.Cells > 0 {
				looked++
				if l.Found > 0 {
					found++
				}
			}
		}
		fmt.Fprintf(&b, "%d of %d defects were found by at least one seed.\n\n| defect | kind | found | median time | kinds of violation | ought to be seen by |\n| --- | --- | --- | --- | --- | --- |\n", found, looked)
		for _, l := range lines {
			if l.Treatment != t.Name {
				continue
			}
			k := fmt.Sprintf("%d of %d", l.Found, l.Cells)
			if l.Within < l.Found {
				k += fmt.Sprintf(" (%d after the cap)", l.Found-l.Within)
			}
			if l.Machine > 0 {
				k += fmt.Sprintf(", %d machine", l.Machine)
			}
			fmt.Fprintf(&b, "| %s %s | %s | %s | %s | %s | %s |\n", l.Mutant.ID, l.Mutant.Name, l.Mutant.Kind, k, l.time(r.Settings.CapS), strings.Join(l.Kinds, ", "), l.Mutant.Oracle)
		}
	}
	if cs := r.Comparisons(); len(cs) > 0 {
		fmt.Fprintf(&b, "\n## Comparisons\n\nOf the defects of the kernel that both have cells of. *p*: log-rank test, stratified by defect. *Longer*: difference of the restricted means up to the cap, with a bootstrap interval over defects.\n\n| | defects | found | excess of findings in the first | p | the second takes longer by |\n| --- | --- | --- | --- | --- | --- |\n")
		for _, c := range cs {
			p := "–"
			if !math.IsNaN(c.P) {
				p = fmt.Sprintf("%.2g", c.P)
			}
			longer := "–"
			if !math.IsNaN(c.LongerB) {
				longer = fmt.Sprintf("%.1f s", c.LongerB)
				if c.Interval.Valid() {
					longer += fmt.Sprintf(" (%.1f … %.1f)", c.Interval.Lo, c.Interval.Hi)
				}
			}
			fmt.Fprintf(&b, "| %s, %s | %d | %d of %d, %d of %d | %.1f | %s | %s |\n", c.A, c.B, c.Mutants, c.FoundA, c.CellsA, c.FoundB, c.CellsB, c.Excess, p, longer)
		}
	}
	if s := r.Survivors(); len(s) > 0 {
		fmt.Fprintf(&b, "\n## Not found\n\n")
		for _, m := range s {
			fmt.Fprintf(&b, "- %s %s: %s\n", m.ID, m.Name, m.Kind)
		}
	}
	return b.String()
}
