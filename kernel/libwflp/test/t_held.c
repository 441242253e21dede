/* SPDX-License-Identifier: MIT */
/*
 * Threads that never register hold the view they were born in.  When no view
 * is left the patch fails and names the oldest generation and who holds it;
 * when that thread is gone patching goes on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"

#define MOST 80

struct holder {
	pthread_t thread;
	pid_t tid;
	bool go;
};

static struct subject s;

static void *hold(void *arg)
{
	struct holder *h = arg;

	__atomic_store_n(&h->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	while (!__atomic_load_n(&h->go, __ATOMIC_ACQUIRE))
		sleep_us(1000);
	return NULL;
}

static void let_go(struct holder *h)
{
	__atomic_store_n(&h->go, true, __ATOMIC_RELEASE);
	pthread_join(h->thread, NULL);
}

static int patch(uint32_t from, int64_t *ticket)
{
	int stage;

	*ticket = subject_patch(&s, from, from + 1, 0);
	wflp_offline();
	stage = finish(*ticket, WFLP_LAST_OVER);
	wflp_online();
	return stage;
}

int main(int argc, char **argv)
{
	static struct holder h[MOST];
	int64_t ticket, released = 0;
	struct wflp_report r;
	int stage;
	uint32_t n;

	init_from_args(argc, argv);
	deadline(60);
	subject_make(&s, 0);
	need(!wflp_thread_register(), "register");
	for (n = 0; n < MOST; n++) {
		stage = patch(n, &ticket);
		if (stage == WFLP_FAILED)
			break;
		if (stage < 0)
			return ok(false, "patch %u: %d", n, stage), done();
		if (n == 1)
			released = ticket;	/* what holds generation 1 */
		h[n].thread = spawn(hold, &h[n]);	/* born in generation n + 1 */
		while (!__atomic_load_n(&h[n].tid, __ATOMIC_ACQUIRE))
			sleep_us(100);
	}
	note("no view left for patch %u", n + 1);
	ok(n >= 60 && n < MOST, "the limit of views is met after %u patches", n);
	need(!wflp_report(ticket, &r, sizeof(r)), "report");
	is(r.error, -EMFILE, "error");
	is(r.held_generation, 1, "oldest generation still held");
	is(r.held_tid, h[0].tid, "by the thread that was born in it");
	is((long long)first_half(s.call()), n, "nothing has changed");
	is(wflp_wait(released, WFLP_RELEASED, 0), -ETIMEDOUT, "generation 1 is not released");

	let_go(&h[0]);
	is(finish(released, WFLP_RELEASED), WFLP_RELEASED, "now it is");
	is(patch(n, &ticket) >= WFLP_LAST_OVER && patch(n, &ticket) == WFLP_FAILED, 1,
	   "one patch goes through, and not twice");
	is((long long)first_half(s.call()), n + 1, "its code is there");
	for (uint32_t i = 1; i < n; i++)
		let_go(&h[i]);
	wflp_thread_unregister();
	is(wflp_fini(), 0, "fini");
	return done();
}
