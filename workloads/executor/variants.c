// SPDX-License-Identifier: Apache-2.0
/*
 * Different code for different threads, for good: what it costs against the same
 * code for all, and against the ways that need no views, a branch in the code and
 * a pointer to it.  And what the instruments of the executor cost themselves.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "micro.h"
#include "wire.h"
#include "wflp/mm_view.h"

static void line(const char *experiment, const char *bench, const char *setting, int rep, int n, uint64_t ns)
{
	printf("{\"experiment\":\"%s\",\"bench\":\"%s\",\"setting\":\"%s\",\"rep\":%d,\"batch\":%d,\"ns\":%llu}\n",
	       experiment, bench, setting, rep, n, (unsigned long long)ns);
}

/* ---- calls ---- */

static __thread volatile int mine = 1;	/* which variant the thread is to run; else the compiler knows */
static __thread int (*mine_at)(void);

__attribute__((noinline)) static int as_one(void)
{
	__asm__ volatile("");
	return 1;
}

__attribute__((noinline)) static int as_other(void)
{
	__asm__ volatile("");
	return 2;
}

/* What the code looks like that asks each time. */
__attribute__((noinline)) static int by_branch(void)
{
	__asm__ volatile("");
	if (mine == 1)
		return 1;
	return 2;
}

__attribute__((noinline)) static int by_pointer(void)
{
	return mine_at();
}

static uint64_t calls(int (*volatile f)(void), int n, int want)
{
	uint64_t t;
	int sum = 0;

	after_tick();
	t = now_ns();
	for (int i = 0; i < n; i++)
		sum += f();
	t = now_ns() - t;
	if (sum != n * want) {
		errno = EILSEQ;
		die("call: another variant's code");
	}
	return t;
}

static int view_a, view_b;

static void enter_b(void)
{
	view_enter(view_b);
	if (call_text() != 2)
		die("the variant does not show its code");
}

static void enter_a(void)
{
	view_enter(view_a);
}

/* ---- page faults that threads in several variants share ---- */

struct toucher {
	char *p;
	int n, view;
	uint64_t ns;
};

static void *touch_again(void *arg)
{
	struct toucher *t = arg;
	uint64_t began;

	view_enter(t->view);
	after_tick();
	began = now_ns();
	for (int i = 0; i < t->n; i++)
		((volatile char *)t->p)[(size_t)i * PAGE] = 2;
	t->ns = now_ns() - began;
	return NULL;
}

/* Pages that one thread has touched first: what does another pay that comes after it? */
static uint64_t second_touch(int n, int view)
{
	size_t len = (size_t)n * PAGE;
	struct toucher t = { mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), n, view, 0 };
	pthread_t thread;

	if (t.p == MAP_FAILED)
		die("map");
	for (int i = 0; i < n; i++)
		((volatile char *)t.p)[(size_t)i * PAGE] = 1;
	if ((errno = pthread_create(&thread, NULL, touch_again, &t)))
		die("create thread");
	pthread_join(thread, NULL);
	munmap(t.p, len);
	return t.ns;
}

void variants(void)
{
	int n = short_batches ? 256 : batch * 64, few = short_batches ? 4 : batch / 4 + 2;
	int (*in_text)(void);

	map_text();
	in_text = (int (*)(void))(void *)text;
	mine_at = as_one;
	if (as_other() != 2)
		die("call");
	/* Both have pages of their own: one has the base's code, the other not. */
	view_a = view_create();
	if (pwrite(view_a, "\xb8\1", 2, (off_t)(uintptr_t)text) != 2)
		die("write to view");
	view_ctl(view_a, MM_VIEW_SEAL);
	view_b = view_make();
	for (int rep = 0; rep < reps; rep++) {
		view_enter(view_a);
		line("E11", "call", "one", rep, n, calls(in_text, n, 1));
		view_enter(view_b);
		line("E11", "call", "variant", rep, n, calls(in_text, n, 2));
		view_enter(view_a);
		line("E11", "call", "branch", rep, n, calls(by_branch, n, 1));
		line("E11", "call", "pointer", rep, n, calls(by_pointer, n, 1));
		line("E11", "switch-thread", "one", rep, few, switch_threads(few, enter_a));
		line("E11", "switch-thread", "variant", rep, few, switch_threads(few, enter_b));
		line("E11", "second-touch", "one", rep, 16, second_touch(16, view_a));
		line("E11", "second-touch", "variant", rep, 16, second_touch(16, view_b));
	}
	view_enter(-1);
	view_drop(view_a);
	view_drop(view_b);
}

/* ---- the instruments of the executor ---- */

void instrument(void)
{
	static struct wire_record records[4096];
	int n = short_batches ? 128 : 4096;

	for (int rep = 0; rep < reps; rep++) {
		uint64_t t;

		after_tick();
		t = now_ns();
		for (int i = 0; i < n; i++)
			now_ns();
		line("E0", "clock", "base", rep, n, now_ns() - t);
		after_tick();
		t = now_ns();
		for (int i = 0; i < n; i++) {
			*(volatile uint16_t *)&records[i].kind = WIRE_RECORD_TXN;
			*(volatile uint32_t *)&records[i].b = (uint32_t)i;
			*(volatile uint64_t *)&records[i].c = t;
		}
		line("E0", "record", "base", rep, n, now_ns() - t);
	}
}
