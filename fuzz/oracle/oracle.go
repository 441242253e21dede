// SPDX-License-Identifier: Apache-2.0

// Package oracle judges a run: from the spec, what the executor recorded and
// what the kernel said, to a verdict. Everything here is a pure function; each
// oracle has hand-made runs that it must catch and clean ones that it must not,
// and a slow and obvious second implementation in the tests.
package oracle

import (
	"fmt"

	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/wire"
)

// Kind is a kind of violation.
type Kind string

// The kinds.
const (
	// Torn: one execution of a function mixed two versions, or went astray.
	Torn Kind = "torn"
	// Mixed: the functions run between two quiescence points are of no one
	// generation.
	Mixed Kind = "mixed"
	// Regression: a thread went back to an older generation.
	Regression Kind = "regression"
	// Stale: a thread passed a quiescence point after publication, or went on
	// after the last thread was said to be over, and still ran old code.
	Stale Kind = "stale"
	// Early: a thread ran newer code than the generation that it is in.
	Early Kind = "early"
	// LostThread: started, and neither ended nor alive and making progress.
	LostThread Kind = "lost-thread"
	// LostRequest: arrived and not served, or served before it arrived.
	LostRequest Kind = "lost-request"
	// DuplicateRequest: served more than once.
	DuplicateRequest Kind = "duplicate-request"
	// Memory: a write, map, unmap or protection change of one thread is not
	// what another sees.
	Memory Kind = "memory"
	// Crash: a fatal signal.
	Crash Kind = "crash"
	// Kernel: the kernel complained.
	Kernel Kind = "kernel"
	// Leak: a counter did not return to where it was.
	Leak Kind = "leak"
	// Outcome: a patch was accepted that must be refused, or the reverse, or a
	// refused one left something behind.
	Outcome Kind = "outcome"
	// Failure: a call of the library failed that must not.
	Failure Kind = "failure"
	// Active: code was changed that was on a stack.
	Active Kind = "active"
	// Access: memory could be accessed that must not, or could not that must.
	Access Kind = "access"
	// Code: a function was not that of the view that its thread was in.
	Code Kind = "code"
	// Errno: a system call had a result that the state does not allow.
	Errno Kind = "errno"
	// Hang: an operation does not end while nothing else moves.
	Hang Kind = "hang"
)

// Violation is one thing that must not be.
type Violation struct {
	Kind   Kind
	Worker int // -1: of no one worker
	Record int // index into the worker's stream, -1: of no one record
	Detail string
}

func (v Violation) String() string {
	if v.Worker < 0 {
		return fmt.Sprintf("%s: %s", v.Kind, v.Detail)
	}
	return fmt.Sprintf("%s: worker %d record %d: %s", v.Kind, v.Worker, v.Record, v.Detail)
}

// Status is the outcome of a run as a whole.
type Status string

// The statuses. How they combine is in Combine.
const (
	Pass        Status = "pass"
	Violated    Status = "violation"
	Unsupported Status = "unsupported"
	Broken      Status = "broken"
	Unknown     Status = "unknown"
)

// rank orders statuses by what they say of the subject: a violation is a fact
// whatever else happened; a broken run proves nothing, so it hides a pass and an
// unknown; a pass is only what is left when nothing else was found.
var rank = map[Status]int{Violated: 4, Broken: 3, Unknown: 2, Unsupported: 1, Pass: 0}

// Combine returns the status of a whole from those of its parts. A violation
// always wins. Of nothing at all it is broken: no run is no pass.
func Combine(parts ...Status) Status {
	if len(parts) == 0 {
		return Broken
	}
	all := Pass
	for _, s := range parts {
		if r, ok := rank[s]; !ok {
			s = Broken
		} else if r <= rank[all] {
			continue
		}
		if rank[s] > rank[all] {
			all = s
		}
	}
	return all
}

// End says how the executor ended.
type End struct {
	Code     int    // exit status
	Signal   string // that killed it, e.g. SIGSEGV; empty if it exited
	TimedOut bool   // it was killed because its time was over
	NotRun   bool   // the machine was gone before its turn
}

// Run is all that a verdict is made from.
type Run struct {
	Spec     *workloads.Spec
	Strategy uint32 // wire.Strategy…
	// Trace is nil if there was none; TraceErr says why.
	Trace    *wire.Trace
	TraceErr error
	End      End
	// Complaints are what the kernel found wrong during the run.
	Complaints []string
	// HasViews: the kernel has the mechanism, so "unsupported" is no excuse.
	HasViews bool
}

// Verdict is what the oracles say of a run.
type Verdict struct {
	Status Status
	// Violations, at most a hundred of each kind, in the order of the trace;
	// ByKind counts them all.
	Violations []Violation
	ByKind     map[Kind]int
	// Note says why it is not a pass, in a sentence.
	Note   string
	Counts Counts
}

// Counts is what a run did.
type Counts struct {
	Executions, Transactions, Requests int
	Published, Refused                 int // patches
	Migrated, Pulled                   int // moves of threads
	Births, Deaths                     int // by and of threads during the run
	MemoryOps, Forks                   int
	// Of a strategy that stops all threads: how often it did; in vain, as a function
	// to be changed was on a stack; in vain, as a stack could not be walked; and
	// transactions whose functions ran in different generations, which it does not
	// promise to avoid.
	Stops, StopsActive, StopsUnknown, MixedAllowed int
}

const listed = 100

// verdict collects what is found.
type verdict struct {
	Verdict
	parts []Status
}

func (v *verdict) violate(k Kind, worker, record int, format string, args ...any) {
	v.ByKind[k]++
	if v.ByKind[k] <= listed {
		v.Violations = append(v.Violations, Violation{k, worker, record, fmt.Sprintf(format, args...)})
	}
}

func (v *verdict) note(s Status, format string, args ...any) {
	v.parts = append(v.parts, s)
	if v.Note == "" {
		v.Note = fmt.Sprintf(format, args...)
	}
}

// Check judges a run.
func Check(run Run) Verdict {
	v := &verdict{}
	v.ByKind = map[Kind]int{}
	v.parts = []Status{Pass}
	for _, c := range run.Complaints {
		v.violate(Kernel, -1, -1, "%s", c)
	}
	checkEnd(v, run)
	if run.Trace != nil {
		checkTrace(v, run)
	}
	if len(v.Violations) > 0 {
		v.parts = append(v.parts, Violated)
		v.Note = v.Violations[0].String()
	}
	v.Status = Combine(v.parts...)
	return v.Verdict
}

func checkEnd(v *verdict, run Run) {
	switch e := run.End; {
	case e.NotRun:
		v.note(Unknown, "not run: the machine was gone")
	case e.TimedOut:
		v.note(Unknown, "timed out")
	case e.Signal == "SIGKILL" || e.Signal == "SIGTERM":
		v.note(Unknown, "killed from outside: %s", e.Signal)
	case e.Signal != "":
		v.violate(Crash, -1, -1, "the program died of %s", e.Signal)
	case e.Code == wire.EndCrash && run.Trace != nil: // told from the trace
	case e.Code == wire.EndCrash:
		v.violate(Crash, -1, -1, "the program took a fatal signal")
	case e.Code == wire.EndHang:
		v.note(Unknown, "the watchdog gave up")
	case e.Code == wire.EndUnsupported && run.Strategy == wire.StrategyWaitfree && !run.HasViews:
		v.note(Unsupported, "this kernel has no views")
	case e.Code != wire.EndComplete:
		v.note(Broken, "the executor exited with status %d", e.Code)
	}
	// Whoever exits with one of these has written a trace; from others none is
	// expected, and how they ended says enough.
	owed := run.End == End{} || run.End == End{Code: wire.EndHang} || run.End == End{Code: wire.EndCrash}
	switch {
	case run.Trace == nil && owed && run.TraceErr != nil:
		v.note(Broken, "no trace: %v", run.TraceErr)
	case run.Trace == nil && owed:
		v.note(Broken, "no trace")
	case run.Trace != nil && run.Trace.Seed != run.Spec.Seed || run.Trace != nil && run.Trace.Strategy != run.Strategy:
		v.note(Broken, "the trace is of another run")
	case run.Trace != nil && run.End == End{} && run.Trace.End != wire.EndComplete:
		v.note(Broken, "the executor exited with status 0, the trace says %d", run.Trace.End)
	}
}

func checkTrace(v *verdict, run Run) {
	s, t := run.Spec, run.Trace
	if len(t.StreamList) != len(s.Workers) {
		v.note(Broken, "%d streams of %d workers", len(t.StreamList), len(s.Workers))
		return
	}
	if t.End == wire.EndCrash {
		v.violate(Crash, int(t.CrashWorker), -1, "signal %d at %#x, address %#x", t.Signal, t.CrashIP, t.CrashAddr)
	}
	for i, st := range t.StreamList {
		if int(st.Worker) != i {
			v.note(Broken, "stream %d is of worker %d", i, st.Worker)
			return
		}
		if st.Dropped > 0 {
			v.note(Broken, "worker %d dropped %d records", i, st.Dropped)
		}
	}
	h := checkPatches(v, run)
	checkStops(v, run)
	for i := range t.StreamList {
		txns := transactions(s, t, i)
		checkExecutions(v, s, txns)
		if run.Strategy == wire.StrategyStopworld {
			checkOrder(v, h, txns)
		} else {
			checkGenerations(v, h, txns)
		}
		checkThread(v, run, i)
		checkRequests(v, run, i)
		checkMemory(v, t, i)
	}
	checkRest(v, run)
	if t.End == wire.EndComplete && v.Counts.Executions == 0 {
		v.note(Broken, "nothing was recorded")
	}
}
