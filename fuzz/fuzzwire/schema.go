// SPDX-License-Identifier: Apache-2.0

// Package fuzzwire is the binary form of a fuzzing scenario for wflp-fuzz, and
// of what that recorded. The structs of schema.go are the one schema: from them
// workloads/wire/gen makes the Go codec (codec.go) and the C header
// (fuzzwire.h), and a test makes both again and compares.
package fuzzwire

//go:generate go run ../../workloads/wire/gen

// Version of both files. Either side refuses another.
const Version = 1

// Magic numbers of the two files ("FUZZSCEN", "FUZZTRAC").
const (
	MagicScenario = 0x4e4543535a5a5546
	MagicTrace    = 0x434152545a5a5546
)

// Where things are. Code and the near area share 2 MiB, so views mirror the near
// area; mid shares the GiB, huge does too and has whole 2 MiB, far does not.
const (
	ArenaAddr = 0x1000000000
	CodeAddr  = 0x100c800000 // arena + 100 chunks
	NearAddr  = 0x100c840000
	MidAddr   = 0x100ca00000
	FarAddr   = 0x1040000000
	HugeAddr  = 0x100cc00000
	ArenaEnd  = 0x1080000000
	PageSize  = 4096
)

// Areas. Memory is dealt with in units: a page, or 64 of them in the huge area.
const (
	AreaNear  = 0
	AreaMid   = 1
	AreaFar   = 2
	AreaHuge  = 3
	AreaCode  = 4
	Areas     = 5
	DataAreas = 4
	Units     = 16 // of a data area
	CodeUnits = 8
	HugePages = 64 // in a unit of the huge area
	Cells     = 16 // patchable functions, two in each unit of code
	CellBytes = 2048
	FnBytes   = 6  // mov $value, %eax; ret
	WordOff   = 64 // where in the first page of a unit its word is, the same for all: content moves
)

// BaseValue + n is what function n returns before any patch.
const BaseValue = 0x1000

// What an area is mapped as at first, and by Mmap.
const (
	MapAnon    = 0
	MapShared  = 1
	MapPrivate = 2 // of a file
	MapKinds   = 3
)

// Protections.
const (
	ProtNone  = 0
	ProtR     = 1
	ProtRW    = 2
	ProtRX    = 3
	ProtRWX   = 4
	ProtKinds = 5
)

// Slots of descriptors, and what else a slot argument can be.
const (
	Slots    = 8
	SlotBase = 254 // -1
	SlotBad  = 255 // a descriptor that is no view
)

// FirstFD is the least number of a descriptor of a view; others are below.
const FirstFD = 100

// MaxLists bounds the lists of a scenario; one more is the final check's.
const (
	MaxLists = 24
	MaxOps   = 400
)

// Kinds of operation.
const (
	OpNone      = 0
	OpCreate    = 1  // a slot, b 0 or a bad flag, e by prctl
	OpWrite     = 2  // a slot, b function
	OpRead      = 3  // a slot, b function
	OpSeal      = 4  // a slot, e by prctl
	OpEnter     = 5  // a slot, b 0 or a bad flag, e by prctl
	OpRetire    = 6  // a slot
	OpRebase    = 7  // a slot
	OpStat      = 8  // a slot
	OpPoll      = 9  // a slot, b milliseconds
	OpPull      = 10 // a slot, b form (Pull…), c group
	OpRegister  = 11 // a 1 or 0
	OpClose     = 12 // a slot
	OpDup       = 13 // a slot from, b slot to
	OpWho       = 14
	OpMisuse    = 15 // a slot, b Misuse…
	OpLoad      = 20 // a area, b unit, c count
	OpStore     = 21 // a area, b unit, c count
	OpExec      = 22 // b function, c count
	OpMmap      = 23 // a area, b unit, c count, d kind, e protection
	OpMunmap    = 24 // a area, b unit, c count
	OpMprotect  = 25 // a area, b unit, c count, d protection
	OpMremap    = 26 // a area, b unit, c count, d area to, e unit to
	OpMadvise   = 27 // a area, b unit, c count, d advice
	OpMlock     = 28 // a area, b unit, c count, d 0 to unlock
	OpTruncate  = 29 // a area, b unit: cut the file there and make it long again
	OpFork      = 30 // a list that the child runs
	OpSpawn     = 31 // a list that the new thread runs
	OpVfork     = 32 // a 1: the child executes this program anew
	OpSleep     = 33 // a microseconds, b Sleep…, c 1: offline, d group
	OpSignal    = 34 // a list whose thread gets it
	OpMeet      = 35 // a point, b how many; waits a little for them
	OpYield     = 36
	OpTaskRead  = 37 // /proc/PID/task/TID/mem: a list, b function
	OpTaskWrite = 38 // the same
	OpVMRead    = 39 // process_vm_readv: b function
	OpHotplug   = 40 // processor a goes and comes
	OpSystem    = 41 // a System…
	OpFail      = 42 // the a-th allocation of the next operation fails
	OpTrace     = 43 // a child attaches to thread a, b function, c 1: pokes
	OpFileWrite = 44 // write(2) to the file of area a, b unit
	OpFileRead  = 45 // read(2)
	OpUserfault = 46 // a area, b unit, c count, d 50 microseconds, e Userfault…
	OpBrk       = 47 // a Brk…, b pages
	OpExit      = 48 // the list ends here
	OpKinds     = 49
)

// Forms of a pull.
const (
	PullAll   = 0
	PullShort = 1 // mask and value
	PullTids  = 2 // and who it was
	PullForms = 3
)

// Ways to sleep.
const (
	SleepNano  = 0
	SleepFutex = 1
	SleepPoll  = 2
	SleepSpin  = 3 // awake
	SleepWait  = 4 // for a signal
	SleepEpoll = 5
	SleepFault = 6 // in a page fault, where something is missing: it looks at the near area
	SleepKinds = 7
)

// Misuse of the interface.
const (
	MisuseWriteData    = 0 // pwrite to memory that is writable, or not code
	MisuseWriteKernel  = 1 // to an address of the kernel
	MisuseWriteNull    = 2 // to address 0
	MisuseWriteNothing = 3 // of length 0
	MisuseWriteBuffer  = 4 // from memory that is not there
	MisuseWriteCross   = 5 // from the last page of code into what is behind it
	MisuseStatSize     = 6 // size 0
	MisuseStatHuge     = 7 // size of more than a page
	MisuseStatBuffer   = 8
	MisuseOp           = 9 // that does not exist
	MisuseSealArg      = 10
	MisusePullMask     = 11 // without the bit
	MisusePullSize     = 12
	MisuseRegisterOdd  = 13 // an odd address
	MisuseRegisterSize = 14
	MisuseRegisterFD   = 15
	MisuseReadBuffer   = 16
	MisuseReadHole     = 17 // pread of what is not mapped
	MisuseMmap         = 18 // of the descriptor
	MisuseReadFile     = 19 // read(2), without an offset
	MisuseKinds        = 20
)

// What the system as a whole can be asked to do.
const (
	SystemCheck   = 0 // the checker of views, where there is one
	SystemViews   = 1 // read /proc/self/mm_views
	SystemSmaps   = 2
	SystemCompact = 3
	SystemDrop    = 4 // drop caches
	SystemClear   = 5 // clear_refs of this process
	SystemPagemap = 6
	SystemKsm     = 7 // one round
	SystemSwapper = 8 // memory.reclaim of the group
	SystemHigh    = 9 // memory.high of the subject's group, below what it has, and off again
	SystemKinds   = 10
)

// What a userfaultfd is for.
const (
	UserfaultMissing = 0 // fills what others miss there, slowly
	UserfaultProtect = 1 // holds up who writes there, and sees that nothing changes meanwhile
	UserfaultKinds   = 2
)

// What is done with the heap.
const (
	BrkGrow   = 0 // and look whether the new pages are empty
	BrkShrink = 1 // and look whether they are gone
	BrkLook   = 2
	BrkKinds  = 3
	BrkPages  = 32 // at most
)

// What was wrong with the heap: bits of Record.Val.
const (
	BrkOld     = 1 // a new page was not empty
	BrkLost    = 2 // a page had not what was written there
	BrkThere   = 4 // what had been given back could be read
	BrkMissing = 8 // what is there could not be read or written
)

// How a run ended; also the exit status of the driver.
const (
	EndComplete = 0
	EndUsage    = 2
	EndSetup    = 3
	EndStuck    = 4
	EndCrash    = 5
)

// Flags of a list.
const (
	ListStart = 1 // its thread is there from the start
)

// Flags of a record.
const (
	FlagFailed  = 1 // an allocation was made to fail
	FlagOffline = 2
	FlagBySlot  = 4 // the close of what was in the slot
)

// Table says where a table lies in the file: bytes from its start, and how many entries.
type Table struct {
	Off   uint64
	Count uint64
}

// ScenarioHeader starts the file that goes to the driver.
type ScenarioHeader struct {
	Magic      uint64
	Version    uint32
	WatchdogMS uint32
	Seed       uint64
	AreaKinds  [4]uint32
	Lists      Table
	Ops        Table
}

// List is what one thread does.
type List struct {
	First   uint32 // of its operations
	Count   uint32
	Flags   uint32
	Records uint32 // at most
}

// Op is one operation.
type Op struct {
	Kind uint16
	A    uint16
	B    uint16
	C    uint16
	D    uint16
	E    uint16
}

// TraceHeader starts the file that comes back.
type TraceHeader struct {
	Magic     uint64
	Version   uint32
	End       uint32
	Seed      uint64
	Signal    uint32 // of a crash
	CrashList int32
	CrashAddr uint64
	CrashIP   uint64
	Stamps    uint64 // how many there were
	Status    int32  // of the process, as wait(2) says
	HasViews  uint32
	Slow      uint32 // ended because it took long, not because it stood still
	Children  uint32 // that ended otherwise than they should
	Left      uint64 // views that were left at the end
	Counters  [16]uint64
	Streams   Table
	Records   Table
	Threads   Table
	Coverage  Table // u64: addresses in the kernel
}

// Counters, before and after: TraceHeader.Counters[2*i], [2*i+1].
const (
	CounterTables = 0 // pages of page tables
	CounterAnon   = 1 // anonymous pages
	CounterFiles  = 2
	CounterSetUp  = 4 // not counts but ns, two each: to set up, for the lists
	CounterFinal  = 5 // for the last look, in all
)

// Stream is what one list recorded.
type Stream struct {
	First   uint32
	Count   uint32 // written so far, the last one may have no end yet
	Cap     uint32
	State   uint32 // State…
	TID     uint32
	PID     uint32
	By      int32 // list that started it, -1: from the start
	ByOp    uint32
	Forked  uint32
	Dropped uint32
}

// States of a list.
const (
	StateNew     = 0
	StateRunning = 1
	StateDone    = 2
)

// Record is one operation, or one access of it.
type Record struct {
	Begin uint64 // stamps: atomically counted over all threads
	End   uint64 // 0: not over
	Val   uint64
	Ext   uint64
	Ret   int32
	FD    int32
	Kind  uint16
	Op    uint16
	Unit  uint16 // area<<8 | unit, or function
	Flags uint16
}

// Thread is what the watchdog saw of a thread.
type Thread struct {
	TID    uint32
	List   int32
	Letter uint32 // of /proc/PID/task/TID/stat
	Call   uint32 // system call
	Where  [64]uint8
}
