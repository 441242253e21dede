// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wflp/wflp/plots"
)

func TestMacroName(t *testing.T) {
	for id, want := range map[string]string{
		"e2.tcg.threads=4 util=60%.waitfree.p99.9":      "wflpETwoTcgThreadsFourUtilSixZeroWaitfreePNineNinePointNine",
		"e4.icount.resident.seal.1,048,576":             "wflpEFourIcountResidentSealOneZeroFourEightFiveSevenSix",
		"e3.kvm.threads=8.waitfree/barrier.left_behind": "wflpEThreeKvmThreadsEightWaitfreeOverBarrierLeftBehind",
		"e4.icount.fork_ratio_1GiB":                     "wflpEFourIcountForkRatioOneGiB",
		"e2.tcg.threads=1.p99":                          "wflpETwoTcgThreadsOnePNineNine",
	} {
		if got := macroName(id); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
}

var macroLine = regexp.MustCompile(`^\\newcommand\{\\(wflp[A-Za-z]+)\}\{(.*)\}%( [ -~]*)$`)

// parseMacros reads numbers.tex and captions.tex as TeX would: definitions of
// letters, each once, with balanced braces and no active character unescaped.
func parseMacros(text string) (map[string]string, error) {
	out := map[string]string{}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if line == "" || strings.HasPrefix(line, "%") {
			continue
		}
		m := macroLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("line %d is no definition: %s", i+1, line)
		}
		if _, dup := out[m[1]]; dup {
			return nil, fmt.Errorf(`\%s is defined twice`, m[1])
		}
		depth := 0
		for j := 0; j < len(m[2]); j++ {
			switch c := m[2][j]; {
			case c == '\\':
				j++
			case c == '{':
				depth++
			case c == '}':
				depth--
			case strings.IndexByte("%#&_^", c) >= 0:
				return nil, fmt.Errorf("line %d has a bare %c: %s", i+1, c, line)
			}
			if depth < 0 {
				break
			}
		}
		if depth != 0 {
			return nil, fmt.Errorf("braces of line %d do not match: %s", i+1, line)
		}
		out[m[1]] = m[2]
	}
	return out, nil
}

func TestMacros(t *testing.T) {
	b := whole(t)
	text, err := b.macros()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseMacros(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range b.summary.Numbers {
		if v, ok := got[macroName(n.ID)]; !ok || n.Value != nil && v != texValue(n.Value, n.Unit) {
			t.Errorf("%s: %q", n.ID, v)
		}
	}
	for _, c := range b.summary.Claims {
		if got[macroName("claim-"+c.ID)] != mark(c.Holds) {
			t.Errorf("claim %s: %q", c.ID, got[macroName("claim-"+c.ID)])
		}
	}
	tail := b.find("e2.tcg.threads=16 util=60%.waitfree.p99.9")
	for name, want := range map[string]string{
		"wflpTailWaitfree": strings.ReplaceAll(tex(tail.String()), " ", "~"), "wflpTailCell": `16 threads, 60 \% load`, "wflpTailStopworld": `\textbf{??}`,
		// Of E3, though E7 has more threads.
		"wflpFirstWaitfree": strings.ReplaceAll(tex(b.find("e3.tcg.threads=16 interval=500us.waitfree.first.p50").String()), " ", "~"), "wflpLastNone": `\textbf{??}`,
		"wflpViolatingWaitfree": "0", "wflpTimeBase": "tcg",
	} {
		if got[name] != want {
			t.Errorf(`\%s is %q, want %q`, name, got[name], want)
		}
	}
	captions, err := parseMacros(string(b.captions()))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(captions["wflpCaptionEFiveRatiosIcount"], `n = 6 boots`) {
		t.Errorf("%q", captions["wflpCaptionEFiveRatiosIcount"])
	}
	for _, bad := range []string{`\newcommand{\wflpA}{1 % 2}% x`, "\\newcommand{\\wflpA}{1}% x\n\\newcommand{\\wflpA}{1}% x", `\newcommand{\wflpA1}{1}% x`, `\newcommand{\wflpA}{{1}% x`, `\newcommand{\wflpA}{1}`} {
		if _, err := parseMacros(bad); err == nil {
			t.Errorf("took %q", bad)
		}
	}
	// Two numbers of one name are an error, not a surprise in somebody's thesis.
	clash := &builder{manifest: b.manifest, ids: map[string]bool{}}
	clash.summary.Numbers = []Number{{ID: "a.b"}, {ID: "a-b"}}
	if _, err := clash.macros(); err == nil {
		t.Error("two numbers have one macro")
	}
	latex(t, got, captions)
}

// latex sets every table and macro, where there is a TeX.
func latex(t *testing.T, macros ...map[string]string) {
	tool, err := exec.LookPath("pdflatex")
	if err != nil {
		t.Log("there is no pdflatex here: parsed only")
		return
	}
	dir := t.TempDir()
	files := pages(t)
	doc := "\\documentclass{article}\n\\usepackage{booktabs,textcomp,graphicx}\n\\input{tables/numbers}\n\\input{figures/captions}\n\\begin{document}\n"
	for _, m := range macros {
		for _, name := range sortedKeys(m) {
			doc += "\\" + name + "\n\n"
		}
	}
	for name, data := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range sortedKeys(files) {
		if strings.HasPrefix(name, "tables/") && strings.HasSuffix(name, ".tex") && name != "tables/numbers.tex" {
			doc += fmt.Sprintf("\\noindent\\resizebox{\\textwidth}{!}{\\input{%s}}\n\n", name)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "doc.tex"), []byte(doc+"\\end{document}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, "-halt-on-error", "-interaction=nonstopmode", "doc.tex")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out[max(0, len(out)-2000):])
	}
}

// Each caption says its time base and n, and each number of the page leads to
// records that are listed on it.
func TestPageLeadsToRecords(t *testing.T) {
	b := whole(t)
	page := string(pages(t)["report.html"])
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if ids[m[1]] {
			t.Errorf("two elements have the id %s", m[1])
		}
		ids[m[1]] = true
	}
	links := regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(page, -1)
	for _, m := range links {
		if !ids[m[1]] {
			t.Errorf("a link leads to %s, which is not there", m[1])
		}
	}
	if len(links) < len(b.summary.Numbers)/2 {
		t.Errorf("%d links for %d numbers", len(links), len(b.summary.Numbers))
	}
	if n := strings.Count(page, `<td class="num">`) - strings.Count(page, `<td class="num"><a href="#records-`); n != 0 {
		t.Errorf("%d numbers in tables lead nowhere", n)
	}
	figures := 0
	for _, s := range b.sections {
		for _, p := range s.Parts {
			if p.Figure == nil {
				continue
			}
			figures++
			if !regexp.MustCompile(`tcg|icount|kvm`).MatchString(p.Caption) || !regexp.MustCompile(`n = [0-9]`).MatchString(p.Caption) {
				t.Errorf("the caption of %s lacks time base or n: %s", p.Figure.Name, p.Caption)
			}
			if w := p.Figure.W; w != plots.OneColumn && w != plots.TwoColumns {
				t.Errorf("%s is %v wide", p.Figure.Name, w)
			}
		}
	}
	if n := strings.Count(page, "Made by <code>wflp evaluate"); n != figures {
		t.Errorf("%d of %d figures have a command", n, figures)
	}
}
