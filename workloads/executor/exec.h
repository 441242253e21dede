/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the executor share.  It runs one program, as laid out in
 * its spec file, under one strategy, and writes one trace.
 */
#ifndef WFLP_EXEC_H
#define WFLP_EXEC_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wflp.h"
#include "wire.h"

#define PAGE 4096ul
#define ALTSTACK 16384
#define SHARED_WORDS 8

/* The order is that of workloads.ActionKinds and workloads.RegionKinds. */
enum action_kind {
	ACT_STORE, ACT_LOAD, ACT_MAP, ACT_UNMAP, ACT_PROT_NONE, ACT_PROT_READ,
	ACT_PROT_WRITE, ACT_REMAP, ACT_DONTNEED, ACT_HUGEPAGE, ACT_COLLAPSE,
	ACT_FORK, ACT_BRK_GROW, ACT_BRK_DROP, ACT_SHARE_ADD, ACT_NANOSLEEP,
	ACT_FUTEX, ACT_EPOLL, ACT_SLEEP_INSIDE, ACT_LOCK, ACT_UNLOCK,
};
enum region_kind { REG_ANON, REG_HUGE, REG_SHARED, REG_PRIVATE, REG_HEAP };

/* The spec file, mapped and checked. */
struct spec {
	const struct wire_spec_header *h;
	const uint8_t *image, *blob;
	const struct wire_function *functions;
	const struct wire_code_version *versions;
	const struct wire_worker *workers;
	const uint32_t *roots;
	const uint64_t *arrivals;
	const struct wire_action *actions;
	const struct wire_region *regions;
	const struct wire_patch *patches;
	const struct wire_change *changes;
};

struct worker {
	uint32_t id;
	const struct wire_worker *w;
	pthread_t thread;
	pid_t tid;
	/*
	 * Records go straight to their place in the trace: the patchable code
	 * is handed next, writes there and hands it back.  After end comes a
	 * page that faults, for code that went astray.
	 */
	struct wire_record *first, *next, *end;
	uint64_t dropped;
	uint64_t txns, requests, mem_ops, mem_skipped;	/* own, watchdog reads */
	uint32_t root, action;		/* next of each */
	uint32_t inside_ns;		/* sleep within the next transaction */
	uint32_t went_off;		/* generation in which it went offline */
	uint64_t seen[SHARED_WORDS], added;
	struct wire_record *child;	/* shared page: a forked child's records */
	bool started, ended;		/* atomic */
	uint8_t altstack[ALTSTACK];
};

struct program {
	struct spec spec;
	uint32_t strategy;
	const char *trace_path;
	int trace_fd;
	struct worker *workers;
	size_t nworkers;
	uint64_t start_ns, spin_per_ms;
	bool patches_done;		/* atomic */
	uint64_t stalled_until;		/* atomic: nobody begins a transaction before */
	uint32_t alive;			/* atomic: threads started and not ended */
	struct wire_trace_header trace;
	struct wire_report *reports;
	size_t nreports;
	struct wire_counter *counters;
	size_t ncounters;
	struct wire_state *states;
	size_t nstates;
	uint64_t *shared;		/* words that all threads add to */
};
extern struct program P;
extern __thread struct worker *self;
/* In a forked child: a crash is the parent's to report. */
extern __thread bool in_child;

static inline bool patching(void) { return P.strategy != WIRE_STRATEGY_NONE; }
/* By libwflp; else threads know nothing of patches. */
static inline bool by_library(void)
{
	return patching() && P.strategy != WIRE_STRATEGY_STOPWORLD &&
	       P.strategy != WIRE_STRATEGY_RESTART;
}

/* trace.c */
uint64_t now_ns(void);
void sleep_until(uint64_t ns);
void trace_alloc(void);
void trace_counters(uint32_t end);
void trace_write(uint32_t end);
void trace_states(void);
uint64_t trace_private_kib(void);
void rec(struct worker *w, uint16_t kind, uint16_t a, uint32_t b, uint64_t c);
void crash_init(void);
void crash_altstack(struct worker *w);

/* text.c */
/* A patch as edits. What the text is now is known from those applied before. */
struct edits {
	struct wflp_edit *e;
	size_t n, room;
	uint8_t *wrong;
};
void text_map(void);
void edits_of(struct edits *x, const struct wire_patch *p);
void shadow_apply(const struct wire_patch *p);
void *patcher_main(void *arg);

/* stop.c */
void stop_start(void);
void stop_patch(struct wire_report *r);
void stop_end(void);
uint32_t stop_generation(void);
void stop_tables(const struct wire_stop **stops, uint64_t *nstops,
		 const struct wire_frame **frames, uint64_t *nframes, uint64_t *lost);

/* restart.c */
bool restart_run(uint64_t deadline);
uint32_t restart_generation(void);
bool restart_stopping(void);
void restart_sleep_until(uint64_t ns);
void restart_up(uint32_t waited);

/* worker.c */
uint32_t generation(void);
uint64_t spin_calibrate(void);
void worker_start(struct worker *w);
struct wire_record *call_code(uint64_t entry, struct wire_record *next);
struct wire_record *run_roots(struct worker *w, uint32_t from, uint32_t n,
			      struct wire_record *next);
void go_offline(struct worker *w);
void go_online(struct worker *w);

/* memory.c */
void memory_init(void);
void memory_action(struct worker *w, const struct wire_action *a);
extern char probe_load_at[], probe_store_at[], probe_fault[];

/* Set-up that fails is not the program's doing. */
void die(int status, const char *what) __attribute__((noreturn));

#endif
