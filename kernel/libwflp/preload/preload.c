/* SPDX-License-Identifier: MIT */
/*
 * Start, threads, signal handlers, fork.  Whatever goes wrong leaves the program
 * running as if the library were not there; why is what `wflp ctl PID status` says.
 *
 *	WFLP_STRATEGY	waitfree (default), barrier or stopworld
 *	WFLP_SITES	safe points, see sites.c; all blocking calls if empty
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"

static enum { OFF, STARTING, ON, FAILED } state;
static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
static char reason[256];
static enum wflp_strategy strategy = WFLP_WAITFREE;
static bool stops;	/* stopworld */

void *next(void **cache, const char *name, const char *version)
{
	void *fn = load_acquire(cache);

	if (!fn) {
		fn = version ? dlvsym(RTLD_NEXT, name, version) : dlsym(RTLD_NEXT, name);
		store_release(cache, fn);
	}
	return fn;
}

const char *why_not(void)
{
	return load_acquire(&state) == ON ? NULL : reason;
}

const char *strategy_name(void)
{
	return stops ? "stopworld" : strategy == WFLP_BARRIER ? "barrier" : "waitfree";
}

static void fail(const char *what, int err)
{
	if (what != reason)
		snprintf(reason, sizeof(reason), "%s: %s", what, strerrordesc_np(-err));
	store_release(&state, FAILED);
}

/*
 * Where the thread's stack is.  That of a process's first thread is read from /proc,
 * which a child of fork may have left by a chroot before it starts; but its stack is
 * where the forking thread's was.
 */
static __thread struct wflp_range stack __attribute__((tls_model("initial-exec")));

static void find_stack(void)
{
	pthread_attr_t attr;
	size_t size = 0;
	void *low = NULL;

	if (stack.hi || pthread_getattr_np(pthread_self(), &attr))
		return;
	pthread_attr_getstack(&attr, &low, &size);
	pthread_attr_destroy(&attr);
	stack = (struct wflp_range){ (uintptr_t)low, (uintptr_t)low + size };
}

static void stack_of_thread(void)
{
	find_stack();
	if (stack.hi)
		wflp_candidate_thread(stack.lo, stack.hi);
}

void own_stack(struct wflp_frame *f)
{
	f->stack_low = stack.lo;
	f->stack_end = stack.hi;
}

/* A thread that cannot be registered is listed as one that holds its old code. */
static void register_thread(void)
{
	if (!wflp_thread_register())
		stack_of_thread();
}

static __thread bool looked_at __attribute__((tls_model("initial-exec")));

void ours(void)
{
	looked_at = true;
}

/* jemalloc's background threads are such; they look for pthread_create() behind us. */
struct wflp_frame *adopt(void)
{
	if (looked_at || load_acquire(&state) != ON)
		return NULL;
	looked_at = true;
	if ((pid_t)syscall(SYS_gettid) == load_acquire(&G.patcher_tid) ||
	    wflp_thread_register_as_is())
		return NULL;
	stack_of_thread();
	return wflp_candidate();
}

static void start(void)
{
	const char *name = getenv("WFLP_STRATEGY"), *sites = getenv("WFLP_SITES");
	static bool sites_known;	/* also to children of fork, which may not find the files */
	int err;

	store_release(&state, STARTING);
	/* It has quiescence points of its own, and one word a thread. */
	if (dlsym(RTLD_DEFAULT, "wflp_init")) {
		snprintf(reason, sizeof(reason), "the program uses libwflp itself");
		fail(reason, 0);
	} else if (name && *name && strcmp(name, "waitfree") && strcmp(name, "barrier") &&
		   strcmp(name, "stopworld")) {
		snprintf(reason, sizeof(reason), "WFLP_STRATEGY: there is no %s", name);
		fail(reason, 0);
	} else if (sites && !sites_known && !sites_init(sites, reason, sizeof(reason))) {
		fail(reason, 0);
	} else if (!unwind_init()) {
		fail("libunwind", -ENOMEM);
	} else {
		if (name && !strcmp(name, "barrier"))
			strategy = WFLP_BARRIER;
		if (name && !strcmp(name, "stopworld")) {
			strategy = WFLP_NAIVE;
			stops = stop_init();
		}
		sites_known = true;
		wflp_stack_free = stack_free;
		err = strategy == WFLP_NAIVE && !stops ? -ENOTSUP :
			wflp_init(strategy, stops ? WFLP_INIT_ALLOW_UNSAFE : 0);
		if (err == -ENOSYS) {
			snprintf(reason, sizeof(reason), "the kernel has no views");
			fail(reason, 0);
		} else if (err) {
			fail("wflp_init", err);
		} else {
			register_thread();
		}
	}
	/* Also to say what is wrong. Its thread is none of the program's. */
	err = control_start();
	if (err && load_acquire(&state) == STARTING)
		fail("control socket", err);
	if (load_acquire(&state) == STARTING)
		store_release(&state, ON);
}

/*
 * A child of fork is started when it makes a thread, so one that only writes a
 * file and ends costs nothing.
 */
static void start_if_forked(void)
{
	/* Also the thread of the control socket, made by a start that has failed. */
	if (load_acquire(&state) != OFF)
		return;
	pthread_mutex_lock(&start_lock);
	if (load_acquire(&state) == OFF)
		start();
	pthread_mutex_unlock(&start_lock);
}

static int memory = -1;

static int memory_of_child(void)
{
	int fd = memory;

	memory = -1;
	return fd < 0 ? wflp_proc_open("self/mem", O_RDWR) : fd;
}

static void forked(void)
{
	/*
	 * Once the child has changed its user its own memory is no file of its own: the
	 * descriptor is opened before, where code is changed in place.
	 */
	if (memory >= 0)
		close(memory);
	memory = -1;
	if (strategy != WFLP_WAITFREE) {
		memory = wflp_proc_open("self/mem", O_RDWR);
		wflp_sys.mem_open = memory_of_child;
	}
	store_release(&state, OFF);
	pthread_mutex_init(&start_lock, NULL);
	control_forked();
}

__attribute__((constructor)) static void begin(void)
{
	/* Before a chroot, and before descriptors are counted. */
	wflp_proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	find_stack();
	pthread_atfork(NULL, NULL, forked);
	start();
}

/* ---- threads ---- */

struct birth {
	void *(*fn)(void *);
	void *arg;
};

static void *born(void *arg)
{
	struct birth b = *(struct birth *)arg;

	free(arg);
	looked_at = true;
	register_thread();
	return b.fn(b.arg);
}

static void *next_pthread_create;
SHOWN int pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	__typeof__(pthread_create) *call = NEXT(pthread_create);
	struct birth *b;
	int err;

	/* Threads of ours, which are made while we start. */
	if (load_acquire(&state) == STARTING)
		return call(t, attr, fn, arg);
	start_if_forked();
	b = load_acquire(&state) == ON ? malloc(sizeof(*b)) : NULL;
	if (!b)
		return call(t, attr, fn, arg);
	*b = (struct birth){ fn, arg };
	err = call(t, attr, born, b);
	if (err)
		free(b);
	return err;
}

/* ---- signals ---- */

/*
 * What the program has installed.  The handler and whether it takes three
 * arguments are one word: a signal may come in between.
 */
static uintptr_t handlers[_NSIG];
#define TAKES_INFO (1ul << 63)

static void on_signal(int sig, siginfo_t *info, void *context)
{
	uintptr_t handler = load_acquire(&handlers[sig]);
	struct wflp_interrupted interrupted;

	wflp_candidate_suspend(&interrupted);
	if (handler & TAKES_INFO)
		((void (*)(int, siginfo_t *, void *))(handler & ~TAKES_INFO))(sig, info, context);
	else
		((void (*)(int))handler)(sig);
	wflp_candidate_resume(&interrupted);
}

static bool is_handler(const struct sigaction *act)
{
	return act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN;
}

static void *next_sigaction;
SHOWN int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	__typeof__(sigaction) *call = NEXT(sigaction);
	uintptr_t before;
	struct sigaction ours, was;
	int err, saved;

	if (stops && sig == STOP_SIGNAL) {
		errno = EINVAL;	/* as for those that the C library keeps for itself */
		return -1;
	}
	if (sig <= 0 || sig >= _NSIG)
		return call(sig, act, old);
	before = load_acquire(&handlers[sig]);
	if (act && is_handler(act)) {
		ours = *act;
		ours.sa_flags |= SA_SIGINFO;
		ours.sa_sigaction = on_signal;
		if (stops)
			sigdelset(&ours.sa_mask, STOP_SIGNAL);
		store_release(&handlers[sig], (uintptr_t)act->sa_sigaction |
			      (act->sa_flags & SA_SIGINFO ? TAKES_INFO : 0));
	}
	err = call(sig, act && is_handler(act) ? &ours : act, &was);
	if (err) {
		saved = errno;
		store_release(&handlers[sig], before);
		errno = saved;
		return err;
	}
	if (was.sa_flags & SA_SIGINFO && was.sa_sigaction == on_signal) {
		was.sa_sigaction = (void (*)(int, siginfo_t *, void *))(before & ~TAKES_INFO);
		if (!(before & TAKES_INFO))
			was.sa_flags &= ~SA_SIGINFO;
	}
	if (old)
		*old = was;
	return 0;
}

int next_sigaction_call(int sig, const struct sigaction *act)
{
	return NEXT(sigaction)(sig, act, NULL);
}

/* Nobody blocks the signal that stops. */
static const sigset_t *without_stop(int how, const sigset_t *set, sigset_t *copy)
{
	if (!stops || !set || how == SIG_UNBLOCK)
		return set;
	*copy = *set;
	sigdelset(copy, STOP_SIGNAL);
	return copy;
}

static void *next_sigprocmask, *next_pthread_sigmask;
SHOWN int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t copy;

	return NEXT(sigprocmask)(how, without_stop(how, set, &copy), old);
}

SHOWN int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t copy;

	return NEXT(pthread_sigmask)(how, without_stop(how, set, &copy), old);
}

SHOWN sighandler_t signal(int sig, sighandler_t handler)
{
	struct sigaction act = { .sa_handler = handler, .sa_flags = SA_RESTART }, old;

	sigemptyset(&act.sa_mask);
	sigaddset(&act.sa_mask, sig);
	return sigaction(sig, &act, &old) ? SIG_ERR : old.sa_handler;
}
