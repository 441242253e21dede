// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/wflp/wflp/vmimages/vm"
)

// Status is what came of a test.
type Status string

// The statuses. What a program expects to fail is xfail in KTAP. Unknown is a
// timeout, or a machine that went down, and equals nothing, not even another
// unknown; missing is a test that one run reported and this one did not.
const (
	Pass    Status = "pass"
	Fail    Status = "fail"
	Skip    Status = "skip"
	XFail   Status = "xfail"
	Unknown Status = "unknown"
	Missing Status = "missing"
)

// Result is what came of one test of a program.
type Result struct {
	// Key is what the test is known by in all runs: its number in KTAP,
	// otherwise its name. That of the program as a whole is empty, see also
	// keyKernel and keyView.
	Key    string `json:"key"`
	Name   string `json:"name,omitempty"`
	Status Status `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// Tests that every program has beside its own.
const (
	keyProgram = ""
	keyKernel  = "[kernel]" // the kernel complained; there only if it did
	keyView    = "[view]"   // it was in a view throughout; there only if it was to be
)

// CaseResult is what came of one case in one kind of run.
type CaseResult struct {
	Case    string   `json:"case"`
	Results []Result `json:"results"`
	GuestMS int64    `json:"guest_ms"`
	Proof   *Proof   `json:"proof,omitempty"`
	Output  string   `json:"output,omitempty"` // its end, of programs that did not pass
}

// Proof is what inview-run saw.
type Proof struct {
	Programs int      `json:"programs"` // that said they are in a view
	Pages    int      `json:"pages"`    // private ones, at least
	Tables   int      `json:"tables"`   // own ones, at least
	In       int      `json:"in"`       // samples of threads
	Base     int      `json:"base"`
	Worker   int      `json:"worker"`
	Strays   []string `json:"strays,omitempty"`
	Failed   []string `json:"failed,omitempty"`
}

// judge makes results of what came of a step.
func judge(c Case, s vm.StepResult, down string, inView bool) CaseResult {
	r := CaseResult{Case: c.Name, GuestMS: s.DurationNS / 1e6}
	whole := Result{Key: keyProgram}
	out := string(s.Stdout)
	switch {
	case !s.Ran:
		whole.Status, whole.Detail = Unknown, "the machine went down: "+down
	case s.TimedOut:
		whole.Status, whole.Detail = Unknown, fmt.Sprintf("not over after %v", c.Limit)
	case s.Signal != "":
		whole.Status, whole.Detail = Fail, s.Signal
	default:
		whole.Status, whole.Detail = exitStatus(c.Format, s.ExitCode, out+string(s.Stderr))
	}
	r.Results = append(r.Results, whole)
	switch c.Format {
	case FormatKTAP:
		r.Results = append(r.Results, parseKTAP(out)...)
	case FormatUffd:
		r.Results = append(r.Results, parseUffd(out)...)
	case FormatKhugepaged:
		r.Results = append(r.Results, parseKhugepaged(out)...)
	}
	for _, comp := range vm.Scan(s.Console) {
		// Some stressors use up memory on purpose.
		if comp.Kind != vm.KindMemory {
			r.Results = append(r.Results, Result{Key: keyKernel, Status: Fail, Detail: string(comp.Kind) + ": " + comp.Title})
			break
		}
	}
	// What was skipped proves nothing either way, and may not have been started.
	p := parseProof(string(s.Files[guestReport]))
	if inView && s.Ran && !s.TimedOut && (whole.Status != Skip || p.Programs > 0 || len(p.Failed) > 0) {
		r.Proof = &p
		view := Result{Key: keyView, Status: Pass}
		if why := p.against(); why != "" {
			view.Status, view.Detail = Fail, why
		}
		r.Results = append(r.Results, view)
	}
	if whole.Status != Pass && whole.Status != Skip || hasFailed(r.Results) {
		r.Output = tail(out+string(s.Stderr), 6000)
	}
	return r
}

func hasFailed(results []Result) bool {
	for _, r := range results {
		if r.Status == Fail || r.Status == Unknown {
			return true
		}
	}
	return false
}

func tail(s string, n int) string {
	if len(s) > n {
		s = s[len(s)-n:]
	}
	return strings.ToValidUTF8(s, "?")
}

// exitStatus reads an exit code. stress-ng has several of its own, and ends with
// success when it has skipped all that it was told to do.
func exitStatus(f Format, code int, out string) (Status, string) {
	detail := ""
	if code != 0 {
		detail = "exit " + strconv.Itoa(code)
	}
	if f == FormatStress {
		switch {
		case code == 0 && stressSkipRE.MatchString(out):
			return Skip, "skipped by stress-ng"
		case code == 0:
			return Pass, ""
		case code == 3, code == 4: // no resource, not implemented
			return Skip, detail
		}
		return Fail, detail
	}
	switch code {
	case 0:
		return Pass, ""
	case 4:
		return Skip, ""
	}
	return Fail, detail
}

var (
	stressSkipRE = regexp.MustCompile(`skipping (the )?stressor|stressor will be skipped`)
	resultRE     = regexp.MustCompile(`^(not ok|ok) (\d+)\b(.*)$`)
	directiveRE  = regexp.MustCompile(`(?i)#\s*(SKIP|XFAIL|TODO|error)\b\s*`)
	uffdRE       = regexp.MustCompile(`^Testing (.*?)\.\.\. ?(.*)$`)
	escapeRE     = regexp.MustCompile("\x1b\\[[0-9;]*m")
)

// keys tells results apart that call themselves the same.
type keys map[string]int

func (k keys) unique(name string) string {
	k[name]++
	if n := k[name]; n > 1 {
		return fmt.Sprintf("%s (%d)", name, n)
	}
	return name
}

// parseKTAP reads the top level. A result's name says with many programs what
// went wrong rather than what was tested, so the number is the key.
func parseKTAP(out string) []Result {
	var rs []Result
	seen := keys{}
	for _, line := range strings.Split(strings.ReplaceAll(out, "\r", ""), "\n") {
		m := resultRE.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		r := Result{Key: seen.unique(m[2]), Status: Pass}
		name := m[3]
		if m[1] == "not ok" {
			r.Status = Fail
		}
		if d := directiveRE.FindStringSubmatchIndex(name); d != nil {
			switch word := strings.ToUpper(name[d[2]:d[3]]); {
			case word == "SKIP":
				r.Status = Skip
			case word == "XFAIL", word == "TODO" && r.Status == Fail:
				r.Status = XFail
			}
			name = name[:d[0]] + name[d[1]:]
		}
		r.Name = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(name), "-"))
		rs = append(rs, r)
	}
	return rs
}

// parseUffd reads uffd-unit-tests. A test whose line has no end is one in
// which the program died.
func parseUffd(out string) []Result {
	var rs []Result
	seen := keys{}
	for _, line := range strings.Split(out, "\n") {
		m := uffdRE.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		r := Result{Key: seen.unique(m[1]), Status: Fail, Detail: m[2]}
		switch {
		case strings.HasPrefix(m[2], "done"):
			r.Status, r.Detail = Pass, ""
		case strings.HasPrefix(m[2], "skipped"):
			r.Status = Skip
		}
		rs = append(rs, r)
	}
	return rs
}

// parseKhugepaged reads khugepaged, which prints a verdict for each step of a
// test: the worst of them is the test's.
func parseKhugepaged(out string) []Result {
	var rs []Result
	seen := keys{}
	for _, line := range strings.Split(escapeRE.ReplaceAllString(out, ""), "\n") {
		if name, ok := strings.CutPrefix(line, "Run test: "); ok {
			rs = append(rs, Result{Key: seen.unique(strings.TrimSpace(name)), Status: Pass})
			continue
		}
		if len(rs) == 0 {
			continue
		}
		last := &rs[len(rs)-1]
		switch {
		case strings.HasSuffix(strings.TrimSpace(line), " Fail"):
			last.Status, last.Detail = Fail, strings.TrimSpace(line)
		case strings.HasSuffix(strings.TrimSpace(line), " Skip") && last.Status == Pass:
			last.Status = Skip
		}
	}
	return rs
}

// parseProof reads what inview-run wrote.
func parseProof(report string) Proof {
	p := Proof{}
	for _, line := range strings.Split(report, "\n") {
		kind, text, _ := strings.Cut(line, " ")
		n, _ := strconv.Atoi(text)
		switch kind {
		case "program":
			f := strings.Fields(text)
			if len(f) < 2 {
				continue
			}
			pages, _ := strconv.Atoi(f[len(f)-2])
			tables, _ := strconv.Atoi(f[len(f)-1])
			if p.Programs == 0 || pages < p.Pages {
				p.Pages = pages
			}
			if p.Programs == 0 || tables < p.Tables {
				p.Tables = tables
			}
			p.Programs++
		case "failed":
			p.Failed = append(p.Failed, text)
		case "stray":
			p.Strays = append(p.Strays, text)
		case "in":
			p.In = n
		case "base":
			p.Base = n
		case "worker":
			p.Worker = n
		}
	}
	return p
}

// against says why a run proves nothing about views, or nothing.
func (p Proof) against() string {
	switch {
	case len(p.Failed) > 0:
		return fmt.Sprintf("%d processes could not enter a view: %s", len(p.Failed), strings.Join(distinct(p.Failed), "; "))
	case p.Programs == 0:
		return "no program said that it is in a view"
	case p.Pages == 0 || p.Tables == 0:
		return "a view without private pages or own tables"
	case len(p.Strays) > 0:
		return fmt.Sprintf("%d threads stayed in the base: %s", len(p.Strays), strings.Join(distinct(p.Strays), ", "))
	}
	return ""
}

func distinct(list []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}
