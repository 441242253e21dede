/* SPDX-License-Identifier: MIT */
/* The protocol of the views, on a model of the kernel: races and failures. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fake.h"

static bool stop;
static uint32_t version;
static uint64_t calls, wrong, failed_moves;

static void check(void)
{
	uint64_t v = fake_call();

	__atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
	if (first_half(v) != second_half(v) ||
	    first_half(v) != (uint32_t)wflp_thread_generation())
		__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
}

static void live(uint64_t *seed, uint32_t rounds)
{
	while (rounds-- && !__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		check();
		switch (rnd(seed) % 4) {
		case 0:
			wflp_offline();
			fake_sleep(rnd(seed) % 300);
			if (wflp_online() < 0)
				__atomic_add_fetch(&failed_moves, 1, __ATOMIC_RELAXED);
			break;
		default:
			if (wflp_quiescent() < 0)
				__atomic_add_fetch(&failed_moves, 1, __ATOMIC_RELAXED);
		}
	}
}

static void *child(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	need(!wflp_thread_register(), "register");
	live(&seed, rnd(&seed) % 10);
	if (rnd(&seed) % 2)
		wflp_thread_unregister();
	return NULL;
}

static void *worker(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	need(!wflp_thread_register(), "register");
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		live(&seed, rnd(&seed) % 40);
		if (rnd(&seed) % 2) {
			pthread_t t = fake_spawn(child, (void *)(uintptr_t)rnd(&seed));

			wflp_offline();
			pthread_join(t, NULL);
			wflp_online();
		}
	}
	return NULL;
}

static int patch(struct wflp_report *r)
{
	int64_t t = fake_patch(version, version + 1, 0);
	int stage = finish(t, WFLP_RELEASED);

	if (stage == WFLP_RELEASED)
		version++;
	if (wflp_report(t, r, sizeof(*r)))
		return -ENOENT;
	return stage;
}

static void storm(unsigned int patches, unsigned int delay)
{
	struct wflp_report r;
	unsigned int bad = 0;
	pthread_t t[6];

	fake_delay(delay);
	stop = false;
	for (uintptr_t i = 0; i < 6; i++)
		t[i] = fake_spawn(worker, (void *)(i + 1));
	for (unsigned int i = 0; i < patches && !bad; i++)
		if (patch(&r) != WFLP_RELEASED || !report_sane(&r, WFLP_WAITFREE)) {
			bad++;
			note("stage %d error %d over %u+%u of %u", r.stage, r.error,
			     r.migrated, r.pulled, r.threads);
		}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 6; i++)
		pthread_join(t[i], NULL);
	fake_delay(0);
	note("delay %u us: %u patches, %llu calls", delay, patches, (unsigned long long)calls);
	is(bad, 0, "storm: patches that failed");
	is((long long)wrong, 0, "storm: calls of the wrong version");
	is((long long)failed_moves, 0, "storm: moves that failed");
	is(fake_offences(), 0, "storm: calls to views that were gone");
	ok(fake_most_views() <= 3, "storm: views go when their last thread has gone");
}

static bool sleepers_stop;

static void *sleeper(void *arg)
{
	need(!wflp_thread_register(), "register");
	wflp_offline();
	while (!__atomic_load_n(&sleepers_stop, __ATOMIC_RELAXED))
		fake_sleep(20000);
	if (wflp_online() != 1)
		arg = NULL;
	check();
	return arg;
}

static void asleep(void)
{
	enum { N = 20 };
	uint64_t began = now_ns(), good = 0, pulled = 0;
	struct wflp_report r;
	unsigned int bad = 0;
	pthread_t t[N];

	for (int i = 0; i < N; i++)
		t[i] = spawn(sleeper, &t[i]);
	sleep_us(20000);
	for (int i = 0; i < 50 && !bad; i++) {
		bad += patch(&r) != WFLP_RELEASED || !report_sane(&r, WFLP_WAITFREE);
		pulled += r.pulled;
	}
	__atomic_store_n(&sleepers_stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < N; i++) {
		void *ret;

		pthread_join(t[i], &ret);
		good += ret != NULL;
	}
	is(bad, 0, "asleep: patches that failed");
	ok(pulled >= 50 * N * 9 / 10, "asleep: pulled %llu of %d", (unsigned long long)pulled, 50 * N);
	is((long long)good, N, "asleep: told when they woke");
	is((long long)wrong, 0, "asleep: woke in the right version");
	ok(now_ns() - began < 10000000000, "asleep: nothing was held up");
}

static const struct {
	enum fake_op op;
	int err;
	int32_t bad_edit;
	const char *name;
} failures[] = {
	{ FAKE_CREATE, -ENOMEM, -1, "create" },
	{ FAKE_STAT, -EFAULT, -1, "stat" },
	{ FAKE_READ, -EFAULT, 0, "read" },
	{ FAKE_WRITE, -ENOMEM, -1, "write" },
	{ FAKE_WRITE, -EACCES, 0, "write" },
	{ FAKE_WRITE, -EBUSY, 0, "write" },
	{ FAKE_SEAL, -ENOMEM, -1, "seal" },
	{ FAKE_ENTER, -ENOMEM, -1, "the patcher's own enter" },
};

static void failing(void)
{
	unsigned int views = fake_views();
	struct wflp_report r;

	for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
		uint64_t was = wflp_newest_generation();

		int stage;

		fake_fail(failures[i].op, 1, failures[i].err);
		stage = patch(&r);
		ok(stage == WFLP_FAILED && fake_failed() &&
		   r.error == failures[i].err && r.bad_edit == failures[i].bad_edit &&
		   !r.generation && wflp_newest_generation() == was,
		   "%s fails: error %d edit %d", failures[i].name, r.error, r.bad_edit);
		is(fake_views(), views, "views left as they were");
		is(patch(&r), WFLP_RELEASED, "the next patch");
	}
	/* Interrupted is not failed. */
	fake_fail(FAKE_SEAL, 1, -EINTR);
	is(patch(&r), WFLP_RELEASED, "seal interrupted");
	ok(fake_failed(), "it was");
	/* The third write is in the second edit. */
	fake_fail(FAKE_WRITE, 3, -EACCES);
	is(patch(&r), WFLP_FAILED, "second edit refused");
	is(r.bad_edit, 1, "and named");
}

static void *unregistrable(void *arg)
{
	fake_fail(FAKE_REGISTER, 1, -EINVAL);
	is(wflp_thread_register(), -EINVAL, "the word is refused");
	is(wflp_thread_unregister(), -ESRCH, "so the thread is not registered");
	fake_fail(FAKE_ENTER, 1, -ENOMEM);
	is(wflp_thread_register(), -ENOMEM, "enter at registration fails");
	is(wflp_thread_unregister(), -ESRCH, "so the thread is not registered");
	return arg;
}

/* A thread that cannot move stays, is told, and tries again. */
static void *stubborn(void *arg)
{
	struct wflp_report r;
	int64_t t;

	is(wflp_thread_register(), 0, "register");
	t = fake_patch(version, version + 1, 0);
	is(finish(t, WFLP_PUBLISHED), WFLP_PUBLISHED, "published");
	fake_fail(FAKE_ENTER, 1, -ENOMEM);
	is(wflp_quiescent(), -ENOMEM, "cannot move");
	is(wflp_thread_generation(), version, "stays");
	check();
	/* Online and without a safe point: the patch waits, and says so. */
	is(wflp_wait(t, WFLP_FIRST_OVER, 50000000), -ETIMEDOUT, "nobody over");
	is(wflp_quiescent(), 1, "moves");
	version++;
	is(wflp_thread_generation(), version, "has moved");
	check();
	is(finish(t, WFLP_RELEASED), WFLP_RELEASED, "released");
	/* PULL that fails is made up for by the next. */
	wflp_offline();
	fake_fail(FAKE_PULL, 1, -ENOMEM);
	t = fake_patch(version, version + 1, 0);
	fake_sleep(50000);
	is(finish(t, WFLP_RELEASED), WFLP_RELEASED, "pulled by the second PULL");
	ok(fake_failed(), "after the first had failed");
	version++;
	is(wflp_online(), 1, "moved while asleep");
	wflp_report(t, &r, sizeof(r));
	is(r.pulled, 1, "as reported");
	check();
	is((long long)wrong, 0, "no wrong version");
	wflp_thread_unregister();
	return arg;
}

static bool holders_stop;
static pid_t first_holder;

static void *holder(void *arg)
{
	if (arg)
		first_holder = (pid_t)syscall(SYS_gettid);
	while (!__atomic_load_n(&holders_stop, __ATOMIC_ACQUIRE))
		sleep_us(1000);
	return NULL;
}

static void *limit(void *arg)
{
	pthread_t t[VIEWS_MAX];
	uint32_t began = version;
	struct wflp_report r;
	int64_t ticket;
	int n = 0;

	is(wflp_thread_register(), 0, "register");
	for (;;) {
		t[n] = fake_spawn(holder, n ? NULL : (void *)1);
		n++;
		ticket = fake_patch(version, version + 1, 0);
		if (finish(ticket, WFLP_PUBLISHED) == WFLP_FAILED || n == VIEWS_MAX)
			break;
		version++;
		wflp_quiescent();
		finish(ticket, WFLP_LAST_OVER);
	}
	wflp_report(ticket, &r, sizeof(r));
	is(n, VIEWS_MAX, "as many as there can be");
	is(r.error, -EMFILE, "no view left");
	is((long long)r.held_generation, began, "oldest generation held");
	is(r.held_tid, first_holder, "by whom");
	__atomic_store_n(&holders_stop, true, __ATOMIC_RELEASE);
	while (n)
		pthread_join(t[--n], NULL);
	wflp_thread_unregister();
	return arg;
}

/*
 * main never registers and so never leaves the base; a thread that has been
 * registered would, unless it ended, hold the view it was in.
 */
static void in_thread(void *(*fn)(void *))
{
	pthread_join(fake_spawn(fn, NULL), NULL);
}

int main(void)
{
	struct wflp_report r;

	deadline(100);
	fake_install();
	is(wflp_init(WFLP_WAITFREE, 0), 0, "init");
	is(patch(&r), WFLP_RELEASED, "a patch that nobody runs");
	failing();
	in_thread(unregistrable);
	in_thread(stubborn);
	in_thread(limit);
	is(patch(&r), WFLP_RELEASED, "patching goes on when all are gone");
	while (fake_views() > 1)
		sleep_us(1000);
	is(fake_views(), 1, "only the newest view is left");
	fake_most_views();
	storm(scaled(200), 0);
	storm(scaled(100), 200);
	storm(scaled(40), 2000);
	asleep();
	is(wflp_fini(), 0, "fini");
	is(wflp_init(WFLP_BARRIER, 0), -EINVAL, "views are in use: no other strategy");
	is(wflp_init(WFLP_WAITFREE, 0), 0, "a second life");
	is(patch(&r), WFLP_RELEASED, "goes on");
	is((long long)r.generation, version, "with the next generation");
	is(wflp_fini(), 0, "fini");
	return done();
}
