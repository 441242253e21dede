// SPDX-License-Identifier: Apache-2.0

package workloads

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Format is the version of the printed form of a Spec.
const Format = 1

// Limits of a Spec. MaxParts is what one evidence record holds; MaxVersions is
// what one evidence byte can tell apart, with 0 kept for "did not run".
const (
	MaxParts     = 8
	MaxVersions  = 255
	MaxFunctions = 1024
	MaxWorkers   = 1200
	MaxRegions   = 32
	MaxPages     = 1024
	MaxTree      = 64
)

// Shape is the kind of program that a Spec is.
type Shape string

// The shapes.
const (
	// Correctness is short and wild: everything at once, a patch every
	// millisecond or less.
	Correctness Shape = "correctness"
	// Latency is an open-loop server with patches in its middle.
	Latency Shape = "latency"
	// Over has few patches, and threads that are slow to reach a quiescence
	// point or blocked.
	Over Shape = "over"
	// Many has many threads, most of them asleep.
	Many Shape = "many"
	// Hostiles has threads that keep others from being patched, or would.
	Hostiles Shape = "hostile"
)

// Spec is one program, its load and its patches.
type Spec struct {
	Format    int        `json:"format"`
	Seed      uint64     `json:"seed"`
	Shape     Shape      `json:"shape"`
	Text      Text       `json:"text"`
	Functions []Function `json:"functions"`
	Workers   []Worker   `json:"workers"`
	Regions   []Region   `json:"regions,omitempty"`
	Patches   []Patch    `json:"patches,omitempty"`
	// Depth is the number of patches that may be under way or in line at once.
	Depth int `json:"depth"`
	// Drain waits, before the next patch is handed over at a full queue, until
	// the oldest one's generation has been released rather than only reached by
	// all threads.
	Drain bool `json:"drain,omitempty"`
	// WatchdogMS is the time after which a run that has not ended is given up.
	WatchdogMS int `json:"watchdog_ms"`
}

// Backing says what the text area is a mapping of.
type Backing string

// Backings.
const (
	Memfd     Backing = "memfd"     // private mapping of a memfd
	File      Backing = "file"      // private mapping of a file
	Anonymous Backing = "anonymous" // anonymous memory, made read-only and executable
)

// Text is where the patchable code lies.
type Text struct {
	// Offset of the first slot within its 2 MiB chunk.
	Offset  int     `json:"offset"`
	Backing Backing `json:"backing"`
}

// Function is one patchable function. Its evidence and its calls are the same
// in every version; everything else differs.
type Function struct {
	// Align (a power of two) and Skew place the entry: at Skew past a multiple
	// of Align.
	Align int `json:"align"`
	Skew  int `json:"skew,omitempty"`
	// Straddle, if not 0, is a power of two: the entry is placed so that a
	// border of that size lies Into bytes after it, inside the code.
	Straddle int `json:"straddle,omitempty"`
	Into     int `json:"into,omitempty"`
	// Parts is the number of stretches that leave evidence, 2 to MaxParts.
	Parts    int       `json:"parts"`
	Calls    []Call    `json:"calls,omitempty"`
	Versions []Version `json:"versions"`
}

// Call is made after part After, always to a function of a higher index, so
// the call graph has no cycle.
type Call struct {
	After  int `json:"after"`
	Callee int `json:"callee"`
}

// Version is the content of one version of a function: one Part each.
// Version i leaves i+1 as evidence.
type Version struct {
	Parts []Part `json:"parts"`
}

// Part is a stretch of code.
type Part struct {
	// Form chooses among encodings of the store that leaves the evidence.
	Form int `json:"form"`
	// Pad is bytes of no-ops before it, in instructions of up to Step bytes.
	Pad  int `json:"pad,omitempty"`
	Step int `json:"step,omitempty"`
	// Skip is bytes jumped over: 0, or up to a few thousand, which makes the
	// function cross pages.
	Skip int `json:"skip,omitempty"`
	// Loop is how often the version is added to the sum, 0 for no loop.
	Loop int `json:"loop,omitempty"`
}

// Worker is one thread.
type Worker struct {
	// Parent is the worker that starts it, after its own transaction BornAt;
	// -1: started at the beginning.
	Parent int `json:"parent"`
	BornAt int `json:"born_at,omitempty"`
	// Roots are the functions called in turn; Interval of them make one
	// transaction, the stretch between two quiescence points.
	Roots    []int `json:"roots"`
	Interval int   `json:"interval"`
	// SpinUS is time burnt within each transaction, by code that is not
	// patchable; LongEvery makes every such transaction burn LongUS.
	SpinUS    int `json:"spin_us,omitempty"`
	LongEvery int `json:"long_every,omitempty"`
	LongUS    int `json:"long_us,omitempty"`
	// Txns is the number of transactions after which the thread ends;
	// 0: when all patches are done. Ignored with Arrivals.
	Txns int `json:"txns,omitempty"`
	// Cap bounds the transactions recorded; a thread that comes near it slows
	// down, and at it ends.
	Cap int `json:"cap"`
	// Arrivals are the times of requests, microseconds from the start, scheduled
	// ahead. Each takes PerRequest transactions. Without arrivals the thread
	// runs transactions back to back.
	Arrivals   []float64 `json:"arrivals,omitempty"`
	PerRequest int       `json:"per_request,omitempty"`
	// Yield gives the CPU up after each transaction. With more threads than CPUs
	// all get their turn within microseconds then rather than within time slices,
	// so many more patches fit into a run.
	Yield bool `json:"yield,omitempty"`
	// WaitOnline keeps the thread online while it waits for work, polling its
	// quiescence point, rather than asleep and offline.
	WaitOnline bool     `json:"wait_online,omitempty"`
	Actions    []Action `json:"actions,omitempty"`
	// BlockedUS, if not 0, makes the thread spend its life asleep: it sleeps in
	// stretches of this length, one transaction after each; offline, unless
	// WaitOnline.
	BlockedUS int `json:"blocked_us,omitempty"`
}

// ActionKind is what a thread does between two transactions.
type ActionKind string

// The kinds of action.
const (
	Store      ActionKind = "store"        // write pages, or see the write refused
	Load       ActionKind = "load"         // check pages against the model
	Map        ActionKind = "map"          // map afresh
	Unmap      ActionKind = "unmap"        //
	ProtNone   ActionKind = "prot-none"    //
	ProtRead   ActionKind = "prot-read"    //
	ProtWrite  ActionKind = "prot-write"   //
	Remap      ActionKind = "mremap"       // move to the other window
	DontNeed   ActionKind = "dontneed"     // back to zero or to the file's content
	HugePage   ActionKind = "hugepage"     // ask for huge pages here
	Collapse   ActionKind = "collapse"     // make one now
	Fork       ActionKind = "fork"         // child checks, writes, runs patchable code
	BreakGrow  ActionKind = "brk-grow"     //
	BreakDrop  ActionKind = "brk-drop"     //
	ShareAdd   ActionKind = "share-add"    // add to a word that all threads share
	Nanosleep  ActionKind = "nanosleep"    // offline around each of the next three
	Futex      ActionKind = "futex"        //
	Epoll      ActionKind = "epoll"        //
	SleepInTxn ActionKind = "sleep-inside" // asleep while online, in a transaction
	Lock       ActionKind = "lock"         // take the program's lock, online
	Unlock     ActionKind = "unlock"       //
)

// ActionKinds lists all kinds; the index is the number on the wire.
var ActionKinds = []ActionKind{
	Store, Load, Map, Unmap, ProtNone, ProtRead, ProtWrite, Remap, DontNeed, HugePage, Collapse,
	Fork, BreakGrow, BreakDrop, ShareAdd, Nanosleep, Futex, Epoll, SleepInTxn, Lock, Unlock,
}

// Blocking tells whether the action sleeps.
func (k ActionKind) Blocking() bool {
	return k == Nanosleep || k == Futex || k == Epoll || k == SleepInTxn
}

// Memory tells whether the action works on a region.
func (k ActionKind) Memory() bool {
	return !k.Blocking() && k != ShareAdd && k != Lock && k != Unlock
}

// Action is done before the worker's transaction At.
type Action struct {
	At     int        `json:"at"`
	Kind   ActionKind `json:"kind"`
	Region int        `json:"region,omitempty"`
	Page   int        `json:"page,omitempty"`
	Count  int        `json:"count,omitempty"`
	US     int        `json:"us,omitempty"`
}

// RegionKind is what a region is a mapping of.
type RegionKind string

// The kinds of region.
const (
	Anon        RegionKind = "anon"
	Huge        RegionKind = "huge"         // anonymous, aligned and advised for huge pages
	SharedFile  RegionKind = "shared-file"  //
	PrivateFile RegionKind = "private-file" // copied on write
	Heap        RegionKind = "heap"         // the area that brk moves
)

// RegionKinds lists all kinds; the index is the number on the wire.
var RegionKinds = []RegionKind{Anon, Huge, SharedFile, PrivateFile, Heap}

// Region is memory that all threads work on, one at a time.
type Region struct {
	Kind  RegionKind `json:"kind"`
	Pages int        `json:"pages"`
	// Near puts it into the same 2 MiB chunk as the code.
	Near bool `json:"near,omitempty"`
}

// Patch changes functions, as one unit.
type Patch struct {
	// AtUS is when it is handed over, microseconds from the start; later if the
	// queue is full then.
	AtUS    int      `json:"at_us"`
	Changes []Change `json:"changes"`
	// Runs hands over only the bytes that differ, as many edits, instead of one
	// edit a function.
	Runs bool `json:"runs,omitempty"`
	// Wrong has a wrong old byte, so it must be refused whole.
	Wrong bool `json:"wrong,omitempty"`
	// Try asks to fail rather than to wait in line.
	Try bool `json:"try,omitempty"`
	// StallUS is how long no thread begins a transaction, from when the patch would
	// be handed over, under the strategy that patches nothing: to calibrate what
	// measures stalls.
	StallUS int `json:"stall_us,omitempty"`
}

// Change puts a version of a function in place.
type Change struct {
	Function int `json:"function"`
	Version  int `json:"version"`
}

// LoopSum is the sum that one execution of version v of the function leaves:
// each round of each loop adds the evidence of its version.
func (f Function) LoopSum(v int) uint32 {
	n := 0
	for _, p := range f.Versions[v].Parts {
		n += p.Loop
	}
	return uint32(n) * uint32(v+1)
}

// Tree lists the functions that one call of root executes, in the order in
// which they are entered.
func (s *Spec) Tree(root int) []int {
	out := []int{root}
	for part := range s.Functions[root].Parts {
		for _, c := range s.Functions[root].Calls {
			if c.After == part {
				out = append(out, s.Tree(c.Callee)...)
			}
		}
	}
	return out
}

// Transaction lists the functions that transaction n of the worker executes.
// The roots are taken in turn, on and on over the transactions.
func (s *Spec) Transaction(worker, n int) []int {
	w := s.Workers[worker]
	var out []int
	for i := range w.Interval {
		out = append(out, s.Tree(w.Roots[(n*w.Interval+i)%len(w.Roots)])...)
	}
	return out
}

// MaxTransaction is the greatest number of executions that one transaction of
// the worker has.
func (s *Spec) MaxTransaction(worker int) int {
	w := s.Workers[worker]
	m := 0
	for n := range len(w.Roots) {
		m = max(m, len(s.Transaction(worker, n)))
	}
	return m
}

// Marshal prints a Spec; Parse reads it back.
func (s *Spec) Marshal() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("print spec: %w", err)
	}
	return append(b, '\n'), nil
}

// Parse reads what Marshal wrote, and validates it.
func Parse(b []byte) (*Spec, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	s := new(Spec)
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("parse spec: %w", err)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return s, nil
}

// ID is a digest of the whole Spec.
func (s *Spec) ID() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a Spec has nothing that JSON cannot hold
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// Clone returns a deep copy.
func (s *Spec) Clone() *Spec {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	c := new(Spec)
	if err := json.Unmarshal(b, c); err != nil {
		panic(err)
	}
	return c
}

// Patched tells whether at least one patch can take effect.
func (s *Spec) Patched() bool {
	for _, p := range s.Patches {
		if !p.Wrong {
			return true
		}
	}
	return false
}

// Has tells whether a worker has an action for which f holds.
func (s *Spec) Has(f func(Action) bool) bool {
	for _, w := range s.Workers {
		for _, a := range w.Actions {
			if f(a) {
				return true
			}
		}
	}
	return false
}

// Births is the number of workers that another worker starts.
func (s *Spec) Births() int {
	n := 0
	for _, w := range s.Workers {
		if w.Parent >= 0 {
			n++
		}
	}
	return n
}
