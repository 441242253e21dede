/* SPDX-License-Identifier: MIT */
/*
 * Groups of threads in different code for good: patches of one and of all, a
 * canary that is promoted and one that is rolled back, births, deaths, sleepers,
 * changes of group under load, limits.  Each thread checks at each call that it
 * runs the code of its variant and of its generation.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "groups.h"

static enum wflp_strategy strategy;
static struct wflp_report r;

/* A thread that does as it is told. */
enum order { NONE, MOVE, NAP, HALT, QUIT, DIE };

struct puppet {
	pthread_t thread;
	pid_t tid;
	unsigned int variant;	/* joined after registration */
	bool keep;		/* the variant that it is born in */
	enum order order;	/* atomic */
	uint32_t done;		/* atomic: orders carried out */
	uint32_t saw;		/* own, at the last check */
	int in;			/* wflp_thread_variant(), as of then */
};

static void look(struct puppet *p)
{
	__atomic_store_n(&p->saw, check(), __ATOMIC_RELAXED);
	__atomic_store_n(&p->in, wflp_thread_variant(), __ATOMIC_RELAXED);
}

static void *puppet(void *arg)
{
	struct puppet *p = arg;
	enum order o;

	need(!wflp_thread_register(), "register");
	if (!p->keep) {
		need(!wflp_variant_assign(0, p->variant), "assign");
		wflp_quiescent();
	}
	look(p);
	__atomic_store_n(&p->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	for (;;) {
		o = __atomic_load_n(&p->order, __ATOMIC_ACQUIRE);
		switch (o) {
		case NONE:	/* online, and at no safe point */
			look(p);
			sleep_us(200);
			continue;
		case MOVE:
			wflp_quiescent();
			look(p);
			break;
		case NAP:
			wflp_offline();
			__atomic_add_fetch(&p->done, 1, __ATOMIC_RELEASE);
			while (__atomic_load_n(&p->order, __ATOMIC_ACQUIRE) == NAP)
				groups_sleep(5000);
			wflp_online();
			look(p);
			__atomic_add_fetch(&p->done, 1, __ATOMIC_RELEASE);
			continue;
		case HALT:
			wflp_quiescent();
			look(p);
			sleep_us(100);
			continue;
		case QUIT:
			wflp_thread_unregister();
			return NULL;
		case DIE:
			return NULL;
		}
		__atomic_compare_exchange_n(&p->order, &o, NONE, false, __ATOMIC_ACQ_REL,
					    __ATOMIC_RELAXED);
		__atomic_add_fetch(&p->done, 1, __ATOMIC_RELEASE);
	}
}

static void start(struct puppet *p, unsigned int variant, enum order order)
{
	memset(p, 0, sizeof(*p));
	p->variant = variant;
	p->order = order;
	p->thread = groups_spawn(puppet, p);
	while (!__atomic_load_n(&p->tid, __ATOMIC_ACQUIRE))
		sleep_us(100);
}

static void tell(struct puppet *p, enum order o)
{
	uint32_t done = __atomic_load_n(&p->done, __ATOMIC_ACQUIRE);

	enum order was = __atomic_exchange_n(&p->order, o, __ATOMIC_ACQ_REL);

	/* HALT is what a thread does until further notice. */
	while ((o != HALT || was == NAP) && __atomic_load_n(&p->done, __ATOMIC_ACQUIRE) == done)
		sleep_us(100);
}

static void end(struct puppet *p, enum order how)
{
	__atomic_store_n(&p->order, how, __ATOMIC_RELEASE);
	pthread_join(p->thread, NULL);
}

/* Within a time that only a defect reaches. */
#define soon(cond) ({						\
	uint64_t until_ = now_ns() + 20000000000ull * slow();	\
	bool met_;						\
								\
	while (!(met_ = (cond)) && now_ns() < until_)		\
		sleep_us(500);					\
	met_;							\
})

static bool sees(struct puppet *p, uint32_t own)
{
	return __atomic_load_n(&p->saw, __ATOMIC_RELAXED) == own;
}

static int in(struct puppet *p)
{
	return __atomic_load_n(&p->in, __ATOMIC_RELAXED);
}

static void in_place(void)
{
	const struct wflp_edit e = { fake_text, "", "\1", 1 };
	unsigned int v;

	need(!wflp_thread_register(), "register");
	is(wflp_variant_create(0, &v), -EOPNOTSUPP, "create");
	is(wflp_variant_adopt(0, 1, 0), -EOPNOTSUPP, "adopt");
	is(wflp_variant_remove(1), -EOPNOTSUPP, "remove");
	is(wflp_variant_assign(0, 0), -EOPNOTSUPP, "assign");
	is(wflp_variant_apply(1, &e, 1, 0), -EOPNOTSUPP, "patch of one that cannot be");
	is(wflp_rebase(), -EOPNOTSUPP, "rebase");
	is(wflp_thread_variant(), 0, "all are in variant 0");
	is(wflp_variant_threads(0), 1, "which has one thread");
	wflp_offline();
	ok(over(patch_own(0), &r) || strategy != WFLP_WAITFREE, "patch of variant 0");
	is(finish(1, WFLP_LAST_OVER) >= WFLP_LAST_OVER, 1, "succeeds");
	wflp_online();
	is(wflp_variant_generation(0), 1, "its generation");
	wflp_thread_unregister();
	is(wflp_fini(), 0, "fini");
}

static void errors(void)
{
	const struct wflp_edit e = { fake_text, "", "\1", 1 };
	unsigned int v = 99;

	is(wflp_thread_variant(), -ESRCH, "variant of an unregistered thread");
	is(wflp_variant_assign(0, 0), -ESRCH, "assign an unregistered thread");
	is(wflp_variant_assign(1, 0), -ESRCH, "assign a foreign thread");
	is(wflp_variant_assign(0, 1), -ENOENT, "assign to none");
	is(wflp_variant_assign(0, 32), -EINVAL, "assign to an impossible one");
	is(wflp_variant_create(1, &v), -ENOENT, "create like none");
	is(wflp_variant_create(32, &v), -EINVAL, "create like an impossible one");
	is(wflp_variant_create(0, NULL), -EINVAL, "create without a number");
	is(wflp_variant_remove(0), -EINVAL, "remove variant 0");
	is(wflp_variant_remove(1), -ENOENT, "remove none");
	is(wflp_variant_adopt(0, 0, 0), -EINVAL, "adopt its own");
	is(wflp_variant_adopt(0, 1, 0), -ENOENT, "adopt from none");
	is(wflp_variant_adopt(1, 0, 0), -ENOENT, "adopt by none");
	is(wflp_variant_adopt(0, 1, 2), -EINVAL, "adopt with flags");
	is(wflp_variant_apply(5, &e, 1, 0), -ENOENT, "patch of none");
	is(wflp_variant_apply(77, &e, 1, 0), -EINVAL, "patch of an impossible one");
	is(wflp_variant_threads(1), -ENOENT, "threads of none");
	is(wflp_variant_generation(1), -ENOENT, "generation of none");
	is(v, 99, "no number given");
}

static bool remove_variant(unsigned int v)
{
	int stage = finish(wflp_variant_remove(v), WFLP_LAST_OVER);

	return stage == WFLP_LAST_OVER || stage == WFLP_RELEASED;
}

/* A group that gets a fix first, and is promoted, and one that is rolled back. */
static void canary(bool asleep)
{
	const char *how = asleep ? "asleep" : "awake";
	struct puppet p[4];
	unsigned int v;
	uint32_t own;

	ok(over(create(0, &v), &r), "canary %s: created", how);
	for (int i = 0; i < 4; i++)
		start(&p[i], i < 2 ? 0 : v, HALT);
	if (asleep)
		for (int i = 0; i < 4; i++)
			tell(&p[i], NAP);
	is(wflp_variant_threads(v), 2, "threads of the canary");
	own = now[0].own;
	ok(over(patch_own(v), &r), "fixed");
	is(r.threads, 2, "the patch counts the canary's threads only");
	if (asleep)
		is(r.pulled, 2, "in their sleep");
	ok(over(patch_common(), &r), "a patch to all meanwhile");
	is(r.threads, 4, "counts all");
	for (int i = 0; i < 4 && asleep; i++)
		tell(&p[i], HALT);
	ok(soon(sees(&p[2], now[v].own) && sees(&p[3], now[v].own)), "the canary runs the fix");
	ok(soon(sees(&p[0], own) && sees(&p[1], own)), "the others do not");
	for (int i = 0; i < 4 && asleep; i++)
		tell(&p[i], NAP);

	ok(over(adopt(0, v), &r), "promoted");
	is(r.threads, 2, "which moves the others only");
	is((long long)r.generation, wflp_variant_generation(0), "as a generation of variant 0");
	for (int i = 0; i < 4 && asleep; i++)
		tell(&p[i], HALT);
	own = now[v].own;
	ok(soon(sees(&p[0], own) && sees(&p[1], own)), "they run the fix");
	is(in(&p[0]), 0, "in a variant of their own");

	ok(over(patch_own(v), &r), "a second fix");
	ok(soon(sees(&p[2], now[v].own)), "runs in the canary");
	for (int i = 0; i < 4 && asleep; i++)
		tell(&p[i], NAP);
	ok(over(adopt(v, 0), &r), "and is rolled back");
	for (int i = 0; i < 4 && asleep; i++)
		tell(&p[i], HALT);
	ok(soon(sees(&p[2], own) && sees(&p[3], own)), "the canary runs what the others run");
	is(finish(wflp_variant_remove(v), WFLP_RELEASED), WFLP_FAILED,
	   "it cannot be removed while it has threads");
	for (int i = 0; i < 4; i++)
		end(&p[i], i % 2 ? QUIT : DIE);
	ok(soon(!wflp_variant_threads(v)), "they are gone");
	ok(remove_variant(v), "now it can");
	is(wflp_variant_threads(v), -ENOENT, "and is gone");
}

/* A thread that never comes to a safe point holds up its own variant only. */
static void stuck(void)
{
	struct puppet a, b;
	unsigned int v;
	int64_t t;

	ok(over(create(0, &v), &r), "stuck: created");
	start(&a, 0, NONE);
	start(&b, v, HALT);
	ok(over(patch_own(v), &r), "a patch of one variant does not wait for the other");
	is(r.threads, 1, "and does not count it");
	t = patch_common();
	ok(finish(t, WFLP_PUBLISHED) >= WFLP_PUBLISHED, "one of all is published");
	is(wflp_wait(t, WFLP_LAST_OVER, 50000000), -ETIMEDOUT, "and does");
	tell(&a, MOVE);
	ok(over(t, &r), "until it moves");

	/* Assigned while it can be in the old: it counts for both. */
	is(wflp_variant_assign(a.tid, v), 0, "assigned by another");
	is(in(&a), 0, "it stays for now");
	is(wflp_variant_threads(0) + wflp_variant_threads(v), 3, "and counts twice");
	t = patch_own(0);
	ok(finish(t, WFLP_PUBLISHED) >= WFLP_PUBLISHED, "a patch of the variant that it leaves");
	is(wflp_wait(t, WFLP_LAST_OVER, 50000000), -ETIMEDOUT, "waits");
	tell(&a, MOVE);
	ok(over(t, &r), "until it has left");
	is(in(&a), (int)v, "for its variant");
	is(wflp_variant_threads(0), 0, "and counts once");
	end(&a, QUIT);
	end(&b, DIE);
	ok(remove_variant(v), "removed");
}

/* A sleeper is pulled into the variant that it was assigned to in its sleep. */
static void reassigned_asleep(void)
{
	struct puppet p[6];
	unsigned int v;

	ok(over(create(0, &v), &r), "reassigned: created");
	ok(over(patch_own(v), &r), "different");
	for (int i = 0; i < 6; i++) {
		start(&p[i], i % 2 ? v : 0, HALT);
		tell(&p[i], NAP);
	}
	for (int i = 0; i < 6; i++)
		is(wflp_variant_assign(p[i].tid, i % 2 ? 0 : v), 0, "exchanged");
	/* wflp_variant_threads() says so when they are seen where they belong. */
	ok(soon(wflp_variant_threads(0) == 3 && wflp_variant_threads(v) == 3),
	   "all arrive without waking up");
	ok(over(patch_own(0), &r) && r.threads == 3, "patch of the one");
	ok(over(patch_own(v), &r) && r.threads == 3, "patch of the other");
	for (int i = 0; i < 6; i++)
		tell(&p[i], HALT);
	for (int i = 0; i < 6; i++)
		ok(soon(sees(&p[i], now[i % 2 ? 0 : v].own)) && in(&p[i]) == (i % 2 ? 0 : (int)v),
		   "sleeper %d woke where it belongs", i);
	for (int i = 0; i < 6; i++)
		end(&p[i], DIE);
	ok(soon(!wflp_variant_threads(v)), "they are gone");
	ok(remove_variant(v), "removed");
}

static unsigned int born_in;

static void *mother(void *arg)
{
	struct puppet *c = arg, before = { .keep = true, .order = HALT };

	need(!wflp_thread_register() && !wflp_variant_assign(0, born_in), "register");
	is(wflp_quiescent(), 1, "mother moves");
	is(wflp_thread_variant(), (int)born_in, "to her variant");
	*c = before;
	c->thread = groups_spawn(puppet, c);
	wflp_offline();
	while (!__atomic_load_n(&c->tid, __ATOMIC_ACQUIRE))
		sleep_us(100);
	wflp_online();
	wflp_thread_unregister();
	return NULL;
}

/* A thread that registers long after: it is in a view of its variant that is no more. */
static void *late(void *arg)
{
	while (!__atomic_load_n((bool *)arg, __ATOMIC_ACQUIRE))
		sleep_us(500);
	need(!wflp_thread_register(), "register");
	is(wflp_thread_variant(), (int)born_in, "registers late, in the variant of its birth");
	check();
	wflp_thread_unregister();
	return NULL;
}

struct lateness {
	bool go;
	pthread_t thread;
};

static void *mother_of_late(void *arg)
{
	struct lateness *l = arg;

	need(!wflp_thread_register() && !wflp_variant_assign(0, born_in), "register");
	wflp_quiescent();
	l->thread = groups_spawn(late, &l->go);
	wflp_thread_unregister();
	return NULL;
}

static void births(void)
{
	struct lateness l = { 0 };
	unsigned int v[2];
	struct puppet c;

	for (int i = 0; i < 2; i++)
		ok(over(create(0, &v[i]), &r) && over(patch_own(v[i]), &r), "births: created");
	for (int i = 0; i < 2; i++) {
		born_in = v[i];
		pthread_join(groups_spawn(mother, &c), NULL);
		is(in(&c), (int)v[i], "the child is in its mother's variant");
		ok(over(patch_own(v[i]), &r) && r.threads == 1, "and patched there");
		ok(soon(sees(&c, now[v[i]].own)), "as it sees");
		end(&c, DIE);
	}
	pthread_join(groups_spawn(mother_of_late, &l), NULL);
	for (int i = 0; i < 3; i++)
		ok(over(patch_own(born_in), &r), "patched meanwhile");
	__atomic_store_n(&l.go, true, __ATOMIC_RELEASE);
	pthread_join(l.thread, NULL);
	for (int i = 0; i < 2; i++)
		ok(soon(!wflp_variant_threads(v[i])) && remove_variant(v[i]), "removed");
}

#define CROWD 8
#define GROUPS 4

static bool stop;
static pid_t tids[CROWD];
static uint64_t moves_ordered, deaths;

static void *reveller(void *arg)
{
	uint64_t seed = (uintptr_t)arg;
	unsigned int i = (unsigned int)(rnd(&seed) % CROWD);
	uint32_t rounds = 1 + rnd(&seed) % 60;

	need(!wflp_thread_register(), "register");
	__atomic_store_n(&tids[i], (pid_t)syscall(SYS_gettid), __ATOMIC_RELAXED);
	while (rounds-- && !__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		check();
		switch (rnd(&seed) % 8) {
		case 0:
			wflp_offline();
			groups_sleep(rnd(&seed) % 400);
			wflp_online();
			break;
		case 1:
			wflp_variant_assign(0, rnd(&seed) % GROUPS);
			__atomic_add_fetch(&moves_ordered, 1, __ATOMIC_RELAXED);
			break;
		case 2:
			wflp_variant_assign(__atomic_load_n(&tids[rnd(&seed) % CROWD],
							    __ATOMIC_RELAXED) ?: 1,
					    rnd(&seed) % GROUPS);
			__atomic_add_fetch(&moves_ordered, 1, __ATOMIC_RELAXED);
			break;
		default:
			wflp_quiescent();
		}
	}
	__atomic_add_fetch(&deaths, 1, __ATOMIC_RELAXED);
	switch (rnd(&seed) % 3) {
	case 0:
		wflp_offline();		/* die in one's sleep */
		break;
	case 1:
		wflp_thread_unregister();
	}
	return NULL;
}

static void *host(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	need(!wflp_thread_register(), "register");
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		pthread_t t = groups_spawn(reveller, (void *)(uintptr_t)rnd(&seed));

		wflp_offline();
		pthread_join(t, NULL);
		wflp_online();
		wflp_variant_assign(0, rnd(&seed) % GROUPS);
		wflp_quiescent();
		check();
	}
	return NULL;
}

static void storm(unsigned int changes, unsigned int delay)
{
	uint64_t seed = 7 + delay, before = calls;
	unsigned int v, bad = 0, from;
	pthread_t t[CROWD];

	for (unsigned int i = 1; i < GROUPS; i++)
		need(over(create(0, &v), &r) && v == i, "variants 1 to 3");
	if (model)
		fake_delay(delay);
	__atomic_store_n(&stop, false, __ATOMIC_RELAXED);
	for (uintptr_t i = 0; i < CROWD; i++)
		t[i] = groups_spawn(host, (void *)(i + 1));
	for (unsigned int i = 0; i < changes && !bad; i++) {
		v = rnd(&seed) % GROUPS;
		from = (v + 1 + rnd(&seed) % (GROUPS - 1)) % GROUPS;
		switch (rnd(&seed) % 4) {
		case 0:
			bad += !over(patch_common(), &r);
			break;
		case 1:
			bad += !over(adopt(v, from), &r);
			break;
		default:
			bad += !over(patch_own(v), &r);
		}
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < CROWD; i++)
		pthread_join(t[i], NULL);
	if (model)
		fake_delay(0);
	note("%u changes, %llu calls, %llu assignments, %llu deaths", changes,
	     (unsigned long long)(calls - before), (unsigned long long)moves_ordered,
	     (unsigned long long)deaths);
	is(bad, 0, "storm: changes that failed");
	is((long long)wrong, 0, "storm: calls of another variant's or generation's code");
	ok(deaths > CROWD && moves_ordered > CROWD, "storm: threads came, went and changed");
	if (model)
		is(fake_offences(), 0, "storm: calls to views that were gone");
	for (v = 1; v < GROUPS; v++)
		ok(soon(!wflp_variant_threads(v)) && remove_variant(v), "storm: removed %u", v);
}

static bool let_go;

static void *holder(void *arg)
{
	__atomic_store_n((pid_t *)arg, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	while (!__atomic_load_n(&let_go, __ATOMIC_ACQUIRE))
		sleep_us(1000);
	return NULL;
}

/* Holds the view that it is in, for somebody else. */
static void *make_holder(void *arg)
{
	static pid_t tid;
	pthread_t t;

	need(!wflp_thread_register(), "register");
	t = groups_spawn(holder, &tid);
	while (!__atomic_load_n(&tid, __ATOMIC_ACQUIRE))
		sleep_us(100);
	wflp_thread_unregister();
	*(pthread_t *)arg = t;
	return &tid;
}

static void limits(void)
{
	unsigned int v[WFLP_VARIANTS_MAX], n = 0;
	struct puppet p;
	pthread_t h;
	int64_t t;
	void *tid;

	ok(over(patch_own(0), &r), "limits: a generation to hold");
	while ((t = create(0, &v[n])) > 0 && n < WFLP_VARIANTS_MAX)
		if (!over(t, &r))
			break;
		else
			n++;
	is(n, WFLP_VARIANTS_MAX - 1, "variants beside 0");
	is(t, -ENOSPC, "and no more");
	for (int i = 0; i < 3; i++)
		ok(over(patch_common(), &r), "a patch to all finds a view for each");
	start(&p, v[30], HALT);
	pthread_join(groups_spawn(make_holder, &h), &tid);
	ok(over(patch_common(), &r), "with one view held by an unregistered thread");
	t = patch_common();
	is(finish(t, WFLP_LAST_OVER), WFLP_FAILED, "there is one too few");
	need(!wflp_report(t, &r, sizeof(r)), "report");
	is(r.error, -EMFILE, "no view left");
	is(r.held_tid, *(pid_t *)tid, "held by that thread");
	now[0].common--;	/* the failed one */
	for (unsigned int i = 1; i < WFLP_VARIANTS_MAX; i++)
		now[i].common--;
	is((long long)wflp_newest_generation(), wflp_variant_generation(3), "nothing published");
	ok(over(patch_own(v[30]), &r), "a patch of one finds its view");
	__atomic_store_n(&let_go, true, __ATOMIC_RELEASE);
	pthread_join(h, NULL);
	ok(over(patch_common(), &r), "when the thread is gone the next is through");
	end(&p, DIE);

	/* All or nothing, also across variants. */
	ok(over(patch_own(v[5]), &r), "one is different");
	t = groups_patch_all_own(now[0].own, now[0].own + 1);
	is(finish(t, WFLP_LAST_OVER), WFLP_FAILED, "a patch to all that does not fit it");
	need(!wflp_report(t, &r, sizeof(r)), "report");
	is(r.error, -ESTALE, "old bytes differ");
	is(r.bad_variant, (int)v[5], "there");
	is(r.bad_edit, 0, "and in that edit");
	for (unsigned int i = 0; i < n; i++)
		if (!(soon(!wflp_variant_threads(v[i])) && remove_variant(v[i])))
			ok(false, "remove %u", v[i]);
	ok(over(patch_common(), &r), "afterwards all goes on");
}

int main(int argc, char **argv)
{
	unsigned int v;

	strategy = groups_init(argc, argv);
	deadline(240);
	if (strategy != WFLP_WAITFREE) {
		in_place();
		return done();
	}
	errors();
	canary(false);
	canary(true);
	stuck();
	reassigned_asleep();
	births();
	limits();
	storm(scaled(300), 0);
	if (model) {
		storm(scaled(120), 200);
		storm(scaled(40), 2000);
	}
	is((long long)wrong, 0, "calls of another variant's or generation's code");

	/* A second life finds the variants of the first. */
	ok(over(create(0, &v), &r) && over(patch_own(v), &r), "one more");
	is(wflp_fini(), 0, "fini");
	is(wflp_init(WFLP_BARRIER, 0), -EINVAL, "views are in use: no other strategy");
	is(wflp_init(WFLP_WAITFREE, 0), 0, "a second life");
	ok(over(patch_own(v), &r), "the variant is still there");
	ok(remove_variant(v), "and can be removed");
	is(wflp_fini(), 0, "fini");
	return done();
}
