// SPDX-License-Identifier: Apache-2.0

package vm

import (
	_ "embed"
	"regexp"
	"strings"
)

// Kind is a class of complaint of the kernel.
type Kind string

// The kinds. All but the last mean a defect in the kernel, or a machine so
// starved that it looks like one.
const (
	KindWarning  Kind = "warning"
	KindBug      Kind = "bug"
	KindOops     Kind = "oops"
	KindPanic    Kind = "panic"
	KindKASAN    Kind = "kasan"
	KindRace     Kind = "kcsan"
	KindUBSAN    Kind = "ubsan"
	KindLockdep  Kind = "lockdep"
	KindRCU      Kind = "rcu"
	KindStall    Kind = "stall"
	KindHungTask Kind = "hung-task"
	// KindEmulator is an oops that user code caused without the kernel: in user
	// mode the processor accessed memory as the kernel does. QEMU before 9.1
	// does so for far returns (lret, iret) in programs, which a program can
	// thereby crash any kernel with. On a real processor it would mean that the
	// kernel's descriptor tables are broken.
	KindEmulator Kind = "emulator"
	// KindRaceElsewhere is a data race in which no code of the series has a part.
	// The stock kernel has many; whoever looks for ours counts these apart.
	KindRaceElsewhere Kind = "kcsan-elsewhere"
	// KindMemory is the OOM killer: the guest was given too little.
	KindMemory Kind = "memory"
)

// Complaint is one thing the kernel said that a sound kernel does not say.
type Complaint struct {
	Kind  Kind   `json:"kind"`
	Title string `json:"title"` // the line that gives it away, without time stamp
	Line  int    `json:"line"`  // of the console, from 1
	Text  string `json:"text"`  // the report
}

// The patterns are anchored at the start of a message: programs in the guest
// crash, too, and the kernel says so in words that contain these. The first
// that matches decides.
var complaintPatterns = []struct {
	kind Kind
	re   *regexp.Regexp
}{
	{KindKASAN, regexp.MustCompile(`^BUG: KASAN: `)},
	{KindRace, regexp.MustCompile(`^BUG: KCSAN: `)},
	{KindKASAN, regexp.MustCompile(`^BUG: KFENCE: |^BUG: KMSAN: `)},
	{KindStall, regexp.MustCompile(`^(watchdog: )?BUG: soft lockup|^watchdog: .*hard LOCKUP|^BUG: workqueue lockup|^NMI watchdog: `)},
	{KindRCU, regexp.MustCompile(`^(rcu: )?INFO: rcu_\w+ (self-)?detected|^WARNING: suspicious RCU usage|^rcu: .*(kthread starved|detected stalls)`)},
	{KindLockdep, regexp.MustCompile(`^WARNING: (possible|inconsistent|bad unlock|held lock|lock held|nested lock|HARDIRQ|SOFTIRQ|process .* lock|.*locks? still held)|^INFO: trying to register non-static key|^DEBUG_LOCKS_WARN_ON|^BUG: (MAX_\w+ too low|key \w+ )|^\[ BUG: |^turning off the locking correctness validator`)},
	{KindBug, regexp.MustCompile(`^BUG: (sleeping function|scheduling while atomic|using |spinlock|rwlock|mutex|Bad |non-zero |workqueue leaked|looking up|list_|memory leak)`)},
	{KindBug, regexp.MustCompile(`^kernel BUG at |^BUG at `)},
	{KindOops, regexp.MustCompile(`^BUG: (unable to handle|kernel NULL pointer|unable to)|^Oops|^general protection fault|^int3: |^invalid opcode: |^divide error: |^stack segment: |^PANIC: double fault|^traps: PANIC`)},
	{KindBug, regexp.MustCompile(`^BUG: |^BUG `)},
	{KindWarning, regexp.MustCompile(`^WARNING: |^WARNING! |^list_(add|del) corruption|^page:.*dumped because|^refcount_t: |^kernfs: |^kobject: .*tried to |^ODEBUG: |^=+ *BUG`)},
	{KindUBSAN, regexp.MustCompile(`^UBSAN: `)},
	{KindHungTask, regexp.MustCompile(`^INFO: task .* blocked (for more than|in I/O wait)`)},
	{KindPanic, regexp.MustCompile(`^Kernel panic - not syncing`)},
	{KindMemory, regexp.MustCompile(`invoked oom-killer: |^Out of memory: `)},
}

// stampRE is what printk puts before a message: a time, and with
// PRINTK_CALLER a task.
var stampRE = regexp.MustCompile(`^(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?`)

// supervisorRE is what KindEmulator looks like. The selector is that of user code.
var supervisorRE = regexp.MustCompile(`(?ms)^#PF: supervisor \w+ access in user mode.*^RIP: 0033:`)

// Lines that end a report.
var endRE = regexp.MustCompile(`^---\[ end |^=+$|^wflp: |^Kernel Offset:`)

// maxReport bounds what is kept of one report; the console has the rest.
const maxReport = 120

// Scan finds the complaints in a console log. A line inside a report is not a
// complaint of its own; the panic that follows a finished report is.
func Scan(log []byte) []Complaint {
	lines := strings.Split(strings.ReplaceAll(string(log), "\r", ""), "\n")
	msgs := make([]string, len(lines))
	for i, l := range lines {
		msgs[i] = stampRE.ReplaceAllString(l, "")
	}
	var out []Complaint
	for i := 0; i < len(msgs); i++ {
		kind, ok := classify(msgs[i])
		if !ok {
			continue
		}
		end := i + 1
		for end < len(msgs) && end-i < maxReport && !fenceOpens(msgs[end]) {
			// Two complaints may follow each other without a fence,
			// but a KASAN report has several lines that match.
			if k, ok := classify(msgs[end]); ok && (k != kind || kind == KindHungTask) && !continues(kind, k) {
				break
			}
			end++
			if endRE.MatchString(msgs[end-1]) {
				break
			}
		}
		text := strings.Join(msgs[i:end], "\n")
		switch {
		case kind == KindOops && supervisorRE.MatchString(text):
			kind = KindEmulator
		case kind == KindRace:
			kind = raceKind(text)
		case kind == KindPanic && len(out) > 0 && out[len(out)-1].Kind == KindEmulator:
			kind = KindEmulator // the panic that we asked for
		}
		out = append(out, Complaint{Kind: kind, Title: msgs[i], Line: i + 1, Text: text})
		i = end - 1
	}
	return out
}

//go:embed series_functions.txt
var seriesFunctionsText string

// seriesFunctions tells, by name, the functions that the series defines (true),
// and those of the stock kernel that it changes (false). A test compares the list
// with the series.
var seriesFunctions = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range strings.Fields(seriesFunctionsText) {
		stock, changed := strings.CutPrefix(name, "~")
		m[stock] = !changed
	}
	return m
}()

var (
	raceAccessRE = regexp.MustCompile(`^(race at unknown origin, with )?(assert no |read|write)[a-z() -]* to 0x[0-9a-f]+ of \d+ bytes by `)
	raceFrameRE  = regexp.MustCompile(`^ (?:\? )?([A-Za-z_]\w*)[\w.]*\+0x[0-9a-f]+/0x[0-9a-f]+`)
)

// raceKind says whose a data race is. It is the series' if a function of it is
// anywhere on one of the two stacks, also where the access itself is in stock code
// that it called; or if the access is in stock code that the series has changed. That
// such a function has merely called others says nothing: nearly all memory is
// touched by way of one. What cannot be read is the series' until somebody has looked.
func raceKind(report string) Kind {
	frames, access := 0, false
	for _, line := range strings.Split(report, "\n") {
		if raceAccessRE.MatchString(line) {
			access = true
			continue
		}
		m := raceFrameRE.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		frames++
		own, known := seriesFunctions[m[1]]
		if own || known && access || strings.Contains(m[1], "mm_view") {
			return KindRace
		}
		access = false
	}
	if frames == 0 {
		return KindRace
	}
	return KindRaceElsewhere
}

func classify(msg string) (Kind, bool) {
	for _, p := range complaintPatterns {
		if p.re.MatchString(msg) {
			return p.kind, true
		}
	}
	return "", false
}

func fenceOpens(msg string) bool { return strings.HasPrefix(msg, "------------[ cut here") }

// continues says whether a line of one kind is part of a report of another:
// an oops prints BUG, then Oops, then the panic that we asked for.
func continues(report, line Kind) bool {
	switch line {
	case KindOops, KindPanic:
		return report != KindHungTask && report != KindMemory
	case KindMemory:
		return report == KindMemory
	}
	return false
}
