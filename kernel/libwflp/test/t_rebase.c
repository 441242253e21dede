/* SPDX-License-Identifier: MIT */
/*
 * After wflp_rebase() the process has no view, all its threads run the code that
 * they ran before, and patching goes on from there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "groups.h"

#define WORKERS 4

static struct wflp_report r;
static bool stop;
static uint32_t up;

static void *worker(void *arg)
{
	uint64_t seed = (uintptr_t)arg;
	bool sleepy = (uintptr_t)arg % 2;

	need(!wflp_thread_register(), "register");
	__atomic_add_fetch(&up, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		check();
		if (sleepy && rnd(&seed) % 8 == 0) {
			wflp_offline();
			groups_sleep(rnd(&seed) % 3000);
			wflp_online();
		} else {
			need(wflp_quiescent() >= 0, "move");
		}
	}
	check();
	if (sleepy)
		wflp_thread_unregister();
	return NULL;
}

/* Registers while a rebase may be closing the view that it is heading for. */
static void *guest(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		need(!wflp_thread_register(), "register");
		check();
		wflp_thread_unregister();
		sleep_us(50);
	}
	return arg;
}

static unsigned int views(void)
{
	struct mm_view_stat st;

	if (model)
		return fake_views();
	need(!mm_view_ctl(-1, MM_VIEW_STAT, &st, sizeof(st)), "stat");
	return st.views;
}

static bool no_views(void)
{
	uint64_t until = now_ns() + 20000000000ull * slow();

	while (views() && now_ns() < until)
		sleep_us(1000);
	return !views();
}

/* Goes along at its own quiescence points. */
static int stage_of(int64_t ticket)
{
	uint64_t until = now_ns() + 20000000000ull * slow();
	int stage;

	while ((stage = wflp_wait(ticket, WFLP_RELEASED, 1000000)) == -ETIMEDOUT &&
	       now_ns() < until)
		wflp_quiescent();
	wflp_quiescent();
	need(!wflp_report(ticket, &r, sizeof(r)), "report");
	return stage;
}

static int64_t rebase(void)
{
	groups_same();
	return wflp_rebase();
}

static void refuses(int error, const char *what)
{
	uint64_t was = wflp_newest_generation();

	is(stage_of(rebase()), WFLP_FAILED, what);
	is(r.error, error, "error");
	ok(wflp_newest_generation() == was && views() > 0, "nothing has changed");
	check();
}

static bool let_go;

static void *holder(void *arg)
{
	while (!__atomic_load_n(&let_go, __ATOMIC_ACQUIRE))
		sleep_us(500);
	return arg;
}

/* Failures of the call itself, which the model can produce. */
static void failing(void)
{
	static const struct {
		int err, error;
	} failures[] = { { -EINVAL, -EOPNOTSUPP }, { -ENOMEM, -ENOMEM } };

	for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
		fake_fail(FAKE_REBASE, 1, failures[i].err);
		refuses(failures[i].error, "the call fails");
		ok(fake_failed(), "as it was to");
	}
	/* These go by: they are tried again. */
	fake_fail(FAKE_REBASE, 1, -EINTR);
	is(stage_of(rebase()), WFLP_RELEASED, "interrupted");
	ok(fake_failed(), "as it was to be");
	is(stage_of(patch_own(0)), WFLP_RELEASED, "a patch");
	fake_fail(FAKE_REBASE, 1, -EBUSY);
	is(stage_of(rebase()), WFLP_RELEASED, "busy for a moment");
	ok(fake_failed(), "as it was to be");
	ok(no_views(), "no view is left");
}

int main(int argc, char **argv)
{
	unsigned int bad = 0, v, rounds;
	pthread_t t[WORKERS + 2], h;
	uint64_t was;

	groups_init(argc, argv);
	deadline(120);
	rounds = scaled(60);

	is(finish(rebase(), WFLP_RELEASED), WFLP_RELEASED, "where nothing has been patched");
	is(wflp_newest_generation(), 0, "is nothing to do");

	/* This thread, not registered, is in the base. */
	is(finish(patch_own(0), WFLP_RELEASED), WFLP_RELEASED, "a patch");
	{
		int64_t ticket = rebase();

		is(finish(ticket, WFLP_RELEASED), WFLP_FAILED, "a thread is in the base");
		need(!wflp_report(ticket, &r, sizeof(r)), "report");
	}
	is(r.error, -EBUSY, "error");
	is((long long)r.held_generation, 0, "generation");
	is(r.held_tid, (pid_t)syscall(SYS_gettid), "and who it is");

	need(!wflp_thread_register(), "register");
	is(wflp_thread_generation(), 1, "registered");
	is(stage_of(rebase()), WFLP_RELEASED, "rebased");
	is((long long)r.generation, 2, "which counts as a generation");
	is(wflp_thread_generation(), 2, "of this thread, too");
	check();
	ok(no_views(), "no view is left");
	is(stage_of(rebase()), WFLP_RELEASED, "again");
	is(wflp_newest_generation(), 2, "there was nothing to do");

	/* A thread that was born in an older generation and never registered. */
	is(stage_of(patch_own(0)), WFLP_RELEASED, "a patch");
	h = groups_spawn(holder, NULL);
	was = wflp_newest_generation();
	{
		int64_t ticket = patch_common();

		while (wflp_wait(ticket, WFLP_LAST_OVER, 1000000) == -ETIMEDOUT)
			wflp_quiescent();
		need(!wflp_report(ticket, &r, sizeof(r)), "report");
	}
	is(r.stage, WFLP_LAST_OVER, "another");
	refuses(-EBUSY, "an older generation is held");
	is((long long)r.held_generation, (long long)was, "that one");
	ok(r.held_tid > 0, "by a thread");
	__atomic_store_n(&let_go, true, __ATOMIC_RELEASE);
	pthread_join(h, NULL);
	is(stage_of(rebase()), WFLP_RELEASED, "when it is gone");
	ok(no_views(), "no view is left");

	/* With a second variant the base is no place to be. */
	is(stage_of(create(0, &v)), WFLP_RELEASED, "a variant");
	refuses(-EBUSY, "another variant exists");
	is(stage_of(wflp_variant_remove(v)), WFLP_RELEASED, "removed");
	is(stage_of(rebase()), WFLP_RELEASED, "now it works");
	ok(no_views(), "no view is left");

	is(stage_of(patch_own(0)), WFLP_RELEASED, "a patch");
	if (model) {
		failing();
		is(stage_of(patch_own(0)), WFLP_RELEASED, "a patch");
	}

	/* Under load: sleepers, workers, and threads that register meanwhile. */
	for (uintptr_t i = 0; i < WORKERS; i++)
		t[i] = groups_spawn(worker, (void *)(i + 1));
	for (int i = 0; i < 2; i++)
		t[WORKERS + i] = groups_spawn(guest, NULL);
	while (__atomic_load_n(&up, __ATOMIC_ACQUIRE) < WORKERS)
		sleep_us(100);
	if (model)
		fake_delay(100);
	for (unsigned int i = 0; i < rounds && !bad; i++) {
		bad += stage_of(patch_own(0)) != WFLP_RELEASED;
		check();
		bad += stage_of(rebase()) != WFLP_RELEASED;
		check();
		if (bad)
			note("round %u: error %d held %llu by %d", i, r.error,
			     (unsigned long long)r.held_generation, r.held_tid);
	}
	if (model)
		fake_delay(0);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	wflp_offline();
	for (int i = 0; i < WORKERS + 2; i++)
		pthread_join(t[i], NULL);
	wflp_online();
	note("%u rounds, %llu calls", rounds, (unsigned long long)calls);
	is(bad, 0, "patches and rebases under load that failed");
	is((long long)wrong, 0, "calls of other code than that of the generation");
	ok(no_views(), "no view is left");

	/* An ordinary process again: any strategy will do. */
	wflp_thread_unregister();
	is(wflp_fini(), 0, "fini");
	is(wflp_init(model ? WFLP_WAITFREE : WFLP_BARRIER, 0), 0, "init");
	is(wflp_fini(), 0, "fini");
	return done();
}
