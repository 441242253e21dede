/* SPDX-License-Identifier: MIT */
/* Patches in line, patches that will not wait, and what is remembered of them. */
#define _GNU_SOURCE
#include <errno.h>

#include "harness.h"

#define QUEUED 300

static struct subject s;

static void *waiter(void *arg)
{
	return (void *)(intptr_t)wflp_wait(*(int64_t *)arg, WFLP_RELEASED, -1);
}

int main(int argc, char **argv)
{
	enum wflp_strategy strategy = init_from_args(argc, argv);
	int64_t first, t, last = 0;
	struct wflp_report r, r2;
	unsigned int bad = 0;
	pthread_t w;
	void *ret;

	deadline(60);
	subject_make(&s, 0);
	need(!wflp_thread_register(), "register");

	/* This thread is online and at no safe point: nothing gets past it. */
	first = subject_patch(&s, 0, 1, WFLP_APPLY_TRY);
	is(first, 1, "TRY with nothing in progress");
	is(wflp_wait(first, WFLP_PUBLISHED, 5000000000), WFLP_PUBLISHED, "published");
	is(wflp_wait(first, WFLP_LAST_OVER, 30000000), -ETIMEDOUT, "but not over");
	is(subject_patch(&s, 1, 2, WFLP_APPLY_TRY), -EBUSY, "TRY meanwhile");
	t = subject_patch(&s, 1, 2, WFLP_APPLY_QUEUE);
	is(t, 2, "queued");
	ok(!wflp_report(t, &r, sizeof(r)) && r.stage == WFLP_QUEUED && !r.generation &&
	   !r.preparing_ns && r.queued_ns, "its report");
	is(subject_patch(&s, 2, 3, WFLP_APPLY_TRY), -EBUSY, "TRY behind the queue");
	if (strategy != WFLP_NAIVE)
		is((long long)s.call(), 0, "this thread runs the old code");
	w = spawn(waiter, &t);
	is(wflp_quiescent(), 1, "moved");
	ok(first_half(s.call()) >= 1, "to the new code");
	wflp_offline();
	pthread_join(w, &ret);
	is((intptr_t)ret, WFLP_RELEASED, "a waiter behind is served");
	wflp_online();
	wflp_report(first, &r, sizeof(r));
	wflp_report(t, &r2, sizeof(r2));
	ok(report_sane(&r, strategy) && report_sane(&r2, strategy), "both reports");
	ok(r.generation == 1 && r2.generation == 2, "in order");
	ok(r.last_over_ns <= r2.preparing_ns, "one after the other");

	/* A long queue, of which one patch fails; then those before it are forgotten. */
	for (uint32_t i = 0; i < QUEUED; i++) {
		uint32_t v = 2 + i;

		last = subject_patch(&s, i == 100 ? v + 7 : v > 102 ? v - 1 : v,
				     v >= 102 ? v : v + 1, WFLP_APPLY_QUEUE);
		bad += last <= 0;
	}
	is(bad, 0, "patches not accepted");
	ok(!wflp_report(last, &r, sizeof(r)) && r.stage < WFLP_LAST_OVER, "the last still waits");
	wflp_offline();
	is(finish(last, WFLP_RELEASED), WFLP_RELEASED, "served to the end");
	wflp_online();
	is((long long)first_half(s.call()), 1 + QUEUED, "all but the bad one are in");
	is(wflp_newest_generation(), 1 + QUEUED, "newest generation");
	is(wflp_report(first, &r, sizeof(r)), -ENOENT, "the first is forgotten");
	is(wflp_wait(first, WFLP_PUBLISHED, 0), -ENOENT, "to wait(), too");
	is(wflp_report(last - 200, &r, sizeof(r)), 0, "one 200 back is not");

	/* fini finishes what is queued. */
	is(wflp_fini(), -EBUSY, "fini while registered");
	wflp_thread_unregister();
	for (uint32_t i = 0; i < 5; i++)
		last = subject_patch(&s, 1 + QUEUED + i, 2 + QUEUED + i, 0);
	is(wflp_fini(), 0, "fini with a queue");
	is(wflp_report(last, &r, sizeof(r)), 0, "its report outlives it");
	ok(r.stage >= WFLP_LAST_OVER && r.stage != WFLP_FAILED, "stage %d", r.stage);
	is(wflp_newest_generation(), 6 + QUEUED, "all done");
	is(wflp_init(strategy, WFLP_INIT_ALLOW_UNSAFE), 0, "a second life");
	t = subject_patch(&s, 6 + QUEUED, 7 + QUEUED, 0);
	is(finish(t, WFLP_LAST_OVER) >= WFLP_LAST_OVER, 1, "goes on");
	wflp_thread_register();
	is(wflp_thread_generation(), 7 + QUEUED, "where the first ended");
	is((long long)first_half(s.call()), 7 + QUEUED, "in code as well");
	wflp_thread_unregister();
	is(wflp_fini(), 0, "fini");
	return done();
}
