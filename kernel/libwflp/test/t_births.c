/* SPDX-License-Identifier: MIT */
/*
 * Threads are born, register, call, sleep, unregister or just die, all the
 * time, while patches are applied.  Births are ordinary events: no patch waits
 * for a thread that is gone, and no thread is left in old code.
 */
#define _GNU_SOURCE
#include <errno.h>

#include "harness.h"

#define MOTHERS 3

static struct subject s;
static bool stop;
static uint64_t births, calls, wrong;

static void check(uint64_t *bad, uint64_t *n)
{
	uint64_t v = s.call();

	++*n;
	*bad += first_half(v) != second_half(v) ||
		first_half(v) != (uint32_t)wflp_thread_generation();
}

static void *child(void *arg)
{
	uint64_t seed = (uintptr_t)arg, n = 0, bad = 0;
	uint32_t rounds = rnd(&seed) % 20;

	need(!wflp_thread_register(), "register");
	while (rounds--) {
		check(&bad, &n);
		switch (rnd(&seed) % 4) {
		case 0:
			wflp_offline();
			sleep_us(rnd(&seed) % 200);
			wflp_online();
			break;
		case 1:
			break;
		default:
			wflp_quiescent();
		}
	}
	__atomic_add_fetch(&calls, n, __ATOMIC_RELAXED);
	__atomic_add_fetch(&wrong, bad, __ATOMIC_RELAXED);
	switch (rnd(&seed) % 4) {
	case 0:
		wflp_offline();		/* die in one's sleep */
		break;
	case 1:
		break;			/* without a word */
	case 2:
		pthread_exit(NULL);
	default:
		wflp_thread_unregister();
	}
	return NULL;
}

static void *mother(void *arg)
{
	uint64_t seed = (uintptr_t)arg, n = 0, bad = 0;

	/* Half of the births happen to a thread that is in a view itself. */
	need(!wflp_thread_register(), "register");
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		pthread_t t[4];
		uint32_t k = 1 + rnd(&seed) % 4;

		for (uint32_t i = 0; i < k; i++)
			t[i] = spawn(child, (void *)(uintptr_t)rnd(&seed));
		check(&bad, &n);
		wflp_offline();
		for (uint32_t i = 0; i < k; i++)
			pthread_join(t[i], NULL);
		wflp_online();
		check(&bad, &n);
		__atomic_add_fetch(&births, k, __ATOMIC_RELAXED);
	}
	__atomic_add_fetch(&calls, n, __ATOMIC_RELAXED);
	__atomic_add_fetch(&wrong, bad, __ATOMIC_RELAXED);
	return NULL;
}

int main(int argc, char **argv)
{
	enum wflp_strategy strategy = init_from_args(argc, argv);
	uint32_t patches = scaled(200);
	unsigned int insane = 0;
	pthread_t t[MOTHERS];
	struct wflp_report r;

	deadline(60);
	subject_make(&s, 0);
	for (uintptr_t i = 0; i < MOTHERS; i++)
		t[i] = spawn(mother, (void *)(i + 1));
	for (uint32_t i = 0; i < patches && !insane; i++) {
		int64_t ticket = subject_patch(&s, i, i + 1, 0);
		int stage = finish(ticket, WFLP_LAST_OVER);

		if (stage < WFLP_LAST_OVER || wflp_report(ticket, &r, sizeof(r)) ||
		    !report_sane(&r, strategy)) {
			insane++;
			note("patch %u: stage %d error %d over %u+%u of %u", i, stage,
			     r.error, r.migrated, r.pulled, r.threads);
		}
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < MOTHERS; i++)
		pthread_join(t[i], NULL);
	note("%u patches, %llu births, %llu calls", patches,
	     (unsigned long long)births, (unsigned long long)calls);
	is(insane, 0, "patches that failed or waited for the dead");
	is(wflp_newest_generation(), patches, "newest generation");
	ok(births > 0, "threads were born");
	if (strategy != WFLP_NAIVE)
		is((long long)wrong, 0, "calls that mixed versions or ran another");
	is(wflp_fini(), 0, "fini: nobody is left in the list");
	return done();
}
