// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bytes"
	"encoding/csv"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wflp/wflp/vmimages/vm"
)

func TestCasesAreSound(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Cases() {
		if seen[c.Name] {
			t.Errorf("%s is there twice", c.Name)
		}
		seen[c.Name] = true
		if c.Limit <= 0 || c.Boot == "" || len(c.Argv) == 0 {
			t.Errorf("%s has no limit, boot or command: %+v", c.Name, c)
		}
		if NotRun[c.Name] != "" {
			t.Errorf("%s is run and not run", c.Name)
		}
	}
	quick, err := Subset("quick")
	if err != nil || len(quick) == 0 || len(quick) > len(seen)/2 {
		t.Errorf("the quick subset has %d of %d programs, %v", len(quick), len(seen), err)
	}
	for _, c := range quick {
		if c.Boot != quick[0].Boot {
			t.Errorf("%s runs in another machine", c.Name)
		}
	}
	if _, err := Subset("slow"); err == nil {
		t.Error("any name is a subset")
	}
}

func statuses(rs []Result) string {
	var out []string
	for _, r := range rs {
		out = append(out, r.Key+"="+string(r.Status))
	}
	return strings.Join(out, ", ")
}

func TestParsers(t *testing.T) {
	for _, c := range []struct {
		name  string
		parse func(string) []Result
		in    string
		want  string
	}{
		{"ktap", parseKTAP, "TAP version 13\n1..5\nok 1 one\n# not ok 9 a comment\nnot ok 2 two\nok 3 # SKIP three\nok 4 # XFAIL four\n    ok 1 nested\nnot ok 5 # error five\nokay 7\nok 1 again\n",
			"1=pass, 2=fail, 3=skip, 4=xfail, 5=fail, 1 (2)=pass"},
		{"uffd", parseUffd, "Testing UFFDIO_API (with syscall)... done\nTesting minor on hugetlb... skipped [reason: x]\nTesting move on anon... failed [reason: bad]\nTesting poison on anon... \nTesting poison on anon... done\n",
			"UFFDIO_API (with syscall)=pass, minor on hugetlb=skip, move on anon=fail, poison on anon=fail, poison on anon (2)=pass"},
		{"khugepaged", parseKhugepaged, "Save settings... OK\n\nRun test: collapse_full (khugepaged:anon)\nCollapse.... \x1b[32mOK\x1b[0m\nCheck... \x1b[31mFail\x1b[0m\nRun test: x (a)\nthat... \x1b[33mSkip\x1b[0m\n\nRun test: y (a)\nMaybe... \x1b[32mOK\x1b[0m\n",
			"collapse_full (khugepaged:anon)=fail, x (a)=skip, y (a)=pass"},
	} {
		if got := statuses(c.parse(c.in)); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
	if r := parseKTAP("ok 3 # SKIP no huge pages\n"); r[0].Name != "no huge pages" {
		t.Errorf("the name of a skipped test is %q", r[0].Name)
	}
}

const proven = "program private pages and own tables: 26 8\nprogram private pages and own tables: 12 9\nin 7\nbase 2\nworker 1\n"

func TestProof(t *testing.T) {
	p := parseProof(proven)
	if p.Programs != 2 || p.Pages != 12 || p.Tables != 8 || p.In != 7 || p.Base != 2 || p.Worker != 1 || p.against() != "" {
		t.Errorf("%+v, against it %q", p, p.against())
	}
	for _, bad := range []string{"", "in 7\n", proven + "failed create 38 0\n", proven + "stray cow\n", strings.ReplaceAll(proven, "12 9", "0 9")} {
		if parseProof(bad).against() == "" {
			t.Errorf("%q proves that programs were in views", bad)
		}
	}
}

func TestJudge(t *testing.T) {
	c := Case{Name: "x", Format: FormatKTAP, Limit: time.Second}
	step := func(change func(*vm.StepResult)) vm.StepResult {
		s := vm.StepResult{Ran: true, Stdout: []byte("ok 1 one\n"), Files: map[string][]byte{guestReport: []byte(proven)}}
		change(&s)
		return s
	}
	for _, k := range []struct {
		name   string
		change func(*vm.StepResult)
		view   bool
		want   string
	}{
		{"good", func(*vm.StepResult) {}, false, "=pass, 1=pass"},
		{"good in a view", func(*vm.StepResult) {}, true, "=pass, 1=pass, [view]=pass"},
		{"no proof", func(s *vm.StepResult) { s.Files = nil }, true, "=pass, 1=pass, [view]=fail"},
		{"exit code", func(s *vm.StepResult) { s.ExitCode = 1 }, false, "=fail, 1=pass"},
		{"skip", func(s *vm.StepResult) { s.ExitCode = 4 }, false, "=skip, 1=pass"},
		{"skip in a view", func(s *vm.StepResult) { s.ExitCode = 4 }, true, "=skip, 1=pass, [view]=pass"},
		{"skip before the program", func(s *vm.StepResult) { s.ExitCode, s.Files, s.Stdout = 4, nil, nil }, true, "=skip"},
		{"signal", func(s *vm.StepResult) { s.Signal = "SIGSEGV"; s.ExitCode = -1 }, false, "=fail, 1=pass"},
		{"timeout", func(s *vm.StepResult) { s.TimedOut = true; s.Signal = "SIGKILL" }, true, "=unknown, 1=pass"},
		{"machine down", func(s *vm.StepResult) { s.Ran = false }, true, "=unknown, 1=pass"},
		{"complaint", func(s *vm.StepResult) { s.Console = []byte("[    1.0] WARNING: CPU: 0 PID: 1 at mm/x.c:1 f+0x1/0x2\n") }, false, "=pass, 1=pass, [kernel]=fail"},
	} {
		if got := statuses(judge(c, step(k.change), "", k.view).Results); got != k.want {
			t.Errorf("%s: got %s, want %s", k.name, got, k.want)
		}
	}
	for _, k := range []struct {
		code int
		out  string
		want Status
	}{
		{0, "stress-ng: info:  [1] successful run completed in 3.09s\n", Pass},
		{0, "stress-ng: info:  [1] exec stressor must not run as root, skipping the stressor\n", Skip},
		{2, "", Fail}, {3, "", Skip}, {4, "", Skip}, {127, "", Fail},
	} {
		if got, _ := exitStatus(FormatStress, k.code, k.out); got != k.want {
			t.Errorf("stress-ng with exit %d and %q is %s, want %s", k.code, k.out, got, k.want)
		}
	}
}

func sample(view ...Result) map[Column]map[string]CaseResult {
	one := func(rs ...Result) map[string]CaseResult { return map[string]CaseResult{"p": {Case: "p", Results: rs}} }
	good := []Result{{Key: "", Status: Pass}, {Key: "1", Name: "one", Status: Pass}, {Key: "2", Name: "two", Status: Fail}}
	return map[Column]map[string]CaseResult{Stock: one(good...), Series: one(good...), View: one(view...)}
}

func TestTable(t *testing.T) {
	cases := []Case{{Suite: "selftests", Name: "p"}, {Suite: "selftests", Name: "did not run"}}
	same := []Result{{Key: "", Status: Pass}, {Key: "1", Status: Pass}, {Key: "2", Status: Fail}, {Key: keyView, Status: Pass}}
	explain := func(text string) []*Explanation {
		x, err := parseExplanations([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	change := func(i int, s Status) []Result {
		rs := slices.Clone(same)
		rs[i].Status = s
		return rs
	}
	const known = `[{"case": "p", "key": "1", "column": "view", "seen": "fail", "reason": "because"}]`
	for _, k := range []struct {
		name                    string
		view                    []Result
		explanations            string
		differ, open, notNeeded int
	}{
		{"the same", same, `[]`, 0, 0, 0},
		{"an explanation of nothing", same, known, 0, 0, 1},
		{"a failure", change(1, Fail), `[]`, 1, 1, 0},
		{"explained", change(1, Fail), known, 1, 0, 0},
		{"explained otherwise", change(1, Skip), known, 1, 1, 1},
		{"better than stock", change(2, Pass), `[]`, 1, 1, 0},
		{"unknown", change(0, Unknown), `[]`, 1, 1, 0},
		{"not reported", same[:2], `[]`, 1, 1, 0},
		{"not in a view", change(3, Fail), `[]`, 1, 1, 0},
		{"a complaint", append(slices.Clone(same), Result{Key: keyKernel, Status: Fail}), `[]`, 1, 1, 0},
	} {
		tab := MakeTable(cases, sample(k.view...), Inputs{}, explain(k.explanations))
		if d, o, n := len(tab.Differences()), tab.Unexplained(), len(tab.Unused); d != k.differ || o != k.open || n != k.notNeeded {
			t.Errorf("%s: %d differences, %d open, %d explanations not needed; want %d, %d, %d", k.name, d, o, n, k.differ, k.open, k.notNeeded)
		}
	}
	// Unknown everywhere is no agreement.
	all := sample(same...)
	for _, col := range Columns() {
		all[col]["p"].Results[0] = Result{Status: Unknown}
	}
	if tab := MakeTable(cases, all, Inputs{}, nil); tab.Unexplained() != 1 {
		t.Error("three timeouts agree")
	}

	tab := MakeTable(cases, sample(change(1, Fail)...), Inputs{}, explain(known))
	var text, table, md bytes.Buffer
	if err := tab.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if err := tab.WriteCSV(&table); err != nil {
		t.Fatal(err)
	}
	if err := tab.WriteMarkdown(&md); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&table).ReadAll()
	if err != nil || len(rows) != 1+len(tab.Rows) {
		t.Errorf("CSV has %d rows, the table %d, %v", len(rows), len(tab.Rows), err)
	}
	for _, out := range []string{text.String(), md.String()} {
		if !strings.Contains(out, "because") || !strings.Contains(out, "1 one") {
			t.Errorf("a difference is not shown:\n%s", out)
		}
	}
}

func TestExplanationsAreSound(t *testing.T) {
	list, err := Explanations()
	if err != nil {
		t.Fatal(err)
	}
	cases := Cases()
	for _, x := range list {
		if !slices.ContainsFunc(cases, func(c Case) bool { return x.caseRE.MatchString(c.Name) }) {
			t.Errorf("the explanation of %q is of no program", x.Case)
		}
	}
	for _, bad := range []string{`[{"case": "x", "key": "", "reason": ""}]`, `[{"case": "(", "key": "", "reason": "r"}]`, `[{"case": "", "reason": "r"}]`, `{}`} {
		if _, err := parseExplanations([]byte(bad)); err == nil {
			t.Errorf("%s is an explanation", bad)
		}
	}
}
