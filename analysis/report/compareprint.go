// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"sort"
	"strings"
	"text/tabwriter"

	"github.com/wflp/wflp/analysis/stats"
	"github.com/wflp/wflp/plots"
)

//go:embed compare.html.tmpl
var comparePage string

// compareRows is how many changes a terminal is given.
const compareRows = 40

func (c *Comparison) with(verdict string) (out []Change) {
	for _, x := range c.Numbers {
		if x.Verdict == verdict {
			out = append(out, x)
		}
	}
	return out
}

// Answer is the comparison in a sentence.
func (c *Comparison) Answer() string {
	changed, same := len(c.with(Changed)), len(c.with(Same))
	s := fmt.Sprintf("%s of %s changed beyond noise", plots.Thousands(int64(changed)), count(int64(changed+same), "number"))
	if changed == 0 {
		s = fmt.Sprintf("None of %s changed beyond noise", count(int64(same), "number"))
	}
	if n := c.Found() - changed; n > 0 {
		s += fmt.Sprintf(", and %s refuted by an event that the first run did not have", map[bool]string{true: "1 claim is", false: fmt.Sprint(n, " claims are")}[n == 1])
	}
	return s + "."
}

// Method says how far to believe it.
func (c *Comparison) Method() string {
	return fmt.Sprintf("A number changed if its q-value is at most %g (Benjamini-Hochberg over all that were judged): of those listed, a share of %g is expected to be there by chance; "+
		"of comparisons of equal runs, that share lists anything. Noise is estimated from %d resamplings of the boots of each run; intervals are 95 %%, each by itself.", c.Level, c.Level, redraws)
}

// Resolution is what could have been seen of an experiment.
type Resolution struct {
	Group  string
	Judged int
	// HalfWidth is the median one of the intervals of relative changes.
	HalfWidth float64
}

// Resolutions by experiment and time base: where nothing changed, how much would
// have had to.
func (c *Comparison) Resolutions() []Resolution {
	widths, judged := map[string][]float64{}, map[string]int{}
	for _, x := range c.Numbers {
		if x.Verdict == Unjudged {
			continue
		}
		g := strings.ToUpper(x.ID[:strings.IndexByte(x.ID+".", '.')]) + ", " + x.Base
		judged[g]++
		if !x.Absolute && x.Lo != nil && x.Hi != nil {
			widths[g] = append(widths[g], (math.Log1p(*x.Hi)-math.Log1p(*x.Lo))/2)
		}
	}
	var out []Resolution
	for _, g := range sortedKeys(judged) {
		out = append(out, Resolution{g, judged[g], math.Expm1(stats.Median(widths[g]))})
	}
	return out
}

func (r Resolution) String() string {
	if math.IsNaN(r.HalfWidth) {
		return fmt.Sprintf("%s: %s", r.Group, count(int64(r.Judged), "number"))
	}
	return fmt.Sprintf("%s: %s, the median interval is ±%.2g %% wide", r.Group, count(int64(r.Judged), "number"), 100*r.HalfWidth)
}

// Reasons are those for which numbers were not judged, the most frequent first.
func (c *Comparison) Reasons() []string {
	n := map[string]int64{}
	for _, x := range c.with(Unjudged) {
		n[x.Why]++
	}
	why := sortedKeys(n)
	sort.SliceStable(why, func(i, j int) bool { return n[why[i]] > n[why[j]] })
	for i, w := range why {
		why[i] = fmt.Sprintf("%s: %s", plots.Thousands(n[w]), w)
	}
	return why
}

// ChangeText, IntervalText, AText and BText are a change as a reader wants it.
func (x Change) ChangeText() string { return x.format(x.Change) }

func (x Change) IntervalText() string {
	if x.Lo == nil || x.Hi == nil {
		return ""
	}
	return fmt.Sprintf("[%s, %s]", x.format(x.Lo), x.format(x.Hi))
}

func (x Change) value(v *float64) string {
	if v == nil {
		return "–"
	}
	return format(*v, x.Unit)
}

func (x Change) AText() string { return x.value(x.A) }
func (x Change) BText() string { return x.value(x.B) }

func (x Change) QText() string {
	switch {
	case x.Q == nil:
		return ""
	case *x.Q < 0.0001:
		return "<0.0001"
	}
	return fmt.Sprintf("%.2g", *x.Q)
}

func (r RunOf) String() string {
	s := fmt.Sprintf("%s: %s, %s, wflp %s, %s", r.Folder, r.Profile, r.Started, r.Version, boots(r.Units))
	if d := r.Kernels["release"]; d != "" {
		s += ", kernel " + shortDigest(d)
	}
	return s
}

// Print writes the comparison for a terminal.
func (c *Comparison) Print(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "A  %s\nB  %s\n", c.A, c.B)
	for _, n := range c.Notes {
		fmt.Fprintf(&b, "   differs: %s\n", n)
	}
	fmt.Fprintf(&b, "\n%s\n", c.Answer())
	changed := c.with(Changed)
	if len(changed) > 0 {
		fmt.Fprintln(&b)
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "change\t95 % interval\tA\tB\tq\tnumber")
		for i, x := range changed {
			if i == compareRows {
				break
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", x.ChangeText(), x.IntervalText(), x.AText(), x.BText(), x.QText(), x.ID)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if n := len(changed) - compareRows; n > 0 {
			fmt.Fprintf(&b, "… and %d smaller ones: -html or -json has all\n", n)
		}
	}
	for _, x := range c.Claims {
		fmt.Fprintf(&b, "\nclaim %s was %s and is %s: %s\n", x.ID, x.A, x.B, x.Text)
		fmt.Fprintf(&b, "    A: %s\n    B: %s\n", x.SaidA, x.SaidB)
	}
	fmt.Fprintf(&b, "\nJudged:\n")
	for _, r := range c.Resolutions() {
		fmt.Fprintf(&b, "  %s\n", r)
	}
	if why := c.Reasons(); len(why) > 0 {
		fmt.Fprintf(&b, "Not judged:\n  %s\n", strings.Join(why, "\n  "))
	}
	fmt.Fprintf(&b, "%s\n", c.Method())
	_, err := w.Write(b.Bytes())
	return err
}

// Bar is the interval of a change as a drawing: where zero lies, the ends and the
// change, in hundredths of the width.
type Bar struct{ Zero, Lo, Hi, At float64 }

// Bar is on a scale of logarithms that shows half and double at the ends.
func (x Change) Bar() *Bar {
	if x.Absolute || x.Change == nil || x.Lo == nil || x.Hi == nil {
		return nil
	}
	at := func(v float64) float64 {
		return math.Round(10*min(100, max(0, 50+50*math.Log2(1+v)))) / 10
	}
	return &Bar{50, at(*x.Lo), at(*x.Hi), at(*x.Change)}
}

// Width of the bar.
func (b Bar) Width() float64 { return math.Round(10*max(0.6, b.Hi-b.Lo)) / 10 }

// HTML is the comparison as one page that needs nothing else.
func (c *Comparison) HTML() ([]byte, error) {
	t, err := template.New("compare").Parse(comparePage)
	if err != nil {
		return nil, fmt.Errorf("parse page: %w", err)
	}
	var buf bytes.Buffer
	err = t.Execute(&buf, map[string]any{"C": c, "Style": template.CSS(css), "Changed": c.with(Changed), "Same": c.with(Same), "Unjudged": c.with(Unjudged)})
	if err != nil {
		return nil, fmt.Errorf("fill page: %w", err)
	}
	return buf.Bytes(), nil
}
