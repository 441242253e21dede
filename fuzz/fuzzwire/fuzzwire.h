/* SPDX-License-Identifier: Apache-2.0 */
/* Made by gen from schema.go. Do not edit: change the schema, then go generate. */
#ifndef WFLP_FUZZWIRE_H
#define WFLP_FUZZWIRE_H

#include <stddef.h>
#include <stdint.h>

/* Version of both files. Either side refuses another. */
#define FUZZWIRE_VERSION 1

/* Magic numbers of the two files ("FUZZSCEN", "FUZZTRAC"). */
#define FUZZWIRE_MAGIC_SCENARIO 5639988133628630342ull
#define FUZZWIRE_MAGIC_TRACE 4846245196273964358ull

/*
 * Where things are. Code and the near area share 2 MiB, so views mirror the near
 * area; mid shares the GiB, huge does too and has whole 2 MiB, far does not.
 */
#define FUZZWIRE_ARENA_ADDR 68719476736ull
#define FUZZWIRE_CODE_ADDR 68929191936ull /* arena + 100 chunks */
#define FUZZWIRE_NEAR_ADDR 68929454080ull
#define FUZZWIRE_MID_ADDR 68931289088ull
#define FUZZWIRE_FAR_ADDR 69793218560ull
#define FUZZWIRE_HUGE_ADDR 68933386240ull
#define FUZZWIRE_ARENA_END 70866960384ull
#define FUZZWIRE_PAGE_SIZE 4096

/* Areas. Memory is dealt with in units: a page, or 64 of them in the huge area. */
#define FUZZWIRE_AREA_NEAR 0
#define FUZZWIRE_AREA_MID 1
#define FUZZWIRE_AREA_FAR 2
#define FUZZWIRE_AREA_HUGE 3
#define FUZZWIRE_AREA_CODE 4
#define FUZZWIRE_AREAS 5
#define FUZZWIRE_DATA_AREAS 4
#define FUZZWIRE_UNITS 16 /* of a data area */
#define FUZZWIRE_CODE_UNITS 8
#define FUZZWIRE_HUGE_PAGES 64 /* in a unit of the huge area */
#define FUZZWIRE_CELLS 16 /* patchable functions, two in each unit of code */
#define FUZZWIRE_CELL_BYTES 2048
#define FUZZWIRE_FN_BYTES 6 /* mov $value, %eax; ret */
#define FUZZWIRE_WORD_OFF 64 /* where in the first page of a unit its word is, the same for all: content moves */

/* BaseValue + n is what function n returns before any patch. */
#define FUZZWIRE_BASE_VALUE 4096

/* What an area is mapped as at first, and by Mmap. */
#define FUZZWIRE_MAP_ANON 0
#define FUZZWIRE_MAP_SHARED 1
#define FUZZWIRE_MAP_PRIVATE 2 /* of a file */
#define FUZZWIRE_MAP_KINDS 3

/* Protections. */
#define FUZZWIRE_PROT_NONE 0
#define FUZZWIRE_PROT_R 1
#define FUZZWIRE_PROT_RW 2
#define FUZZWIRE_PROT_RX 3
#define FUZZWIRE_PROT_RWX 4
#define FUZZWIRE_PROT_KINDS 5

/* Slots of descriptors, and what else a slot argument can be. */
#define FUZZWIRE_SLOTS 8
#define FUZZWIRE_SLOT_BASE 254 /* -1 */
#define FUZZWIRE_SLOT_BAD 255 /* a descriptor that is no view */

/* FirstFD is the least number of a descriptor of a view; others are below. */
#define FUZZWIRE_FIRST_FD 100

/* MaxLists bounds the lists of a scenario; one more is the final check's. */
#define FUZZWIRE_MAX_LISTS 24
#define FUZZWIRE_MAX_OPS 400

/* Kinds of operation. */
#define FUZZWIRE_OP_NONE 0
#define FUZZWIRE_OP_CREATE 1 /* a slot, b 0 or a bad flag, e by prctl */
#define FUZZWIRE_OP_WRITE 2 /* a slot, b function */
#define FUZZWIRE_OP_READ 3 /* a slot, b function */
#define FUZZWIRE_OP_SEAL 4 /* a slot, e by prctl */
#define FUZZWIRE_OP_ENTER 5 /* a slot, b 0 or a bad flag, e by prctl */
#define FUZZWIRE_OP_RETIRE 6 /* a slot */
#define FUZZWIRE_OP_REBASE 7 /* a slot */
#define FUZZWIRE_OP_STAT 8 /* a slot */
#define FUZZWIRE_OP_POLL 9 /* a slot, b milliseconds */
#define FUZZWIRE_OP_PULL 10 /* a slot, b form (Pull…), c group */
#define FUZZWIRE_OP_REGISTER 11 /* a 1 or 0 */
#define FUZZWIRE_OP_CLOSE 12 /* a slot */
#define FUZZWIRE_OP_DUP 13 /* a slot from, b slot to */
#define FUZZWIRE_OP_WHO 14
#define FUZZWIRE_OP_MISUSE 15 /* a slot, b Misuse… */
#define FUZZWIRE_OP_LOAD 20 /* a area, b unit, c count */
#define FUZZWIRE_OP_STORE 21 /* a area, b unit, c count */
#define FUZZWIRE_OP_EXEC 22 /* b function, c count */
#define FUZZWIRE_OP_MMAP 23 /* a area, b unit, c count, d kind, e protection */
#define FUZZWIRE_OP_MUNMAP 24 /* a area, b unit, c count */
#define FUZZWIRE_OP_MPROTECT 25 /* a area, b unit, c count, d protection */
#define FUZZWIRE_OP_MREMAP 26 /* a area, b unit, c count, d area to, e unit to */
#define FUZZWIRE_OP_MADVISE 27 /* a area, b unit, c count, d advice */
#define FUZZWIRE_OP_MLOCK 28 /* a area, b unit, c count, d 0 to unlock */
#define FUZZWIRE_OP_TRUNCATE 29 /* a area, b unit: cut the file there and make it long again */
#define FUZZWIRE_OP_FORK 30 /* a list that the child runs */
#define FUZZWIRE_OP_SPAWN 31 /* a list that the new thread runs */
#define FUZZWIRE_OP_VFORK 32 /* a 1: the child executes this program anew */
#define FUZZWIRE_OP_SLEEP 33 /* a microseconds, b Sleep…, c 1: offline, d group */
#define FUZZWIRE_OP_SIGNAL 34 /* a list whose thread gets it */
#define FUZZWIRE_OP_MEET 35 /* a point, b how many; waits a little for them */
#define FUZZWIRE_OP_YIELD 36
#define FUZZWIRE_OP_TASK_READ 37 /* /proc/PID/task/TID/mem: a list, b function */
#define FUZZWIRE_OP_TASK_WRITE 38 /* the same */
#define FUZZWIRE_OP_VM_READ 39 /* process_vm_readv: b function */
#define FUZZWIRE_OP_HOTPLUG 40 /* processor a goes and comes */
#define FUZZWIRE_OP_SYSTEM 41 /* a System… */
#define FUZZWIRE_OP_FAIL 42 /* the a-th allocation of the next operation fails */
#define FUZZWIRE_OP_TRACE 43 /* a child attaches to thread a, b function, c 1: pokes */
#define FUZZWIRE_OP_FILE_WRITE 44 /* write(2) to the file of area a, b unit */
#define FUZZWIRE_OP_FILE_READ 45 /* read(2) */
#define FUZZWIRE_OP_USERFAULT 46 /* a area, b unit, c count, d 50 microseconds, e Userfault… */
#define FUZZWIRE_OP_BRK 47 /* a Brk…, b pages */
#define FUZZWIRE_OP_EXIT 48 /* the list ends here */
#define FUZZWIRE_OP_KINDS 49

/* Forms of a pull. */
#define FUZZWIRE_PULL_ALL 0
#define FUZZWIRE_PULL_SHORT 1 /* mask and value */
#define FUZZWIRE_PULL_TIDS 2 /* and who it was */
#define FUZZWIRE_PULL_FORMS 3

/* Ways to sleep. */
#define FUZZWIRE_SLEEP_NANO 0
#define FUZZWIRE_SLEEP_FUTEX 1
#define FUZZWIRE_SLEEP_POLL 2
#define FUZZWIRE_SLEEP_SPIN 3 /* awake */
#define FUZZWIRE_SLEEP_WAIT 4 /* for a signal */
#define FUZZWIRE_SLEEP_EPOLL 5
#define FUZZWIRE_SLEEP_FAULT 6 /* in a page fault, where something is missing: it looks at the near area */
#define FUZZWIRE_SLEEP_KINDS 7

/* Misuse of the interface. */
#define FUZZWIRE_MISUSE_WRITE_DATA 0 /* pwrite to memory that is writable, or not code */
#define FUZZWIRE_MISUSE_WRITE_KERNEL 1 /* to an address of the kernel */
#define FUZZWIRE_MISUSE_WRITE_NULL 2 /* to address 0 */
#define FUZZWIRE_MISUSE_WRITE_NOTHING 3 /* of length 0 */
#define FUZZWIRE_MISUSE_WRITE_BUFFER 4 /* from memory that is not there */
#define FUZZWIRE_MISUSE_WRITE_CROSS 5 /* from the last page of code into what is behind it */
#define FUZZWIRE_MISUSE_STAT_SIZE 6 /* size 0 */
#define FUZZWIRE_MISUSE_STAT_HUGE 7 /* size of more than a page */
#define FUZZWIRE_MISUSE_STAT_BUFFER 8
#define FUZZWIRE_MISUSE_OP 9 /* that does not exist */
#define FUZZWIRE_MISUSE_SEAL_ARG 10
#define FUZZWIRE_MISUSE_PULL_MASK 11 /* without the bit */
#define FUZZWIRE_MISUSE_PULL_SIZE 12
#define FUZZWIRE_MISUSE_REGISTER_ODD 13 /* an odd address */
#define FUZZWIRE_MISUSE_REGISTER_SIZE 14
#define FUZZWIRE_MISUSE_REGISTER_FD 15
#define FUZZWIRE_MISUSE_READ_BUFFER 16
#define FUZZWIRE_MISUSE_READ_HOLE 17 /* pread of what is not mapped */
#define FUZZWIRE_MISUSE_MMAP 18 /* of the descriptor */
#define FUZZWIRE_MISUSE_READ_FILE 19 /* read(2), without an offset */
#define FUZZWIRE_MISUSE_KINDS 20

/* What the system as a whole can be asked to do. */
#define FUZZWIRE_SYSTEM_CHECK 0 /* the checker of views, where there is one */
#define FUZZWIRE_SYSTEM_VIEWS 1 /* read /proc/self/mm_views */
#define FUZZWIRE_SYSTEM_SMAPS 2
#define FUZZWIRE_SYSTEM_COMPACT 3
#define FUZZWIRE_SYSTEM_DROP 4 /* drop caches */
#define FUZZWIRE_SYSTEM_CLEAR 5 /* clear_refs of this process */
#define FUZZWIRE_SYSTEM_PAGEMAP 6
#define FUZZWIRE_SYSTEM_KSM 7 /* one round */
#define FUZZWIRE_SYSTEM_SWAPPER 8 /* memory.reclaim of the group */
#define FUZZWIRE_SYSTEM_HIGH 9 /* memory.high of the subject's group, below what it has, and off again */
#define FUZZWIRE_SYSTEM_KINDS 10

/* What a userfaultfd is for. */
#define FUZZWIRE_USERFAULT_MISSING 0 /* fills what others miss there, slowly */
#define FUZZWIRE_USERFAULT_PROTECT 1 /* holds up who writes there, and sees that nothing changes meanwhile */
#define FUZZWIRE_USERFAULT_KINDS 2

/* What is done with the heap. */
#define FUZZWIRE_BRK_GROW 0 /* and look whether the new pages are empty */
#define FUZZWIRE_BRK_SHRINK 1 /* and look whether they are gone */
#define FUZZWIRE_BRK_LOOK 2
#define FUZZWIRE_BRK_KINDS 3
#define FUZZWIRE_BRK_PAGES 32 /* at most */

/* What was wrong with the heap: bits of Record.Val. */
#define FUZZWIRE_BRK_OLD 1 /* a new page was not empty */
#define FUZZWIRE_BRK_LOST 2 /* a page had not what was written there */
#define FUZZWIRE_BRK_THERE 4 /* what had been given back could be read */
#define FUZZWIRE_BRK_MISSING 8 /* what is there could not be read or written */

/* How a run ended; also the exit status of the driver. */
#define FUZZWIRE_END_COMPLETE 0
#define FUZZWIRE_END_USAGE 2
#define FUZZWIRE_END_SETUP 3
#define FUZZWIRE_END_STUCK 4
#define FUZZWIRE_END_CRASH 5

/* Flags of a list. */
#define FUZZWIRE_LIST_START 1 /* its thread is there from the start */

/* Flags of a record. */
#define FUZZWIRE_FLAG_FAILED 1 /* an allocation was made to fail */
#define FUZZWIRE_FLAG_OFFLINE 2
#define FUZZWIRE_FLAG_BY_SLOT 4 /* the close of what was in the slot */

/* Table says where a table lies in the file: bytes from its start, and how many entries. */
struct fuzzwire_table {
	uint64_t off;
	uint64_t count;
};
_Static_assert(sizeof(struct fuzzwire_table) == 16, "size");
_Static_assert(offsetof(struct fuzzwire_table, off) == 0, "offset");
_Static_assert(offsetof(struct fuzzwire_table, count) == 8, "offset");

/* ScenarioHeader starts the file that goes to the driver. */
struct fuzzwire_scenario_header {
	uint64_t magic;
	uint32_t version;
	uint32_t watchdog_ms;
	uint64_t seed;
	uint32_t area_kinds[4];
	struct fuzzwire_table lists;
	struct fuzzwire_table ops;
};
_Static_assert(sizeof(struct fuzzwire_scenario_header) == 72, "size");
_Static_assert(offsetof(struct fuzzwire_scenario_header, magic) == 0, "offset");
_Static_assert(offsetof(struct fuzzwire_scenario_header, version) == 8, "offset");
_Static_assert(offsetof(struct fuzzwire_scenario_header, watchdog_ms) == 12, "offset");
_Static_assert(offsetof(struct fuzzwire_scenario_header, seed) == 16, "offset");
_Static_assert(offsetof(struct fuzzwire_scenario_header, area_kinds) == 24, "offset");
_Static_assert(offsetof(struct fuzzwire_scenario_header, lists) == 40, "offset");
_Static_assert(offsetof(struct fuzzwire_scenario_header, ops) == 56, "offset");

/* List is what one thread does. */
struct fuzzwire_list {
	uint32_t first; /* of its operations */
	uint32_t count;
	uint32_t flags;
	uint32_t records; /* at most */
};
_Static_assert(sizeof(struct fuzzwire_list) == 16, "size");
_Static_assert(offsetof(struct fuzzwire_list, first) == 0, "offset");
_Static_assert(offsetof(struct fuzzwire_list, count) == 4, "offset");
_Static_assert(offsetof(struct fuzzwire_list, flags) == 8, "offset");
_Static_assert(offsetof(struct fuzzwire_list, records) == 12, "offset");

/* Op is one operation. */
struct fuzzwire_op {
	uint16_t kind;
	uint16_t a;
	uint16_t b;
	uint16_t c;
	uint16_t d;
	uint16_t e;
};
_Static_assert(sizeof(struct fuzzwire_op) == 12, "size");
_Static_assert(offsetof(struct fuzzwire_op, kind) == 0, "offset");
_Static_assert(offsetof(struct fuzzwire_op, a) == 2, "offset");
_Static_assert(offsetof(struct fuzzwire_op, b) == 4, "offset");
_Static_assert(offsetof(struct fuzzwire_op, c) == 6, "offset");
_Static_assert(offsetof(struct fuzzwire_op, d) == 8, "offset");
_Static_assert(offsetof(struct fuzzwire_op, e) == 10, "offset");

/* TraceHeader starts the file that comes back. */
struct fuzzwire_trace_header {
	uint64_t magic;
	uint32_t version;
	uint32_t end;
	uint64_t seed;
	uint32_t signal; /* of a crash */
	int32_t crash_list;
	uint64_t crash_addr;
	uint64_t crash_ip;
	uint64_t stamps; /* how many there were */
	int32_t status; /* of the process, as wait(2) says */
	uint32_t has_views;
	uint32_t slow; /* ended because it took long, not because it stood still */
	uint32_t children; /* that ended otherwise than they should */
	uint64_t left; /* views that were left at the end */
	uint64_t counters[16];
	struct fuzzwire_table streams;
	struct fuzzwire_table records;
	struct fuzzwire_table threads;
	struct fuzzwire_table coverage; /* u64: addresses in the kernel */
};
_Static_assert(sizeof(struct fuzzwire_trace_header) == 272, "size");
_Static_assert(offsetof(struct fuzzwire_trace_header, magic) == 0, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, version) == 8, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, end) == 12, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, seed) == 16, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, signal) == 24, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, crash_list) == 28, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, crash_addr) == 32, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, crash_ip) == 40, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, stamps) == 48, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, status) == 56, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, has_views) == 60, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, slow) == 64, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, children) == 68, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, left) == 72, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, counters) == 80, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, streams) == 208, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, records) == 224, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, threads) == 240, "offset");
_Static_assert(offsetof(struct fuzzwire_trace_header, coverage) == 256, "offset");

/* Counters, before and after: TraceHeader.Counters[2*i], [2*i+1]. */
#define FUZZWIRE_COUNTER_TABLES 0 /* pages of page tables */
#define FUZZWIRE_COUNTER_ANON 1 /* anonymous pages */
#define FUZZWIRE_COUNTER_FILES 2
#define FUZZWIRE_COUNTER_SET_UP 4 /* not counts but ns, two each: to set up, for the lists */
#define FUZZWIRE_COUNTER_FINAL 5 /* for the last look, in all */

/* Stream is what one list recorded. */
struct fuzzwire_stream {
	uint32_t first;
	uint32_t count; /* written so far, the last one may have no end yet */
	uint32_t cap;
	uint32_t state; /* State… */
	uint32_t tid;
	uint32_t pid;
	int32_t by; /* list that started it, -1: from the start */
	uint32_t by_op;
	uint32_t forked;
	uint32_t dropped;
};
_Static_assert(sizeof(struct fuzzwire_stream) == 40, "size");
_Static_assert(offsetof(struct fuzzwire_stream, first) == 0, "offset");
_Static_assert(offsetof(struct fuzzwire_stream, count) == 4, "offset");
_Static_assert(offsetof(struct fuzzwire_stream, cap) == 8, "offset");
_Static_assert(offsetof(struct fuzzwire_stream, state) == 12, "offset");
_Static_assert(offsetof(struct fuzzwire_stream, tid) == 16, "offset");
_Static_assert(offsetof(struct fuzzwire_stream, pid) == 20, "offset");
_Static_assert(offsetof(struct fuzzwire_stream, by) == 24, "offset");
_Static_assert(offsetof(struct fuzzwire_stream, by_op) == 28, "offset");
_Static_assert(offsetof(struct fuzzwire_stream, forked) == 32, "offset");
_Static_assert(offsetof(struct fuzzwire_stream, dropped) == 36, "offset");

/* States of a list. */
#define FUZZWIRE_STATE_NEW 0
#define FUZZWIRE_STATE_RUNNING 1
#define FUZZWIRE_STATE_DONE 2

/* Record is one operation, or one access of it. */
struct fuzzwire_record {
	uint64_t begin; /* stamps: atomically counted over all threads */
	uint64_t end; /* 0: not over */
	uint64_t val;
	uint64_t ext;
	int32_t ret;
	int32_t fd;
	uint16_t kind;
	uint16_t op;
	uint16_t unit; /* area<<8 | unit, or function */
	uint16_t flags;
};
_Static_assert(sizeof(struct fuzzwire_record) == 48, "size");
_Static_assert(offsetof(struct fuzzwire_record, begin) == 0, "offset");
_Static_assert(offsetof(struct fuzzwire_record, end) == 8, "offset");
_Static_assert(offsetof(struct fuzzwire_record, val) == 16, "offset");
_Static_assert(offsetof(struct fuzzwire_record, ext) == 24, "offset");
_Static_assert(offsetof(struct fuzzwire_record, ret) == 32, "offset");
_Static_assert(offsetof(struct fuzzwire_record, fd) == 36, "offset");
_Static_assert(offsetof(struct fuzzwire_record, kind) == 40, "offset");
_Static_assert(offsetof(struct fuzzwire_record, op) == 42, "offset");
_Static_assert(offsetof(struct fuzzwire_record, unit) == 44, "offset");
_Static_assert(offsetof(struct fuzzwire_record, flags) == 46, "offset");

/* Thread is what the watchdog saw of a thread. */
struct fuzzwire_thread {
	uint32_t tid;
	int32_t list;
	uint32_t letter; /* of /proc/PID/task/TID/stat */
	uint32_t call; /* system call */
	uint8_t where[64];
};
_Static_assert(sizeof(struct fuzzwire_thread) == 80, "size");
_Static_assert(offsetof(struct fuzzwire_thread, tid) == 0, "offset");
_Static_assert(offsetof(struct fuzzwire_thread, list) == 4, "offset");
_Static_assert(offsetof(struct fuzzwire_thread, letter) == 8, "offset");
_Static_assert(offsetof(struct fuzzwire_thread, call) == 12, "offset");
_Static_assert(offsetof(struct fuzzwire_thread, where) == 16, "offset");

#endif
