// SPDX-License-Identifier: Apache-2.0

package conform

import (
	_ "embed"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sort"
	"strings"
)

//go:embed explanations.json
var explanationsJSON []byte

// Explanation is a known difference and its reason.
type Explanation struct {
	Case   string `json:"case"`   // regular expression for the whole name
	Key    string `json:"key"`    // the same for the test
	Column Column `json:"column"` // where it differs; empty: in either
	Seen   Status `json:"seen"`   // what is there; empty: anything
	Reason string `json:"reason"`

	caseRE, keyRE *regexp.Regexp
	used          bool
}

// Explanations reads the file beside this one.
func Explanations() ([]*Explanation, error) { return parseExplanations(explanationsJSON) }

func parseExplanations(data []byte) ([]*Explanation, error) {
	var list []*Explanation
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("parse explanations: %w", err)
	}
	for i, x := range list {
		var err error
		if x.caseRE, err = regexp.Compile("^(?:" + x.Case + ")$"); err != nil {
			return nil, fmt.Errorf("parse explanation %d: %w", i, err)
		}
		if x.keyRE, err = regexp.Compile("^(?:" + x.Key + ")$"); err != nil {
			return nil, fmt.Errorf("parse explanation %d: %w", i, err)
		}
		if x.Case == "" || strings.TrimSpace(x.Reason) == "" {
			return nil, fmt.Errorf("parse explanation %d: it names no case or no reason", i)
		}
	}
	return list, nil
}

// Row is one test in all columns.
type Row struct {
	Suite, Case, Key, Name string
	Results                map[Column]Result
	// Differs are the columns that are not as stock is; Reasons has the
	// explanation of each that has one.
	Differs []Column
	Reasons map[Column]string
}

// Unexplained says whether a difference has no explanation.
func (r Row) Unexplained() bool { return len(r.Reasons) < len(r.Differs) }

// Table is what a run found.
type Table struct {
	Inputs  Inputs
	Rows    []Row
	Proofs  map[string]Proof // by case
	Unused  []*Explanation   // explain a difference of a case that ran, and that none had
	GuestMS map[Column]int64
}

// MakeTable compares.
func MakeTable(cases []Case, all map[Column]map[string]CaseResult, in Inputs, explanations []*Explanation) Table {
	t := Table{Inputs: in, Proofs: map[string]Proof{}, GuestMS: map[Column]int64{}}
	for _, c := range cases {
		if _, ran := all[Stock][c.Name]; !ran {
			continue
		}
		var keys []string
		byKey := map[string]map[Column]Result{}
		for _, col := range Columns() {
			cr := all[col][c.Name]
			t.GuestMS[col] += cr.GuestMS
			if cr.Proof != nil {
				t.Proofs[c.Name] = *cr.Proof
			}
			for _, r := range cr.Results {
				if byKey[r.Key] == nil {
					byKey[r.Key] = map[Column]Result{}
					keys = append(keys, r.Key)
				}
				byKey[r.Key][col] = r
			}
		}
		for _, k := range keys {
			row := Row{Suite: c.Suite, Case: c.Name, Key: k, Results: byKey[k], Reasons: map[Column]string{}}
			for _, col := range Columns() {
				r, ok := row.Results[col]
				if !ok {
					r = Result{Key: k, Status: Missing}
					if k == keyKernel || k == keyView {
						r.Status = Pass
					}
					row.Results[col] = r
				}
				if row.Name == "" {
					row.Name = r.Name
				}
			}
			row.compare(explanations)
			t.Rows = append(t.Rows, row)
		}
	}
	for _, x := range explanations {
		if !x.used && slices.ContainsFunc(t.Rows, func(r Row) bool { return x.caseRE.MatchString(r.Case) && x.keyRE.MatchString(r.Key) }) {
			t.Unused = append(t.Unused, x)
		}
	}
	return t
}

func (r *Row) compare(explanations []*Explanation) {
	stock := r.Results[Stock].Status
	for _, col := range Columns() {
		seen := r.Results[col].Status
		if seen == stock && seen != Unknown {
			continue
		}
		r.Differs = append(r.Differs, col)
		for _, x := range explanations {
			if x.caseRE.MatchString(r.Case) && x.keyRE.MatchString(r.Key) && (x.Column == "" || x.Column == col) && (x.Seen == "" || x.Seen == seen) {
				x.used = true
				r.Reasons[col] = x.Reason
				break
			}
		}
	}
}

// label names the test for people.
func (r Row) label() string {
	switch {
	case r.Key == keyProgram:
		return "(the program)"
	case r.Name != "":
		return r.Key + " " + r.Name
	}
	return r.Key
}

// Differences are the rows that differ.
func (t Table) Differences() []Row {
	return slices.DeleteFunc(slices.Clone(t.Rows), func(r Row) bool { return len(r.Differs) == 0 })
}

// Unexplained counts the rows with a difference that nothing explains.
func (t Table) Unexplained() int {
	n := 0
	for _, r := range t.Rows {
		if r.Unexplained() {
			n++
		}
	}
	return n
}

// Counts are how many tests of each status a column has.
func (t Table) Counts(col Column, keep func(Row) bool) map[Status]int {
	n := map[Status]int{}
	for _, r := range t.Rows {
		if keep(r) {
			n[r.Results[col].Status]++
		}
	}
	return n
}

func isTest(r Row) bool { return r.Key != keyKernel && r.Key != keyView }

// mark says at a glance what is with a row.
func (r Row) mark() string {
	switch {
	case r.Unexplained():
		return "DIFFERS"
	case len(r.Differs) > 0:
		return "explained"
	}
	return ""
}

// WriteCSV writes all rows.
func (t Table) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	records := [][]string{{"suite", "program", "test", "name", "stock", "series", "view", "mark", "detail", "reason"}}
	for _, r := range t.Rows {
		records = append(records, []string{
			r.Suite, r.Case, r.Key, r.Name,
			string(r.Results[Stock].Status), string(r.Results[Series].Status), string(r.Results[View].Status),
			r.mark(), r.details(), r.reasons(),
		})
	}
	if err := c.WriteAll(records); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

func (r Row) details() string {
	var out []string
	for _, col := range Columns() {
		if d := r.Results[col].Detail; d != "" {
			out = append(out, fmt.Sprintf("%s: %s", col, strings.Join(strings.Fields(d), " ")))
		}
	}
	return strings.Join(out, "; ")
}

func (r Row) reasons() string {
	var out []string
	for _, col := range r.Differs {
		if x := r.Reasons[col]; x != "" && !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return strings.Join(out, " ")
}

// WriteText writes all rows for a terminal.
func (t Table) WriteText(w io.Writer) error {
	var b strings.Builder
	last := ""
	for _, r := range t.Rows {
		if r.Case != last {
			fmt.Fprintf(&b, "\n%s\n", r.Case)
			last = r.Case
		}
		fmt.Fprintf(&b, "  %-7s %-7s %-7s %-9s %s\n", r.Results[Stock].Status, r.Results[Series].Status, r.Results[View].Status, r.mark(), r.label())
		if len(r.Differs) > 0 {
			if d := r.details(); d != "" {
				fmt.Fprintf(&b, "%38s%s\n", "", d)
			}
			if x := r.reasons(); x != "" {
				fmt.Fprintf(&b, "%38s(%s)\n", "", x)
			}
		}
	}
	_, err := io.WriteString(w, "stock   series  view\n"+b.String()+"\n"+t.Summary())
	return err
}

// Summary is a few lines.
func (t Table) Summary() string {
	var b strings.Builder
	for _, col := range Columns() {
		n := t.Counts(col, isTest)
		fmt.Fprintf(&b, "%-6s  %d pass, %d fail, %d skip, %d xfail, %d unknown, %d missing; %d s of guest time\n",
			col, n[Pass], n[Fail], n[Skip], n[XFail], n[Unknown], n[Missing], t.GuestMS[col]/1000)
	}
	var programs, pages, in, base int
	for _, p := range t.Proofs {
		programs += p.Programs
		in += p.In
		base += p.Base
		if pages == 0 || p.Pages > 0 && p.Pages < pages {
			pages = p.Pages
		}
	}
	fmt.Fprintf(&b, "in a view: %d programs, each with at least %d private pages; of %d looks at a thread %d found it in a view, most others found it on the way there\n", programs, pages, in+base, in)
	d := len(t.Differences())
	fmt.Fprintf(&b, "%d tests differ, %d of them without an explanation\n", d, t.Unexplained())
	for _, x := range t.Unused {
		fmt.Fprintf(&b, "not needed: the explanation of %s %q\n", x.Case, x.Key)
	}
	return b.String()
}

// cell is a table cell of Markdown.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", "\\|")
}

// WriteMarkdown writes the document: programs with their counts, and test by
// test what differs and what stock itself does not pass.
func (t Table) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString(markdownHead)
	fmt.Fprintf(&b, "Kernels: stock `%s`, series and view `%s`. Selftests of %s, stress-ng %s. Each machine has %d processors and %d MiB, mode %s.\n\n",
		t.Inputs.Kernels[Stock], t.Inputs.Kernels[Series], t.Inputs.Source, t.Inputs.StressNG, t.Inputs.CPUs, t.Inputs.MemMiB, t.Inputs.Mode)
	b.WriteString("```\n" + t.Summary() + "```\n\n")

	b.WriteString("## Differences\n\n")
	if len(t.Differences()) == 0 {
		b.WriteString("None.\n\n")
	} else {
		b.WriteString("| program | test | stock | series | view | reason |\n| --- | --- | --- | --- | --- | --- |\n")
		for _, r := range t.Differences() {
			why := r.reasons()
			if r.Unexplained() {
				why = "**not explained** " + r.details()
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", cell(r.Case), cell(r.label()), r.Results[Stock].Status, r.Results[Series].Status, r.Results[View].Status, cell(why))
		}
		b.WriteString("\n")
	}

	b.WriteString("## Programs\n\nTests that passed, were skipped, and did not pass, in each column. A program that reports no single tests counts as one.\n\n")
	b.WriteString("| program | stock | series | view | private pages | own tables |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, name := range t.programs() {
		of := func(col Column) string {
			rows := func(r Row) bool { return r.Case == name && isTest(r) }
			n := t.Counts(col, rows)
			return fmt.Sprintf("%d / %d / %d", n[Pass], n[Skip], n[Fail]+n[XFail]+n[Unknown]+n[Missing])
		}
		p := t.Proofs[name]
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %d | %d |\n", cell(name), of(Stock), of(Series), of(View), p.Pages, p.Tables)
	}

	b.WriteString("\n## What does not pass on the stock kernel\n\nSuch a test says nothing about views, unless it passes elsewhere, and then it is among the differences.\n\n")
	b.WriteString("| program | test | stock | detail |\n| --- | --- | --- | --- |\n")
	for _, g := range t.notPassing() {
		what := cell(g[0].label())
		if len(g) > groupFrom {
			what = fmt.Sprintf("%d tests, the first: %s", len(g), what)
		}
		for i, r := range g {
			if i == 0 || len(g) <= groupFrom {
				if i > 0 {
					what = cell(r.label())
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", cell(r.Case), what, r.Results[Stock].Status, cell(r.Results[Stock].Detail))
			}
		}
	}
	b.WriteString("\n## Not run\n\n| program | why |\n| --- | --- |\n")
	not := map[string]string{}
	for n, why := range NotRun {
		not[n] = why
	}
	for n, why := range t.Inputs.NotBuilt {
		if not[n] == "" {
			not[n] = "cannot be compiled here: " + why
		}
	}
	ran := t.programs()
	for _, c := range Cases() {
		if not[c.Name] == "" && !slices.Contains(ran, c.Name) {
			not[c.Name] = "was not part of this run"
		}
	}
	var names []string
	for n := range not {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		fmt.Fprintf(&b, "| %s | %s |\n", n, cell(not[n]))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// groupFrom is how many tests of a program with the same status are listed one by one.
const groupFrom = 4

// notPassing are the tests that stock does not pass, by program and status.
func (t Table) notPassing() [][]Row {
	var groups [][]Row
	at := map[string]int{}
	for _, r := range t.Rows {
		s := r.Results[Stock].Status
		if !isTest(r) || s == Pass {
			continue
		}
		key := r.Case + "\x00" + string(s)
		if r.Key == keyProgram {
			key += "\x00"
		}
		i, ok := at[key]
		if !ok {
			i = len(groups)
			at[key] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], r)
	}
	return groups
}

func (t Table) programs() []string {
	var names []string
	for _, r := range t.Rows {
		if len(names) == 0 || names[len(names)-1] != r.Case {
			names = append(names, r.Case)
		}
	}
	return names
}

const markdownHead = "# Conformance: any program behaves in a view as in the base\n\n" +
	"Made by `wflp conform`, not written. The kernel's own mm selftests and stress-ng's memory stressors ran on the stock kernel, " +
	"on a kernel with the series outside of views, and on that kernel with every process in a view with private pages. " +
	"[testing.md](testing.md) says how a program comes into a view and what proves that it was there. " +
	"To make this page again: `make test-conform-full`, then copy `conformance.md` from `build/conform`; every test in all three columns is in `table.csv` there.\n\n"

// String is the row in one line.
func (r Row) String() string {
	s := fmt.Sprintf("%-9s %s: %s: stock %s, series %s, view %s", r.mark(), r.Case, r.label(), r.Results[Stock].Status, r.Results[Series].Status, r.Results[View].Status)
	if r.Unexplained() {
		s += "; " + r.details()
	}
	return s
}
