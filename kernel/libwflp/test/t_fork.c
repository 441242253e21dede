/* SPDX-License-Identifier: MIT */
/* The child of a fork is an ordinary process, and no danger to its parent. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

static struct subject s;
static bool stop, settled;

static void *sleeper(void *arg)
{
	need(!wflp_thread_register(), "register");
	wflp_offline();
	__atomic_store_n(&settled, true, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		sleep_us(1000);
	wflp_online();
	return arg;
}

static uint64_t versions(uint32_t v)
{
	return (uint64_t)v << 32 | v;
}

/* The library's descriptors: of the parent's memory, at worst. */
static bool inherited(void)
{
	char path[32], to[64];

	for (int fd = 3; fd < 64; fd++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, to, sizeof(to) - 1);
		if (n < 0)
			continue;
		to[n] = '\0';
		if (strstr(to, "/mem") || strstr(to, "eventfd") || strstr(to, "mm_view"))
			return true;
	}
	return false;
}

/* Returns the number of the first thing that is not as it should be. */
static int child(uint32_t v)
{
	struct wflp_report r;
	int64_t t;

	if (s.call() != versions(v))
		return 1;
	if (inherited())
		return 11;
	if (wflp_quiescent() || wflp_thread_unregister() != -ESRCH)
		return 2;
	if (wflp_thread_register() != -ENODEV)
		return 3;
	if (subject_patch(&s, v, 99, 0) != -ENODEV || wflp_fini() != -ENODEV)
		return 4;
	if (wflp_report(1, &r, sizeof(r)) != -ENOENT)
		return 5;
	if (wflp_newest_generation() != v)
		return 6;
#ifdef __SANITIZE_THREAD__
	/* It knows no new threads in the child of a process that had some. */
	return 0;
#endif
	if (wflp_init(WFLP_BARRIER, 0) || wflp_thread_register())
		return 7;
	wflp_offline();
	t = subject_patch(&s, v, 99, 0);
	if (finish(t, WFLP_RELEASED) != WFLP_RELEASED)
		return 8;
	wflp_online();
	if (s.call() != versions(99) || wflp_thread_generation() != v + 1)
		return 9;
	if (wflp_thread_unregister() || wflp_fini())
		return 10;
	return 0;
}

static void fork_once(uint32_t v, const char *when)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(child(v));
	need(pid > 0 && waitpid(pid, &status, 0) == pid, "fork");
	ok(WIFEXITED(status) && !WEXITSTATUS(status), "child %s: status %#x", when, status);
}

int main(int argc, char **argv)
{
	enum wflp_strategy strategy = init_from_args(argc, argv);
	pthread_t t;
	int64_t ticket;

	deadline(60);
	subject_make(&s, 0);
	t = spawn(sleeper, NULL);
	need(!wflp_thread_register(), "register");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	/* Their allocators are not made for a fork in the middle of a malloc(). */
	while (!__atomic_load_n(&settled, __ATOMIC_ACQUIRE))
		sleep_us(100);
#endif
	fork_once(0, "before any patch");
	ticket = subject_patch(&s, 0, 1, 0);
	need(finish(ticket, WFLP_PUBLISHED) >= WFLP_PUBLISHED, "published");
	/* Published, and this thread has not moved. */
	if (strategy == WFLP_WAITFREE)
		fork_once(0, "in the middle of a patch");
	is(wflp_quiescent(), 1, "moved");
	need(finish(ticket, WFLP_RELEASED) == WFLP_RELEASED, "released");
	fork_once(1, "after a patch");
	is((long long)s.call(), (long long)versions(1), "what the child patched is the child's");
	ticket = subject_patch(&s, 1, 2, 0);
	need(finish(ticket, WFLP_PUBLISHED) >= WFLP_PUBLISHED, "published");
	is(wflp_quiescent(), 1, "the parent goes on");
	is(finish(ticket, WFLP_RELEASED), WFLP_RELEASED, "to the end");
	is((long long)s.call(), (long long)versions(2), "and runs the next version");
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	wflp_thread_unregister();
	is(wflp_fini(), 0, "fini");
	return done();
}
