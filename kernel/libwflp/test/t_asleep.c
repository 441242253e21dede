/* SPDX-License-Identifier: MIT */
/*
 * 100 threads asleep across 200 patches delay neither publication nor drain
 * nor the reuse of views, and each finds the newest code when it wakes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "wflp/mm_view.h"

#define THREADS 100

static struct subject s;
static uint32_t wake, ready, good, moved;
static uint32_t patches;

static void *sleeper(void *arg)
{
	bool futex = (uintptr_t)arg % 2;
	uint64_t v;

	need(!wflp_thread_register(), "register");
	v = s.call();
	need(v == 0, "version 0 first");
	wflp_offline();
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&wake, __ATOMIC_ACQUIRE)) {
		if (futex)
			syscall(SYS_futex, &wake, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
		else
			sleep_us(20000);
	}
	if (wflp_online() == 1)
		__atomic_add_fetch(&moved, 1, __ATOMIC_RELAXED);
	v = s.call();
	if (first_half(v) == patches && second_half(v) == patches &&
	    wflp_thread_generation() == patches)
		__atomic_add_fetch(&good, 1, __ATOMIC_RELAXED);
	if ((uintptr_t)arg % 3)
		wflp_thread_unregister();
	return NULL;	/* the others leave without a word */
}

int main(int argc, char **argv)
{
	enum wflp_strategy strategy = init_from_args(argc, argv);
	unsigned int insane = 0, pulled = 0, views = 0;
	uint64_t longest = 0, began;
	pthread_t t[THREADS];
	struct wflp_report r;

	deadline(60);
	patches = scaled(200);
	subject_make(&s, 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		t[i] = spawn(sleeper, (void *)i);
	while (__atomic_load_n(&ready, __ATOMIC_SEQ_CST) < THREADS)
		sleep_us(1000);
	sleep_us(20000);

	began = now_ns();
	for (uint32_t i = 0; i < patches; i++) {
		int64_t ticket = subject_patch(&s, i, i + 1, 0);
		int stage = finish(ticket, WFLP_RELEASED);
		struct mm_view_stat st;

		if (stage != WFLP_RELEASED || wflp_report(ticket, &r, sizeof(r)) ||
		    !report_sane(&r, strategy) || r.threads != THREADS) {
			insane++;
			note("patch %u: stage %d error %d over %u+%u of %u", i, stage,
			     r.error, r.migrated, r.pulled, r.threads);
			break;
		}
		pulled += r.pulled;
		if (r.released_ns - r.queued_ns > longest)
			longest = r.released_ns - r.queued_ns;
		if (strategy == WFLP_WAITFREE &&
		    !mm_view_ctl(-1, MM_VIEW_STAT, &st, sizeof(st)) && st.views > views)
			views = st.views;
	}
	note("%u patches in %llu ms, slowest %llu us from queued to released, most views at a time %u",
	     patches, (unsigned long long)(now_ns() - began) / 1000000,
	     (unsigned long long)longest / 1000, views);
	is(insane, 0, "patches held up or with a wrong report");
	is(pulled, patches * THREADS, "threads that were over while asleep");
	ok(longest < 1000000000ull * slow(), "no patch took a second");
	ok(views <= 2, "superseded views go at once");
	__atomic_store_n(&wake, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &wake, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	is(moved, THREADS, "sleepers that were told of the new generation");
	is(good, THREADS, "sleepers that woke to the newest code");
	is(wflp_fini(), 0, "fini: all have left the list");
	return done();
}
