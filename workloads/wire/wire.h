/* SPDX-License-Identifier: Apache-2.0 */
/* Made by gen from schema.go. Do not edit: change the schema, then go generate. */
#ifndef WFLP_WIRE_H
#define WFLP_WIRE_H

#include <stddef.h>
#include <stdint.h>

/* Version of both files. Either side refuses another. */
#define WIRE_VERSION 2

/* Magic numbers of the two files ("WFLPSPEC", "WFLPTRAC"). */
#define WIRE_MAGIC_SPEC 4847368892627043927ull
#define WIRE_MAGIC_TRACE 4846245196038424151ull

/* Strategies. */
#define WIRE_STRATEGY_NONE 0
#define WIRE_STRATEGY_WAITFREE 1
#define WIRE_STRATEGY_BARRIER 2
#define WIRE_STRATEGY_NAIVE 3
#define WIRE_STRATEGY_STOPWORLD 4
#define WIRE_STRATEGY_RESTART 5

/* Backings of the text area. */
#define WIRE_BACKING_MEMFD 0
#define WIRE_BACKING_FILE 1
#define WIRE_BACKING_ANONYMOUS 2

/* How a run ended; also the exit status of the executor. */
#define WIRE_END_COMPLETE 0
#define WIRE_END_USAGE 64 /* bad arguments or spec file */
#define WIRE_END_UNSUPPORTED 65 /* this kernel or library has no such strategy */
#define WIRE_END_SETUP 66 /* could not be set up as the spec asks */
#define WIRE_END_CRASH 70 /* a thread took a fatal signal outside of a probe */
#define WIRE_END_HANG 71 /* the watchdog gave up */

/* Flags of a worker. */
#define WIRE_WORKER_WAIT_ONLINE 1
#define WIRE_WORKER_YIELD 2

/* Flags of a patch. */
#define WIRE_PATCH_RUNS 1
#define WIRE_PATCH_WRONG 2
#define WIRE_PATCH_TRY 4

/*
 * Kinds of record. A kind with RecordExec set is the execution of the function
 * in its other bits; the machine code itself writes such a record.
 */
#define WIRE_RECORD_TXN 1 /* a = Txn bits; b = generation; c = ns before the quiescence point */
#define WIRE_RECORD_MOVED 2 /* a = 1 moved, 0 only held up; b = generation; c = ns after the quiescence point */
#define WIRE_RECORD_REQ_START 3 /* b = request; c = ns */
#define WIRE_RECORD_REQ_END 4 /* b = request; c = ns */
#define WIRE_RECORD_OFFLINE 5 /* c = ns before */
#define WIRE_RECORD_ONLINE 6 /* a = Online bits; b = generation; c = ns after waking, before going online */
#define WIRE_RECORD_BIRTH 7 /* b = generation; c = ns before registration */
#define WIRE_RECORD_DEATH 8 /* a = why (Death…); b = generation; c = ns before leaving */
#define WIRE_RECORD_OP 9 /* a = action kind; b = region; c = ns */
#define WIRE_RECORD_MEM_FAIL 10 /* a = action kind | what<<8; b = region<<16 | page; c = value seen */
#define WIRE_RECORD_MEM_WANT 11 /* follows a MemFail: c = value expected */
#define WIRE_RECORD_ERROR 12 /* a = what (Error…); b = -errno as u32; c = ns */
#define WIRE_RECORD_EXEC 32768

/* Bits in a of RecordTxn. */
#define WIRE_TXN_MOVED 1 /* the quiescence point before it moved the thread */
#define WIRE_TXN_CHILD 2 /* run by a forked child, reported by its parent */
#define WIRE_TXN_EMPTY 4 /* a quiescence point passed while waiting for work */

/* Bits in a of RecordOnline. */
#define WIRE_ONLINE_MOVED 1 /* the thread is in another generation than before its sleep */
#define WIRE_ONLINE_PULLED 2 /* it was so already when it woke */

/* Why a thread ended. */
#define WIRE_DEATH_DONE 0 /* it did what its spec asks */
#define WIRE_DEATH_CAP 1 /* its records were full */

/* What a memory check found. */
#define WIRE_MEM_VALUE 1 /* another value than stored */
#define WIRE_MEM_NO_FAULT 2 /* an access that must fault did not */
#define WIRE_MEM_FAULT 3 /* an access that must not fault did */
#define WIRE_MEM_BACKWARD 4 /* a shared word went back */
#define WIRE_MEM_CHILD 5 /* a forked child saw something else than its parent */
#define WIRE_MEM_CALL 6 /* a system call failed that must not; value = errno */

/* What a RecordError is about. */
#define WIRE_ERROR_REGISTER 1
#define WIRE_ERROR_UNREGISTER 2
#define WIRE_ERROR_QUIESCENT 3
#define WIRE_ERROR_OFFLINE 4
#define WIRE_ERROR_ONLINE 5
#define WIRE_ERROR_SPAWN 6

/* What came of one stop of all threads. */
#define WIRE_STOP_APPLIED 1 /* no function of the patch was on a stack: changed */
#define WIRE_STOP_ACTIVE 2 /* one was */
#define WIRE_STOP_UNKNOWN 3 /* a stack could not be walked to its end, or the threads not be stopped */

/* Counters, read before the first thread starts and after all is over. */
#define WIRE_COUNTER_VM_RSS 1 /* KiB */
#define WIRE_COUNTER_VM_PTE 2 /* KiB */
#define WIRE_COUNTER_FILES 3 /* open file descriptors */
#define WIRE_COUNTER_VIEWS 4
#define WIRE_COUNTER_THREADS 5
#define WIRE_COUNTER_MAPPINGS 6

/* Table says where a table lies in the file: bytes from its start, and how many entries. */
struct wire_table {
	uint64_t off;
	uint64_t count;
};
_Static_assert(sizeof(struct wire_table) == 16, "size");
_Static_assert(offsetof(struct wire_table, off) == 0, "offset");
_Static_assert(offsetof(struct wire_table, count) == 8, "offset");

/* SpecHeader starts the file that goes to the executor. */
struct wire_spec_header {
	uint64_t magic;
	uint32_t version;
	uint32_t backing;
	uint64_t seed;
	uint64_t text_addr; /* where the text is mapped: page aligned */
	uint64_t text_len; /* whole pages */
	uint32_t depth;
	uint32_t drain;
	uint32_t watchdog_ms;
	uint32_t reserved;
	struct wire_table image; /* bytes: initial content of the text area */
	struct wire_table blob; /* bytes: content of versions, each as long as its slot */
	struct wire_table functions;
	struct wire_table versions;
	struct wire_table workers;
	struct wire_table roots; /* u32: function */
	struct wire_table arrivals; /* u64: ns from the start */
	struct wire_table actions;
	struct wire_table regions;
	struct wire_table patches;
	struct wire_table changes;
};
_Static_assert(sizeof(struct wire_spec_header) == 232, "size");
_Static_assert(offsetof(struct wire_spec_header, magic) == 0, "offset");
_Static_assert(offsetof(struct wire_spec_header, version) == 8, "offset");
_Static_assert(offsetof(struct wire_spec_header, backing) == 12, "offset");
_Static_assert(offsetof(struct wire_spec_header, seed) == 16, "offset");
_Static_assert(offsetof(struct wire_spec_header, text_addr) == 24, "offset");
_Static_assert(offsetof(struct wire_spec_header, text_len) == 32, "offset");
_Static_assert(offsetof(struct wire_spec_header, depth) == 40, "offset");
_Static_assert(offsetof(struct wire_spec_header, drain) == 44, "offset");
_Static_assert(offsetof(struct wire_spec_header, watchdog_ms) == 48, "offset");
_Static_assert(offsetof(struct wire_spec_header, reserved) == 52, "offset");
_Static_assert(offsetof(struct wire_spec_header, image) == 56, "offset");
_Static_assert(offsetof(struct wire_spec_header, blob) == 72, "offset");
_Static_assert(offsetof(struct wire_spec_header, functions) == 88, "offset");
_Static_assert(offsetof(struct wire_spec_header, versions) == 104, "offset");
_Static_assert(offsetof(struct wire_spec_header, workers) == 120, "offset");
_Static_assert(offsetof(struct wire_spec_header, roots) == 136, "offset");
_Static_assert(offsetof(struct wire_spec_header, arrivals) == 152, "offset");
_Static_assert(offsetof(struct wire_spec_header, actions) == 168, "offset");
_Static_assert(offsetof(struct wire_spec_header, regions) == 184, "offset");
_Static_assert(offsetof(struct wire_spec_header, patches) == 200, "offset");
_Static_assert(offsetof(struct wire_spec_header, changes) == 216, "offset");

/* Function is a slot of the text area. */
struct wire_function {
	uint64_t entry; /* address */
	uint32_t len; /* of the slot; every version is padded to it */
	uint32_t version; /* index of the first of its versions */
};
_Static_assert(sizeof(struct wire_function) == 16, "size");
_Static_assert(offsetof(struct wire_function, entry) == 0, "offset");
_Static_assert(offsetof(struct wire_function, len) == 8, "offset");
_Static_assert(offsetof(struct wire_function, version) == 12, "offset");

/* CodeVersion is the content of one version of a function. */
struct wire_code_version {
	uint64_t blob; /* offset into Blob */
	uint32_t function;
	uint32_t saved;
	uint32_t restored;
	uint32_t reserved;
};
_Static_assert(sizeof(struct wire_code_version) == 24, "size");
_Static_assert(offsetof(struct wire_code_version, blob) == 0, "offset");
_Static_assert(offsetof(struct wire_code_version, function) == 8, "offset");
_Static_assert(offsetof(struct wire_code_version, saved) == 12, "offset");
_Static_assert(offsetof(struct wire_code_version, restored) == 16, "offset");
_Static_assert(offsetof(struct wire_code_version, reserved) == 20, "offset");

/* Worker is a thread. */
struct wire_worker {
	int32_t parent;
	uint32_t born_at;
	uint32_t root; /* first of its roots */
	uint32_t roots;
	uint32_t interval;
	uint32_t txns;
	uint32_t cap; /* transactions */
	uint32_t max_records; /* of one transaction, at most */
	uint32_t spin_ns;
	uint32_t long_every;
	uint32_t long_ns;
	uint32_t blocked_ns;
	uint32_t arrival; /* first of its arrivals */
	uint32_t arrivals;
	uint32_t per_request;
	uint32_t action; /* first of its actions */
	uint32_t actions;
	uint32_t flags;
};
_Static_assert(sizeof(struct wire_worker) == 72, "size");
_Static_assert(offsetof(struct wire_worker, parent) == 0, "offset");
_Static_assert(offsetof(struct wire_worker, born_at) == 4, "offset");
_Static_assert(offsetof(struct wire_worker, root) == 8, "offset");
_Static_assert(offsetof(struct wire_worker, roots) == 12, "offset");
_Static_assert(offsetof(struct wire_worker, interval) == 16, "offset");
_Static_assert(offsetof(struct wire_worker, txns) == 20, "offset");
_Static_assert(offsetof(struct wire_worker, cap) == 24, "offset");
_Static_assert(offsetof(struct wire_worker, max_records) == 28, "offset");
_Static_assert(offsetof(struct wire_worker, spin_ns) == 32, "offset");
_Static_assert(offsetof(struct wire_worker, long_every) == 36, "offset");
_Static_assert(offsetof(struct wire_worker, long_ns) == 40, "offset");
_Static_assert(offsetof(struct wire_worker, blocked_ns) == 44, "offset");
_Static_assert(offsetof(struct wire_worker, arrival) == 48, "offset");
_Static_assert(offsetof(struct wire_worker, arrivals) == 52, "offset");
_Static_assert(offsetof(struct wire_worker, per_request) == 56, "offset");
_Static_assert(offsetof(struct wire_worker, action) == 60, "offset");
_Static_assert(offsetof(struct wire_worker, actions) == 64, "offset");
_Static_assert(offsetof(struct wire_worker, flags) == 68, "offset");

/* Action is done before transaction At. */
struct wire_action {
	uint32_t at;
	uint32_t kind;
	uint32_t region;
	uint32_t page;
	uint32_t count;
	uint32_t us;
};
_Static_assert(sizeof(struct wire_action) == 24, "size");
_Static_assert(offsetof(struct wire_action, at) == 0, "offset");
_Static_assert(offsetof(struct wire_action, kind) == 4, "offset");
_Static_assert(offsetof(struct wire_action, region) == 8, "offset");
_Static_assert(offsetof(struct wire_action, page) == 12, "offset");
_Static_assert(offsetof(struct wire_action, count) == 16, "offset");
_Static_assert(offsetof(struct wire_action, us) == 20, "offset");

/* Region is memory that threads work on in turn. */
struct wire_region {
	uint64_t addr; /* of its first window */
	uint64_t other; /* of its second window, for mremap */
	uint32_t kind;
	uint32_t pages;
};
_Static_assert(sizeof(struct wire_region) == 24, "size");
_Static_assert(offsetof(struct wire_region, addr) == 0, "offset");
_Static_assert(offsetof(struct wire_region, other) == 8, "offset");
_Static_assert(offsetof(struct wire_region, kind) == 16, "offset");
_Static_assert(offsetof(struct wire_region, pages) == 20, "offset");

/* Patch is a unit of changes. */
struct wire_patch {
	uint64_t at_ns;
	uint32_t change; /* first of its changes */
	uint32_t changes;
	uint32_t flags;
	uint32_t number;
	uint64_t stall_ns; /* under none: no thread begins a transaction for this long */
};
_Static_assert(sizeof(struct wire_patch) == 32, "size");
_Static_assert(offsetof(struct wire_patch, at_ns) == 0, "offset");
_Static_assert(offsetof(struct wire_patch, change) == 8, "offset");
_Static_assert(offsetof(struct wire_patch, changes) == 12, "offset");
_Static_assert(offsetof(struct wire_patch, flags) == 16, "offset");
_Static_assert(offsetof(struct wire_patch, number) == 20, "offset");
_Static_assert(offsetof(struct wire_patch, stall_ns) == 24, "offset");

/* Change puts a version in place. */
struct wire_change {
	uint32_t function;
	uint32_t version; /* index into Versions */
};
_Static_assert(sizeof(struct wire_change) == 8, "size");
_Static_assert(offsetof(struct wire_change, function) == 0, "offset");
_Static_assert(offsetof(struct wire_change, version) == 4, "offset");

/* TraceHeader starts the file that comes back. */
struct wire_trace_header {
	uint64_t magic;
	uint32_t version;
	uint32_t strategy;
	uint64_t seed;
	uint32_t end;
	uint32_t cpu_count;
	uint64_t base_generation; /* before the first patch */
	uint64_t last_generation; /* after the last */
	uint64_t start_ns; /* time 0 of the spec */
	uint64_t finish_ns; /* all threads have ended */
	uint64_t spin_per_ms; /* calibrated rounds of the loop that burns time */
	uint32_t signal; /* of a crash */
	int32_t crash_worker;
	uint64_t crash_addr;
	uint64_t crash_ip;
	int32_t fini_error;
	uint32_t reserved;
	uint64_t share_want; /* what the threads added to the shared word */
	uint64_t share_got; /* what it holds */
	struct wire_table streams;
	struct wire_table records; /* all records; a stream is a range of them */
	struct wire_table reports;
	struct wire_table counters;
	struct wire_table states;
	struct wire_table stops;
	struct wire_table frames;
	uint64_t stops_lost; /* stops and frames for which there was no room */
};
_Static_assert(sizeof(struct wire_trace_header) == 240, "size");
_Static_assert(offsetof(struct wire_trace_header, magic) == 0, "offset");
_Static_assert(offsetof(struct wire_trace_header, version) == 8, "offset");
_Static_assert(offsetof(struct wire_trace_header, strategy) == 12, "offset");
_Static_assert(offsetof(struct wire_trace_header, seed) == 16, "offset");
_Static_assert(offsetof(struct wire_trace_header, end) == 24, "offset");
_Static_assert(offsetof(struct wire_trace_header, cpu_count) == 28, "offset");
_Static_assert(offsetof(struct wire_trace_header, base_generation) == 32, "offset");
_Static_assert(offsetof(struct wire_trace_header, last_generation) == 40, "offset");
_Static_assert(offsetof(struct wire_trace_header, start_ns) == 48, "offset");
_Static_assert(offsetof(struct wire_trace_header, finish_ns) == 56, "offset");
_Static_assert(offsetof(struct wire_trace_header, spin_per_ms) == 64, "offset");
_Static_assert(offsetof(struct wire_trace_header, signal) == 72, "offset");
_Static_assert(offsetof(struct wire_trace_header, crash_worker) == 76, "offset");
_Static_assert(offsetof(struct wire_trace_header, crash_addr) == 80, "offset");
_Static_assert(offsetof(struct wire_trace_header, crash_ip) == 88, "offset");
_Static_assert(offsetof(struct wire_trace_header, fini_error) == 96, "offset");
_Static_assert(offsetof(struct wire_trace_header, reserved) == 100, "offset");
_Static_assert(offsetof(struct wire_trace_header, share_want) == 104, "offset");
_Static_assert(offsetof(struct wire_trace_header, share_got) == 112, "offset");
_Static_assert(offsetof(struct wire_trace_header, streams) == 120, "offset");
_Static_assert(offsetof(struct wire_trace_header, records) == 136, "offset");
_Static_assert(offsetof(struct wire_trace_header, reports) == 152, "offset");
_Static_assert(offsetof(struct wire_trace_header, counters) == 168, "offset");
_Static_assert(offsetof(struct wire_trace_header, states) == 184, "offset");
_Static_assert(offsetof(struct wire_trace_header, stops) == 200, "offset");
_Static_assert(offsetof(struct wire_trace_header, frames) == 216, "offset");
_Static_assert(offsetof(struct wire_trace_header, stops_lost) == 232, "offset");

/* Stream is what one worker recorded. */
struct wire_stream {
	uint32_t worker;
	uint32_t tid;
	uint64_t first;
	uint64_t count;
	uint64_t dropped; /* records for which there was no room */
	uint64_t txns;
	uint64_t requests;
	uint64_t mem_ops;
	uint64_t mem_skipped; /* region in use by another thread */
	uint32_t started; /* its thread was created */
	uint32_t ended;
};
_Static_assert(sizeof(struct wire_stream) == 72, "size");
_Static_assert(offsetof(struct wire_stream, worker) == 0, "offset");
_Static_assert(offsetof(struct wire_stream, tid) == 4, "offset");
_Static_assert(offsetof(struct wire_stream, first) == 8, "offset");
_Static_assert(offsetof(struct wire_stream, count) == 16, "offset");
_Static_assert(offsetof(struct wire_stream, dropped) == 24, "offset");
_Static_assert(offsetof(struct wire_stream, txns) == 32, "offset");
_Static_assert(offsetof(struct wire_stream, requests) == 40, "offset");
_Static_assert(offsetof(struct wire_stream, mem_ops) == 48, "offset");
_Static_assert(offsetof(struct wire_stream, mem_skipped) == 56, "offset");
_Static_assert(offsetof(struct wire_stream, started) == 64, "offset");
_Static_assert(offsetof(struct wire_stream, ended) == 68, "offset");

/* Record is one event, or one execution of a function. */
struct wire_record {
	uint16_t kind;
	uint16_t a;
	uint32_t b;
	uint64_t c;
};
_Static_assert(sizeof(struct wire_record) == 16, "size");
_Static_assert(offsetof(struct wire_record, kind) == 0, "offset");
_Static_assert(offsetof(struct wire_record, a) == 2, "offset");
_Static_assert(offsetof(struct wire_record, b) == 4, "offset");
_Static_assert(offsetof(struct wire_record, c) == 8, "offset");

/* Exec is a Record of kind RecordExec as the machine code writes it. */
struct wire_exec {
	uint16_t kind; /* RecordExec | function */
	uint8_t first; /* version that entered */
	uint8_t last; /* version that left */
	uint32_t loop; /* sum over all rounds of all loops */
	uint8_t parts[8];
};
_Static_assert(sizeof(struct wire_exec) == 16, "size");
_Static_assert(offsetof(struct wire_exec, kind) == 0, "offset");
_Static_assert(offsetof(struct wire_exec, first) == 2, "offset");
_Static_assert(offsetof(struct wire_exec, last) == 3, "offset");
_Static_assert(offsetof(struct wire_exec, loop) == 4, "offset");
_Static_assert(offsetof(struct wire_exec, parts) == 8, "offset");

/* Report is how one patch went. */
struct wire_report {
	uint32_t patch; /* index in the spec */
	int32_t result; /* of wflp_apply(): 0 or -errno */
	uint64_t applied_ns; /* before wflp_apply() */
	uint64_t seen_ns; /* after a wait for publication returned */
	uint64_t generation;
	int32_t stage;
	int32_t error;
	uint64_t queued_ns;
	uint64_t preparing_ns;
	uint64_t create_ns;
	uint64_t written_ns;
	uint64_t sealed_ns;
	uint64_t published_ns;
	uint64_t first_over_ns;
	uint64_t last_over_ns;
	uint64_t released_ns;
	uint32_t threads;
	uint32_t migrated;
	uint32_t pulled;
	int32_t bad_edit;
	uint64_t held_gen;
	int32_t held_tid;
	uint32_t edits;
	uint32_t handed_over; /* restart: requests that waited for the new process */
	uint32_t lost; /* restart: KiB of private memory that the old one had */
};
_Static_assert(sizeof(struct wire_report) == 152, "size");
_Static_assert(offsetof(struct wire_report, patch) == 0, "offset");
_Static_assert(offsetof(struct wire_report, result) == 4, "offset");
_Static_assert(offsetof(struct wire_report, applied_ns) == 8, "offset");
_Static_assert(offsetof(struct wire_report, seen_ns) == 16, "offset");
_Static_assert(offsetof(struct wire_report, generation) == 24, "offset");
_Static_assert(offsetof(struct wire_report, stage) == 32, "offset");
_Static_assert(offsetof(struct wire_report, error) == 36, "offset");
_Static_assert(offsetof(struct wire_report, queued_ns) == 40, "offset");
_Static_assert(offsetof(struct wire_report, preparing_ns) == 48, "offset");
_Static_assert(offsetof(struct wire_report, create_ns) == 56, "offset");
_Static_assert(offsetof(struct wire_report, written_ns) == 64, "offset");
_Static_assert(offsetof(struct wire_report, sealed_ns) == 72, "offset");
_Static_assert(offsetof(struct wire_report, published_ns) == 80, "offset");
_Static_assert(offsetof(struct wire_report, first_over_ns) == 88, "offset");
_Static_assert(offsetof(struct wire_report, last_over_ns) == 96, "offset");
_Static_assert(offsetof(struct wire_report, released_ns) == 104, "offset");
_Static_assert(offsetof(struct wire_report, threads) == 112, "offset");
_Static_assert(offsetof(struct wire_report, migrated) == 116, "offset");
_Static_assert(offsetof(struct wire_report, pulled) == 120, "offset");
_Static_assert(offsetof(struct wire_report, bad_edit) == 124, "offset");
_Static_assert(offsetof(struct wire_report, held_gen) == 128, "offset");
_Static_assert(offsetof(struct wire_report, held_tid) == 136, "offset");
_Static_assert(offsetof(struct wire_report, edits) == 140, "offset");
_Static_assert(offsetof(struct wire_report, handed_over) == 144, "offset");
_Static_assert(offsetof(struct wire_report, lost) == 148, "offset");

/* Counter is a reading. */
struct wire_counter {
	uint32_t id;
	uint32_t end; /* 0 at the start, 1 at the end */
	uint64_t value;
};
_Static_assert(sizeof(struct wire_counter) == 16, "size");
_Static_assert(offsetof(struct wire_counter, id) == 0, "offset");
_Static_assert(offsetof(struct wire_counter, end) == 4, "offset");
_Static_assert(offsetof(struct wire_counter, value) == 8, "offset");

/*
 * State is what the watchdog saw of a thread that had not ended, at two
 * moments StateGapMS apart.
 */
struct wire_state {
	uint32_t worker;
	uint32_t tid;
	uint32_t exists; /* at the second moment */
	uint32_t letter; /* of /proc/PID/task/TID/stat, at the second moment */
	uint64_t txns[2];
	uint64_t cpu_tick[2]; /* hundredths of a second */
};
_Static_assert(sizeof(struct wire_state) == 48, "size");
_Static_assert(offsetof(struct wire_state, worker) == 0, "offset");
_Static_assert(offsetof(struct wire_state, tid) == 4, "offset");
_Static_assert(offsetof(struct wire_state, exists) == 8, "offset");
_Static_assert(offsetof(struct wire_state, letter) == 12, "offset");
_Static_assert(offsetof(struct wire_state, txns) == 16, "offset");
_Static_assert(offsetof(struct wire_state, cpu_tick) == 32, "offset");

/* Stop is one stop of all threads to change code, under StrategyStopworld. */
struct wire_stop {
	uint32_t patch;
	uint32_t result; /* Stop… */
	uint64_t begin_ns; /* before the first thread was stopped */
	uint64_t all_ns; /* all were */
	uint64_t end_ns; /* the last was let go */
	uint32_t threads; /* stopped */
	uint32_t walked; /* frames walked, of all stacks */
	uint32_t frame; /* first of its frames */
	uint32_t frames;
};
_Static_assert(sizeof(struct wire_stop) == 48, "size");
_Static_assert(offsetof(struct wire_stop, patch) == 0, "offset");
_Static_assert(offsetof(struct wire_stop, result) == 4, "offset");
_Static_assert(offsetof(struct wire_stop, begin_ns) == 8, "offset");
_Static_assert(offsetof(struct wire_stop, all_ns) == 16, "offset");
_Static_assert(offsetof(struct wire_stop, end_ns) == 24, "offset");
_Static_assert(offsetof(struct wire_stop, threads) == 32, "offset");
_Static_assert(offsetof(struct wire_stop, walked) == 36, "offset");
_Static_assert(offsetof(struct wire_stop, frame) == 40, "offset");
_Static_assert(offsetof(struct wire_stop, frames) == 44, "offset");

/* Frame is a patchable function that was on a stack at a stop. */
struct wire_frame {
	uint32_t tid;
	uint32_t function;
	uint64_t ip;
};
_Static_assert(sizeof(struct wire_frame) == 16, "size");
_Static_assert(offsetof(struct wire_frame, tid) == 0, "offset");
_Static_assert(offsetof(struct wire_frame, function) == 4, "offset");
_Static_assert(offsetof(struct wire_frame, ip) == 8, "offset");

/* StateGapMS is the time between the two looks of the watchdog. */
#define WIRE_STATE_GAP_MS 1500

#endif
