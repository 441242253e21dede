// SPDX-License-Identifier: Apache-2.0

package record

import (
	"fmt"
	"strconv"
	"strings"
)

// Schema is the version of the format that this package writes and reads.
// A change that makes an old reader misunderstand a new log, or the reverse,
// increments it; a new optional field does not.
const Schema = 1

// Kind says which of a line's payloads is present.
type Kind string

const (
	KindBoot    Kind = "boot"    // one boot of a virtual machine; the first line of its unit
	KindTrial   Kind = "trial"   // one program run under one strategy, judged by the oracles
	KindProgram Kind = "program" // one real program under load and a real fix, under one strategy
	KindLatency Kind = "latency" // request latencies of one run, by relation to the patches
	KindOver    Kind = "over"    // one patch: when it reached each stage and each thread
	KindOutcome Kind = "outcome" // one patch of a hostile program: what became of it and of the program
	KindMemory  Kind = "memory"  // what views, patches or generations take of memory, at one count of them
	KindMicro   Kind = "micro"   // one micro-benchmark at one setting
	KindEnd     Kind = "end"     // the last line of a unit: without it the unit does not count
)

// Line is one line of records.jsonl: an envelope and exactly one payload, the
// one that kind names.
type Line struct {
	// Version of this format.
	Schema int `json:"schema"`
	// Key of the unit that the line belongs to.
	Unit string `json:"unit"`
	// Which payload follows.
	Kind Kind `json:"kind"`
	// Payload of kind boot.
	Boot *Boot `json:"boot,omitempty"`
	// Payload of kind trial.
	Trial *Trial `json:"trial,omitempty"`
	// Payload of kind program.
	Program *Program `json:"program,omitempty"`
	// Payload of kind latency.
	Latency *Latency `json:"latency,omitempty"`
	// Payload of kind over.
	Over *Over `json:"over,omitempty"`
	// Payload of kind outcome.
	Outcome *Outcome `json:"outcome,omitempty"`
	// Payload of kind memory.
	Memory *Memory `json:"memory,omitempty"`
	// Payload of kind micro.
	Micro *Micro `json:"micro,omitempty"`
	// Payload of kind end.
	End *End `json:"end,omitempty"`
}

// TimeBase says what a nanosecond of a record is.  Numbers of different time
// bases are never compared, pooled or drawn together.
type TimeBase string

const (
	KVM    TimeBase = "kvm"    // hardware virtualisation: real time
	TCG    TimeBase = "tcg"    // emulation with parallel vCPUs: only ratios mean something
	ICount TimeBase = "icount" // emulation with virtual time counted in instructions
)

// Strategy names how code is changed.
type Strategy string

const (
	None      Strategy = "none"      // no patch: the reference
	WaitFree  Strategy = "waitfree"  // views: each thread migrates at its own quiescence point
	Barrier   Strategy = "barrier"   // global quiescence: every thread waits for all
	StopWorld Strategy = "stopworld" // ptrace stops all threads
	Restart   Strategy = "restart"   // the program is stopped and started again
	Naive     Strategy = "naive"     // text changed under running threads: the control that must fail
)

// Seed is a 64-bit seed, written as a hexadecimal string because JSON numbers
// lose bits above 2^53 in many readers.
type Seed uint64

// MarshalText writes 0x and 16 digits.
func (s Seed) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String is the form of MarshalText.
func (s Seed) String() string { return fmt.Sprintf("0x%016x", uint64(s)) }

// UnmarshalText reads what MarshalText wrote, or any integer literal of Go.
func (s *Seed) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 0, 64)
	if err != nil {
		return fmt.Errorf("parse seed %q: %w", text, err)
	}
	*s = Seed(v)
	return nil
}

// How a boot ended.
const (
	EndExited  = "exited"
	EndTimeout = "timeout"
	EndCrashed = "crashed"
	EndKilled  = "killed"
)

// Boot describes one boot of a virtual machine, the unit of repetition.
type Boot struct {
	// Experiments that the boot served: E1, E2, …
	Experiments []string `json:"experiments,omitempty"`
	// What a nanosecond is: kvm, tcg or icount.
	TimeBase TimeBase `json:"time_base"`
	// With icount: log2 of the virtual nanoseconds per instruction.
	IcountShift int `json:"icount_shift,omitempty"`
	// Kernel variant: stock, release, debug or kasan.
	Variant string `json:"variant"`
	// Digest of all that went into the kernel.
	KernelDigest string `json:"kernel_digest"`
	// What uname -r says.
	Release string `json:"release"`
	// Version of QEMU.
	QEMU string `json:"qemu"`
	// Virtual CPUs.
	CPUs int `json:"cpus"`
	// Memory of the machine.
	MemMiB int `json:"mem_mib"`
	// Seed of the machine and of the order of work within it.
	Seed Seed `json:"seed"`
	// Host wall time from exec to end. It tells what a run costs and is no measurement.
	DurationNS int64 `json:"duration_ns"`
	// How it ended: exited, timeout, crashed or killed.
	End string `json:"end"`
	// With a real program: the Debian packages of its file system, with their versions.
	Packages map[string]string `json:"packages,omitempty"`
	// Kernel complaints on the console (WARNING, BUG, KASAN, lockdep, stalls, …).
	Complaints []Complaint `json:"complaints,omitempty"`
	// What went wrong outside of the trials: boots before this one that failed
	// before the guest could speak, benchmarks that failed, frames that were lost.
	Incidents []string `json:"incidents,omitempty"`
}

// EmulatorDefect says whether the boot ended by a defect of the emulator that only
// the unsafe control can have set off: it alone ran there, and its torn code made
// the emulator access memory as the kernel does. Such an end says nothing of the
// kernel. Under hardware virtualisation there is no such excuse.
func (u Unit) EmulatorDefect() bool {
	if u.Boot.TimeBase == KVM || len(u.Trials) == 0 || len(u.Boot.Complaints) == 0 {
		return false
	}
	for _, t := range u.Trials {
		if t.Strategy != Naive {
			return false
		}
	}
	for _, c := range u.Boot.Complaints {
		if c.Kind != "emulator" {
			return false
		}
	}
	return true
}

// Complaint is one thing that the kernel found wrong.
type Complaint struct {
	// Kind, e.g. warning, bug, kasan, lockdep, stall, oops, panic; emulator is an oops that
	// user code caused without the kernel.
	Kind string `json:"kind"`
	// First line of it.
	Text string `json:"text"`
}

// Cell holds the factors of an experiment besides strategy, time base and kernel
// variant.  Zero means that the factor does not apply.
type Cell struct {
	// Worker threads of the program.
	Threads int `json:"threads,omitempty"`
	// Offered load of an open loop: the work of the requests in percent of the processors' time.
	// What a request costs besides its work (waking up, its quiescence points) comes on top.
	UtilisationPct int `json:"utilisation_pct,omitempty"`
	// Time between two quiescence points of a thread.
	IntervalUS int `json:"interval_us,omitempty"`
	// Percentage of requests that are long, and how long they are.
	LongPct int `json:"long_pct,omitempty"`
	LongUS  int `json:"long_us,omitempty"`
	// Threads that sleep in a blocking call, besides the workers.
	BlockedThreads int `json:"blocked_threads,omitempty"`
	// Threads that are born and die while patches arrive.
	Births int `json:"births,omitempty"`
	// Length of the stalls that are put in, to calibrate what measures them.
	StallUS int `json:"stall_us,omitempty"`
}

// String is a stable, readable key of the cell: "threads=4 util=60%".
func (c Cell) String() string {
	var b []string
	add := func(format string, v int) {
		if v != 0 {
			b = append(b, fmt.Sprintf(format, v))
		}
	}
	add("threads=%d", c.Threads)
	add("util=%d%%", c.UtilisationPct)
	add("interval=%dus", c.IntervalUS)
	add("long=%d%%", c.LongPct)
	add("longtime=%dus", c.LongUS)
	add("blocked=%d", c.BlockedThreads)
	add("births=%d", c.Births)
	add("stall=%dus", c.StallUS)
	return strings.Join(b, " ")
}

// Verdicts of a trial. A violation wins over every other; a timeout is unknown,
// never a pass.
const (
	Pass        = "pass"
	Violation   = "violation"
	Unsupported = "unsupported"
	Broken      = "broken"
	Unknown     = "unknown"
)

// Trial is one spec run under one strategy, and what the oracles say of it.
type Trial struct {
	// Experiment that it belongs to.
	Experiment string `json:"experiment"`
	// Digest of the spec: the same program, patches and load have the same one.
	SpecID string `json:"spec_id"`
	// Seed and shape that the spec was generated from.
	SpecSeed Seed   `json:"spec_seed"`
	Shape    string `json:"shape,omitempty"`
	// How code was changed.
	Strategy Strategy `json:"strategy"`
	// Factors.
	Cell Cell `json:"cell"`
	// pass, violation, unsupported, broken or unknown.
	Verdict string `json:"verdict"`
	// Number of violations by kind: torn, mixed, regression, stale, lost-thread, …
	Violations map[string]int64 `json:"violations,omitempty"`
	// One sentence: why not pass.
	Note string `json:"note,omitempty"`
	// What happened in it.
	Counts Counts `json:"counts"`
}

// Program is one real program under load that was patched with a real fix, under
// one strategy.
type Program struct {
	// Experiment: E9.
	Experiment string `json:"experiment"`
	// Name and version of the program, and the fix: a CVE or the commit upstream.
	Program string `json:"program"`
	Version string `json:"version"`
	Fix     string `json:"fix"`
	// How code was changed.
	Strategy Strategy `json:"strategy"`
	// Factors.
	Cell Cell `json:"cell"`
	// Patches that were published, and that were refused or failed.
	Patches       int64 `json:"patches"`
	PatchesFailed int64 `json:"patches_failed,omitempty"`
	// From asking for a patch until the first thread runs the new code and until none can
	// reach the old code any more, for each published patch; 0: not reached.
	FirstNS []int64 `json:"first_ns,omitempty"`
	LastNS  []int64 `json:"last_ns,omitempty"`
	// Requests that were sent; of these without an answer, with a wrong one, and lost with their connection.
	Requests int64 `json:"requests"`
	Lost     int64 `json:"lost,omitempty"`
	Wrong    int64 `json:"wrong,omitempty"`
	Dropped  int64 `json:"dropped,omitempty"`
	// Length of the window of a patch.
	WindowNS int64 `json:"window_ns"`
	// Latencies of requests in the window of a patch.
	Window *Hist `json:"window"`
	// Latencies of all other requests.
	Steady *Hist `json:"steady"`
	// What else there is to say.
	Note string `json:"note,omitempty"`
}

// Counts of what happened in a trial, all recorded, none estimated.
type Counts struct {
	// Executions of patchable functions that left evidence.
	Executions int64 `json:"executions"`
	// Patches that were published.
	Patches int64 `json:"patches"`
	// Patches that were refused or failed, with nothing changed.
	PatchesFailed int64 `json:"patches_failed,omitempty"`
	// Stretches between two quiescence points of a thread.
	Transactions int64 `json:"transactions"`
	// Requests served.
	Requests int64 `json:"requests,omitempty"`
	// Thread moves at the thread's own quiescence point.
	Migrated int64 `json:"migrated"`
	// Thread moves while the thread was asleep.
	Pulled int64 `json:"pulled"`
	// Threads started during the run, and ended during it.
	Births int64 `json:"births"`
	Deaths int64 `json:"deaths"`
	// Memory operations (map, unmap, protect, remap, copy-on-write, …).
	MemoryOps int64 `json:"memory_ops"`
	// Under stopworld: how often all threads were stopped, of these in vain because a
	// function to be changed was on a stack, and because a stack could not be walked.
	Stops        int64 `json:"stops,omitempty"`
	StopsActive  int64 `json:"stops_active,omitempty"`
	StopsUnknown int64 `json:"stops_unknown,omitempty"`
	// Under stopworld: transactions whose functions ran in different generations, each
	// of them whole. The strategy does not promise otherwise.
	Mixed int64 `json:"mixed,omitempty"`
}

// Latency holds the latencies of one open-loop run.  A latency counts from the
// scheduled arrival, so a stall is charged to every request that it delays.
//
// Requests are divided by the scheduled arrival: in the window of a patch if
// queued <= arrival < queued + window_ns, in steady state otherwise.  The window
// has the same length for every strategy of a cell, also for none, where the
// patch times are drawn and nothing is patched; so windows are comparable.
type Latency struct {
	// Experiment, program, strategy, factors: as in trial.
	Experiment string   `json:"experiment"`
	SpecID     string   `json:"spec_id,omitempty"`
	Strategy   Strategy `json:"strategy"`
	Cell       Cell     `json:"cell"`
	// Patches in the run.
	Patches int64 `json:"patches"`
	// Length of the window.
	WindowNS int64 `json:"window_ns"`
	// Leading requests left out as warm-up (detected, not guessed).
	WarmupRequests int64 `json:"warmup_requests"`
	// Under restart: requests that waited for a new process, over all patches, and the
	// private memory that the old ones had, which is lost.
	HandedOver int64 `json:"handed_over,omitempty"`
	LostKiB    int64 `json:"lost_kib,omitempty"`
	// Latencies of requests in the window of a patch.
	Window *Hist `json:"window"`
	// Latencies of all other requests.
	Steady *Hist `json:"steady"`
	// The time around the patches: bin i holds the latencies of requests with
	// (first_bin + i) * bin_ns <= arrival - queued < (first_bin + i + 1) * bin_ns,
	// of all patches of the run laid over each other.
	BinNS    int64   `json:"bin_ns,omitempty"`
	FirstBin int     `json:"first_bin,omitempty"`
	Bins     []*Hist `json:"bins,omitempty"`
}

// Over is the way of one patch. Times are readings of the guest's monotonic
// clock; 0 means that the stage was not reached (or does not exist in the
// strategy).
type Over struct {
	// Experiment, program, strategy, factors: as in trial.
	Experiment string   `json:"experiment"`
	SpecID     string   `json:"spec_id,omitempty"`
	Strategy   Strategy `json:"strategy"`
	Cell       Cell     `json:"cell"`
	// Which patch of the run, from 0.
	Patch int `json:"patch"`
	// Error number if it failed and changed nothing, else 0.
	Error int `json:"error,omitempty"`
	// The caller asked.
	QueuedNS int64 `json:"queued_ns"`
	// Work on it began.
	PreparingNS int64 `json:"preparing_ns,omitempty"`
	// View created.
	CreatedNS int64 `json:"created_ns,omitempty"`
	// New code written.
	WrittenNS int64 `json:"written_ns,omitempty"`
	// View sealed.
	SealedNS int64 `json:"sealed_ns,omitempty"`
	// From here threads may run the new code.
	PublishedNS int64 `json:"published_ns,omitempty"`
	// The first thread runs the new code.
	FirstOverNS int64 `json:"first_over_ns,omitempty"`
	// No thread can reach the old code any more.
	LastOverNS int64 `json:"last_over_ns,omitempty"`
	// The resources of the old code are free.
	ReleasedNS int64 `json:"released_ns,omitempty"`
	// Threads registered at publication; moved at their own point; moved asleep.
	Threads  int `json:"threads"`
	Migrated int `json:"migrated"`
	Pulled   int `json:"pulled"`
	// The longest time for which one thread was held up by the patch.
	HeldNS int64 `json:"held_ns,omitempty"`
	// Under stopworld: stops of all threads that it took, and their lengths together.
	Stops     int   `json:"stops,omitempty"`
	StoppedNS int64 `json:"stopped_ns,omitempty"`
	// Each thread's way over; may be left out where only the totals are wanted.
	Moves []Move `json:"moves,omitempty"`
}

// Move is one thread's way from the old code to the new.
type Move struct {
	// Thread, numbered from 0 in the program.
	Thread int `json:"thread"`
	// When it was over; 0 if it never was.
	AtNS int64 `json:"at_ns"`
	// How: own (its quiescence point), pulled (asleep), born (started in the new code), gone (ended in the old).
	How string `json:"how"`
	// What it did around the patch, for the time line.
	Spans []Span `json:"spans,omitempty"`
}

// How a thread got over.
const (
	HowOwn    = "own"
	HowPulled = "pulled"
	HowBorn   = "born"
	HowGone   = "gone"
)

// Span is what a thread did from one instant to another.
type Span struct {
	// Guest monotonic clock.
	FromNS int64 `json:"from_ns"`
	ToNS   int64 `json:"to_ns"`
	// old (ran old code), new (ran new code), wait (held up by the patch), idle (asleep or without work).
	State string `json:"state"`
}

// States of a span.
const (
	SpanOld  = "old"
	SpanNew  = "new"
	SpanWait = "wait"
	SpanIdle = "idle"
)

// Outcome is what became of the one patch of a hostile program, and of the program.
type Outcome struct {
	// Experiment: E8. Program, strategy: as in trial.
	Experiment string   `json:"experiment"`
	SpecID     string   `json:"spec_id"`
	Strategy   Strategy `json:"strategy"`
	// Which hostile program: busy, asleep, blocked or lock.
	Program string `json:"program"`
	// The program came to its end. If not, the watchdog ended it.
	Ended bool `json:"ended"`
	// Of the threads that had not ended then, those that did nothing, and took no time, while the watchdog looked twice.
	Stuck int `json:"stuck,omitempty"`
	// Error number if the patch failed and changed nothing, else 0.
	Error int `json:"error,omitempty"`
	// From asking until threads may run the new code, until the first does, until none can
	// reach the old code any more; 0: not reached.
	PublishedNS int64 `json:"published_ns,omitempty"`
	FirstNS     int64 `json:"first_ns,omitempty"`
	LastNS      int64 `json:"last_ns,omitempty"`
	// The longest time for which one thread was held up by the patch. Of threads that were
	// held up till the watchdog came it is not known.
	HeldNS int64 `json:"held_ns,omitempty"`
}

// Memory is what a process has, and the system, at one moment: the least of some looks.
type Memory struct {
	// Experiment: E6.
	Experiment string `json:"experiment"`
	// What N counts: views (alive at once), pages-together and pages-apart (patched, in one
	// view; side by side, or each in 2 MiB of its own), generations (one after the other).
	Series string `json:"series"`
	N      int64  `json:"n"`
	// Views of the process, their private pages and their own page tables.
	Views        int64 `json:"views"`
	PrivatePages int64 `json:"private_pages"`
	OwnTables    int64 `json:"own_tables"`
	// Open files, resident memory, page tables of the process.
	Files  int64 `json:"files"`
	RSSKiB int64 `json:"rss_kib"`
	PTEKiB int64 `json:"pte_kib"`
	// All memory of the machine that is not free.
	UsedKiB int64 `json:"used_kib"`
}

// Series of E6.
const (
	SeriesViews         = "views"
	SeriesPagesTogether = "pages-together"
	SeriesPagesApart    = "pages-apart"
	SeriesGenerations   = "generations"
)

// Micro is one micro-benchmark at one setting, in one boot.
type Micro struct {
	// Experiment: E4, E5, E11, or E0 for the instruments themselves.
	Experiment string `json:"experiment"`
	// E4: create, seal, enter, enter-last, write, close, pull, fork. E5: page-fault, map-unmap, fork-exit, … E11: call, switch-thread, second-touch. E0: clock, record.
	Bench string `json:"bench"`
	// E5: where it ran. stock (kernel without the series), base (no view since the kernel booted), base-views (base view while views exist), view (inside a view), rebased. E11: one (one variant), variant (two, each thread its own), branch, pointer.
	Setting string `json:"setting,omitempty"`
	// Process size and shape.
	ResidentKiB int64 `json:"resident_kib,omitempty"`
	Mappings    int   `json:"mappings,omitempty"`
	Views       int   `json:"views,omitempty"`
	Threads     int   `json:"threads,omitempty"`
	// Which factor this series varies: resident, mappings, views or threads. Empty in E5.
	Sweep string `json:"sweep,omitempty"`
	// Operations in one value.
	Batch int64 `json:"batch"`
	// Guest nanoseconds of each batch, in the order measured, warm-up included.
	ValuesNS []int64 `json:"values_ns"`
}

// Benchmarks that the claims of the report are about.
const (
	BenchCreate    = "create"     // mm_view_create
	BenchWrite     = "write"      // pwrite of one page to a view
	BenchSeal      = "seal"       // MM_VIEW_SEAL
	BenchEnter     = "enter"      // mm_view_enter: to the newest view and back
	BenchEnterLast = "enter-last" // mm_view_enter: to and fro between the two that take longest
	BenchClose     = "close"      // close of a view
	BenchFork      = "fork"       // fork, without the child's exit
	BenchPageFault = "page-fault" // first touch of an anonymous page
	BenchMapUnmap  = "map-unmap"  // mmap and munmap, untouched

	BenchMapTouchUnmap = "map-touch-unmap" // mmap, four touches, munmap
	BenchMprotect      = "mprotect"        // of four pages
	BenchForkExit      = "fork-exit"       // fork, exit of the child, wait
	BenchExecExit      = "exec-exit"       // vfork, exec, exit, wait
	BenchThread        = "thread"          // clone, exit of the thread, join
	BenchSwitchThread  = "switch-thread"   // to a thread and back, through pipes
	BenchSwitchProcess = "switch-process"  // to a process and back, through pipes
)

// Settings of E5.
const (
	SettingStock     = "stock"
	SettingBase      = "base"
	SettingBaseViews = "base-views"
	SettingView      = "view"
	SettingRebased   = "rebased"
)

// Sweeps of E4.
const (
	SweepResident = "resident"
	SweepMappings = "mappings"
	SweepViews    = "views"
	SweepThreads  = "threads"
)

// End closes a unit.
type End struct {
	// Lines of the unit before this one.
	Lines int `json:"lines"`
	// CRC-32 (IEEE) of their bytes, newlines included, as 8 hexadecimal digits.
	CRC32 string `json:"crc32"`
}

// Unit is all that one boot yielded.
type Unit struct {
	Key       string
	Boot      Boot
	Trials    []Trial
	Programs  []Program
	Latencies []Latency
	Overs     []Over
	Outcomes  []Outcome
	Memories  []Memory
	Micros    []Micro
}

// Key builds the key of a unit from its parts: Key("e1", record.TCG, "release", 3)
// is "e1/tcg/release/3", and so that keys sort as their numbers do, integers are
// written with at least four digits: "e1/tcg/release/0003".
func Key(parts ...any) string {
	s := make([]string, len(parts))
	for i, p := range parts {
		switch p := p.(type) {
		case int:
			s[i] = fmt.Sprintf("%04d", p)
		default:
			s[i] = strings.ReplaceAll(fmt.Sprint(p), "/", "_")
		}
	}
	return strings.Join(s, "/")
}
