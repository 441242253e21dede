/* SPDX-License-Identifier: MIT */
/*
 * Calls that block.  Each one stores the registers of its caller and brackets the C
 * library's call, which is some ten instructions and one locked one, and nothing
 * else as long as there is no patch.
 *
 * The bracket closes also where the thread is cancelled in the call, before the
 * program's cleanup handlers run, and if an exception passes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "preload.h"

static inline __attribute__((always_inline)) struct wflp_frame *enter(void *caller)
{
	struct wflp_frame *f = wflp_candidate();

	if (!f)
		f = adopt();
	if (!f)
		return NULL;
	/* In the order of the struct. The unwinder knows what gcc's frame is like here. */
	__asm__ volatile("leaq 0(%%rip), %%rax\n\t"
			 "movq %%rax, 0(%0)\n\t"
			 "movq %%rsp, 8(%0)\n\t"
			 "movq %%rbp, 16(%0)\n\t"
			 "movq %%rbx, 24(%0)\n\t"
			 "movq %%r12, 32(%0)\n\t"
			 "movq %%r13, 40(%0)\n\t"
			 "movq %%r14, 48(%0)\n\t"
			 "movq %%r15, 56(%0)"
			 : : "r"(f) : "rax", "memory");
	store_relaxed(&f->caller, (uintptr_t)caller);
	wflp_candidate_begin();
	return f;
}

static void leave(struct wflp_frame **f)
{
	if (*f)
		wflp_candidate_end();
}

#define BLOCKING(type, name, parameters, arguments)				\
	static void *next_##name;						\
	SHOWN type name parameters;						\
	SHOWN type name parameters						\
	{									\
		__typeof__(name) *call = NEXT(name);				\
		struct wflp_frame *frame __attribute__((cleanup(leave))) = NULL;	\
										\
		frame = enter(__builtin_return_address(0));			\
		return call arguments;						\
	}

/* The oldest version of these is for programs of another century. */
#define BLOCKING_AT(version, type, name, parameters, arguments)			\
	static void *next_##name;						\
	SHOWN type name parameters;						\
	SHOWN type name parameters						\
	{									\
		__typeof__(name) *call = NEXT_AT(name, version);		\
		struct wflp_frame *frame __attribute__((cleanup(leave))) = NULL;	\
										\
		frame = enter(__builtin_return_address(0));			\
		return call arguments;						\
	}

BLOCKING(int, epoll_wait, (int fd, struct epoll_event *ev, int n, int ms), (fd, ev, n, ms))
BLOCKING(int, epoll_pwait, (int fd, struct epoll_event *ev, int n, int ms, const sigset_t *mask),
	 (fd, ev, n, ms, mask))
BLOCKING(int, epoll_pwait2,
	 (int fd, struct epoll_event *ev, int n, const struct timespec *ts, const sigset_t *mask),
	 (fd, ev, n, ts, mask))
BLOCKING(int, poll, (struct pollfd *fds, nfds_t n, int ms), (fds, n, ms))
BLOCKING(int, ppoll,
	 (struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask),
	 (fds, n, ts, mask))
BLOCKING(int, __poll_chk, (struct pollfd *fds, nfds_t n, int ms, size_t size), (fds, n, ms, size))
BLOCKING(int, __ppoll_chk,
	 (struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask, size_t size),
	 (fds, n, ts, mask, size))
BLOCKING(int, select, (int n, fd_set *r, fd_set *w, fd_set *x, struct timeval *tv), (n, r, w, x, tv))
BLOCKING(int, pselect,
	 (int n, fd_set *r, fd_set *w, fd_set *x, const struct timespec *ts, const sigset_t *mask),
	 (n, r, w, x, ts, mask))

BLOCKING(int, accept, (int fd, struct sockaddr *a, socklen_t *len), (fd, a, len))
BLOCKING(int, accept4, (int fd, struct sockaddr *a, socklen_t *len, int flags), (fd, a, len, flags))
BLOCKING(ssize_t, read, (int fd, void *buf, size_t n), (fd, buf, n))
BLOCKING(ssize_t, __read_chk, (int fd, void *buf, size_t n, size_t room), (fd, buf, n, room))
BLOCKING(ssize_t, recv, (int fd, void *buf, size_t n, int flags), (fd, buf, n, flags))
BLOCKING(ssize_t, __recv_chk, (int fd, void *buf, size_t n, size_t room, int flags),
	 (fd, buf, n, room, flags))
BLOCKING(ssize_t, recvfrom,
	 (int fd, void *buf, size_t n, int flags, struct sockaddr *a, socklen_t *len),
	 (fd, buf, n, flags, a, len))
BLOCKING(ssize_t, recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags))

BLOCKING(int, nanosleep, (const struct timespec *ts, struct timespec *left), (ts, left))
BLOCKING(int, clock_nanosleep,
	 (clockid_t clock, int flags, const struct timespec *ts, struct timespec *left),
	 (clock, flags, ts, left))
BLOCKING(unsigned int, sleep, (unsigned int s), (s))
BLOCKING(int, usleep, (useconds_t us), (us))
BLOCKING(int, sigwait, (const sigset_t *set, int *sig), (set, sig))
BLOCKING(int, sem_wait, (sem_t *s), (s))

BLOCKING_AT("GLIBC_2.3.2", int, pthread_cond_wait, (pthread_cond_t *c, pthread_mutex_t *m), (c, m))
BLOCKING_AT("GLIBC_2.3.2", int, pthread_cond_timedwait,
	    (pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *ts), (c, m, ts))
BLOCKING(int, pthread_cond_clockwait,
	 (pthread_cond_t *c, pthread_mutex_t *m, clockid_t clock, const struct timespec *ts),
	 (c, m, clock, ts))
BLOCKING(int, pthread_join, (pthread_t t, void **value), (t, value))

/*
 * A lock that is free costs one call more and no bracket.  The library's own locks
 * are none of this: it is built to call the C library's function.
 */
static void *next_pthread_mutex_lock;
int direct_mutex_lock(pthread_mutex_t *m)
{
	return NEXT(pthread_mutex_lock)(m);
}

SHOWN int pthread_mutex_lock(pthread_mutex_t *m)
{
	struct wflp_frame *frame __attribute__((cleanup(leave))) = NULL;
	int err = pthread_mutex_trylock(m);

	if (err != EBUSY)
		return err;
	frame = enter(__builtin_return_address(0));
	return NEXT(pthread_mutex_lock)(m);
}
