/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the fuzzing driver share.  It runs one scenario in a process
 * of its own, which may die in any way, and writes one trace.
 */
#ifndef WFLP_FUZZ_H
#define WFLP_FUZZ_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

#include "fuzzwire.h"

#define W(name) FUZZWIRE_##name
#define PAGE 4096ul

/* Memory that all processes of a run share, beside the trace. */
struct shared {
	uint64_t stamp __attribute__((aligned(64)));
	uint32_t go __attribute__((aligned(64)));
	uint32_t claimed[W(MAX_LISTS) + 1];	/* a list runs once */
	uint32_t meet[16];
};

struct self {
	uint32_t list;
	struct fuzzwire_stream *stream;
	struct fuzzwire_record *records;
	uint32_t word __attribute__((aligned(64)));	/* for MM_VIEW_REGISTER */
	uint32_t futex;
	int who_fd, fail_fd, kcov_fd;
	uint64_t *kcov;
	unsigned int fail;	/* the next operation's allocation that fails */
	uint16_t op;		/* at work */
	uint16_t sub;		/* values it has made */
	pthread_t thread;
	bool started;
};

struct run {
	const struct fuzzwire_scenario_header *scenario;
	const struct fuzzwire_list *lists;
	const struct fuzzwire_op *ops;
	unsigned int nlists;
	struct fuzzwire_trace_header *trace;
	struct fuzzwire_stream *streams;
	struct fuzzwire_record *records;
	struct shared *shared;
	uint64_t *pcs;			/* a hash set of kernel addresses, or NULL */
	struct self selves[W(MAX_LISTS) + 1];	/* of this process */
	int slots[W(SLOTS)];		/* of this process, atomic */
	int files[W(AREAS)];
	int other;			/* a descriptor that is no view */
	pid_t pid;
};
extern struct run R;
extern __thread struct self *self;

#define PCS 65536u
#define GROUP "/sys/fs/cgroup/fuzz"	/* of scenarios that set its limits */
#define BRK_MOST 64u			/* pages of the heap that OP_BRK may have */

static inline uint64_t stamp(void)
{
	return __atomic_add_fetch(&R.shared->stamp, 1, __ATOMIC_SEQ_CST);
}

static inline long neg(long ret)
{
	return ret < 0 ? -errno : ret;
}

static inline char *unit_addr(unsigned int area, unsigned int unit)
{
	static const uint64_t at[] = {
		W(NEAR_ADDR), W(MID_ADDR), W(FAR_ADDR), W(HUGE_ADDR), W(CODE_ADDR)
	};

	return (char *)at[area] +
	       unit * (area == W(AREA_HUGE) ? W(HUGE_PAGES) * PAGE : PAGE);
}

static inline size_t unit_len(unsigned int area)
{
	return area == W(AREA_HUGE) ? W(HUGE_PAGES) * PAGE : PAGE;
}

static inline char *fn_addr(unsigned int fn)
{
	return (char *)W(CODE_ADDR) + fn * W(CELL_BYTES);
}

/* driver.c */
void die(const char *what) __attribute__((noreturn));
uint64_t now_ns(void);
struct fuzzwire_record *rec_begin(unsigned int kind, unsigned int unit, int fd);
long rec_end(struct fuzzwire_record *r, long ret);
void list_run(unsigned int list);
long list_spawn(unsigned int list);
long list_fork(unsigned int list);
void *map_area(unsigned int area, unsigned int unit, unsigned int count, unsigned int kind,
	       unsigned int prot);

/* ops.c */
void op_run(const struct fuzzwire_op *o);
void op_final(void);
void kcov_start(void);
void kcov_room(void);
void kcov_stop(void);

/* probe.c: each returns 0 or the signal, negative */
int probe_load(const void *p, uint64_t *val);
int probe_store(void *p, uint64_t val);
int probe_exec(const void *fn, uint64_t *val);
void probe_init(void);
bool probe_code(const unsigned char *bytes, uint64_t *val);

#endif
