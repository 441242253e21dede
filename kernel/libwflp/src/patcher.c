/* SPDX-License-Identifier: MIT */
/*
 * The side of the patcher: one thread that owns all work, so that no caller
 * and no patched thread ever does any of it.  Patches are strictly serial: the
 * next begins when no registered thread is left behind the last (LAST_OVER),
 * though not when the last view is gone (RELEASED), which an unregistered
 * thread may put off for ever.
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
	job_stage(j, WFLP_FAILED);
	wflp_jobs_forget(false);
	pthread_mutex_unlock(&G.lock);
}

/* The patch is through; released says whether nothing is left of the old. */
static void job_over(struct job *j, bool released)
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
	if (released) {
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
		if (j) {
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

/* ---- publication, the same for all strategies ---- */

/*
 * first/last are stamped by threads from here on, so the time of publication
 * is taken before the first of them can have seen it.
 *
 * Every thread owes before target is stored, and is told after.  A thread may
 * find the new target without having been told, if it is in its slow path for
 * an older reason (it slept through the last patch).  Were its debt noted only
 * then, a barrier would never end:
 *
 *	thread				patcher
 *	pending = 0
 *					store target (k)
 *	load target (k)
 *	owes nothing; parks until k
 *					thread: owed = k, pending = 1
 *					waits for the thread to arrive
 */
static void publish(struct job *j, uint64_t target, uint64_t generation)
{
	uint64_t epoch = target_epoch(target);

	pthread_mutex_lock(&G.lock);
	store_relaxed(&G.p.first_ns, 0);
	store_relaxed(&G.p.last_ns, 0);
	store_relaxed(&G.p.pulled, 0);
	store_relaxed(&G.p.leaving, 0);
	store_release(&G.p.remaining, (uint32_t)G.nthreads);
	j->rep.threads = (uint32_t)G.nthreads;
	j->rep.generation = generation;
	j->rep.published_ns = wflp_now();
	/* In a barrier the new generation begins with the release. */
	if (G.strategy != WFLP_BARRIER)
		store_release(&G.newest, generation);
	for (struct thread *t = G.threads; t; t = t->next)
		store_release(&t->owed, epoch);
	store_release(&G.target, target);
	for (struct thread *t = G.threads; t; t = t->next)
		swap_seq(&t->self->pending, 1);
	job_stage(j, WFLP_PUBLISHED);
	pthread_mutex_unlock(&G.lock);
}

/* In place: a thread that is offline has arrived. See wflp_offline(). */
static void claim_offline(uint64_t epoch)
{
	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t; t = t->next)
		if (load_seq(&t->self->offline))
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

struct asleep {
	uint64_t serial;
	pid_t tid;
	bool here;
};

static bool old_view_empty(uint64_t old_target)
{
	struct mm_view_stat st;
	int fd = target_fd(old_target);

	/* The base has no count, and may well have threads that never register. */
	return fd >= 0 &&
	       wflp_sys.view_ctl(fd, MM_VIEW_STAT, &st, sizeof(st)) >= 0 &&
	       !st.threads;
}

/*
 * Find the sleepers that have been pulled.  PULL says how many it moved but
 * not whom, and a thread that it skipped because it was just then running may
 * be asleep a moment later, so the library asks where each sleeper is.  Where
 * nobody is left in the view just superseded that one answer serves for all:
 * every thread in question was over for the last patch, so it was there.
 *
 * Reading /proc sleeps, so it is done without the lock, on a copy of the list;
 * the serial number tells whether a thread that was asked about is the one
 * that is still in the list.
 *
 * Once in the new view a sleeper stays there: it can neither be pulled back
 * nor enter an older view (wflp.c, top).  So over is over.
 */
static void claim_pulled(uint64_t old_target, uint64_t generation)
{
	bool all = old_view_empty(old_target);
	struct asleep *s = NULL;
	size_t n = 0, room, i = 0;

	if (!all) {
		pthread_mutex_lock(&G.lock);
		room = G.nthreads;
		pthread_mutex_unlock(&G.lock);
		s = room ? wflp_sys.alloc(room * sizeof(*s)) : NULL;
		if (!s)
			return;	/* the next round may have the memory */
		pthread_mutex_lock(&G.lock);
		for (struct thread *t = G.threads; t && n < room; t = t->next)
			if (load_acquire(&t->owed) == generation &&
			    load_acquire(&t->self->offline))
				s[n++] = (struct asleep){ t->serial, t->tid, false };
		pthread_mutex_unlock(&G.lock);
		for (i = 0; i < n; i++)
			s[i].here = wflp_sys.thread_view(s[i].tid) ==
				    (int64_t)G.view_id;
		i = 0;
	}
	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t; t = t->next) {
		while (i < n && s[i].serial < t->serial)
			i++;
		if (all ? !load_acquire(&t->self->offline) :
		    i == n || s[i].serial != t->serial || !s[i].here)
			continue;
		if (load_acquire(&t->owed) != generation)
			continue;
		store_release(&t->generation, generation);
		wflp_claim(t, generation, false, false);
	}
	pthread_mutex_unlock(&G.lock);
	free(s);
}

static bool someone_asleep(uint64_t generation)
{
	bool found = false;

	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t && !found; t = t->next)
		found = load_acquire(&t->owed) == generation &&
			load_acquire(&t->self->offline);
	pthread_mutex_unlock(&G.lock);
	return found;
}

static void pull_until_over(struct job *j, int fd, uint64_t old_target,
			    uint64_t generation)
{
	int64_t delay = PULL_AGAIN_MIN_NS;

	for (;;) {
		if (load_acquire(&G.p.remaining) && someone_asleep(generation)) {
			long moved = wflp_sys.view_ctl(fd, MM_VIEW_PULL, NULL, 0);

			if (moved > 0)
				__atomic_add_fetch(&G.p.pulled, (uint32_t)moved,
						   __ATOMIC_RELAXED);
			claim_pulled(old_target, generation);
		}
		note_progress(j);
		if (!load_acquire(&G.p.remaining))
			return;
		wait_event(delay);
		delay *= 2;
		if (delay > PULL_AGAIN_MAX_NS)
			delay = PULL_AGAIN_MAX_NS;
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

static void new_fd(int fd)
{
	pthread_mutex_lock(&G.lock);
	G.new_fd = fd;
	pthread_mutex_unlock(&G.lock);
}

/*
 * RETIRE before close: a child of fork may hold a copy of the descriptor, and
 * close alone would leave the view to it.
 */
static void drop_view(int fd)
{
	new_fd(-1);
	wflp_sys.view_ctl(fd, MM_VIEW_RETIRE, NULL, 0);
	wflp_sys.view_close(fd);
}

/* Everything that can fail.  Returns the sealed view, with us inside. */
static int make_view(struct job *j, uint64_t *id)
{
	struct mm_view_stat st = { 0 };
	int32_t bad = -1;
	int fd;
	long err;

	/* A copy of the newest view, since that is where this thread is. */
	fd = wflp_sys.view_create(0);
	if (fd < 0)
		return fd;
	new_fd(fd);
	stamp(&j->rep.create_ns);
	err = fd > TARGET_FD_MAX ? -EMFILE : 0;
	if (!err)
		err = wflp_sys.view_ctl(fd, MM_VIEW_STAT, &st, sizeof(st));
	if (err >= 0)
		err = wflp_text_verify(wflp_sys.view_read, fd, j->edits, j->n, &bad);
	if (!err)
		err = write_view(fd, j->edits, j->n, &bad);
	if (!err) {
		stamp(&j->rep.written_ns);
		do
			err = wflp_sys.view_ctl(fd, MM_VIEW_SEAL, NULL, 0);
		while (err == -EINTR);
	}
	if (!err) {
		stamp(&j->rep.sealed_ns);
		err = wflp_sys.view_enter(fd, 0);
	}
	if (err) {
		pthread_mutex_lock(&G.lock);
		j->rep.bad_edit = bad;
		pthread_mutex_unlock(&G.lock);
		drop_view(fd);
		return (int)err;
	}
	*id = st.id;
	return fd;
}

static void run_waitfree(struct job *j)
{
	uint64_t old_target = load_relaxed(&G.target);
	uint64_t old_id = G.view_id, id = 0, target, generation;
	int fd, old_fd = target_fd(old_target);

	wait_event(0);		/* whatever has drained makes room */
	fd = G.nold < VIEWS_MAX ? make_view(j, &id) : -EMFILE;
	if (fd < 0) {
		if (fd == -EMFILE)
			blame(j);
		job_fail(j, fd);
		return;
	}
	generation = target_epoch(old_target) + 1;
	target = target_make(generation, fd);
	pthread_mutex_lock(&G.lock);
	G.new_fd = -1;
	G.view_id = id;
	pthread_mutex_unlock(&G.lock);
	publish(j, target, generation);
	pull_until_over(j, fd, old_target, generation);

	if (old_fd < 0) {
		job_over(j, true);
		return;
	}
	wflp_sys.view_ctl(old_fd, MM_VIEW_RETIRE, NULL, 0);
	pthread_mutex_lock(&G.lock);
	G.old[G.nold++] = (struct old_view){
		.fd = old_fd,
		.id = old_id,
		.generation = target_epoch(old_target),
		.ticket = j->ticket,
	};
	pthread_mutex_unlock(&G.lock);
	job_over(j, false);
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

static void run_barrier(struct job *j)
{
	uint64_t generation = load_relaxed(&G.newest) + 1;
	uint64_t epoch = target_epoch(load_relaxed(&G.target)) + 1;
	int err;

	err = check_text(j);
	if (err) {
		job_fail(j, err);
		return;
	}
	publish(j, target_make(epoch, -1), generation);
	claim_offline(epoch);
	while (load_acquire(&G.p.remaining))
		wait_event(-1);

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
		job_over(j, true);
}

/* UNSAFE, and meant to be: see enum wflp_strategy. */
static void run_naive(struct job *j)
{
	uint64_t generation = load_relaxed(&G.newest) + 1;
	uint64_t epoch = target_epoch(load_relaxed(&G.target)) + 1;
	int err;

	err = check_text(j);
	if (!err) {
		pthread_mutex_lock(&text_lock);
		err = write_text(j);
		pthread_mutex_unlock(&text_lock);
	}
	if (err) {
		job_fail(j, err);
		return;
	}
	stamp(&j->rep.sealed_ns);
	publish(j, target_make(epoch, -1), generation);
	claim_offline(epoch);
	while (load_acquire(&G.p.remaining)) {
		note_progress(j);
		wait_event(-1);
	}
	job_over(j, true);
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
	bool stop;

	pthread_setname_np(pthread_self(), "wflp-patcher");
	/* From wherever our creator was to where the next view is copied from. */
	if (G.strategy == WFLP_WAITFREE)
		wflp_sys.view_enter(target_fd(load_relaxed(&G.target)), 0);
	for (;;) {
		struct job *j = next_job(&stop);

		if (stop)
			return arg;
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

int64_t wflp_apply(const struct wflp_edit *edits, size_t n, unsigned int flags)
{
	struct job *j;
	int64_t ret;

	if (flags & ~WFLP_APPLY_TRY)
		return -EINVAL;
	j = wflp_sys.alloc(sizeof(*j));
	if (!j)
		return -ENOMEM;
	memset(j, 0, sizeof(*j));
	ret = copy_edits(edits, n, &j->edits);
	if (ret) {
		free(j);
		return ret;
	}
	j->n = n;
	j->rep.bad_edit = -1;
	j->rep.queued_ns = wflp_now();

	pthread_mutex_lock(&G.lock);
	if (G.state != LIB_ON)
		ret = -ENODEV;
	else if ((flags & WFLP_APPLY_TRY) && G.unfinished)
		ret = -EBUSY;
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
