/* SPDX-License-Identifier: MIT */
/*
 * t_apart STRATEGY SECONDS: three groups of threads live in different variants
 * for that long, work now and then, sleep, give birth and die; every few minutes
 * something is patched, promoted, rolled back, or a thread changes group.  No
 * call may ever run another variant's code.  Meant for a machine whose time
 * passes when it is idle.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "groups.h"

#define GROUPS 3
#define EACH 4

static bool stop;
static pid_t tids[GROUPS * EACH];
static unsigned int group[GROUPS];
static uint64_t calls_in[WFLP_VARIANTS_MAX], births, failed;

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

static void work(uint64_t *seed)
{
	for (uint32_t n = 1 + rnd(seed) % 5; n--; ) {
		check();
		__atomic_add_fetch(&calls_in[wflp_thread_variant() & 31], 1, __ATOMIC_RELAXED);
	}
}

/* Up to 40 seconds, most of them offline, where a patch finds the thread asleep. */
static void rest(uint64_t *seed)
{
	uint32_t ms = rnd(seed) % 40000;
	bool online = rnd(seed) % 4 == 0;

	if (!online)
		wflp_offline();
	for (; ms && !stopped(); ms -= ms < 2000 ? ms : 2000)
		groups_sleep((ms < 2000 ? ms : 2000) * 1000);
	if ((online ? wflp_quiescent() : wflp_online()) < 0)
		__atomic_add_fetch(&failed, 1, __ATOMIC_RELAXED);
}

static void *child(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	need(!wflp_thread_register(), "register");
	for (uint32_t n = rnd(&seed) % 10; n-- && !stopped(); ) {
		work(&seed);
		rest(&seed);
	}
	if (rnd(&seed) % 2)
		wflp_thread_unregister();
	__atomic_add_fetch(&births, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void *member(void *arg)
{
	uint32_t i = (uint32_t)(uintptr_t)arg;
	uint64_t seed = i + 1;

	need(!wflp_thread_register(), "register");
	need(!wflp_variant_assign(0, group[i % GROUPS]), "assign");
	wflp_quiescent();
	__atomic_store_n(&tids[i], (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	while (!stopped()) {
		work(&seed);
		if (i / GROUPS == 0) {
			pthread_t t = groups_spawn(child, (void *)(uintptr_t)rnd(&seed));

			wflp_offline();
			pthread_join(t, NULL);
			wflp_online();
		}
		rest(&seed);
	}
	return NULL;
}

/* Who rests online holds up what concerns it, for longer than over() waits. */
static bool through(int64_t ticket, struct wflp_report *r)
{
	wflp_wait(ticket, WFLP_LAST_OVER, -1);
	return over(ticket, r);
}

int main(int argc, char **argv)
{
	unsigned int changes = 0, bad = 0, assigned = 0, kinds[5] = { 0 };
	uint64_t seconds = argc > 2 ? (uint64_t)atoi(argv[2]) : 5, began, seed = 42;
	unsigned int pulled = 0, migrated = 0;
	pthread_t t[GROUPS * EACH];
	struct wflp_report r;

	groups_init(argc, argv);
	deadline((unsigned int)(2 * seconds + 60));
	for (int i = 1; i < GROUPS; i++)
		need(over(create(0, &group[i]), &r), "create");
	for (int i = 0; i < GROUPS; i++)
		need(over(patch_own(group[i]), &r), "a patch of each");
	for (uintptr_t i = 0; i < GROUPS * EACH; i++)
		t[i] = groups_spawn(member, (void *)i);
	for (int i = 0; i < GROUPS * EACH; i++)
		while (!__atomic_load_n(&tids[i], __ATOMIC_ACQUIRE))
			sleep_us(1000);

	began = now_ns();
	while (now_ns() - began < seconds * 1000000000 && !bad) {
		unsigned int a = rnd(&seed) % GROUPS, kind = rnd(&seed) % 5;
		unsigned int b = (a + 1 + rnd(&seed) % (GROUPS - 1)) % GROUPS;
		/* Between a second and four minutes, but some in any case. */
		uint64_t wait = 1 + rnd(&seed) % (seconds / 60 < 240 ? 1 + seconds / 60 : 240);

		while (wait--)
			sleep_us(1000000);
		kinds[kind]++;
		switch (kind) {
		case 0:
			bad += !through(patch_common(), &r);
			break;
		case 1:		/* promoted, or rolled back, and at once different again */
			bad += !through(adopt(group[a], group[b]), &r) ||
			       !through(patch_own(group[a]), &r);
			break;
		case 2:
			bad += wflp_variant_assign(tids[rnd(&seed) % (GROUPS * EACH)], group[a]) != 0;
			assigned++;
			continue;
		default:
			bad += !through(patch_own(group[a]), &r);
		}
		changes++;
		migrated += r.migrated;
		pulled += r.pulled;
	}
	began = now_ns() - began;
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < GROUPS * EACH; i++)
		pthread_join(t[i], NULL);
	note("%llu s: %u changes (all %u, adopted %u, one %u), %u assignments, %llu births, moved %u, pulled %u",
	     (unsigned long long)(began / 1000000000), changes, kinds[0], kinds[1],
	     kinds[3] + kinds[4], assigned, (unsigned long long)births, migrated, pulled);
	note("calls: %llu, %llu and %llu", (unsigned long long)calls_in[group[0]],
	     (unsigned long long)calls_in[group[1]], (unsigned long long)calls_in[group[2]]);
	ok(began >= seconds * 1000000000, "%llu seconds of the machine's time",
	   (unsigned long long)seconds);
	is(bad, 0, "changes that failed");
	is((long long)failed, 0, "moves that failed");
	is((long long)wrong, 0, "calls of another variant's or generation's code");
	ok(calls_in[group[0]] && calls_in[group[1]] && calls_in[group[2]], "in all groups");
	ok(pulled && migrated, "awake and asleep");
	is(wflp_fini(), 0, "fini");
	return done();
}
