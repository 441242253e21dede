/* SPDX-License-Identifier: MIT */
/*
 * Threads that call a function while it is patched again and again.  Its
 * version is the generation, so each call checks that it is whole and that it
 * is the version which the thread is said to run.  naive is the control: the
 * very same check must catch it.
 */
#define _GNU_SOURCE
#include <errno.h>

#include "harness.h"

#define THREADS 4

static struct subject s;
static bool stop;
static uint64_t calls, mixed, wrong, moves;

static void *worker(void *arg)
{
	uint64_t n = 0, mix = 0, bad = 0, mov = 0, seed = (uintptr_t)arg;

	need(!wflp_thread_register(), "register");
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		for (uint32_t i = rnd(&seed) % 32; i--; n++) {
			uint64_t v = s.call();

			mix += first_half(v) != second_half(v);
			bad += first_half(v) != (uint32_t)wflp_thread_generation();
		}
		if (wflp_quiescent() == 1)
			mov++;
	}
	need(!wflp_thread_unregister(), "unregister");
	__atomic_add_fetch(&calls, n, __ATOMIC_RELAXED);
	__atomic_add_fetch(&mixed, mix, __ATOMIC_RELAXED);
	__atomic_add_fetch(&wrong, bad, __ATOMIC_RELAXED);
	__atomic_add_fetch(&moves, mov, __ATOMIC_RELAXED);
	return NULL;
}

int main(int argc, char **argv)
{
	enum wflp_strategy strategy = init_from_args(argc, argv);
	/* A barrier costs a turn of every thread, which takes a loaded machine long. */
	uint32_t patches = scaled(strategy == WFLP_WAITFREE ? 200 : 100), i;
	unsigned int insane = 0, migrated = 0, pulled = 0;
	uint64_t seed = 1, longest = 0;
	pthread_t t[THREADS];
	struct wflp_report r;

	deadline(60);
	subject_make(&s, 0);
	for (i = 0; i < THREADS; i++)
		t[i] = spawn(worker, (void *)(uintptr_t)(i + 1));
	for (i = 0; i < patches; i++) {
		int64_t ticket = subject_patch(&s, i, i + 1, 0);
		int stage = finish(ticket, WFLP_RELEASED);

		if (stage != WFLP_RELEASED || wflp_report(ticket, &r, sizeof(r)) ||
		    !report_sane(&r, strategy) || r.generation != i + 1) {
			insane++;
			note("patch %u: stage %d error %d", i, stage, r.error);
			break;
		}
		if (r.last_over_ns - r.published_ns > longest)
			longest = r.last_over_ns - r.published_ns;
		migrated += r.migrated;
		pulled += r.pulled;
		sleep_us(rnd(&seed) % 500);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int j = 0; j < THREADS; j++)
		pthread_join(t[j], NULL);
	note("%u patches, %llu calls, %llu moves, migrated %u, pulled %u, slowest %llu us",
	     i, (unsigned long long)calls, (unsigned long long)moves, migrated, pulled,
	     (unsigned long long)longest / 1000);
	is(insane, 0, "reports that contradict themselves");
	is(wflp_newest_generation(), patches, "newest generation");
	if (strategy == WFLP_NAIVE) {
		ok(mixed + wrong > 0, "the control is caught: %llu mixed, %llu wrong",
		   (unsigned long long)mixed, (unsigned long long)wrong);
	} else {
		is((long long)mixed, 0, "calls that mixed versions");
		is((long long)wrong, 0, "calls of another version than the thread's");
	}
	ok(migrated > 0, "threads moved by themselves");
	is(wflp_fini(), 0, "fini");
	return done();
}
