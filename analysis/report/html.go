// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"regexp"
	"strings"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/plots"
)

//go:embed report.html.tmpl
var page string

//go:embed style.css
var css string

type htmlPart struct {
	SVG      template.HTML
	Name     string
	Wide     bool
	Number   int
	Caption  string
	Command  string
	Table    *table
	NumTable int
}

type htmlSection struct {
	ID, Question, Method, Missing string
	Parts                         []htmlPart
}

// claimGroup is the claims of one experiment.
type claimGroup struct {
	ID, Question string
	Claims       []Claim
}

// groups puts the claims under the questions that they answer; what the kernels
// say on their consoles belongs to correctness.
func (b *builder) groups() []claimGroup {
	var out []claimGroup
	for _, s := range b.sections {
		g := claimGroup{ID: s.ID, Question: s.Question}
		for _, c := range b.summary.Claims {
			own := strings.HasPrefix(c.ID, strings.ToLower(s.ID)+"-")
			if own || s.ID == "E1" && strings.HasPrefix(c.ID, "console") {
				g.Claims = append(g.Claims, c)
			}
		}
		out = append(out, g)
	}
	return out
}

type fact struct{ Name, Value string }

// html is the report as one page that needs nothing else: no network, no fonts,
// no scripts.
func (b *builder) html(svg map[string]string) ([]byte, error) {
	src := sources{at: map[string]int{}}
	t, err := template.New("page").Funcs(template.FuncMap{"mark": mark, "source": src.of, "numbers": b.numbersOf, "countOf": countOf}).Parse(page)
	if err != nil {
		return nil, fmt.Errorf("parse page: %w", err)
	}
	var sections []htmlSection
	figure, tab := 0, 0
	for _, s := range b.sections {
		h := htmlSection{ID: s.ID, Question: s.Question, Method: s.Method, Missing: s.Missing}
		for _, p := range s.Parts {
			x := htmlPart{Table: p.Table}
			if p.Figure != nil {
				figure++
				x.Number, x.Caption, x.Name, x.Command = figure, p.Caption, p.Figure.Name, b.command(s)
				x.Wide = p.Figure.W > plots.OneColumn
				x.SVG = template.HTML(inline(svg[p.Figure.Name], p.Caption)) //nolint:gosec // our own drawing
			}
			if p.Table != nil {
				tab++
				x.NumTable = tab
			}
			h.Parts = append(h.Parts, x)
		}
		sections = append(sections, h)
	}
	var buf bytes.Buffer
	err = t.Execute(&buf, map[string]any{
		"Style": template.CSS(css),
		"Run":   b.summary.Run, "Groups": b.groups(), "Answer": answer(b.summary.Claims), "Machine": b.machine(),
		"Sections": sections, "Notes": b.summary.Notes, "Numbers": len(b.summary.Numbers),
		"Sources": &src,
	})
	if err != nil {
		return nil, fmt.Errorf("fill page: %w", err)
	}
	return buf.Bytes(), nil
}

// command makes the figures of an experiment, kernels and machines included.
func (b *builder) command(of section) string {
	if of.Command != "" {
		return of.Command
	}
	m := b.manifest
	s := fmt.Sprintf("wflp evaluate -profile %s -only %s", m.Profile, of.ID)
	if mode := m.Config["mode"]; mode != "" {
		s += " -mode " + mode
	}
	if m.Seed != 1 {
		s += fmt.Sprintf(" -seed %d", uint64(m.Seed))
	}
	return s
}

// captions is figures/captions.tex: \wflpCaption… for each figure.
func (b *builder) captions() []byte {
	var out strings.Builder
	out.WriteString("% Captions of the figures; \\input it in the preamble.\n")
	for _, s := range b.sections {
		for _, p := range s.Parts {
			if p.Figure != nil {
				fmt.Fprintf(&out, "\\newcommand{\\%s}{%s Made by \\texttt{%s}.}%% %s\n", macroName("caption-"+p.Figure.Name), tex(p.Caption), tex(b.command(s)), p.Figure.Name)
			}
		}
	}
	return []byte(out.String())
}

// source is a set of boots that numbers came from.
type source struct {
	Index int
	Keys  []string
}

// Select is what jq prints the records with.
func (s source) Select() string {
	if len(s.Keys) == 1 && s.Keys[0] == record.MatrixName {
		return "jq -c '.cells[]' " + record.MatrixName
	}
	quoted := make([]string, len(s.Keys))
	for i, k := range s.Keys {
		quoted[i] = fmt.Sprintf("%q", k)
	}
	return fmt.Sprintf("jq -c 'select(.unit | IN(%s))' records.jsonl", strings.Join(quoted, ", "))
}

// sources are those that the page refers to, in the order in which it does.
type sources struct {
	at   map[string]int
	List []source
}

// of is the number of a source. Many numbers share one, so each is listed once.
func (s *sources) of(n Number) int {
	key := strings.Join(n.Records, "\n")
	i, ok := s.at[key]
	if !ok {
		i = len(s.List) + 1
		s.at[key] = i
		s.List = append(s.List, source{i, n.Records})
	}
	return i
}

// numbersOf are the numbers that a claim rests on.
func (b *builder) numbersOf(c Claim) []Number {
	var out []Number
	for _, id := range c.Numbers {
		out = append(out, b.find(id))
	}
	return out
}

var svgHead = regexp.MustCompile(`(?s)^.*?<svg width="[^"]*" height="[^"]*" `)

// inline drops the XML prologue and the size, which the page sets, and gives
// readers that do not see the picture its caption.
func inline(svg, caption string) string {
	return svgHead.ReplaceAllString(svg, `<svg role="img" aria-label="`+template.HTMLEscapeString(caption)+`" `)
}

func mark(holds string) string {
	switch holds {
	case True:
		return "holds"
	case False:
		return "does not hold"
	}
	return "unknown"
}

// answer is the first sentence of the report.
func answer(claims []Claim) string {
	n := map[string]int{}
	for _, c := range claims {
		n[c.Holds]++
	}
	var s []string
	s = append(s, fmt.Sprintf("%d of %d claims hold", n[True], len(claims)))
	if n[False] > 0 {
		s = append(s, fmt.Sprintf("%d %s refuted", n[False], map[bool]string{true: "is", false: "are"}[n[False] == 1]))
	}
	if n[Unknown] > 0 {
		s = append(s, fmt.Sprintf("%d cannot be decided from these records", n[Unknown]))
	}
	return strings.Join(s, ", ") + "."
}

func (b *builder) machine() []fact {
	m := b.manifest
	var f []fact
	add := func(name, value string) {
		if value != "" {
			f = append(f, fact{name, value})
		}
	}
	cores := ""
	if m.Host.Cores > 0 {
		cores = fmt.Sprintf(", %d cores, %s MiB", m.Host.Cores, plots.Thousands(int64(m.Host.MemMiB)))
	}
	add("Host", strings.TrimPrefix(m.Host.CPU+cores, ", "))
	add("Host system", strings.TrimPrefix(strings.Join([]string{m.Host.Distro, m.Host.Kernel}, ", "), ", "))
	add("Acceleration", m.Acceleration)
	add("QEMU", m.QEMU)
	for _, v := range sortedKeys(m.Kernels) {
		k := m.Kernels[v]
		add("Kernel "+v, strings.TrimSuffix(fmt.Sprintf("%s, digest %s, %s", k.Release, shortDigest(k.Digest), k.Compiler), ", "))
	}
	by := map[record.TimeBase]int{}
	cpus := map[string]bool{}
	for _, u := range b.units {
		by[u.Boot.TimeBase]++
		cpus[fmt.Sprintf("%d vCPUs and %d MiB", u.Boot.CPUs, u.Boot.MemMiB)] = true
	}
	var counts []string
	for _, t := range b.bases(func(record.Unit) bool { return true }) {
		counts = append(counts, fmt.Sprintf("%d %s", by[t], t))
	}
	add("Boots", strings.Join(counts, ", "))
	add("Machines", strings.Join(sortedKeys(cpus), "; "))
	add("Profile and seed", fmt.Sprintf("%s, %s", m.Profile, m.Seed))
	add("wflp", m.Version)
	add("Started", b.summary.Run.Started)
	for _, k := range sortedKeys(m.Config) {
		add(k, m.Config[k])
	}
	return f
}

func shortDigest(d string) string {
	if len(d) > 16 {
		return d[:16]
	}
	return d
}
