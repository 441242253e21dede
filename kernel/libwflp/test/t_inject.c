/* SPDX-License-Identifier: MIT */
/* The in-place strategies on a machine that fails: each call in turn. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"
#include "harness.h"

static struct subject s;
static unsigned int writes, fail_write, fail_alloc;
static struct wflp_sys real;

/* Writes two bytes and then fails: the half-done edit must be undone as well. */
static ssize_t short_write(int fd, const void *buf, size_t len, uintptr_t addr)
{
	if (fail_write && ++writes == fail_write)
		return -ENOMEM;
	return real.mem_write(fd, buf, len > 2 ? 2 : len, addr);
}

static void *failing_alloc(size_t size)
{
	if (fail_alloc && !--fail_alloc)
		return NULL;
	return malloc(size);
}

static int no_mem(void)
{
	return -EACCES;
}

static int no_sync(void)
{
	return -EINVAL;
}

static bool stop;

static void *worker(void *arg)
{
	need(!wflp_thread_register(), "register");
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		uint64_t v = s.call();

		if (wflp_newest_generation() == 0 && v)
			arg = (void *)1;
		wflp_quiescent();
	}
	return arg;
}

int main(void)
{
	struct wflp_report r;
	int64_t ticket;
	pthread_t t;
	void *ret;
	int n;

	deadline(60);
	real = wflp_sys;
	subject_make(&s, 0);

	wflp_sys.mem_open = no_mem;
	is(wflp_init(WFLP_BARRIER, 0), -EACCES, "init without /proc/self/mem");
	wflp_sys = real;
	wflp_sys.sync_core_register = no_sync;	/* threads serialise themselves */
	wflp_sys.mem_write = short_write;
	wflp_sys.alloc = failing_alloc;
	is(wflp_init(WFLP_BARRIER, 0), 0, "init without SYNC_CORE");

	t = spawn(worker, NULL);
	for (unsigned int i = 1; i <= 4; i++) {
		writes = 0;
		fail_write = i;
		ticket = subject_patch(&s, 0, 0x01010101, 0);
		n = finish(ticket, WFLP_RELEASED);
		wflp_report(ticket, &r, sizeof(r));
		fail_write = 0;
		ok(n == WFLP_FAILED && r.error == -ENOMEM && !r.generation &&
		   !r.last_over_ns && s.call() == 0, "write %u fails: nothing changed", i);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(t, &ret);
	ok(!ret, "no thread saw a byte of the failed patches");

	/* wflp_apply()'s own memory, then the patcher's. */
	for (unsigned int i = 1; i <= 3; i++) {
		fail_alloc = i;
		is(subject_patch(&s, 0, 1, 0), -ENOMEM, "apply without memory");
	}
	fail_alloc = 4;
	ticket = subject_patch(&s, 0, 1, 0);
	n = finish(ticket, WFLP_RELEASED);
	wflp_report(ticket, &r, sizeof(r));
	ok(n == WFLP_FAILED && r.error == -ENOMEM && r.bad_edit == -1,
	   "patcher without memory: %d", r.error);
	fail_alloc = 1;
	is(wflp_thread_register(), -ENOMEM, "register without memory");
	is(wflp_thread_register(), 0, "register with memory");
	wflp_offline();
	ticket = subject_patch(&s, 0, 1, 0);
	is(finish(ticket, WFLP_RELEASED), WFLP_RELEASED, "a good patch at last");
	is(wflp_online(), 1, "moved");
	is((long long)s.call(), 1ll << 32 | 1, "whole");
	is(wflp_thread_generation(), 1, "the first generation");
	wflp_thread_unregister();
	is(wflp_fini(), 0, "fini");
	return done();
}
