// SPDX-License-Identifier: Apache-2.0

// Package wire is the binary form of a program for the executor, and of what
// the executor recorded. The structs of schema.go are the one schema: from
// them gen makes the Go codec (codec.go) and the C header (wire.h), and a test
// makes both again and compares.
//
// Everything is little endian and naturally aligned, so a C struct is the same
// bytes; static assertions in the header hold the compiler to it. A file is a
// header, which names where each table starts, and tables of structs of one
// kind; the executor maps it and uses the tables as they are.
package wire

//go:generate go run ./gen

// Version of both files. Either side refuses another.
const Version = 2

// Magic numbers of the two files ("WFLPSPEC", "WFLPTRAC").
const (
	MagicSpec  = 0x434550534c504657
	MagicTrace = 0x434152544c504657
)

// Strategies.
const (
	StrategyNone      = 0
	StrategyWaitfree  = 1
	StrategyBarrier   = 2
	StrategyNaive     = 3
	StrategyStopworld = 4
	StrategyRestart   = 5
)

// Backings of the text area.
const (
	BackingMemfd     = 0
	BackingFile      = 1
	BackingAnonymous = 2
)

// How a run ended; also the exit status of the executor.
const (
	EndComplete    = 0
	EndUsage       = 64 // bad arguments or spec file
	EndUnsupported = 65 // this kernel or library has no such strategy
	EndSetup       = 66 // could not be set up as the spec asks
	EndCrash       = 70 // a thread took a fatal signal outside of a probe
	EndHang        = 71 // the watchdog gave up
)

// Flags of a worker.
const (
	WorkerWaitOnline = 1
	WorkerYield      = 2
)

// Flags of a patch.
const (
	PatchRuns  = 1
	PatchWrong = 2
	PatchTry   = 4
)

// Kinds of record. A kind with RecordExec set is the execution of the function
// in its other bits; the machine code itself writes such a record.
const (
	RecordTxn      = 1  // a = Txn bits; b = generation; c = ns before the quiescence point
	RecordMoved    = 2  // a = 1 moved, 0 only held up; b = generation; c = ns after the quiescence point
	RecordReqStart = 3  // b = request; c = ns
	RecordReqEnd   = 4  // b = request; c = ns
	RecordOffline  = 5  // c = ns before
	RecordOnline   = 6  // a = Online bits; b = generation; c = ns after waking, before going online
	RecordBirth    = 7  // b = generation; c = ns before registration
	RecordDeath    = 8  // a = why (Death…); b = generation; c = ns before leaving
	RecordOp       = 9  // a = action kind; b = region; c = ns
	RecordMemFail  = 10 // a = action kind | what<<8; b = region<<16 | page; c = value seen
	RecordMemWant  = 11 // follows a MemFail: c = value expected
	RecordError    = 12 // a = what (Error…); b = -errno as u32; c = ns
	RecordExec     = 0x8000
)

// Bits in a of RecordTxn.
const (
	TxnMoved = 1 // the quiescence point before it moved the thread
	TxnChild = 2 // run by a forked child, reported by its parent
	TxnEmpty = 4 // a quiescence point passed while waiting for work
)

// Bits in a of RecordOnline.
const (
	OnlineMoved  = 1 // the thread is in another generation than before its sleep
	OnlinePulled = 2 // it was so already when it woke
)

// Why a thread ended.
const (
	DeathDone = 0 // it did what its spec asks
	DeathCap  = 1 // its records were full
)

// What a memory check found.
const (
	MemValue    = 1 // another value than stored
	MemNoFault  = 2 // an access that must fault did not
	MemFault    = 3 // an access that must not fault did
	MemBackward = 4 // a shared word went back
	MemChild    = 5 // a forked child saw something else than its parent
	MemCall     = 6 // a system call failed that must not; value = errno
)

// What a RecordError is about.
const (
	ErrorRegister   = 1
	ErrorUnregister = 2
	ErrorQuiescent  = 3
	ErrorOffline    = 4
	ErrorOnline     = 5
	ErrorSpawn      = 6
)

// What came of one stop of all threads.
const (
	StopApplied = 1 // no function of the patch was on a stack: changed
	StopActive  = 2 // one was
	StopUnknown = 3 // a stack could not be walked to its end, or the threads not be stopped
)

// Counters, read before the first thread starts and after all is over.
const (
	CounterVmRSS    = 1 // KiB
	CounterVmPTE    = 2 // KiB
	CounterFiles    = 3 // open file descriptors
	CounterViews    = 4
	CounterThreads  = 5
	CounterMappings = 6
)

// Table says where a table lies in the file: bytes from its start, and how many entries.
type Table struct {
	Off   uint64
	Count uint64
}

// SpecHeader starts the file that goes to the executor.
type SpecHeader struct {
	Magic      uint64
	Version    uint32
	Backing    uint32
	Seed       uint64
	TextAddr   uint64 // where the text is mapped: page aligned
	TextLen    uint64 // whole pages
	Depth      uint32
	Drain      uint32
	WatchdogMS uint32
	Reserved   uint32
	Image      Table // bytes: initial content of the text area
	Blob       Table // bytes: content of versions, each as long as its slot
	Functions  Table
	Versions   Table
	Workers    Table
	Roots      Table // u32: function
	Arrivals   Table // u64: ns from the start
	Actions    Table
	Regions    Table
	Patches    Table
	Changes    Table
}

// Function is a slot of the text area.
type Function struct {
	Entry   uint64 // address
	Len     uint32 // of the slot; every version is padded to it
	Version uint32 // index of the first of its versions
}

// CodeVersion is the content of one version of a function.
type CodeVersion struct {
	Blob     uint64 // offset into Blob
	Function uint32
	// Bytes from its entry: from Saved on rbx lies on the stack, from Restored on
	// it does not any more. All that unwinding it takes.
	Saved    uint32
	Restored uint32
	Reserved uint32
}

// Worker is a thread.
type Worker struct {
	Parent     int32
	BornAt     uint32
	Root       uint32 // first of its roots
	Roots      uint32
	Interval   uint32
	Txns       uint32
	Cap        uint32 // transactions
	MaxRecords uint32 // of one transaction, at most
	SpinNS     uint32
	LongEvery  uint32
	LongNS     uint32
	BlockedNS  uint32
	Arrival    uint32 // first of its arrivals
	Arrivals   uint32
	PerRequest uint32
	Action     uint32 // first of its actions
	Actions    uint32
	Flags      uint32
}

// Action is done before transaction At.
type Action struct {
	At     uint32
	Kind   uint32
	Region uint32
	Page   uint32
	Count  uint32
	US     uint32
}

// Region is memory that threads work on in turn.
type Region struct {
	Addr  uint64 // of its first window
	Other uint64 // of its second window, for mremap
	Kind  uint32
	Pages uint32
}

// Patch is a unit of changes.
type Patch struct {
	AtNS    uint64
	Change  uint32 // first of its changes
	Changes uint32
	Flags   uint32
	Number  uint32
	StallNS uint64 // under none: no thread begins a transaction for this long
}

// Change puts a version in place.
type Change struct {
	Function uint32
	Version  uint32 // index into Versions
}

// TraceHeader starts the file that comes back.
type TraceHeader struct {
	Magic          uint64
	Version        uint32
	Strategy       uint32
	Seed           uint64
	End            uint32
	CPUCount       uint32
	BaseGeneration uint64 // before the first patch
	LastGeneration uint64 // after the last
	StartNS        uint64 // time 0 of the spec
	FinishNS       uint64 // all threads have ended
	SpinPerMS      uint64 // calibrated rounds of the loop that burns time
	Signal         uint32 // of a crash
	CrashWorker    int32
	CrashAddr      uint64
	CrashIP        uint64
	FiniError      int32
	Reserved       uint32
	ShareWant      uint64 // what the threads added to the shared word
	ShareGot       uint64 // what it holds
	Streams        Table
	Records        Table // all records; a stream is a range of them
	Reports        Table
	Counters       Table
	States         Table
	Stops          Table
	Frames         Table
	StopsLost      uint64 // stops and frames for which there was no room
}

// Stream is what one worker recorded.
type Stream struct {
	Worker     uint32
	TID        uint32
	First      uint64
	Count      uint64
	Dropped    uint64 // records for which there was no room
	Txns       uint64
	Requests   uint64
	MemOps     uint64
	MemSkipped uint64 // region in use by another thread
	Started    uint32 // its thread was created
	Ended      uint32
}

// Record is one event, or one execution of a function.
type Record struct {
	Kind uint16
	A    uint16
	B    uint32
	C    uint64
}

// Exec is a Record of kind RecordExec as the machine code writes it.
type Exec struct {
	Kind  uint16 // RecordExec | function
	First uint8  // version that entered
	Last  uint8  // version that left
	Loop  uint32 // sum over all rounds of all loops
	Parts [8]uint8
}

// Report is how one patch went.
type Report struct {
	Patch       uint32 // index in the spec
	Result      int32  // of wflp_apply(): 0 or -errno
	AppliedNS   uint64 // before wflp_apply()
	SeenNS      uint64 // after a wait for publication returned
	Generation  uint64
	Stage       int32
	Error       int32
	QueuedNS    uint64
	PreparingNS uint64
	CreateNS    uint64
	WrittenNS   uint64
	SealedNS    uint64
	PublishedNS uint64
	FirstOverNS uint64
	LastOverNS  uint64
	ReleasedNS  uint64
	Threads     uint32
	Migrated    uint32
	Pulled      uint32
	BadEdit     int32
	HeldGen     uint64
	HeldTID     int32
	Edits       uint32
	HandedOver  uint32 // restart: requests that waited for the new process
	Lost        uint32 // restart: KiB of private memory that the old one had
}

// Counter is a reading.
type Counter struct {
	ID    uint32
	End   uint32 // 0 at the start, 1 at the end
	Value uint64
}

// State is what the watchdog saw of a thread that had not ended, at two
// moments StateGapMS apart.
type State struct {
	Worker  uint32
	TID     uint32
	Exists  uint32 // at the second moment
	Letter  uint32 // of /proc/PID/task/TID/stat, at the second moment
	Txns    [2]uint64
	CPUTick [2]uint64 // hundredths of a second
}

// Stop is one stop of all threads to change code, under StrategyStopworld.
type Stop struct {
	Patch   uint32
	Result  uint32 // Stop…
	BeginNS uint64 // before the first thread was stopped
	AllNS   uint64 // all were
	EndNS   uint64 // the last was let go
	Threads uint32 // stopped
	Walked  uint32 // frames walked, of all stacks
	Frame   uint32 // first of its frames
	Frames  uint32
}

// Frame is a patchable function that was on a stack at a stop.
type Frame struct {
	TID      uint32
	Function uint32
	IP       uint64
}

// StateGapMS is the time between the two looks of the watchdog.
const StateGapMS = 1500
