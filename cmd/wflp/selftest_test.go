// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/vm"
)

const (
	goodReport = "1..1\nok 1 a\n"
	splat      = "[ 1.0] WARNING: CPU: 0 PID: 1 at mm/x.c:1 f+0x0/0x0\n"
)

const lastWords = "[ 9.0] wflp: bye\n"

// race is what KCSAN says of an access in a function.
func race(fn string) string {
	return "[ 1.0] BUG: KCSAN: data-race in " + fn + "\n[ 1.0] read to 0xffff888004f0c2a8 of 8 bytes by task 9 on cpu 0:\n" +
		"[ 1.0]  " + fn + "+0x10/0x80\n[ 1.0] ==========\n"
}

// A data race that is not ours is not lost either.
func TestListRaces(t *testing.T) {
	got := judgeSelftests(&vm.Result{
		End: vm.Exited, Console: []byte(lastWords),
		Complaints: vm.Scan([]byte(race("one") + race("two") + race("two"))),
	})
	want := []string{"     3 data races without code of the series, of 2 kinds:", "          2 data-race in two", "          1 data-race in one"}
	if got.failed != 0 || !slices.Equal(got.lines, want) {
		t.Errorf("got %+v, want %q", got, want)
	}
}

// Each way to go wrong has to count, whatever the program says of itself.
func TestJudgeSelftests(t *testing.T) {
	good := vm.StepResult{Name: "t", Ran: true, Stdout: []byte(goodReport)}
	with := func(change func(*vm.StepResult)) vm.StepResult {
		s := good
		change(&s)
		return s
	}
	for _, tc := range []struct {
		name                  string
		step                  vm.StepResult
		console               string
		cutOff                bool
		end                   vm.End
		agent                 string
		pass, failed, skipped int
	}{
		{name: "good", step: good, pass: 1},
		{name: "not ok", step: with(func(s *vm.StepResult) { s.Stdout, s.ExitCode = []byte("1..1\nnot ok 1 a\n"), 1 }), failed: 1},
		{name: "exit code", step: with(func(s *vm.StepResult) { s.ExitCode = 1 }), pass: 1, failed: 1},
		{name: "signal", step: with(func(s *vm.StepResult) { s.Signal, s.ExitCode = "SIGSEGV", -1 }), pass: 1, failed: 1},
		{name: "timeout", step: with(func(s *vm.StepResult) { s.TimedOut, s.Signal = true, "SIGKILL" }), pass: 1, failed: 1},
		{name: "never ended", step: with(func(s *vm.StepResult) { s.Ran = false }), pass: 1, failed: 1},
		{name: "cut off", step: with(func(s *vm.StepResult) { s.Stdout = []byte("1..2\nok 1 a\n") }), pass: 1, failed: 1},
		{name: "silent", step: with(func(s *vm.StepResult) { s.Stdout = nil }), failed: 1},
		{name: "skips all", step: with(func(s *vm.StepResult) { s.Stdout, s.ExitCode = nil, 4 }), failed: 1},
		{name: "skips one", step: with(func(s *vm.StepResult) { s.Stdout = []byte("1..1\nok 1 # SKIP\n") }), skipped: 1},
		{name: "splat in step", step: with(func(s *vm.StepResult) { s.Console = []byte(splat) }), console: splat, pass: 1, failed: 1},
		{name: "splat outside", step: good, console: splat, pass: 1, failed: 1},
		{name: "console cut off", step: good, cutOff: true, pass: 1, failed: 1},
		{name: "race elsewhere", step: with(func(s *vm.StepResult) { s.Console = []byte(race("stock_function")) }), console: race("stock_function"), pass: 1},
		{name: "race elsewhere, outside", step: good, console: race("stock_function"), pass: 1},
		{name: "race of ours", step: with(func(s *vm.StepResult) { s.Console = []byte(race("fill_pte")) }), console: race("fill_pte"), pass: 1, failed: 1},
		{name: "crash", step: good, end: vm.Crashed, pass: 1, failed: 1},
		{name: "agent", step: good, agent: "no port", pass: 1, failed: 1},
	} {
		if !tc.cutOff {
			tc.console += lastWords
		}
		res := &vm.Result{
			Steps: []vm.StepResult{tc.step}, Console: []byte(tc.console), Complaints: vm.Scan([]byte(tc.console)),
			End: tc.end, AgentError: tc.agent, Hello: guestproto.Hello{MMView: true},
		}
		if res.End == "" {
			res.End = vm.Exited
		}
		got := judgeSelftests(res)
		if got.passed != tc.pass || got.failed != tc.failed || got.skipped != tc.skipped {
			t.Errorf("%s: %d passed, %d failed, %d skipped; want %d, %d, %d\n%v", tc.name, got.passed, got.failed, got.skipped, tc.pass, tc.failed, tc.skipped, got.lines)
		}
	}
}

func TestSkipIsFineWithoutTheFeature(t *testing.T) {
	got := judgeSelftests(&vm.Result{End: vm.Exited, Console: []byte(lastWords), Steps: []vm.StepResult{{Name: "t", Ran: true, ExitCode: 4}}})
	if got.failed != 0 || got.skipped != 1 {
		t.Errorf("%+v", got)
	}
}

func TestGroupByNeeds(t *testing.T) {
	var steps []guestproto.Step
	for _, n := range []string{"mm_view_advice", "mm_view_code", "mm_view_reclaim", "mm_view_stress"} {
		steps = append(steps, guestproto.Step{Name: n})
	}
	var got []string
	for _, g := range groupByNeeds(steps) {
		for _, s := range g.steps {
			if g.needs != seriesNeeds[s.Name] {
				t.Errorf("%s is in a machine with %+v", s.Name, g.needs)
			}
			got = append(got, s.Name)
		}
		got = append(got, "|")
	}
	if want := "mm_view_advice | mm_view_code mm_view_stress | mm_view_reclaim |"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// A machine has what its programs need and what the user asked for.
func TestNeedsAreMinimums(t *testing.T) {
	needs := machineNeeds{memMiB: 1024, nodes: 2, words: "a=b"}
	small := machineFlags{variant: "release", appendLine: "c"}.with(needs)
	if small.mem != 1024 || small.nodes != 2 || small.appendLine != "c a=b" {
		t.Errorf("%+v", small)
	}
	large := machineFlags{variant: "release", mem: 4096, nodes: 3}.with(needs)
	if large.mem != 4096 || large.nodes != 3 || large.appendLine != "a=b" {
		t.Errorf("%+v", large)
	}
	if plain := (machineFlags{variant: "release", dir: "d"}).with(machineNeeds{}); plain.mem != 0 || plain.dir != "d" {
		t.Errorf("%+v", plain)
	}
}
