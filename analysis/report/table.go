// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
)

// table is a table of the report; it is written as HTML, LaTeX and CSV.
type table struct {
	Name, Caption string
	Header        []string
	Rows          [][]tableCell
	// Prose has sentences in its cells, which break on the page.
	Prose bool
}

// tableCell is text or a number.
type tableCell struct {
	Text string
	Num  *Number
	// Plain shows the number without its interval.
	Plain bool
}

func text(s string) tableCell  { return tableCell{Text: s} }
func full(n Number) tableCell  { return tableCell{Num: &n} }
func short(n Number) tableCell { return tableCell{Num: &n, Plain: true} }

// String is the cell as a reader sees it.
func (c tableCell) String() string {
	switch {
	case c.Num == nil:
		return c.Text
	case c.Plain:
		return c.Num.String()
	}
	return c.Num.Full()
}

// Main and Range are the two parts of String.
func (c tableCell) Main() string {
	if c.Num == nil {
		return c.Text
	}
	return c.Num.String()
}

// Range is the interval, or nothing.
func (c tableCell) Range() string { return strings.TrimPrefix(c.String(), c.Main()) }

// IsNum tells numbers, which are set flush right, from words.
func (c tableCell) IsNum() bool { return c.Num != nil }

// csv has the raw numbers: a column of numbers becomes value, lo and hi with the
// unit in each row where the rows differ in it.
func (t *table) csv() ([]byte, error) {
	numeric := make([]bool, len(t.Header))
	interval := make([]bool, len(t.Header))
	unit := make([]string, len(t.Header))
	for _, r := range t.Rows {
		for j, c := range r {
			if c.Num == nil {
				continue
			}
			numeric[j] = true
			interval[j] = interval[j] || c.Num.Lo != nil
			if u := c.Num.Unit; unit[j] == "" {
				unit[j] = u
			} else if unit[j] != u {
				unit[j] = "mixed"
			}
		}
	}
	var buf bytes.Buffer
	w := csv.NewWriter(&buf)
	var head []string
	for j, h := range t.Header {
		if !numeric[j] {
			head = append(head, h)
			continue
		}
		if u := unit[j]; u != "count" && u != "pages" {
			h += " (" + u + ")"
		}
		head = append(head, h)
		if interval[j] {
			head = append(head, h+" lo", h+" hi")
		}
	}
	if err := w.Write(head); err != nil {
		return nil, fmt.Errorf("write table %s: %w", t.Name, err)
	}
	raw := func(v *float64) string {
		if v == nil {
			return ""
		}
		return strconv.FormatFloat(*v, 'g', -1, 64)
	}
	for _, r := range t.Rows {
		var row []string
		for j, c := range r {
			switch {
			case !numeric[j]:
				row = append(row, c.Text)
			case c.Num == nil:
				row = append(row, "")
				if interval[j] {
					row = append(row, "", "")
				}
			default:
				row = append(row, raw(c.Num.Value))
				if interval[j] {
					row = append(row, raw(c.Num.Lo), raw(c.Num.Hi))
				}
			}
		}
		if err := w.Write(row); err != nil {
			return nil, fmt.Errorf("write table %s: %w", t.Name, err)
		}
	}
	w.Flush()
	return buf.Bytes(), w.Error()
}

// latex is a tabular for booktabs, to be \input between \begin{table} and \end{table}.
func (t *table) latex() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%% %s\n%% needs \\usepackage{booktabs}\n\\begin{tabular}{", tex(t.Caption))
	for j := range t.Header {
		align := "l"
		for _, r := range t.Rows {
			if j < len(r) && r[j].IsNum() {
				align = "r"
			}
		}
		b.WriteString(align)
	}
	b.WriteString("}\n\\toprule\n")
	line := func(cells []string) {
		for j, c := range cells {
			if j > 0 {
				b.WriteString(" & ")
			}
			b.WriteString(tex(c))
		}
		b.WriteString(" \\\\\n")
	}
	line(t.Header)
	b.WriteString("\\midrule\n")
	for _, r := range t.Rows {
		var s []string
		for _, c := range r {
			s = append(s, c.String())
		}
		line(s)
	}
	b.WriteString("\\bottomrule\n\\end{tabular}\n")
	return []byte(b.String())
}

var texEscapes = strings.NewReplacer(
	`\`, `\textbackslash{}`, `&`, `\&`, `%`, `\%`, `$`, `\$`, `#`, `\#`, `_`, `\_`, `{`, `\{`, `}`, `\}`,
	`~`, `\textasciitilde{}`, `^`, `\textasciicircum{}`, `µ`, `\textmu{}`, `–`, `--`, `×`, `$\times$`, `≥`, `$\geq$`, `≤`, `$\leq$`, `±`, `$\pm$`, `·`, `$\cdot$`, `…`, `\dots{}`, "\n", " ",
)

func tex(s string) string { return texEscapes.Replace(s) }

func claimTable(claims []Claim) *table {
	t := &table{Name: "claims", Caption: "Claims", Header: []string{"id", "claim", "expected", "measured", "holds"}}
	for _, c := range claims {
		t.Rows = append(t.Rows, []tableCell{text(c.ID), text(c.Text), text(c.Expected), text(c.Measured), text(c.Holds)})
	}
	return t
}

// Numeric says whether column j holds numbers.
func (t *table) Numeric(j int) bool {
	for _, r := range t.Rows {
		if j < len(r) && r[j].IsNum() {
			return true
		}
	}
	return false
}

// Long tables are folded on the page.
func (t *table) Long() bool { return len(t.Rows) > 20 }
