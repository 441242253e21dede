/* SPDX-License-Identifier: MIT */
/*
 * The side of the patcher: one thread that owns all work, so that no caller
 * and no patched thread ever does any of it.  Patches are strictly serial: the
 * next begins when no registered thread is left behind the last (LAST_OVER),
 * though not when the last view is gone (RELEASED), which an unregistered
 * thread may put off for ever.  That holds for all variants together: one queue,
 * so that a patch to all of them has one place in it and one outcome.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

/*
 * How long after a PULL to look again for a thread that was then awake and has
 * gone to sleep since.  From well below a scheduling tick up to a rate that
 * costs nothing even if a thread never comes to its quiescence point.
 */
#define PULL_AGAIN_MIN_NS 50000
#define PULL_AGAIN_MAX_NS 10000000

/* ---- tickets ---- */

static void job_free(struct job *j)
{
	free(j->edits);
	free(j);
}

static bool job_done(const struct job *j)
{
	return j->rep.stage == WFLP_FAILED || j->rep.stage == WFLP_RELEASED;
}

/*
 * Forget all but the newest finished tickets.  An unfinished one is never
 * forgotten: it is queued, in progress, or one of at most 64 whose old view
 * has not drained.
 */
void wflp_jobs_forget(bool all)
{
	struct job **link = &G.jobs, *j;
	size_t finished = 0;

	while ((j = *link)) {
		if (all || (job_done(j) && !j->waiters &&
			    ++finished > REPORTS_KEPT)) {
			*link = j->next;
			job_free(j);
		} else {
			link = &j->next;
		}
	}
}

static struct job *job_find(int64_t ticket)
{
	struct job *j = G.jobs;

	while (j && j->ticket != ticket)
		j = j->next;
	return j;
}

/* What the threads have noted down goes into the report. */
static void job_note(struct job *j)
{
	uint32_t over = j->rep.threads - load_acquire(&G.p.remaining);
	uint32_t pulled = load_relaxed(&G.p.pulled);

	j->rep.pulled = pulled < over ? pulled : over;
	j->rep.migrated = over - j->rep.pulled;
	j->rep.first_over_ns = load_relaxed(&G.p.first_ns);
}

static void job_stage(struct job *j, enum wflp_stage stage)
{
	if ((int32_t)stage <= j->rep.stage)
		return;
	j->rep.stage = stage;
	pthread_cond_broadcast(&G.changed);
}

static void stamp(uint64_t *ns)
{
	pthread_mutex_lock(&G.lock);
	*ns = wflp_now();
	pthread_mutex_unlock(&G.lock);
}

static void job_fail(struct job *j, int err)
{
	pthread_mutex_lock(&G.lock);
	j->rep.error = err;
	j->rep.generation = 0;
	j->rep.first_over_ns = 0;
	j->rep.last_over_ns = 0;
	free(j->edits);
	j->edits = NULL;
	G.unfinished--;
	if (j->kind == JOB_CREATE)
		G.variants[j->variant].state = VARIANT_NONE;
	job_stage(j, WFLP_FAILED);
	wflp_jobs_forget(false);
	pthread_mutex_unlock(&G.lock);
}

/* The patch is through; if no superseded view is left, so are they. */
static void job_over(struct job *j)
{
	uint64_t now = wflp_now();

	pthread_mutex_lock(&G.lock);
	job_note(j);
	/* Without a thread to note it down, it is over at once. */
	if (!j->rep.first_over_ns)
		j->rep.first_over_ns = now;
	j->rep.last_over_ns = load_relaxed(&G.p.last_ns);
	if (!j->rep.last_over_ns)
		j->rep.last_over_ns = now;
	free(j->edits);
	j->edits = NULL;
	G.unfinished--;
	job_stage(j, WFLP_LAST_OVER);
	if (!j->old_left) {
		j->rep.released_ns = now;
		job_stage(j, WFLP_RELEASED);
		wflp_jobs_forget(false);
	}
	pthread_mutex_unlock(&G.lock);
}

/* ---- waiting ---- */

/* Close the superseded views that are empty; returns how many are left. */
static size_t reap(const struct pollfd *polled)
{
	size_t left = 0;

	pthread_mutex_lock(&G.lock);
	for (size_t i = 0; i < G.nold; i++) {
		struct old_view *v = &G.old[i];
		struct job *j;

		if (!(polled[i].revents & (POLLIN | POLLERR | POLLNVAL))) {
			G.old[left++] = *v;
			continue;
		}
		wflp_sys.view_close(v->fd);
		j = job_find(v->ticket);
		/* Before it is over itself, job_over() sees to it. */
		if (j && !--j->old_left && j->rep.stage == WFLP_LAST_OVER) {
			j->rep.released_ns = wflp_now();
			job_stage(j, WFLP_RELEASED);
		}
	}
	if (left != G.nold)
		wflp_jobs_forget(false);
	G.nold = left;
	pthread_mutex_unlock(&G.lock);
	return left;
}

/* Sleep until something happens, at most ns (< 0: for ever). */
static void wait_event(int64_t ns)
{
	struct timespec ts = { ns / 1000000000, ns % 1000000000 };
	struct pollfd fds[1 + VIEWS_MAX];
	uint64_t count;
	int n;

	fds[0] = (struct pollfd){ .fd = G.event_fd, .events = POLLIN };
	for (size_t i = 0; i < G.nold; i++)
		fds[1 + i] = (struct pollfd){ .fd = G.old[i].fd, .events = POLLIN };
	n = ppoll(fds, 1 + G.nold, ns < 0 ? NULL : &ts, NULL);
	if (n <= 0)
		return;
	if (fds[0].revents && read(G.event_fd, &count, sizeof(count)) < 0)
		return;
	reap(fds + 1);
}

/* ---- threads at candidates: see WORD_CANDIDATE ---- */

static bool swap_word(struct thread *t, uint32_t from, uint32_t to)
{
	return __atomic_compare_exchange_n(&t->self->offline, &from, to, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* What was known of sleepers was known for the last patch. Under the lock. */
static void unvouch(void)
{
	for (struct thread *t = G.threads; t; t = t->next) {
		uint32_t word = load_acquire(&t->self->offline);

		if (!load_acquire(&t->frame.stack_end))
			continue;
		/* Only if it wakes it is not what it was, and then there is nothing to do. */
		if (word & WORD_CHECKING || is_offline(word))
			swap_word(t, word, WORD_CANDIDATE);
	}
}

struct candidate {
	uint64_t serial;
	struct wflp_frame frame;
	bool free;
};

static struct wflp_frame copy_frame(const struct wflp_frame *f)
{
	return (struct wflp_frame){
		.rip = load_relaxed(&f->rip), .rsp = load_relaxed(&f->rsp),
		.rbp = load_relaxed(&f->rbp), .rbx = load_relaxed(&f->rbx),
		.r12 = load_relaxed(&f->r12), .r13 = load_relaxed(&f->r13),
		.r14 = load_relaxed(&f->r14), .r15 = load_relaxed(&f->r15),
		.caller = load_relaxed(&f->caller),
		.stack_low = load_relaxed(&f->stack_low),
		.stack_end = load_relaxed(&f->stack_end),
	};
}

static size_t begin_checking(struct candidate *c, size_t room)
{
	size_t n = 0;

	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t && n < room; t = t->next)
		if (load_acquire(&t->owed) && swap_word(t, WORD_CANDIDATE,
							WORD_CANDIDATE | WORD_CHECKING))
			c[n++] = (struct candidate){ t->serial, copy_frame(&t->frame), false };
	pthread_mutex_unlock(&G.lock);
	return n;
}

/*
 * Let those be moved that sleep where none of the code that the patch replaces is on
 * their stack.  The stacks are read without the lock, by a call that survives if one
 * is gone.
 */
static void vouch(void)
{
	const struct wflp_ranges *ranges = load_relaxed(&G.ranges);
	bool views = G.strategy == WFLP_WAITFREE;
	struct candidate *c, *at;
	size_t room = 0, n;

	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t; t = t->next)
		room += load_acquire(&t->owed) &&
			load_acquire(&t->self->offline) == WORD_CANDIDATE;
	pthread_mutex_unlock(&G.lock);
	c = room ? wflp_sys.alloc(room * sizeof(*c)) : NULL;
	if (!c)
		return;
	n = begin_checking(c, room);
	for (size_t i = 0; i < n; i++)
		c[i].free = !ranges ||
			wflp_stack_free(&c[i].frame, ranges,
					views ? wflp_sys.view_read : wflp_sys.mem_read,
					views ? target_fd(load_relaxed(&G.variants[0].target)) :
						G.mem_fd);
	at = c;
	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t; t = t->next) {
		while (at < c + n && at->serial < t->serial)
			at++;
		if (at == c + n || at->serial != t->serial || !at->free)
			continue;
		/* Before the word: the thread reads it when it finds that. */
		store_release(&t->vouched, load_relaxed(&G.epoch));
		swap_word(t, WORD_CANDIDATE | WORD_CHECKING,
			  offline_word(where_variant(load_acquire(&t->where))));
	}
	pthread_mutex_unlock(&G.lock);
	free(c);
}

/* ---- publication, the same for all strategies ---- */

/* A view that is ready for its threads. */
struct made {
	int fd;
	uint64_t id;
};

/*
 * first/last are stamped by threads from here on, so the time of publication
 * is taken before the first of them can have seen it.
 *
 * Every thread that may be in a variant concerned (affected, a set of bits) owes
 * before target and epoch are stored, and is told after.  A thread may find the
 * new epoch without having been told, if it is in its slow path for an older
 * reason (it slept through the last patch).  Were its debt noted only then, a
 * barrier would never end:
 *
 *	thread				patcher
 *	pending = 0
 *					store epoch (k)
 *	load epoch (k)
 *	owes nothing; parks until k
 *					thread: owed = k, pending = 1
 *					waits for the thread to arrive
 */
static void publish(struct job *j, uint64_t epoch, uint64_t generation,
		    uint32_t affected, const struct made *made)
{
	uint32_t count = 0;

	pthread_mutex_lock(&G.lock);
	unvouch();
	store_release(&G.ranges, j->ranges);
	/* As long as G.epoch is another nobody claims this. */
	for (struct thread *t = G.threads; t; t = t->next)
		if (where_maybe(load_acquire(&t->where)) & affected) {
			store_release(&t->owed, epoch);
			count++;
		}
	store_relaxed(&G.p.first_ns, 0);
	store_relaxed(&G.p.last_ns, 0);
	store_relaxed(&G.p.pulled, 0);
	store_relaxed(&G.p.leaving, 0);
	store_release(&G.p.remaining, count);
	j->rep.threads = count;
	j->rep.generation = generation;
	j->rep.published_ns = wflp_now();
	/* In a barrier the new generation begins with the release. */
	if (G.strategy != WFLP_BARRIER)
		store_release(&G.newest, generation);
	for (unsigned int v = 0; made && v < WFLP_VARIANTS_MAX; v++)
		if (affected & 1u << v) {
			struct variant *x = &G.variants[v];

			x->last_id = x->view_id;
			x->view_id = made[v].id;
			x->state = VARIANT_LIVE;
			G.new_fds[v] = -1;
			store_release(&x->target, target_make(epoch, made[v].fd));
		}
	store_release(&G.epoch, epoch);
	for (struct thread *t = G.threads; t; t = t->next)
		if (load_acquire(&t->owed))
			swap_seq(&t->self->pending, 1);
	job_stage(j, WFLP_PUBLISHED);
	pthread_mutex_unlock(&G.lock);
}

/* In place: a thread that is offline has arrived. See wflp_offline(). */
static void claim_offline(uint64_t epoch)
{
	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t; t = t->next)
		if (is_offline(load_seq(&t->self->offline)))
			wflp_claim(t, epoch, true, false);
	pthread_mutex_unlock(&G.lock);
}

static void note_progress(struct job *j)
{
	pthread_mutex_lock(&G.lock);
	job_note(j);
	if (j->rep.first_over_ns)
		job_stage(j, WFLP_FIRST_OVER);
	pthread_mutex_unlock(&G.lock);
}

/* ---- waitfree ---- */

/* What a patch leaves behind: the targets that it replaces. */
struct superseded {
	uint32_t variants;
	uint64_t target[WFLP_VARIANTS_MAX];
	uint64_t id[WFLP_VARIANTS_MAX];
};

static bool old_views_empty(const struct superseded *old)
{
	struct mm_view_stat st;

	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX; v++) {
		int fd = target_fd(old->target[v]);

		if (!(old->variants & 1u << v))
			continue;
		/* The base has no count, and may well have threads that never register. */
		if (fd < 0 || wflp_sys.view_ctl(fd, MM_VIEW_STAT, &st, sizeof(st)) < 0 ||
		    st.threads)
			return false;
	}
	return old->variants;
}

/*
 * Variants with sleepers that are not where they belong, or of whom that is not
 * known yet.  *restless: there are threads, asleep or not, that have been assigned
 * to another variant and not been seen there.
 */
static uint32_t variants_asleep(bool *restless)
{
	uint32_t variants = 0;

	*restless = false;
	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t; t = t->next) {
		uint64_t where = load_acquire(&t->where);
		uint32_t word = load_acquire(&t->self->offline);
		uint32_t right = offline_word(where_variant(where));

		if (!where_settled(where))
			*restless = true;
		else if (!load_acquire(&t->owed))
			continue;
		if (!is_offline(word))
			continue;
		/* It was assigned to another variant while it slept. */
		if (word != right)
			__atomic_compare_exchange_n(&t->self->offline, &word, right, false,
						    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
		variants |= 1u << where_variant(where);
	}
	pthread_mutex_unlock(&G.lock);
	return variants;
}

/*
 * Moves the sleepers of variant v to where it is, and says who is asleep there
 * then: *n at most, and so many.
 */
static uint32_t pull_into(unsigned int v, uint32_t *tids, size_t *n)
{
	struct mm_view_pull who = {
		.mask = ~0u,
		.value = offline_word(v),
		.tids = (uintptr_t)tids,
		.nr = (uint32_t)*n,
	};
	int fd = target_fd(load_relaxed(&G.variants[v].target));
	long moved = 0;

	/* In the base there is one variant, and a rebase has moved all there. */
	if (fd >= 0)
		moved = wflp_sys.view_ctl(fd, MM_VIEW_PULL, &who, sizeof(who));
	*n = fd >= 0 && moved >= 0 ? who.nr : 0;
	return moved > 0 ? (uint32_t)moved : 0;
}

static void found_at_home(struct thread *t, uint64_t where)
{
	uint64_t target = load_relaxed(&G.variants[where_variant(where)].target);

	/*
	 * It may have woken and be on its way to this same target, never to
	 * another: it would have to be assigned, for which we hold the lock.
	 */
	store_release(&t->generation, target_epoch(target));
	/* Last: a thread that finds this looks no further. */
	store_release(&t->at, target);
	wflp_settle(t, where);
	wflp_claim(t, UINT64_MAX, false, false);
}

static int by_tid(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* A thread that may be moved, as it was before. */
struct asleep {
	uint64_t serial, where;
};

/* In the order of the list, room at most. */
static size_t list_asleep(struct asleep *s, size_t room)
{
	size_t n = 0;

	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t && n < room; t = t->next) {
		uint64_t where = load_acquire(&t->where);

		if (is_offline(load_acquire(&t->self->offline)) &&
		    (!where_settled(where) || load_acquire(&t->owed)))
			s[n++] = (struct asleep){ t->serial, where };
	}
	pthread_mutex_unlock(&G.lock);
	return n;
}

/*
 * PULL has said who is asleep where variant v is. Once there, a sleeper stays: it
 * can neither be pulled back nor enter an older view (wflp.c, top), until it is
 * assigned to another variant. So over is over; but only if it has not been assigned
 * since it was listed: it could have woken and gone there.
 */
static void claim_pulled(unsigned int v, uint32_t *tids, size_t n,
			 const struct asleep *s, size_t ns)
{
	qsort(tids, n, sizeof(*tids), by_tid);
	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t && ns; t = t->next) {
		uint64_t where = load_acquire(&t->where);
		uint32_t tid = (uint32_t)t->tid;

		while (ns && s->serial < t->serial)
			s++, ns--;
		if (ns && s->serial == t->serial && where_variant(where) == v &&
		    where_serial(where) == where_serial(s->where) &&
		    bsearch(&tid, tids, n, sizeof(*tids), by_tid))
			found_at_home(t, where);
	}
	pthread_mutex_unlock(&G.lock);
}

/*
 * Where nobody is left in the views just superseded, that one answer serves for all
 * that have not changed variant: every thread in question was over for the last
 * patch, so it was there. So it is where it belongs even if it was not asleep at the
 * very moment that PULL looked.
 */
static void claim_all_asleep(void)
{
	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t; t = t->next) {
		uint64_t where = load_acquire(&t->where);

		if (where_settled(where) && load_acquire(&t->owed) &&
		    is_offline(load_acquire(&t->self->offline)))
			found_at_home(t, where);
	}
	pthread_mutex_unlock(&G.lock);
}

/* Returns whether there are threads that have yet to come to another variant. */
static bool pull_round(const struct superseded *old)
{
	uint32_t *tids = NULL, variants;
	struct asleep *s;
	bool restless;
	size_t room, ns;

	vouch();
	variants = variants_asleep(&restless);
	if (!variants)
		return restless;
	pthread_mutex_lock(&G.lock);
	room = G.nthreads;
	pthread_mutex_unlock(&G.lock);
	s = wflp_sys.alloc(room * sizeof(*s));
	tids = wflp_sys.alloc(room * sizeof(*tids));
	if (s && tids) {
		ns = list_asleep(s, room);
		for (unsigned int v = 0; v < WFLP_VARIANTS_MAX; v++) {
			size_t n = room;
			uint32_t moved;

			if (!(variants & 1u << v))
				continue;
			moved = pull_into(v, tids, &n);
			if (old->variants & 1u << v)
				__atomic_add_fetch(&G.p.pulled, moved, __ATOMIC_RELAXED);
			if (n)
				claim_pulled(v, tids, n, s, ns);
		}
	}
	/* Else the next round may have the memory. */
	free(s);
	free(tids);
	if (old_views_empty(old))
		claim_all_asleep();
	return restless;
}

static void later(int64_t *delay)
{
	wait_event(*delay);
	*delay *= 2;
	if (*delay > PULL_AGAIN_MAX_NS)
		*delay = PULL_AGAIN_MAX_NS;
}

static void pull_until_over(struct job *j, const struct superseded *old)
{
	int64_t delay = PULL_AGAIN_MIN_NS;

	for (;;) {
		if (load_acquire(&G.p.remaining))
			pull_round(old);
		note_progress(j);
		if (!load_acquire(&G.p.remaining))
			return;
		later(&delay);
	}
}

/* Who holds up the oldest view that is still to drain? */
static void blame(struct job *j)
{
	struct old_view oldest = { .fd = -1 };
	pid_t tid = 0;

	for (size_t i = 0; i < G.nold; i++)
		if (oldest.fd < 0 || G.old[i].generation < oldest.generation)
			oldest = G.old[i];
	if (oldest.fd >= 0)
		tid = wflp_sys.thread_in_view(oldest.id);
	pthread_mutex_lock(&G.lock);
	j->rep.held_generation = oldest.generation;
	j->rep.held_tid = tid;
	pthread_mutex_unlock(&G.lock);
}

static int write_view(int fd, const struct edit *e, size_t n, int32_t *bad)
{
	for (size_t i = 0; i < n; i++) {
		for (size_t done = 0; done < e[i].len; ) {
			ssize_t put = wflp_sys.view_write(fd, e[i].new_bytes + done,
							  e[i].len - done,
							  e[i].addr + done);

			if (put == -EINTR)
				continue;
			if (put <= 0) {
				if (put != -ENOMEM)
					*bad = (int32_t)i;
				return put ? (int)put : -EFAULT;
			}
			done += (size_t)put;
		}
	}
	return 0;
}

static void new_fd(unsigned int v, int fd)
{
	pthread_mutex_lock(&G.lock);
	G.new_fds[v] = fd;
	pthread_mutex_unlock(&G.lock);
}

/*
 * RETIRE before close: a child of fork may hold a copy of the descriptor, and
 * close alone would leave the view to it.
 */
static void drop_view(unsigned int v, int fd)
{
	new_fd(v, -1);
	wflp_sys.view_ctl(fd, MM_VIEW_RETIRE, NULL, 0);
	wflp_sys.view_close(fd);
}

/* Where the patcher is, as a descriptor; NOWHERE: to be entered again. */
#define NOWHERE (-2)
static int patcher_at = NOWHERE;

static int go(int fd)
{
	int err = fd == patcher_at ? 0 : wflp_sys.view_enter(fd, 0);

	patcher_at = err ? NOWHERE : fd;
	return err;
}

/*
 * Everything that can fail.  Makes a sealed view with the content of that of
 * from, and the edits, if there are any.
 */
static int make_view(struct job *j, unsigned int v, unsigned int from, struct made *made)
{
	struct mm_view_stat st = { 0 };
	int32_t bad = -1;
	int fd;
	long err;

	/* A copy of the view that its creator is in. */
	fd = go(target_fd(load_relaxed(&G.variants[from].target)));
	if (!fd)
		fd = wflp_sys.view_create(0);
	if (fd < 0)
		return fd;
	new_fd(v, fd);
	stamp(&j->rep.create_ns);
	err = fd > TARGET_FD_MAX ? -EMFILE : 0;
	if (!err)
		err = wflp_sys.view_ctl(fd, MM_VIEW_STAT, &st, sizeof(st));
	if (err >= 0 && j->n)
		err = wflp_text_verify(wflp_sys.view_read, fd, j->edits, j->n, &bad);
	if (!err && j->n)
		err = write_view(fd, j->edits, j->n, &bad);
	if (!err) {
		stamp(&j->rep.written_ns);
		do
			err = wflp_sys.view_ctl(fd, MM_VIEW_SEAL, NULL, 0);
		while (err == -EINTR);
	}
	if (err) {
		pthread_mutex_lock(&G.lock);
		j->rep.bad_edit = bad;
		j->rep.bad_variant = bad < 0 ? -1 : (int32_t)v;
		pthread_mutex_unlock(&G.lock);
		drop_view(v, fd);
		return (int)err;
	}
	stamp(&j->rep.sealed_ns);
	made->fd = fd;
	made->id = st.id;
	return 0;
}

/* All of them or none; and afterwards the patcher is in the newest of variant 0. */
static int make_views(struct job *j, uint32_t affected, struct made *made)
{
	unsigned int from = j->kind == JOB_PATCH ? j->variant : j->from;
	uint32_t done = 0;
	int err = 0;

	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX && !err; v++) {
		if (!(affected & 1u << v))
			continue;
		err = make_view(j, v, j->kind == JOB_ADOPT || v == j->variant ? from : v,
				&made[v]);
		if (!err)
			done |= 1u << v;
	}
	if (!err)
		err = go(affected & 1 ? made[0].fd :
			 target_fd(load_relaxed(&G.variants[0].target)));
	if (!err)
		return 0;
	go(target_fd(load_relaxed(&G.variants[0].target)));
	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX; v++)
		if (done & 1u << v)
			drop_view(v, made[v].fd);
	return err;
}

/* The variants that a job changes, with what it is going to supersede there. */
static int find_affected(const struct job *j, struct superseded *old)
{
	uint32_t live = 0;
	int err = 0;

	pthread_mutex_lock(&G.lock);
	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX; v++) {
		old->target[v] = load_relaxed(&G.variants[v].target);
		old->id[v] = G.variants[v].view_id;
		if (G.variants[v].state == VARIANT_LIVE)
			live |= 1u << v;
	}
	pthread_mutex_unlock(&G.lock);
	if ((j->kind == JOB_CREATE || j->kind == JOB_ADOPT) && !(live & 1u << j->from))
		err = -ENOENT;
	if (j->kind == JOB_CREATE) {
		old->variants = 1u << j->variant;
		old->target[j->variant] = target_make(0, -1);
		/*
		 * Nobody can be pulled into the base, so a sleeper that is assigned
		 * to the variant there would hold up the other for as long as it
		 * sleeps.  From the second variant on each has a view.
		 */
		if (target_fd(old->target[0]) < 0)
			old->variants |= 1;
	} else if (j->variant == WFLP_VARIANT_ALL) {
		old->variants = live;
		if (j->kind == JOB_ADOPT)
			old->variants &= ~(1u << j->from);
	} else {
		old->variants = 1u << j->variant;
		if (!(live & old->variants))
			err = -ENOENT;
	}
	return err;
}

/* Let go of the views that nobody can be on the way to any more. */
static void supersede(struct job *j, const struct superseded *old)
{
	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX; v++) {
		int fd = target_fd(old->target[v]);

		if (!(old->variants & 1u << v) || fd < 0)
			continue;
		wflp_sys.view_ctl(fd, MM_VIEW_RETIRE, NULL, 0);
		pthread_mutex_lock(&G.lock);
		G.old[G.nold++] = (struct old_view){
			.fd = fd,
			.id = old->id[v],
			.generation = target_epoch(old->target[v]),
			.ticket = j->ticket,
			.variant = v,
		};
		j->old_left++;
		pthread_mutex_unlock(&G.lock);
	}
}

static void run_change(struct job *j)
{
	struct made made[WFLP_VARIANTS_MAX];
	struct superseded old;
	uint64_t epoch;
	int err;

	wait_event(0);		/* whatever has drained makes room */
	err = find_affected(j, &old);
	if (!err && G.nold + (size_t)__builtin_popcount(old.variants) > VIEWS_MAX)
		err = -EMFILE;
	if (!err)
		err = make_views(j, old.variants, made);
	if (err) {
		if (err == -EMFILE)
			blame(j);
		job_fail(j, err);
		return;
	}
	epoch = load_relaxed(&G.epoch) + 1;
	publish(j, epoch, epoch, old.variants, made);
	pull_until_over(j, &old);
	supersede(j, &old);
	job_over(j);
}

/* Nothing is to be changed, and that is done. */
static void run_nothing(struct job *j)
{
	publish(j, load_relaxed(&G.epoch), load_relaxed(&G.newest), 0, NULL);
}

static void run_remove(struct job *j)
{
	struct superseded old;
	int err;

	wait_event(0);
	err = find_affected(j, &old);
	if (!err && G.nold == VIEWS_MAX)
		err = -EMFILE;
	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t && !err; t = t->next)
		if (where_maybe(load_acquire(&t->where)) & old.variants) {
			err = -EBUSY;
			j->rep.held_generation = target_epoch(old.target[j->variant]);
			j->rep.held_tid = t->tid;
		}
	if (!err) {
		memset(&G.variants[j->variant], 0, sizeof(G.variants[0]));
		/* A thread that was born there and registers later is nobody's. */
		for (size_t i = 0; i < G.nold; i++)
			if (G.old[i].variant == j->variant)
				G.old[i].variant = 0;
	}
	pthread_mutex_unlock(&G.lock);
	if (err) {
		job_fail(j, err);
		return;
	}
	run_nothing(j);
	supersede(j, &old);
	pthread_mutex_lock(&G.lock);
	if (j->old_left)
		G.old[G.nold - 1].variant = 0;
	pthread_mutex_unlock(&G.lock);
	job_over(j);
}

/* How often REBASE is tried while sleepers may have to be moved first. */
#define REBASE_TRIES 10

/*
 * Who keeps the base from being changed?  A thread that is in it; else one in a
 * superseded view; else a variant, which may have no pages of its own there.
 */
static void blame_rebase(struct job *j)
{
	uint64_t generation = 0;
	pid_t tid = wflp_sys.thread_in_view(0);

	if (!tid && G.nold) {
		blame(j);
		return;
	}
	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX && !tid; v++) {
		if (v == j->variant || G.variants[v].state != VARIANT_LIVE)
			continue;
		generation = target_epoch(load_relaxed(&G.variants[v].target));
		tid = wflp_sys.thread_in_view(G.variants[v].view_id);
	}
	pthread_mutex_lock(&G.lock);
	j->rep.held_generation = generation;
	j->rep.held_tid = tid;
	pthread_mutex_unlock(&G.lock);
}

static bool only_variant(unsigned int variant)
{
	bool only = true;

	pthread_mutex_lock(&G.lock);
	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX; v++)
		only = only && (v == variant || G.variants[v].state == VARIANT_NONE);
	pthread_mutex_unlock(&G.lock);
	return only;
}

/*
 * The kernel moves the threads of the view to the base, all at once and for none
 * of them anything changes; what is published afterwards is only that the view is
 * no longer to be entered.
 */
static void run_rebase(struct job *j)
{
	struct made made[WFLP_VARIANTS_MAX];
	int64_t delay = PULL_AGAIN_MIN_NS;
	struct superseded old;
	uint64_t epoch;
	long err;
	int fd;

	wait_event(0);
	err = find_affected(j, &old);
	fd = err ? -1 : target_fd(old.target[j->variant]);
	if (!err && fd < 0) {	/* it is there already */
		run_nothing(j);
		job_over(j);
		return;
	}
	/* Nobody can be pulled into the base, so it is no place for one of many. */
	if (!err && !only_variant(j->variant))
		err = -EBUSY;
	else if (!err && G.nold == VIEWS_MAX)
		err = -EMFILE;
	else if (!err) {
		struct superseded none = { 0 };

		err = go(fd);
		store_release(&G.rebasing, 1u << j->variant);
		for (int i = 0; !err && i < REBASE_TRIES; i++) {
			err = wflp_sys.view_ctl(fd, MM_VIEW_REBASE, NULL, 0);
			if (err != -EBUSY && err != -EINTR)
				break;
			pull_round(&none);
			later(&delay);
			if (i < REBASE_TRIES - 1)
				err = 0;
		}
	}
	if (err) {
		if (err == -EBUSY || err == -EMFILE)
			blame_rebase(j);
		store_release(&G.rebasing, 0);
		go(target_fd(load_relaxed(&G.variants[0].target)));
		/* No such operation. */
		job_fail(j, err == -EINVAL ? -EOPNOTSUPP : (int)err);
		return;
	}
	made[j->variant] = (struct made){ .fd = -1 };
	epoch = load_relaxed(&G.epoch) + 1;
	publish(j, epoch, epoch, old.variants, made);
	store_release(&G.rebasing, 0);
	patcher_at = NOWHERE;
	go(target_fd(load_relaxed(&G.variants[0].target)));
	pull_until_over(j, &old);
	supersede(j, &old);
	job_over(j);
}

static void run_waitfree(struct job *j)
{
	if (j->kind == JOB_REMOVE)
		run_remove(j);
	else if (j->kind == JOB_REBASE)
		run_rebase(j);
	else
		run_change(j);
}

unsigned int wflp_variant_of_view(uint64_t id)
{
	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX; v++)
		if (G.variants[v].state == VARIANT_LIVE && G.variants[v].view_id == id)
			return v;
	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX; v++)
		if (G.variants[v].state == VARIANT_LIVE && id && G.variants[v].last_id == id)
			return v;
	for (size_t i = 0; i < G.nold; i++)
		if (G.old[i].id == id)
			return G.old[i].variant;
	return 0;
}

/* ---- barrier and naive ---- */

static int check_text(struct job *j)
{
	int32_t bad = -1;
	int err;

	err = wflp_text_check(j->edits, j->n, &bad);
	if (!err)
		err = wflp_text_verify(wflp_sys.mem_read, G.mem_fd, j->edits, j->n,
				       &bad);
	pthread_mutex_lock(&G.lock);
	j->rep.bad_edit = bad;
	pthread_mutex_unlock(&G.lock);
	return err;
}

static int write_text(struct job *j)
{
	int32_t bad = -1;
	int err = wflp_text_write(G.mem_fd, j->edits, j->n, &bad);

	pthread_mutex_lock(&G.lock);
	j->rep.bad_edit = bad;
	pthread_mutex_unlock(&G.lock);
	stamp(&j->rep.written_ns);
	return err;
}

/* Only threads at candidates come to rest without saying so. */
static bool has_candidates(void)
{
	bool has = false;

	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t && !has; t = t->next)
		has = load_acquire(&t->frame.stack_end);
	pthread_mutex_unlock(&G.lock);
	return has;
}

static void wait_arrived(struct job *j, uint64_t epoch, bool progress)
{
	int64_t delay = PULL_AGAIN_MIN_NS;

	for (;;) {
		vouch();
		claim_offline(epoch);
		if (!load_acquire(&G.p.remaining))
			return;
		if (progress)
			note_progress(j);
		if (has_candidates())
			later(&delay);
		else
			wait_event(-1);
	}
}

static void run_barrier(struct job *j)
{
	uint64_t generation = load_relaxed(&G.newest) + 1;
	uint64_t epoch = load_relaxed(&G.epoch) + 1;
	int err;

	err = check_text(j);
	if (err) {
		job_fail(j, err);
		return;
	}
	publish(j, epoch, generation, 1, NULL);
	wait_arrived(j, epoch, false);

	/* Nobody is in patchable code, and nobody gets back in before release. */
	pthread_mutex_lock(&text_lock);
	err = write_text(j);
	if (G.sync_core)
		wflp_sys.sync_core();
	stamp(&j->rep.sealed_ns);
	if (!err)
		store_release(&G.newest, generation);
	store_release(&G.released, (uint32_t)epoch);
	pthread_mutex_unlock(&text_lock);
	syscall(SYS_futex, &G.released, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);

	while (load_acquire(&G.p.leaving)) {
		if (!err)
			note_progress(j);
		wait_event(-1);
	}
	if (err)
		job_fail(j, err);
	else
		job_over(j);
}

int (*wflp_stop)(const struct wflp_ranges *ranges);
void (*wflp_go)(void);

/*
 * As others do it: a stop at which some stack is not free is given up at once, and
 * tried again after ever longer times, so that threads stand as little as can be.
 */
#define STOP_AGAIN_MIN_NS 50000
#define STOP_AGAIN_MAX_NS 5000000
#define STOP_GIVE_UP_NS 2000000000

static int write_stopped(struct job *j)
{
	uint64_t end = wflp_now() + STOP_GIVE_UP_NS;
	struct timespec pause = { 0, STOP_AGAIN_MIN_NS };
	int32_t bad = -1;
	int err;

	for (;;) {
		pthread_mutex_lock(&text_lock);
		pthread_mutex_lock(&G.lock);
		err = wflp_stop(j->ranges);
		if (!err) {
			err = wflp_text_write(G.mem_fd, j->edits, j->n, &bad);
			wflp_go();
			j->rep.written_ns = wflp_now();
			j->rep.bad_edit = bad;
		}
		pthread_mutex_unlock(&G.lock);
		pthread_mutex_unlock(&text_lock);
		if (err != -EAGAIN || wflp_now() > end)
			return err;
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < STOP_AGAIN_MAX_NS)
			pause.tv_nsec *= 2;
	}
}

/* Whoever stood is over. */
static void claim_all(uint64_t epoch)
{
	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t; t = t->next)
		wflp_claim(t, epoch, false, false);
	pthread_mutex_unlock(&G.lock);
}

/* UNSAFE, and meant to be, where nobody is stopped: see enum wflp_strategy. */
static void run_naive(struct job *j)
{
	uint64_t generation = load_relaxed(&G.newest) + 1;
	uint64_t epoch = load_relaxed(&G.epoch) + 1;
	int err;

	err = check_text(j);
	if (!err && wflp_stop) {
		err = write_stopped(j);
	} else if (!err) {
		pthread_mutex_lock(&text_lock);
		err = write_text(j);
		pthread_mutex_unlock(&text_lock);
	}
	if (err) {
		job_fail(j, err);
		return;
	}
	stamp(&j->rep.sealed_ns);
	publish(j, epoch, generation, 1, NULL);
	if (wflp_stop)
		claim_all(epoch);
	wait_arrived(j, epoch, true);
	job_over(j);
}

/* ---- the thread ---- */

static struct job *next_job(bool *stop)
{
	struct job *j;

	pthread_mutex_lock(&G.lock);
	j = G.queue;
	if (j) {
		G.queue = j->queue_next;
		if (!G.queue)
			G.queue_tail = &G.queue;
		j->rep.preparing_ns = wflp_now();
		job_stage(j, WFLP_PREPARING);
	}
	*stop = !j && G.state == LIB_STOPPING;
	pthread_mutex_unlock(&G.lock);
	return j;
}

void *wflp_patcher(void *arg)
{
	int64_t delay = PULL_AGAIN_MIN_NS;
	struct superseded none = { 0 };
	bool stop;

	pthread_setname_np(pthread_self(), "wflp-patcher");
	store_release(&G.patcher_tid, (pid_t)syscall(SYS_gettid));
	/* From wherever our creator was to where the next view is copied from. */
	patcher_at = NOWHERE;
	if (G.strategy == WFLP_WAITFREE)
		go(target_fd(load_relaxed(&G.variants[0].target)));
	for (;;) {
		struct job *j = next_job(&stop);

		if (stop)
			return arg;
		if (!j && G.strategy == WFLP_WAITFREE && pull_round(&none)) {
			later(&delay);
			continue;
		}
		delay = PULL_AGAIN_MIN_NS;
		if (!j)
			wait_event(-1);
		else if (G.strategy == WFLP_WAITFREE)
			run_waitfree(j);
		else if (G.strategy == WFLP_BARRIER)
			run_barrier(j);
		else
			run_naive(j);
	}
}

/* ---- what callers see ---- */

static int by_addr(const void *a, const void *b)
{
	const struct edit *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

/* Sorts e. */
static bool overlap(struct edit *e, size_t n)
{
	qsort(e, n, sizeof(*e), by_addr);
	for (size_t i = 1; i < n; i++)
		if (e[i].addr - e[i - 1].addr < e[i - 1].len)
			return true;
	return false;
}

static int copy_edits(const struct wflp_edit *edits, size_t n, struct edit **out)
{
	size_t size, bytes = 0;
	struct edit *e, *sorted;
	uint8_t *p;
	bool bad;

	if (!edits || !n || n > INT32_MAX)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		uintptr_t end;

		if (!edits[i].len || !edits[i].old_bytes || !edits[i].new_bytes ||
		    __builtin_add_overflow((uintptr_t)edits[i].addr, edits[i].len, &end) ||
		    __builtin_add_overflow(bytes, edits[i].len, &bytes))
			return -EINVAL;
	}
	if (__builtin_mul_overflow(n, sizeof(*e), &size) ||
	    __builtin_add_overflow(size, bytes, &size) ||
	    __builtin_add_overflow(size, bytes, &size))
		return -EINVAL;
	e = wflp_sys.alloc(size);
	sorted = wflp_sys.alloc(n * sizeof(*e));
	if (!e || !sorted) {
		free(e);
		free(sorted);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		e[i] = (struct edit){ .addr = (uintptr_t)edits[i].addr, .len = edits[i].len };
	memcpy(sorted, e, n * sizeof(*e));
	bad = overlap(sorted, n);
	free(sorted);
	if (bad) {
		free(e);
		return -EINVAL;
	}
	p = (uint8_t *)(e + n);
	for (size_t i = 0; i < n; i++) {
		e[i].old_bytes = memcpy(p, edits[i].old_bytes, e[i].len);
		p += e[i].len;
		e[i].new_bytes = memcpy(p, edits[i].new_bytes, e[i].len);
		p += e[i].len;
	}
	*out = e;
	return 0;
}

static struct job *job_new(enum job_kind kind, unsigned int variant)
{
	struct job *j = wflp_sys.alloc(sizeof(*j));

	if (!j)
		return NULL;
	memset(j, 0, sizeof(*j));
	j->kind = kind;
	j->variant = variant;
	j->rep.bad_edit = -1;
	j->rep.bad_variant = -1;
	j->rep.queued_ns = wflp_now();
	return j;
}

/* A number that is free, for JOB_CREATE. */
static int reserve_variant(void)
{
	for (unsigned int v = 1; v < WFLP_VARIANTS_MAX; v++)
		if (G.variants[v].state == VARIANT_NONE) {
			memset(&G.variants[v], 0, sizeof(G.variants[v]));
			G.variants[v].state = VARIANT_RESERVED;
			store_release(&G.varied, true);
			return (int)v;
		}
	return -ENOSPC;
}

/* Takes j, which may be NULL for want of memory. */
static int64_t submit(struct job *j, unsigned int flags)
{
	int64_t ret = 0;
	int v;

	if (!j)
		return -ENOMEM;
	pthread_mutex_lock(&G.lock);
	if (G.state != LIB_ON)
		ret = -ENODEV;
	else if (G.strategy != WFLP_WAITFREE &&
		 (j->kind != JOB_PATCH || (j->variant && j->variant != WFLP_VARIANT_ALL)))
		ret = -EOPNOTSUPP;
	else if ((flags & WFLP_APPLY_TRY) && G.unfinished)
		ret = -EBUSY;
	else if (j->kind == JOB_CREATE ? G.variants[j->from].state == VARIANT_NONE :
		 (j->variant != WFLP_VARIANT_ALL &&
		  G.variants[j->variant].state == VARIANT_NONE) ||
		 (j->kind == JOB_ADOPT && G.variants[j->from].state == VARIANT_NONE))
		ret = -ENOENT;
	if (!ret && j->kind == JOB_CREATE) {
		v = reserve_variant();
		if (v < 0)
			ret = v;
		else
			*j->number = j->variant = (unsigned int)v;
	}
	if (!ret) {
		ret = j->ticket = ++G.last_ticket;
		G.unfinished++;
		j->next = G.jobs;
		G.jobs = j;
		*G.queue_tail = j;
		G.queue_tail = &j->queue_next;
		wflp_notify();
	}
	pthread_mutex_unlock(&G.lock);
	if (ret < 0)
		job_free(j);
	return ret;
}

static bool bad_variant(unsigned int variant)
{
	return variant >= WFLP_VARIANTS_MAX && variant != WFLP_VARIANT_ALL;
}

static int64_t apply(unsigned int variant, const struct wflp_edit *edits, size_t n,
		     unsigned int flags, const struct wflp_ranges *ranges)
{
	struct job *j;
	int64_t ret;

	if (flags & ~WFLP_APPLY_TRY || bad_variant(variant))
		return -EINVAL;
	j = job_new(JOB_PATCH, variant);
	if (!j)
		return -ENOMEM;
	ret = copy_edits(edits, n, &j->edits);
	if (ret) {
		free(j);
		return ret;
	}
	j->n = n;
	j->ranges = ranges;
	return submit(j, flags);
}

int64_t wflp_variant_apply(unsigned int variant, const struct wflp_edit *edits, size_t n,
			   unsigned int flags)
{
	return apply(variant, edits, n, flags, NULL);
}

int64_t wflp_apply_watched(const struct wflp_edit *edits, size_t n, unsigned int flags,
			   const struct wflp_ranges *ranges)
{
	return apply(WFLP_VARIANT_ALL, edits, n, flags, ranges);
}

int64_t wflp_apply(const struct wflp_edit *edits, size_t n, unsigned int flags)
{
	return wflp_variant_apply(WFLP_VARIANT_ALL, edits, n, flags);
}

int64_t wflp_variant_create(unsigned int like, unsigned int *variant)
{
	unsigned int v = 0;
	struct job *j;
	int64_t ret;

	if (like >= WFLP_VARIANTS_MAX || !variant)
		return -EINVAL;
	j = job_new(JOB_CREATE, 0);
	if (j) {
		j->from = like;
		j->number = &v;
	}
	ret = submit(j, 0);
	if (ret > 0)
		*variant = v;
	return ret;
}

int64_t wflp_variant_adopt(unsigned int variant, unsigned int from, unsigned int flags)
{
	struct job *j;

	if (flags & ~WFLP_APPLY_TRY || bad_variant(variant) || from >= WFLP_VARIANTS_MAX ||
	    variant == from)
		return -EINVAL;
	j = job_new(JOB_ADOPT, variant);
	if (j)
		j->from = from;
	return submit(j, flags);
}

int64_t wflp_variant_remove(unsigned int variant)
{
	if (!variant || variant >= WFLP_VARIANTS_MAX)
		return -EINVAL;
	return submit(job_new(JOB_REMOVE, variant), 0);
}

int64_t wflp_rebase(void)
{
	return submit(job_new(JOB_REBASE, 0), 0);
}

int wflp_variant_threads(unsigned int variant)
{
	int n = 0;

	if (variant >= WFLP_VARIANTS_MAX)
		return -EINVAL;
	pthread_mutex_lock(&G.lock);
	if (G.variants[variant].state == VARIANT_NONE)
		n = -ENOENT;
	for (struct thread *t = G.threads; t && n >= 0; t = t->next)
		n += !!(where_maybe(load_acquire(&t->where)) & 1u << variant);
	pthread_mutex_unlock(&G.lock);
	return n;
}

int64_t wflp_variant_generation(unsigned int variant)
{
	int64_t generation = -ENOENT;

	if (variant >= WFLP_VARIANTS_MAX)
		return -EINVAL;
	pthread_mutex_lock(&G.lock);
	if (G.variants[variant].state == VARIANT_LIVE)
		generation = G.strategy == WFLP_WAITFREE ?
			(int64_t)target_epoch(load_relaxed(&G.variants[variant].target)) :
			(int64_t)load_relaxed(&G.newest);
	pthread_mutex_unlock(&G.lock);
	return generation;
}

int wflp_report(int64_t ticket, struct wflp_report *report, size_t size)
{
	const size_t known = sizeof(*report);
	struct job *j;

	if (!report || !size)
		return -EINVAL;
	pthread_mutex_lock(&G.lock);
	j = job_find(ticket);
	if (j) {
		memcpy(report, &j->rep, size < known ? size : known);
		if (size > known)
			memset((char *)report + known, 0, size - known);
	}
	pthread_mutex_unlock(&G.lock);
	return j ? 0 : -ENOENT;
}

int wflp_wait(int64_t ticket, enum wflp_stage stage, int64_t timeout_ns)
{
	struct timespec until = { 0 };
	int err = 0, ret, state;
	struct job *j;

	if ((int)stage < WFLP_QUEUED || (int)stage > WFLP_RELEASED)
		return -EINVAL;
	if (timeout_ns >= 0) {
		uint64_t end = wflp_now() + (uint64_t)timeout_ns;

		until.tv_sec = (time_t)(end / 1000000000u);
		until.tv_nsec = (long)(end % 1000000000u);
	}
	/* The wait below is a cancellation point, and would keep the lock. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	pthread_mutex_lock(&G.lock);
	j = job_find(ticket);
	if (j) {
		j->waiters++;
		while (j->rep.stage < (int32_t)stage && !err)
			err = timeout_ns < 0 ?
				pthread_cond_wait(&G.changed, &G.lock) :
				pthread_cond_timedwait(&G.changed, &G.lock, &until);
		ret = j->rep.stage < (int32_t)stage ? -ETIMEDOUT : j->rep.stage;
		j->waiters--;
	} else {
		ret = -ENOENT;
	}
	pthread_mutex_unlock(&G.lock);
	pthread_setcancelstate(state, NULL);
	return ret;
}
