/* SPDX-License-Identifier: MIT */
/*
 * Strategy stopworld: all threads are stopped, their stacks looked at, and if none of
 * the old functions is on one the code is written; else all go on and it is tried
 * again.  What patchers do that ask nothing of program and kernel, but from within:
 * what ptrace(2) does from another process a signal does here.
 *
 * A thread that gets the signal takes a slot, stores its registers and waits.  The
 * word that it waits on, the number of the attempt, is odd while one goes on.  A slot
 * is taken for an attempt or not at all:
 *
 *	state = attempt << 32 | slots that are taken
 *
 * so that a thread that comes late neither counts for the next attempt nor writes to
 * a slot of it.
 *
 * Nothing here takes a lock or memory: a thread may be stopped with any lock that it
 * can have.  Those of the library are held by the patcher meanwhile, and libunwind
 * blocks signals while it holds its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "preload.h"

#define SLOTS 4096
/* How long a stop may take, and how often is looked for threads that are new. */
#define STOP_MAX_NS 20000000
#define LOOK_AGAIN_NS 100000

static struct slot {
	pid_t tid;		/* atomic: the last to be stored */
	struct wflp_frame frame;
} slots[SLOTS];
static uint64_t state;		/* atomic */
static uint32_t attempt;	/* atomic, futex: the same as in state */
static uint32_t stopped, left;	/* atomic; stopped is a futex */

/* Who was sent the signal in this attempt; the patcher's own. */
static pid_t asked[SLOTS];
static size_t nasked;

static void futex(uint32_t *word, int op, uint32_t value, const struct timespec *ts)
{
	syscall(SYS_futex, word, op, value, ts, NULL, 0);
}

static void on_stop(int sig, siginfo_t *info, void *context)
{
	const greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
	uint64_t s = load_acquire(&state);
	int saved = errno;
	struct slot *slot;

	(void)sig;
	(void)info;
	do {
		if (!(s >> 32 & 1) || (uint32_t)s >= SLOTS)
			return;
	} while (!__atomic_compare_exchange_n(&state, &s, s + 1, false, __ATOMIC_ACQ_REL,
					      __ATOMIC_ACQUIRE));
	slot = &slots[(uint32_t)s];
	slot->frame = (struct wflp_frame){
		.rip = (uintptr_t)r[REG_RIP], .rsp = (uintptr_t)r[REG_RSP],
		.rbp = (uintptr_t)r[REG_RBP], .rbx = (uintptr_t)r[REG_RBX],
		.r12 = (uintptr_t)r[REG_R12], .r13 = (uintptr_t)r[REG_R13],
		.r14 = (uintptr_t)r[REG_R14], .r15 = (uintptr_t)r[REG_R15],
	};
	own_stack(&slot->frame);
	store_release(&slot->tid, (pid_t)syscall(SYS_gettid));
	__atomic_add_fetch(&stopped, 1, __ATOMIC_ACQ_REL);
	futex(&stopped, FUTEX_WAKE_PRIVATE, 1, NULL);
	while (load_acquire(&attempt) == (uint32_t)(s >> 32))
		futex(&attempt, FUTEX_WAIT_PRIVATE, (uint32_t)(s >> 32), NULL);
	/* The text is another: x86 wants a serialising instruction. */
	wflp_serialise();
	__atomic_add_fetch(&left, 1, __ATOMIC_ACQ_REL);
	errno = saved;
}

static bool has_stopped(pid_t tid)
{
	for (size_t i = 0; i < SLOTS; i++) {
		pid_t t = load_acquire(&slots[i].tid);

		if (!t)
			return false;
		if (t == tid)
			return true;
	}
	return false;
}

static void ask(pid_t tid)
{
	for (size_t i = 0; i < nasked; i++)
		if (asked[i] == tid)
			return;
	if (nasked < SLOTS) {
		asked[nasked++] = tid;
		syscall(SYS_tgkill, getpid(), tid, STOP_SIGNAL);
	}
}

struct dirent64_head {
	uint64_t ino;
	int64_t off;
	unsigned short size;
	unsigned char type;
	char name[];
};

/* 1: all threads stand that must; 0: not yet. */
static int all_stopped(int tasks)
{
	static char buf[32768] __attribute__((aligned(8)));
	int all = 1;
	long n;

	if (lseek(tasks, 0, SEEK_SET) < 0)
		return -errno;
	while ((n = syscall(SYS_getdents64, tasks, buf, sizeof(buf))) > 0)
		for (long at = 0; at < n;) {
			const struct dirent64_head *d = (const void *)(buf + at);
			pid_t tid = (pid_t)strtol(d->name, NULL, 10);

			at += d->size;
			if (tid <= 0 || is_helper(tid) || has_stopped(tid))
				continue;
			all = 0;
			ask(tid);
		}
	return n < 0 ? -errno : all;
}

/* Those who wait go on; who comes late does not wait. */
static void let_go(void)
{
	uint64_t s = load_acquire(&state);

	while (!__atomic_compare_exchange_n(&state, &s, ((s >> 32) + 1) << 32 | (uint32_t)s, false,
					    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		;
	store_release(&attempt, (uint32_t)(s >> 32) + 1);
	futex(&attempt, FUTEX_WAKE_PRIVATE, INT_MAX, NULL);
}

static void pause_ns(long ns)
{
	const struct timespec ts = { 0, ns };

	syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &ts, NULL);
}

static int stop(const struct wflp_ranges *ranges)
{
	const struct timespec again = { 0, LOOK_AGAIN_NS };
	uint64_t end = wflp_now() + STOP_MAX_NS;
	int tasks = wflp_proc_open("self/task", O_RDONLY | O_DIRECTORY), all = 0;
	uint32_t number = (uint32_t)(load_acquire(&state) >> 32) + 1, n;

	if (tasks < 0)
		return tasks;
	/* The slots of the last attempt are used again only when all have left them. */
	while (load_acquire(&left) != (uint32_t)load_acquire(&state))
		pause_ns(LOOK_AGAIN_NS);
	for (size_t i = 0; i < SLOTS && slots[i].tid; i++)
		slots[i].tid = 0;
	nasked = 0;
	store_release(&left, 0);
	store_release(&stopped, 0);
	store_release(&attempt, number);
	store_release(&state, (uint64_t)number << 32);
	for (;;) {
		n = load_acquire(&stopped);
		all = all_stopped(tasks);
		if (all || wflp_now() > end)
			break;
		futex(&stopped, FUTEX_WAIT_PRIVATE, n, &again);
	}
	close(tasks);
	n = load_acquire(&stopped);
	for (uint32_t i = 0; all > 0 && i < n; i++)
		if (!interrupted_free(&slots[i].frame, ranges))
			all = 0;
	if (all > 0)
		return 0;
	let_go();
	return all ? all : -EAGAIN;
}

bool stop_init(void)
{
	struct sigaction act = { .sa_sigaction = on_stop, .sa_flags = SA_SIGINFO | SA_RESTART };

	sigfillset(&act.sa_mask);
	wflp_stop = stop;
	wflp_go = let_go;
	return !next_sigaction_call(STOP_SIGNAL, &act);
}
