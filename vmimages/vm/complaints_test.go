// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew; read the difference before committing it")

// Each console in testdata comes from a kernel that was made to misbehave,
// next to what Scan has to find in it.
func TestScanGolden(t *testing.T) {
	logs, err := filepath.Glob("testdata/console/*.log")
	if err != nil || len(logs) == 0 {
		t.Fatalf("no console logs (%v)", err)
	}
	for _, name := range logs {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		type line struct {
			Kind  Kind   `json:"kind"`
			Line  int    `json:"line"`
			Title string `json:"title"`
			Lines int    `json:"lines"` // of the report
		}
		found := []line{}
		for _, c := range Scan(data) {
			found = append(found, line{c.Kind, c.Line, c.Title, strings.Count(c.Text, "\n") + 1})
		}
		got, err := json.MarshalIndent(found, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
		golden := strings.TrimSuffix(name, ".log") + ".json"
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s: got\n%swant\n%s", name, got, want)
		}
	}
}

// Kinds that no kernel here was made to show, and what must not be taken for
// a complaint: programs fail in similar words.
func TestScanLines(t *testing.T) {
	for line, want := range map[string]Kind{
		"[    1.0] BUG: KASAN: slab-use-after-free in f+0x1/0x2":                                    KindKASAN,
		"[    1.000001] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [x:55]":                   KindStall,
		"[    1.000001] rcu: INFO: rcu_preempt self-detected stall on CPU":                          KindRCU,
		"[    1.000001] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:":                      KindRCU,
		"[    1.000001][   T12] WARNING: possible recursive locking detected":                       KindLockdep,
		"[    1.000001] WARNING: suspicious RCU usage":                                              KindRCU,
		"[    1.000001] [ BUG: Invalid wait context ]":                                              KindLockdep,
		"[    1.000001] INFO: task x:12 blocked for more than 120 seconds.":                         KindHungTask,
		"[    1.000001] BUG: Bad rss-counter state mm:00000000 type:MM_ANONPAGES val:3":             KindBug,
		"[    1.000001] BUG: Bad page state in process x  pfn:00012":                                KindBug,
		"[    1.000001] BUG: non-zero pgtables_bytes on freeing mm: 4096":                           KindBug,
		"[    1.000001] BUG: sleeping function called from invalid context at mm/x.c:1":             KindBug,
		"[    1.000001] BUG: unable to handle page fault for address: ffff":                         KindOops,
		"[    1.000001] Oops: general protection fault, probably for non-canonical address 0xdead":  KindOops,
		"[    1.000001] WARNING: CPU: 1 PID: 77 at mm/mm_view.c:12 f+0x1/0x2":                       KindWarning,
		"[    1.000001] list_add corruption. prev->next should be next":                             KindWarning,
		"[    1.000001] UBSAN: shift-out-of-bounds in mm/x.c:1:2":                                   KindUBSAN,
		"[    1.000001] Kernel panic - not syncing: sysrq triggered crash":                          KindPanic,
		"[    1.000001] x invoked oom-killer: gfp_mask=0xcc0":                                       KindMemory,
		"[    1.000001] x[77]: segfault at 0 ip 0000000000401000 sp 00007ffe error 4 in x[401000]":  "",
		"[    1.000001] traps: x[77] general protection fault ip:401000 sp:7ffe error:0 in x[4010]": "",
		"[    1.000001] wflp: step 0 begin BUG: hunter":                                             "",
		"[    1.000001] clocksource: tsc: mask: 0xffffffffffffffff max_cycles: 0x1":                 "",
		"hello WARNING: from a program on the console":                                              "",
	} {
		got := Scan([]byte("[    0.1] before\n" + line + "\n[    2.1] after\n"))
		switch {
		case want == "" && len(got) != 0:
			t.Errorf("%q is taken for %v", line, got)
		case want != "" && (len(got) != 1 || got[0].Kind != want || got[0].Line != 2):
			t.Errorf("%q: got %+v, want one %s on line 2", line, got, want)
		}
	}
}

func TestTwoReportsAreTwo(t *testing.T) {
	log := `[ 1.0] ------------[ cut here ]------------
[ 1.0] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x0/0x0
[ 1.0] ---[ end trace 0000000000000000 ]---
[ 1.1] quiet
[ 1.2] ------------[ cut here ]------------
[ 1.2] WARNING: CPU: 0 PID: 1 at a.c:2 f+0x0/0x0
[ 1.2] ------------[ cut here ]------------
[ 1.2] WARNING: CPU: 0 PID: 1 at a.c:3 f+0x0/0x0
`
	got := Scan([]byte(log))
	if len(got) != 3 {
		t.Fatalf("got %d complaints, want 3: %+v", len(got), got)
	}
	if strings.Contains(got[0].Text, "quiet") {
		t.Errorf("the first report goes on after its end: %q", got[0].Text)
	}
}

func TestStepConsole(t *testing.T) {
	log := []byte(`[    1.0] wflp: step 0 begin a
[    1.1] of a
[    1.2] wflp: step 0 end a
[    1.3] between
[    1.4] wflp: step 1 begin b
[    1.5] of b
[    1.6] wflp: step 2 begin c
[    1.7] of c
`)
	for n, want := range []string{"[    1.1] of a\n", "[    1.5] of b\n", "[    1.7] of c\n", ""} {
		if got := string(stepConsole(log, n, string(rune('a'+n)))); got != want {
			t.Errorf("step %d: %q, want %q", n, got, want)
		}
	}
}
