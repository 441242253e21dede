/* SPDX-License-Identifier: MIT */
/*
 * What the files of the library share.  Nothing here is exported from the
 * shared object; the tests link the archive and may replace wflp_sys.
 *
 * Lock order: text_lock, then G.lock.  No system call that can sleep is made
 * under G.lock: registration of a thread waits at most for a walk of the list.
 */
#ifndef WFLP_INTERNAL_H
#define WFLP_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wflp.h"
#include "wflp/mm_view.h"

#define HIDDEN __attribute__((visibility("hidden")))

#define load_acquire(p)		__atomic_load_n((p), __ATOMIC_ACQUIRE)
#define load_seq(p)		__atomic_load_n((p), __ATOMIC_SEQ_CST)
#define load_relaxed(p)		__atomic_load_n((p), __ATOMIC_RELAXED)
#define store_release(p, v)	__atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define store_relaxed(p, v)	__atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define swap_seq(p, v)		__atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)

/*
 * Everything that the library asks of the machine, in one table: the tests put
 * a model of the kernel, or one that fails, in its place.  All return -errno.
 */
struct wflp_sys {
	int (*view_create)(unsigned int flags);
	int (*view_enter)(int fd, unsigned int flags);
	long (*view_ctl)(int fd, unsigned int op, void *arg, size_t size);
	ssize_t (*view_read)(int fd, void *buf, size_t len, uintptr_t addr);
	ssize_t (*view_write)(int fd, const void *buf, size_t len, uintptr_t addr);
	int (*view_close)(int fd);
	/* id of the view that a thread of this process is in, 0 = base */
	int64_t (*thread_view)(pid_t tid);
	/* some thread of this process that is in that view, 0 = none found */
	pid_t (*thread_in_view)(uint64_t id);

	/* the text in place: /proc/self/mem */
	int (*mem_open)(void);
	ssize_t (*mem_read)(int fd, void *buf, size_t len, uintptr_t addr);
	ssize_t (*mem_write)(int fd, const void *buf, size_t len, uintptr_t addr);
	/* 0, or -errno where the kernel has no SYNC_CORE command */
	int (*sync_core_register)(void);
	int (*sync_core)(void);

	void *(*alloc)(size_t size);
};
extern struct wflp_sys wflp_sys HIDDEN;

/*
 * /proc as whoever set it had it open, for a process that starts the library after a
 * chroot; -1: as it is found by its name.
 */
extern int wflp_proc HIDDEN;
/* A file below /proc; -errno. */
int wflp_proc_open(const char *path, int flags) HIDDEN;

struct edit {
	uintptr_t addr;
	const uint8_t *old_bytes;
	const uint8_t *new_bytes;
	size_t len;
};

/* Code that a thread must not be in when it moves: [lo, hi), sorted, disjoint. */
struct wflp_ranges {
	size_t n;
	struct wflp_range {
		uintptr_t lo, hi;
	} r[];
};

/*
 * Where a thread was when it came to a candidate: a call that blocks, of which
 * nobody promised what is on the stack.  Who looks later unwinds from here.
 */
struct wflp_frame {
	uintptr_t rip, rsp, rbp, rbx, r12, r13, r14, r15;
	uintptr_t caller;	/* who made the call */
	uintptr_t stack_low;	/* of the thread */
	uintptr_t stack_end;	/* 0: it comes to no candidates */
};

/*
 * Whether none of the ranges is on the stack that begins at the frame; false if
 * that cannot be told.  rd reads the stack of another thread, which may change
 * or vanish meanwhile; NULL: it is the caller's own.  Whoever has candidates sets
 * it before the first.
 */
typedef ssize_t (*wflp_reader)(int fd, void *buf, size_t len, uintptr_t addr);
extern bool (*wflp_stack_free)(const struct wflp_frame *f, const struct wflp_ranges *ranges,
			       wflp_reader rd, int fd) HIDDEN;

enum job_kind {
	JOB_PATCH,	/* edits, to one variant or to all */
	JOB_CREATE,	/* a variant with the content of another */
	JOB_ADOPT,	/* give one variant, or all, the content of another */
	JOB_REMOVE,
	JOB_REBASE,
};

/* A ticket.  Protected by G.lock, but for edits, which the patcher owns. */
struct job {
	struct job *next;	/* all that are remembered, newest first */
	struct job *queue_next;
	int64_t ticket;
	enum job_kind kind;
	unsigned int variant;	/* WFLP_VARIANT_ALL, or which one */
	unsigned int from;	/* CREATE, ADOPT */
	unsigned int *number;	/* CREATE: where submit() puts the new number */
	unsigned int old_left;	/* superseded views that are not empty yet */
	struct wflp_report rep;
	unsigned int waiters;	/* wflp_wait() calls that hold a pointer to it */
	size_t n;
	struct edit *edits;	/* NULL once finished */
	const struct wflp_ranges *ranges;	/* see wflp_apply_watched() */
};

/* A registered thread.  Exists, with its TLS, as long as it is in the list. */
struct thread {
	struct thread *prev, *next;	/* G.lock */
	struct wflp_self *self;
	pid_t tid;
	uint64_t serial;	/* tells a thread from a later one of the same tid */
	uint64_t generation;	/* atomic; UINT64_MAX until first known */
	uint64_t at;		/* atomic; waitfree: target where it is, if that is known */
	uint64_t where;		/* atomic: see where_make() */
	uint64_t seen;		/* private: what the last move returned with */
	unsigned int variant;	/* private: of the last move */
	/*
	 * Atomic.  The epoch for which this thread is still counted in
	 * P.remaining, 0 if none.  Whoever swaps it to 0 - the thread, or the
	 * patcher for a sleeping one - does the subtraction, so each thread is
	 * subtracted exactly once, however both sides race.
	 */
	uint64_t owed;
	struct wflp_frame frame;	/* atomics; of its last candidate */
	uint64_t vouched;	/* atomic: epoch for which a sleeper was last vouched for */
};

/*
 * The word of a thread that sleeps at a candidate.  The kernel's bit is clear: it
 * must not be moved, for all that is known.  The patcher, if it wants it moved,
 *	1. marks the word CHECKING,
 *	2. looks at the stack,
 *	3. exchanges CANDIDATE|CHECKING for the word of a thread that is offline.
 * The thread, when the call is over, swaps the word for 0; at its next candidate it
 * stores CANDIDATE.  It never waits, and only the patcher sets CHECKING.  So if (3)
 * succeeds then the thread has not left the call since (1), and what is on the
 * stack above the call was the same all the while.  If it woke, (3) fails:
 *
 *	thread				patcher
 *	word = CANDIDATE; sleeps
 *					CANDIDATE -> CANDIDATE|CHECKING
 *					reads the stack
 *	wakes: word = 0
 *	runs code that is replaced
 *	word = CANDIDATE; sleeps
 *					CANDIDATE|CHECKING -> offline: fails
 *
 * A word that stays CHECKING is a thread that may not be moved where it sleeps.
 * Before the next patch is published the patcher takes back what it vouched for.
 */
#define WORD_CANDIDATE	(1u << 8)
#define WORD_CHECKING	(1u << 9)

static inline bool is_offline(uint32_t word)
{
	return word & MM_VIEW_WORD_OFFLINE;
}

/*
 * thread.where: the variant that a thread belongs to, and every variant in whose
 * code it may still be or to whose code it may be on its way.  A patch counts
 * the threads that may be in the variants which it changes.
 * High 24 bits: number of assignments, by which one is told from the next.
 * Then 8: the variant.  Low 32: one bit a variant.
 * Assignments set bits, under G.lock.  When the thread has moved, the thread
 * itself, or the patcher for a sleeper, clears all but that of the variant, if
 * there has been no assignment since it looked.
 */
static inline uint64_t where_make(uint64_t serial, unsigned int variant, uint32_t maybe)
{
	return serial << 40 | (uint64_t)variant << 32 | maybe;
}

static inline unsigned int where_variant(uint64_t where)
{
	return where >> 32 & 0xff;
}

static inline uint64_t where_serial(uint64_t where)
{
	return where >> 40;
}

static inline uint32_t where_maybe(uint64_t where)
{
	return (uint32_t)where;
}

static inline bool where_settled(uint64_t where)
{
	return where_maybe(where) == 1u << where_variant(where);
}

/* The word that the kernel reads, of a thread of that variant which is offline. */
static inline uint32_t offline_word(unsigned int variant)
{
	return variant << 1 | MM_VIEW_WORD_OFFLINE;
}

/*
 * The patch in progress, as its threads see it.  Patches are strictly serial
 * and none ends before remaining (and leaving) is 0, so whoever holds a claim
 * (see thread.owed) writes to the patch that it was counted for.
 */
struct progress {
	uint32_t remaining;	/* threads that have not arrived */
	uint32_t leaving;	/* barrier: threads parked that were counted */
	uint32_t pulled;	/* threads that were over while asleep */
	uint64_t first_ns, last_ns;
};

/*
 * Where the threads of a variant are to go, in one word so that it is read in
 * one piece: a thread that read the view of one patch and the number of the next
 * would believe itself over while it is not.
 * High 40 bits: epoch, which is the generation.  Low 24: view fd + 1.
 */
#define TARGET_FD_BITS	24
#define TARGET_FD_MAX	((1 << TARGET_FD_BITS) - 2)

static inline uint64_t target_make(uint64_t epoch, int fd)
{
	return epoch << TARGET_FD_BITS | (uint64_t)(fd + 1);
}

static inline uint64_t target_epoch(uint64_t target)
{
	return target >> TARGET_FD_BITS;
}

static inline int target_fd(uint64_t target)
{
	return (int)(target & ((1 << TARGET_FD_BITS) - 1)) - 1;
}

enum lib_state { LIB_OFF, LIB_STARTING, LIB_ON, LIB_STOPPING };

#define VIEWS_MAX 64
#define REPORTS_KEPT 256

enum variant_state { VARIANT_NONE, VARIANT_RESERVED, VARIANT_LIVE };

/*
 * Each live variant but one has a view of its own, also where the content is
 * that of another: the view that a new thread is born in names the variant.
 */
struct variant {
	uint64_t target;	/* atomic */
	uint64_t view_id;	/* of the view in target; 0: the base */
	uint64_t last_id;	/* of the one before */
	enum variant_state state;
};

/* A view that has been superseded and is waited on until it is empty. */
struct old_view {
	int fd;
	uint64_t id;
	uint64_t generation;
	int64_t ticket;		/* of the patch that superseded it */
	unsigned int variant;
};

struct global {
	pthread_mutex_t lock;
	pthread_cond_t changed;		/* some report changed */
	enum lib_state state;
	enum wflp_strategy strategy;
	pthread_t patcher;
	int event_fd;			/* wakes the patcher */

	struct thread *threads, *threads_last;	/* in order of serial */
	size_t nthreads;
	uint64_t serial;

	struct job *jobs;		/* remembered, newest first */
	struct job *queue, **queue_tail;
	size_t unfinished;		/* queued or before LAST_OVER */
	int64_t last_ticket;

	struct variant variants[WFLP_VARIANTS_MAX];
	bool varied;			/* atomic: there has been more than one */
	uint32_t rebasing;		/* atomic: variants whose view is being closed */
	uint64_t epoch;			/* atomic: of the last publication */
	uint64_t newest;		/* atomic: newest published generation */
	uint32_t released;		/* atomic, futex: barrier epochs let go */
	struct progress p;		/* atomics */
	const struct wflp_ranges *ranges;	/* atomic: of the last publication */
	pid_t patcher_tid;		/* atomic */

	/* the patcher's own, but changed under the lock, for fork_child() */
	int new_fds[WFLP_VARIANTS_MAX];	/* views being made; -1 */
	struct old_view old[VIEWS_MAX];
	size_t nold;
	int mem_fd;
	bool sync_core;			/* the kernel does it for us */
};
extern struct global G HIDDEN;

/* Held while text is changed in place; fork() waits for it. */
extern pthread_mutex_t text_lock HIDDEN;

/* wflp.c */
uint64_t wflp_now(void) HIDDEN;
void wflp_notify(void) HIDDEN;
bool wflp_claim(struct thread *t, uint64_t epoch, bool asleep, bool park) HIDDEN;
void wflp_over(void) HIDDEN;
bool wflp_settle(struct thread *t, uint64_t where) HIDDEN;

/*
 * For programs that know nothing of quiescence points (src/preload).  A thread
 * that is registered says where its stack ends, and from then on brackets calls
 * that block:
 *	struct wflp_frame *f = wflp_candidate();
 *	if (f) { store the registers in *f; wflp_candidate_begin(); }
 *	the call
 *	if (f) wflp_candidate_end();
 */
/* As wflp_thread_register(), anywhere; -EBUSY once there has been a patch. */
int wflp_thread_register_as_is(void) HIDDEN;
int wflp_candidate_thread(uintptr_t stack_low, uintptr_t stack_end) HIDDEN;
struct wflp_frame *wflp_candidate(void) HIDDEN;
void wflp_candidate_begin(void) HIDDEN;
void wflp_candidate_end(void) HIDDEN;
/* Around a signal handler, which may have come in the middle of one. */
struct wflp_interrupted {
	struct wflp_frame frame;
	uint32_t word;
};
void wflp_candidate_suspend(struct wflp_interrupted *i) HIDDEN;
void wflp_candidate_resume(const struct wflp_interrupted *i) HIDDEN;

struct wflp_thread_info {
	pid_t tid;
	uint64_t generation;	/* UINT64_MAX: not known yet */
};
/* Registered threads, room at most; returns how many there are. */
size_t wflp_threads(struct wflp_thread_info *info, size_t room) HIDDEN;
/* The kernel's id of the view that is newest for variant 0. */
uint64_t wflp_newest_view(void) HIDDEN;

/* x86, for who may run text that another processor has changed. */
void wflp_serialise(void) HIDDEN;

/*
 * Set before wflp_init(WFLP_NAIVE), which then changes text only while all stand:
 * stop() returns 0 when every thread but the library's own is stopped with none of
 * the ranges on its stack, -EAGAIN if that may be so another time.  Called with both
 * locks, so that nobody is stopped with one.
 */
extern int (*wflp_stop)(const struct wflp_ranges *ranges) HIDDEN;
extern void (*wflp_go)(void) HIDDEN;

/* patcher.c */
void *wflp_patcher(void *arg) HIDDEN;
void wflp_jobs_forget(bool all) HIDDEN;
unsigned int wflp_variant_of_view(uint64_t id) HIDDEN;

/*
 * wflp_apply(), of code that threads at candidates may be in: these are moved only
 * if none of the ranges is on their stack.  The ranges must stay for ever.
 */
int64_t wflp_apply_watched(const struct wflp_edit *edits, size_t n, unsigned int flags,
			   const struct wflp_ranges *ranges) HIDDEN;

/* text.c */
int wflp_text_check(const struct edit *e, size_t n, int32_t *bad) HIDDEN;
int wflp_text_verify(ssize_t (*rd)(int, void *, size_t, uintptr_t), int fd,
		     const struct edit *e, size_t n, int32_t *bad) HIDDEN;
int wflp_text_write(int fd, const struct edit *e, size_t n, int32_t *bad) HIDDEN;

#endif /* WFLP_INTERNAL_H */
