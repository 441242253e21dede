// SPDX-License-Identifier: Apache-2.0
/* What a thread does. Nothing on its way allocates or takes a lock. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "exec.h"

__thread struct worker *self;

/*
 * The patchable code takes and returns the place of the next record in rdi,
 * keeps rbx and the stack, and may use rax, rcx and rdx.
 */
__asm__(".text\n"
	".globl call_code\n"
	".type call_code, @function\n"
	"call_code:\n"
	"	.cfi_startproc\n"
	"	push %rbx\n"
	"	.cfi_def_cfa_offset 16\n"
	"	.cfi_offset %rbx, -16\n"
	"	mov %rdi, %rax\n"
	"	mov %rsi, %rdi\n"
	"	call *%rax\n"
	"	mov %rdi, %rax\n"
	"	pop %rbx\n"
	"	.cfi_def_cfa_offset 8\n"
	"	.cfi_restore %rbx\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size call_code, .-call_code\n");

/* Not worth a function call a round, and not to be optimised away. */
static void spin_rounds(uint64_t n)
{
	while (n--)
		__asm__ volatile("" : : : "memory");
}

static void spin_ns(uint64_t ns)
{
	if (ns)
		spin_rounds(ns * P.spin_per_ms / 1000000);
}

/*
 * Rounds a millisecond: the best of several tries, since whatever disturbs one
 * makes it slower.  A load that is counted in rounds queues when the machine is
 * short of time, as work does; a loop that ends at a time would not.
 */
uint64_t spin_calibrate(void)
{
	uint64_t rounds = 1000, best = 0;

	for (;;) {
		uint64_t t = now_ns();

		spin_rounds(rounds);
		if (now_ns() - t > 200000)
			break;
		rounds *= 2;
	}
	for (int i = 0; i < 7; i++) {
		uint64_t t = now_ns(), per_ms;

		spin_rounds(rounds);
		per_ms = rounds * 1000000 / (now_ns() - t + 1);
		if (per_ms > best)
			best = per_ms;
	}
	return best;
}

uint32_t generation(void)
{
	if (P.strategy == WIRE_STRATEGY_STOPWORLD)
		return stop_generation();
	if (P.strategy == WIRE_STRATEGY_RESTART)
		return restart_generation();
	return by_library() ? (uint32_t)wflp_thread_generation() : 0;
}

static void error(struct worker *w, uint16_t what, int err)
{
	if (err < 0)
		rec(w, WIRE_RECORD_ERROR, what, (uint32_t)err, now_ns());
}

void go_offline(struct worker *w)
{
	rec(w, WIRE_RECORD_OFFLINE, 0, 0, now_ns());
	if (by_library())
		error(w, WIRE_ERROR_OFFLINE, wflp_offline());
	w->went_off = generation();
}

void go_online(struct worker *w)
{
	uint64_t t = now_ns();
	bool pulled = generation() != w->went_off;
	int moved = by_library() ? wflp_online() : 0;

	error(w, WIRE_ERROR_ONLINE, moved);
	rec(w, WIRE_RECORD_ONLINE,
	    (uint16_t)((moved > 0 ? WIRE_ONLINE_MOVED : 0) | (pulled ? WIRE_ONLINE_PULLED : 0)),
	    generation(), t);
}

static int quiescent(struct worker *w)
{
	int moved = by_library() ? wflp_quiescent() : 0;

	error(w, WIRE_ERROR_QUIESCENT, moved);
	return moved;
}

struct wire_record *run_roots(struct worker *w, uint32_t from, uint32_t n,
			      struct wire_record *next)
{
	const uint32_t *roots = P.spec.roots + w->w->root;

	for (uint32_t i = 0; i < n; i++)
		next = call_code(P.spec.functions[roots[(from + i) % w->w->roots]].entry, next);
	return next;
}

static void sleep_ns(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

	nanosleep(&ts, NULL);
}

static void blocking(struct worker *w, const struct wire_action *a)
{
	uint64_t ns = a->us * 1000ull;
	struct timespec ts = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
	uint32_t word = 0;
	int fd = -1;

	if (a->kind == ACT_EPOLL) {
		fd = epoll_create1(EPOLL_CLOEXEC);
		if (fd < 0)
			return;
	}
	go_offline(w);
	if (a->kind == ACT_NANOSLEEP) {
		nanosleep(&ts, NULL);
	} else if (a->kind == ACT_FUTEX) {
		syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &ts, NULL, 0);
	} else {
		struct epoll_event ev;

		epoll_wait(fd, &ev, 1, (int)(a->us / 1000) + 1);
	}
	go_online(w);
	if (fd >= 0)
		close(fd);
}

static void share_add(struct worker *w, const struct wire_action *a)
{
	uint32_t i = a->at % SHARED_WORDS;
	uint64_t was = __atomic_fetch_add(&P.shared[i], 1, __ATOMIC_RELAXED);

	w->added++;
	w->mem_ops++;
	if (was < w->seen[i]) {
		rec(w, WIRE_RECORD_MEM_FAIL, (uint16_t)(ACT_SHARE_ADD | WIRE_MEM_BACKWARD << 8), i, was);
		rec(w, WIRE_RECORD_MEM_WANT, 0, 0, w->seen[i]);
	}
	w->seen[i] = was + 1;
}

/* A program's own lock, of which nobody who patches it knows. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void act(struct worker *w, const struct wire_action *a)
{
	switch (a->kind) {
	case ACT_SLEEP_INSIDE:
		w->inside_ns = a->us * 1000;
		break;
	case ACT_NANOSLEEP:
	case ACT_FUTEX:
	case ACT_EPOLL:
		blocking(w, a);
		break;
	case ACT_LOCK:
		pthread_mutex_lock(&lock);
		break;
	case ACT_UNLOCK:
		pthread_mutex_unlock(&lock);
		break;
	case ACT_SHARE_ADD:
		share_add(w, a);
		break;
	default:
		memory_action(w, a);
	}
}

/* The thread starts the workers that are due before transaction txn. */
static void births(struct worker *w, uint64_t txn)
{
	for (size_t i = w->id + 1; i < P.nworkers; i++) {
		struct worker *c = &P.workers[i];

		if (c->w->parent == (int32_t)w->id && !c->started && c->w->born_at <= txn)
			worker_start(c);
	}
}

static void transaction(struct worker *w)
{
	const struct wire_worker *s = w->w;
	uint32_t half = s->interval / 2;
	uint64_t t, ns = s->spin_ns;
	int moved;

	t = __atomic_load_n(&P.stalled_until, __ATOMIC_ACQUIRE);
	if (t && now_ns() < t)
		sleep_until(t);
	while (w->action < s->actions &&
	       P.spec.actions[s->action + w->action].at <= w->txns)
		act(w, &P.spec.actions[s->action + w->action++]);
	births(w, w->txns);
	if (w->end - w->next < (ptrdiff_t)s->max_records + 8) {
		w->dropped++;
		w->txns++;
		return;
	}
	/*
	 * The time before the quiescence point, twice used: what was published
	 * before it must show in this transaction, and the last transaction was
	 * over before it.
	 */
	t = now_ns();
	moved = quiescent(w);
	rec(w, WIRE_RECORD_TXN, moved > 0 ? WIRE_TXN_MOVED : 0, generation(), t);
	if (moved > 0)
		rec(w, WIRE_RECORD_MOVED, 1, generation(), now_ns());
	w->next = run_roots(w, w->root, half, w->next);
	if (w->inside_ns) {
		sleep_ns(w->inside_ns);
		w->inside_ns = 0;
	}
	if (s->long_every && w->txns % s->long_every == s->long_every - 1)
		ns = s->long_ns;
	spin_ns(ns);
	w->next = run_roots(w, w->root + half, s->interval - half, w->next);
	w->root = (w->root + s->interval) % s->roots;
	__atomic_store_n(&w->txns, w->txns + 1, __ATOMIC_RELAXED);
}

static void pause_until(struct worker *w, uint64_t at)
{
	if (now_ns() >= at)
		return;
	if (!(w->w->flags & WIRE_WORKER_WAIT_ONLINE)) {
		go_offline(w);
		if (P.strategy == WIRE_STRATEGY_RESTART)
			restart_sleep_until(at);
		else
			sleep_until(at);
		go_online(w);
		return;
	}
	while (now_ns() < at) {
		uint64_t t = now_ns();

		/* A transaction without content, told only where it matters. */
		if (quiescent(w) > 0) {
			rec(w, WIRE_RECORD_TXN, WIRE_TXN_MOVED | WIRE_TXN_EMPTY, generation(), t);
			rec(w, WIRE_RECORD_MOVED, 1, generation(), now_ns());
		}
		sched_yield();
	}
}

static void serve(struct worker *w)
{
	const uint64_t *arrivals = P.spec.arrivals + w->w->arrival;

	/* From the start, but in a process that was restarted. */
	for (uint32_t i = (uint32_t)w->requests; i < w->w->arrivals; i++) {
		pause_until(w, P.start_ns + arrivals[i]);
		if (restart_stopping())
			return;
		rec(w, WIRE_RECORD_REQ_START, 0, i, now_ns());
		for (uint32_t k = 0; k < w->w->per_request; k++)
			transaction(w);
		rec(w, WIRE_RECORD_REQ_END, 0, i, now_ns());
		w->requests++;
	}
}

/* Requests that have arrived and not been begun. */
static uint32_t waiting(const struct worker *w)
{
	const uint64_t *arrivals = P.spec.arrivals + w->w->arrival;
	uint64_t now = now_ns();
	uint32_t n = 0;

	for (uint32_t i = (uint32_t)w->requests; i < w->w->arrivals; i++)
		n += P.start_ns + arrivals[i] <= now;
	return n;
}

/*
 * Near its cap a thread slows down rather than end, so that there are threads
 * as long as there are patches, on a slow machine and on a fast one.  Every
 * other time it stays online, or all patches would meet sleepers.
 */
static void slow_down(struct worker *w)
{
	uint64_t used = w->txns * 8 / w->w->cap;
	uint64_t ns = used < 4 ? 0 : used < 6 ? 50000 : used < 7 ? 400000 : 3000000;

	if (!ns)
		return;
	if (w->txns % 2) { /* not for long: this holds every patch up */
		sleep_ns(ns < 100000 ? ns : 100000);
		return;
	}
	go_offline(w);
	sleep_ns(ns);
	go_online(w);
}

static void loop(struct worker *w)
{
	const struct wire_worker *s = w->w;

	while (w->txns < s->cap) {
		if (s->txns ? w->txns >= s->txns :
		    w->txns && __atomic_load_n(&P.patches_done, __ATOMIC_ACQUIRE))
			return;
		if (s->blocked_ns) {
			if (s->flags & WIRE_WORKER_WAIT_ONLINE) {
				sleep_ns(s->blocked_ns);
			} else {
				go_offline(w);
				sleep_ns(s->blocked_ns);
				go_online(w);
			}
		}
		transaction(w);
		if (s->flags & WIRE_WORKER_YIELD)
			sched_yield();
		if (!s->txns && !s->blocked_ns)
			slow_down(w);
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	bool cap;
	int err;

	self = w;
	w->tid = (pid_t)syscall(SYS_gettid);
	crash_altstack(w);
	rec(w, WIRE_RECORD_BIRTH, 0, 0, now_ns());
	err = by_library() ? wflp_thread_register() : 0;
	error(w, WIRE_ERROR_REGISTER, err);
	if (!err) {
		if (w->w->parent < 0)
			sleep_until(P.start_ns);
		if (P.strategy == WIRE_STRATEGY_RESTART)
			restart_up(waiting(w));
		if (w->w->arrivals)
			serve(w);
		else
			loop(w);
	}
	births(w, UINT64_MAX); /* whoever is not born yet never will be otherwise */
	cap = !w->w->arrivals && w->txns >= w->w->cap;
	rec(w, WIRE_RECORD_DEATH, cap ? WIRE_DEATH_CAP : WIRE_DEATH_DONE, generation(), now_ns());
	if (by_library() && !err)
		error(w, WIRE_ERROR_UNREGISTER, wflp_thread_unregister());
	__atomic_store_n(&w->ended, true, __ATOMIC_RELEASE);
	__atomic_sub_fetch(&P.alive, 1, __ATOMIC_ACQ_REL);
	return NULL;
}

void worker_start(struct worker *w)
{
	pthread_attr_t attr;
	int err;

	__atomic_add_fetch(&P.alive, 1, __ATOMIC_ACQ_REL);
	__atomic_store_n(&w->started, true, __ATOMIC_RELEASE);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 * 1024);
	err = pthread_create(&w->thread, &attr, worker_main, w);
	pthread_attr_destroy(&attr);
	if (!err)
		return;
	if (!self) {
		errno = err;
		die(WIRE_END_SETUP, "start worker");
	}
	error(self, WIRE_ERROR_SPAWN, -err);
	w->started = false;
	__atomic_sub_fetch(&P.alive, 1, __ATOMIC_ACQ_REL);
}
