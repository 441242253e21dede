/* SPDX-License-Identifier: MIT */
/*
 * libwflp: live patching of a running multi-threaded process in which no
 * thread waits for another.
 *
 * A program registers its threads, calls wflp_quiescent() where a thread holds
 * no code that a patch may replace (its quiescence point), and applies patches
 * with wflp_apply().  Every function returns 0 (or a positive value where
 * documented) on success and -errno on failure; the library prints nothing and
 * never exits.
 */
#ifndef WFLP_H
#define WFLP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WFLP_VERSION_MAJOR 0
#define WFLP_VERSION_MINOR 1

/* How code is changed; one strategy per process, chosen at wflp_init(). */
enum wflp_strategy {
	/* Views: each thread migrates at its own quiescence point. */
	WFLP_WAITFREE = 1,
	/* Global quiescence: every thread waits until all have arrived. */
	WFLP_BARRIER = 2,
	/*
	 * UNSAFE, for evaluation only: the text is changed under the feet of
	 * running threads.  The control that correctness checks must catch.
	 */
	WFLP_NAIVE = 3,
};

/* wflp_init() flags */
#define WFLP_INIT_ALLOW_UNSAFE 1u	/* required with WFLP_NAIVE */

/*
 * Initialise the library for this process; once, from any thread.
 *   -EINVAL  unknown strategy or flags, or WFLP_NAIVE without ALLOW_UNSAFE
 *   -EALREADY already initialised
 *   -ENOSYS  WFLP_WAITFREE on a kernel without mm_view
 *   -ENOMEM, -EAGAIN, -EMFILE  no memory, thread or descriptor for the patcher
 *   -EACCES  in place: /proc/self/mem cannot be opened
 *   -EPERM   WFLP_WAITFREE: a seccomp filter forbids the calls
 */
int wflp_init(enum wflp_strategy strategy, unsigned int flags);

/* Finish queued patches, stop the patcher; -EBUSY while threads are registered. */
int wflp_fini(void);

/*
 * Join / leave the set of threads that patches wait for.  A thread that
 * executes patchable code must be registered while it does.  A registered
 * thread starts online, in the variant that its creator was in, and in the newest
 * published generation of that.
 *   -EALREADY / -ESRCH  already / not registered;  -ENODEV before wflp_init()
 */
int wflp_thread_register(void);
int wflp_thread_unregister(void);

/* Per-thread state; only wflp_quiescent() and its like read it. */
struct wflp_self {
	uint32_t pending;	/* non-zero: a patch wants this thread */
	uint32_t offline;	/* non-zero: offline; the word the kernel reads */
};
extern __thread struct wflp_self wflp_self
	__attribute__((tls_model("initial-exec")));
int wflp_quiescent_slow(void);

/*
 * Quiescence point: the calling thread holds no patchable code.  One load and
 * one branch while no patch is pending.  Returns 1 if the thread moved to
 * another generation, 0 if not, -errno if the move failed (the thread stays
 * where it was and will try again at its next point).
 */
static inline int wflp_quiescent(void)
{
	if (__builtin_expect(__atomic_load_n(&wflp_self.pending, __ATOMIC_ACQUIRE), 0))
		return wflp_quiescent_slow();
	return 0;
}

/*
 * Bracket a blocking call made at a quiescence point: between the two the
 * thread promises to run no patchable code, so a patch need not wait for it.
 * wflp_online() is a quiescence point itself and returns what that returns.
 */
int wflp_offline(void);
int wflp_online(void);

/* One change of code: len bytes at addr, which must now be old, become new. */
struct wflp_edit {
	void *addr;
	const void *old_bytes;
	const void *new_bytes;
	size_t len;
};

/* wflp_apply() flags: what to do while an earlier patch is still in progress */
#define WFLP_APPLY_QUEUE	0u	/* wait in line (default) */
#define WFLP_APPLY_TRY		1u	/* fail with -EBUSY */

/*
 * Start applying the edits to all variants, as one unit; returns at once with a
 * positive ticket.
 * The edits are copied.  Whatever goes wrong later is in the report.
 *   -EINVAL no edits, a length of 0, overlapping edits, unknown flags
 *   -EBUSY  (TRY) a patch is in progress;  -ENOMEM;  -ENODEV before wflp_init()
 */
int64_t wflp_apply(const struct wflp_edit *edits, size_t n, unsigned int flags);

enum wflp_stage {
	WFLP_QUEUED = 0,
	WFLP_PREPARING,
	WFLP_PUBLISHED,		/* threads may run the new code from here */
	WFLP_FIRST_OVER,	/* the first thread runs in the new generation */
	WFLP_LAST_OVER,		/* no registered thread can reach the old code */
	WFLP_RELEASED,		/* the previous generation's resources are gone */
	WFLP_FAILED,		/* nothing was changed; see error */
};

/*
 * CLOCK_MONOTONIC nanoseconds, 0 where the stage has not been reached.
 * error of a failed patch: -ESTALE old bytes differ, -EACCES / -EFAULT /
 * -EOPNOTSUPP an address cannot be patched, -EBUSY a uprobe is set there
 * (bad_edit tells which), -EMFILE no
 * view left (held_generation is the oldest generation still held and held_tid
 * a thread in it), -ENOMEM.
 */
struct wflp_report {
	uint64_t generation;	/* of the new code; 0 until published */
	int32_t stage;		/* enum wflp_stage */
	int32_t error;		/* 0 or -errno */
	uint64_t queued_ns, preparing_ns, create_ns, written_ns, sealed_ns;
	uint64_t published_ns, first_over_ns, last_over_ns, released_ns;
	uint32_t threads;	/* registered at publication */
	uint32_t migrated;	/* of these: moved at their own quiescence point */
	uint32_t pulled;	/* moved while asleep */
	int32_t bad_edit;	/* index, or -1 */
	uint64_t held_generation;
	int32_t held_tid;
	int32_t bad_variant;	/* the variant where bad_edit does not fit, or -1 */
};

/* size = sizeof(struct wflp_report). -ENOENT unknown ticket (old ones are forgotten). */
int wflp_report(int64_t ticket, struct wflp_report *report, size_t size);

/*
 * Wait until the patch has reached stage or failed. timeout_ns < 0: for ever.
 * Returns the stage reached; -ETIMEDOUT; -ENOENT.  A registered thread should
 * be offline meanwhile, or it holds up what it waits for.
 */
int wflp_wait(int64_t ticket, enum wflp_stage stage, int64_t timeout_ns);

/* Generation that the calling registered thread runs; and the newest one. */
uint64_t wflp_thread_generation(void);
uint64_t wflp_newest_generation(void);

/*
 * Variants: different code for different threads, for good.  Every registered
 * thread belongs to one variant; 0 exists from the start.  wflp_variants(7) has
 * the whole story.  WFLP_WAITFREE only: the other strategies have one text, and
 * but for wflp_variant_apply() to variant 0 or to all these calls return
 * -EOPNOTSUPP.  Common errors: -ENODEV before wflp_init(), -EINVAL no such
 * number, -ENOENT no variant of that number, -ENOMEM, -EBUSY as wflp_apply().
 * Calls of type int64_t return a ticket; patches and these wait in one queue.
 */
#define WFLP_VARIANTS_MAX	32u
#define WFLP_VARIANT_ALL	(~0u)

/* wflp_apply() to one variant; old bytes are compared with what that one has. */
int64_t wflp_variant_apply(unsigned int variant, const struct wflp_edit *edits, size_t n,
			   unsigned int flags);

/*
 * Make a variant with the content that like has when its turn comes.  The number
 * is known at once and may be used in further requests to the queue; threads can
 * be assigned from WFLP_PUBLISHED on.  The first one moves all threads from the
 * program as it was loaded to a view.  -ENOSPC 32 variants
 */
int64_t wflp_variant_create(unsigned int like, unsigned int *variant);

/*
 * Give a variant (or all) the content that another one has: promotes what a
 * canary runs (0 adopts 1), or takes it back (1 adopts 0).
 */
int64_t wflp_variant_adopt(unsigned int variant, unsigned int from, unsigned int flags);

/* Give up a variant without threads; the report's error is -EBUSY if it has any. */
int64_t wflp_variant_remove(unsigned int variant);

/*
 * Assign a registered thread (0: the caller) to a variant.  It takes effect at
 * that thread's next quiescence point, or while it is asleep and offline.
 *   -ESRCH no registered thread of that id
 */
int wflp_variant_assign(pid_t tid, unsigned int variant);

/* The variant whose code the calling registered thread runs; -ESRCH. */
int wflp_thread_variant(void);
/* Registered threads that are in the variant, or still on their way from or to it. */
int wflp_variant_threads(unsigned int variant);
/* The newest generation of the variant. */
int64_t wflp_variant_generation(unsigned int variant);

/*
 * Make the newest code that of the program as such, so that it needs no view any
 * more: the process is then an ordinary one, patched in memory.  Its code does not
 * change by that.  In the report: -EBUSY another variant exists, or a thread is in
 * an older generation (held_generation, held_tid); -EOPNOTSUPP the kernel cannot.
 */
int64_t wflp_rebase(void);

#ifdef __cplusplus
}
#endif
#endif /* WFLP_H */
