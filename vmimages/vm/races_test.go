// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wflp/wflp/kernel"
)

var (
	diffFileRE = regexp.MustCompile(`^diff --git a/\S+ b/(\S+)`)
	// A definition begins in the first column, and a declaration ends there.
	definitionRE = regexp.MustCompile(`^\+[a-z][\w\s*]*?\b(\w+)\([^;]*$`)
	hunkRE       = regexp.MustCompile(`^@@ [^@]*@@ .*?\b(\w+)\(`)
)

// functionsOf lists what the series defines in files of its own and, marked, what
// it changes of the stock kernel's: git names the function before each change.
func functionsOf(series []kernel.Patch) []string {
	own, changed := map[string]bool{}, map[string]bool{}
	for _, p := range series {
		file := ""
		for _, line := range strings.Split(string(p.Data), "\n") {
			if m := diffFileRE.FindStringSubmatch(line); m != nil {
				file = m[1]
			}
			if dir, _, _ := strings.Cut(file, "/"); dir == "tools" || dir == "Documentation" {
				continue
			}
			if m := definitionRE.FindStringSubmatch(line); m != nil && !strings.HasPrefix(line, "+return") && m[1] != "__attribute__" {
				own[m[1]] = true
			}
			if m := hunkRE.FindStringSubmatch(line); m != nil && !strings.Contains(file, "mm_view") {
				changed[m[1]] = true
			}
		}
	}
	var names []string
	for n := range own {
		names = append(names, n)
	}
	for n := range changed {
		if !own[n] {
			names = append(names, "~"+n)
		}
	}
	slices.Sort(names)
	return names
}

// A race in a function that the list lacks would be taken for the stock kernel's.
func TestSeriesFunctions(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	series, err := kernel.ReadSeries(root)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join(functionsOf(series), "\n") + "\n"
	if *update {
		if err := os.WriteFile("series_functions.txt", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if seriesFunctionsText != want {
		t.Error("series_functions.txt is not what the series defines and changes: go test ./vmimages/vm -run TestSeriesFunctions -update, and read the difference")
	}
	for _, name := range []string{"fill_pte", "view_seal", "pull_task", "arch_mm_view_shoot_lazy", "shoot_lazy"} {
		if !seriesFunctions[name] {
			t.Errorf("%s is not among the functions of the series", name)
		}
	}
	for _, name := range []string{"handle_mm_fault", "copy_process"} {
		if own, ok := seriesFunctions[name]; own || !ok {
			t.Errorf("%s is not among the functions that the series changes", name)
		}
	}
}

// race is a report of KCSAN with these stacks, innermost first.
func race(first, second []string) string {
	stack := func(names []string) string {
		s := ""
		for _, n := range names {
			s += "[    2.0]  " + n + "+0x10/0x80\n"
		}
		return s
	}
	return "[    2.0] ==================================================================\n" +
		"[    2.0] BUG: KCSAN: data-race in " + first[0] + " / " + second[0] + "\n[    2.0] \n" +
		"[    2.0] write (marked) to 0xffff888004f0c2a8 of 8 bytes by task 94 on cpu 1:\n" + stack(first) + "[    2.0] \n" +
		"[    2.0] read to 0xffff888004f0c2a8 of 8 bytes by interrupt on cpu 0:\n" + stack(second) + "[    2.0] \n" +
		"[    2.0] value changed: 0x0000000000000001 -> 0x0000000000000002\n[    2.0] \n" +
		"[    2.0] Reported by Kernel Concurrency Sanitizer on:\n[    2.0] CPU: 0 UID: 0 PID: 93 Comm: x\n" +
		"[    2.0] ==================================================================\n"
}

func TestWhoseRace(t *testing.T) {
	stock := []string{"do_anonymous_page", "handle_mm_fault", "do_user_addr_fault", "asm_exc_page_fault"}
	for _, c := range []struct {
		name          string
		first, second []string
		want          Kind
	}{
		{"stock code", stock, []string{"folio_referenced_one", "rmap_walk_anon"}, KindRaceElsewhere},
		{"an access of ours", stock, []string{"fill_pte", "fill_addr", "__mm_view_fault"}, KindRace},
		{"the other access of ours", []string{"pull_task.constprop.0", "task_call_func"}, stock, KindRace},
		{"stock code that we called", stock, []string{"kmem_cache_alloc", "view_create"}, KindRace},
		{"stock code that we changed", stock, []string{"switch_mm_irqs_off", "__schedule"}, KindRace},
		{"stock code called by what we changed", stock, []string{"stock_function", "copy_process"}, KindRaceElsewhere},
		{"a name that the list lacks", stock, []string{"mm_view_something_new"}, KindRace},
	} {
		// Two of them: the end of a report must not be taken for the begin of the next.
		got := Scan([]byte(race(c.first, c.second) + race(c.first, c.second)))
		if len(got) != 2 || got[0].Kind != c.want || got[1].Kind != c.want {
			t.Errorf("%s: got %+v, want two of kind %s", c.name, got, c.want)
		}
	}
	if got := Scan([]byte("[    2.0] BUG: KCSAN: data-race in a / b\n")); len(got) != 1 || got[0].Kind != KindRace {
		t.Errorf("a report that is cut off: got %+v, want one of kind %s", got, KindRace)
	}
}
