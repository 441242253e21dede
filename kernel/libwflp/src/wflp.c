/* SPDX-License-Identifier: MIT */
/*
 * The side of the threads: registration, quiescence points, fork.
 *
 * The handshake, once for all strategies.  The patcher, to publish:
 *	for each thread: owed = epoch; store targets; store epoch;
 *	for each thread: pending = 1
 * A thread, at its quiescence point, having seen pending:
 *	pending = 0; load epoch; load target; go there; claim what is owed up to epoch
 * pending is cleared BEFORE target is read.  The other order loses a patch:
 *
 *	thread			patcher
 *	load target (k)
 *				[thread is found over by its own claim of k]
 *				store target (k+1); pending = 1
 *	pending = 0		<- the thread never learns of k+1
 *
 * With this order a pending that is set after the thread's clear stays set, and
 * one that was set before it brings the new target along.  epoch is read BEFORE
 * target, because a patch may change the targets of many variants: whoever claims
 * epoch k must, when it is assigned to another variant next, find the target of k
 * there as well.
 *
 * Why a thread may use the descriptor in target without holding a reference:
 * the view of patch k is retired only after the next patch of that variant has
 * reached the last thread that was or might have been in it (thread.where), and a
 * thread between reading target k and entering view k is one of these and has
 * not claimed that patch.  If it had already been pulled into k then entering k
 * changes nothing, and a thread in its slow path has the word "online", so it
 * cannot be pulled past k meanwhile.  Only wflp_rebase() closes a view that is
 * still a target; see move_view().
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

__thread struct wflp_self wflp_self
	__attribute__((tls_model("initial-exec")));
static __thread struct thread *me __attribute__((tls_model("initial-exec")));

bool (*wflp_stack_free)(const struct wflp_frame *f, const struct wflp_ranges *ranges,
			wflp_reader rd, int fd);

struct global G = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.queue_tail = &G.queue,
	.event_fd = -1,
	.mem_fd = -1,
	.new_fds = { [0 ... WFLP_VARIANTS_MAX - 1] = -1 },
	.variants = { { .state = VARIANT_LIVE } },
};
pthread_mutex_t text_lock = PTHREAD_MUTEX_INITIALIZER;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int once_err;
static pthread_key_t exit_key;

uint64_t wflp_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* syscall(), because write() is a cancellation point. */
void wflp_notify(void)
{
	uint64_t one = 1;

	syscall(SYS_write, G.event_fd, &one, sizeof(one));
}

static void futex_wait(uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

/* The calling thread, or the sleeper it stands for, runs the new generation. */
void wflp_over(void)
{
	uint64_t now = wflp_now(), was = 0;
	uint64_t last = load_relaxed(&G.p.last_ns);

	if (__atomic_compare_exchange_n(&G.p.first_ns, &was, now, false,
					__ATOMIC_RELAXED, __ATOMIC_RELAXED))
		wflp_notify();
	while (last < now &&
	       !__atomic_compare_exchange_n(&G.p.last_ns, &last, now, true,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

/*
 * Take what t owes to a patch up to epoch.  In the barrier strategy this says
 * "arrived", and being over comes later; elsewhere they are the same.  leaving
 * is raised before remaining falls, so that a patcher which sees everybody
 * arrived sees everybody that it must see leave.
 */
bool wflp_claim(struct thread *t, uint64_t epoch, bool asleep, bool park)
{
	uint64_t owed = load_acquire(&t->owed);

	if (!owed || owed > epoch ||
	    !__atomic_compare_exchange_n(&t->owed, &owed, 0, false,
					 __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		return false;
	if (asleep)
		__atomic_add_fetch(&G.p.pulled, 1, __ATOMIC_RELAXED);
	if (park)
		__atomic_add_fetch(&G.p.leaving, 1, __ATOMIC_RELAXED);
	if (G.strategy != WFLP_BARRIER)
		wflp_over();
	if (!__atomic_sub_fetch(&G.p.remaining, 1, __ATOMIC_ACQ_REL))
		wflp_notify();
	return true;
}

static void generation_is(struct thread *t, uint64_t generation)
{
	store_release(&t->generation, generation);
}

static int moved(struct thread *t, uint64_t now)
{
	int ret = t->seen != now;

	t->seen = now;
	return ret;
}

/* The thread is nowhere but where it belongs, if nothing has changed since. */
bool wflp_settle(struct thread *t, uint64_t where)
{
	return where_settled(where) ||
	       __atomic_compare_exchange_n(&t->where, &where,
					   where_make(where_serial(where), where_variant(where),
						      1u << where_variant(where)),
					   false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/*
 * May the thread move where it is?  At a quiescence point (f is NULL) it may; at a
 * candidate that depends on the patch.
 *
 * The ranges are read after the target, and the patch they belong to is that of
 * the target or, if the thread has been found over for that one, a later one; then
 * it does not move, or moves to where it is.  For as long as it owes the patch of
 * the target, no other can be published.
 */
static bool may_move(const struct wflp_frame *f)
{
	const struct wflp_ranges *ranges = load_acquire(&G.ranges);

	return !f || !ranges || wflp_stack_free(f, ranges, NULL, -1);
}

/*
 * Wait-free: a bounded number of steps whatever any other thread does or
 * fails to do.  If the target moves on meanwhile, pending says so at the next
 * point; going round again here would make the bound depend on the patcher.
 */
static int move_view(struct thread *t, const struct wflp_frame *f)
{
	uint64_t epoch, where, target;
	unsigned int variant;
	int err;

	epoch = load_acquire(&G.epoch);
	where = load_acquire(&t->where);
	variant = where_variant(where);
	target = load_acquire(&G.variants[variant].target);
	/* Equal: here already, or pulled here while asleep. */
	if (load_acquire(&t->at) != target) {
		if (!may_move(f)) {
			store_release(&wflp_self.pending, 1);
			return 0;
		}
		err = wflp_sys.view_enter(target_fd(target), 0);
		if (err < 0) {
			store_release(&wflp_self.pending, 1);
			/* A rebase has closed the view, and the next target is the base. */
			if (err == -EBADF &&
			    (load_acquire(&G.rebasing) & 1u << variant ||
			     load_acquire(&G.variants[variant].target) != target))
				return 0;
			return err;
		}
		store_release(&t->at, target);
		generation_is(t, target_epoch(target));
	}
	t->variant = variant;
	wflp_settle(t, where);
	wflp_claim(t, epoch, false, false);
	return moved(t, target);
}

/*
 * x86 wants a serialising instruction between a foreign store to the text and
 * its execution.  Only where the kernel cannot make every thread run one.
 */
void wflp_serialise(void)
{
	unsigned int a = 0, b, c = 0, d;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
}

static void wait_released(uint64_t epoch)
{
	uint32_t released;

	while (released = load_acquire(&G.released),
	       (int32_t)(released - (uint32_t)epoch) < 0)
		futex_wait(&G.released, released);
	if (!G.sync_core)
		wflp_serialise();
}

static int park(struct thread *t, const struct wflp_frame *f)
{
	uint64_t epoch = load_acquire(&G.epoch);
	bool counted;

	if (load_acquire(&t->owed) && !may_move(f)) {
		store_release(&wflp_self.pending, 1);
		return 0;
	}
	counted = wflp_claim(t, epoch, false, true);
	wait_released(epoch);
	generation_is(t, load_acquire(&G.newest));
	if (counted) {
		wflp_over();
		if (!__atomic_sub_fetch(&G.p.leaving, 1, __ATOMIC_ACQ_REL))
			wflp_notify();
	}
	return moved(t, load_relaxed(&t->generation));
}

static int slow(const struct wflp_frame *f)
{
	struct thread *t = me;
	int saved = errno, ret;

	/*
	 * An offline thread is as good as moved: its next wflp_online() does
	 * this.  In here it must read "online", see the top of the file.
	 */
	if (!t || load_relaxed(&wflp_self.offline))
		return 0;
	swap_seq(&wflp_self.pending, 0);
	switch (G.strategy) {
	case WFLP_WAITFREE:
		ret = move_view(t, f);
		break;
	case WFLP_BARRIER:
		ret = park(t, f);
		break;
	default:
		generation_is(t, load_acquire(&G.newest));
		wflp_claim(t, load_acquire(&G.epoch), false, false);
		ret = moved(t, load_relaxed(&t->generation));
		break;
	}
	errno = saved;
	return ret;
}

int wflp_quiescent_slow(void)
{
	return slow(NULL);
}

int wflp_candidate_thread(uintptr_t stack_low, uintptr_t stack_end)
{
	if (!me)
		return -ESRCH;
	store_relaxed(&me->frame.stack_low, stack_low);
	store_release(&me->frame.stack_end, stack_end);
	return 0;
}

struct wflp_frame *wflp_candidate(void)
{
	return me && me->frame.stack_end ? &me->frame : NULL;
}

/*
 * As wflp_offline(), but that the word says no more than that the thread is about to
 * sleep.  In the slow path it reads "online", see the top of the file.
 */
void wflp_candidate_begin(void)
{
	if (load_acquire(&wflp_self.pending))
		slow(&me->frame);
	if (G.strategy == WFLP_WAITFREE)
		store_release(&wflp_self.offline, WORD_CANDIDATE);
	else
		swap_seq(&wflp_self.offline, WORD_CANDIDATE);
}

/*
 * In place, a sleeper that was vouched for counts as arrived, so it waits for that
 * patch whatever is next.
 */
void wflp_candidate_end(void)
{
	uint32_t word = swap_seq(&wflp_self.offline, MM_VIEW_WORD_ONLINE);
	int saved = errno;

	if (is_offline(word) && G.strategy == WFLP_BARRIER)
		wait_released(load_acquire(&me->vouched));
	if (load_seq(&wflp_self.pending))
		slow(&me->frame);
	errno = saved;
}

/*
 * A handler may run anything, and may itself come to candidates: while it runs, the
 * word says that the thread is awake.  Afterwards the thread is where it was, but
 * that has to be looked at again.  No move here: the code that was interrupted need
 * not have been in a call at all.  A handler that jumps away leaves the thread
 * awake, which is right.
 */
void wflp_candidate_suspend(struct wflp_interrupted *i)
{
	struct thread *t = me;

	*i = (struct wflp_interrupted){ .word = 0 };
	if (!t || !t->frame.stack_end)
		return;
	i->word = swap_seq(&wflp_self.offline, MM_VIEW_WORD_ONLINE);
	i->frame = t->frame;
	if (is_offline(i->word) && G.strategy == WFLP_BARRIER)
		wait_released(load_acquire(&t->vouched));
}

void wflp_candidate_resume(const struct wflp_interrupted *i)
{
	struct thread *t = me;

	if (!t || !t->frame.stack_end || !i->frame.stack_end)
		return;
	t->frame = i->frame;
	if (i->word)
		swap_seq(&wflp_self.offline, WORD_CANDIDATE);
}

/*
 * Views: a plain store suffices, because the other side of the handshake is
 * the kernel, which reads the word only of a thread that is not running, when
 * no store of that thread is still on its way.  The look at pending afterwards
 * is not needed for safety; it lets a thread that goes to sleep in the middle
 * of a patch move by itself rather than wait for the patcher's next PULL.
 * The word names the variant as well; if that has just changed unseen, the
 * patcher puts it right.
 *
 * In place: the patcher itself reads the word, so this is Dekker's handshake
 * and needs the full ordering on both sides: either the thread sees pending or
 * the patcher sees "offline", or the patch would wait for a sleeper.
 */
int wflp_offline(void)
{
	struct thread *t = me;
	int saved = errno;

	if (!t)
		return -ESRCH;
	if (G.strategy == WFLP_WAITFREE) {
		store_release(&wflp_self.offline,
			      offline_word(where_variant(load_relaxed(&t->where))));
		if (load_acquire(&wflp_self.pending)) {
			store_relaxed(&wflp_self.offline, MM_VIEW_WORD_ONLINE);
			wflp_quiescent_slow();
			store_release(&wflp_self.offline,
				      offline_word(where_variant(load_relaxed(&t->where))));
		}
		return 0;
	}
	swap_seq(&wflp_self.offline, 1);
	/* Arrived, without parking.  pending stays, so online sees to the rest. */
	if (load_seq(&wflp_self.pending))
		wflp_claim(t, load_acquire(&G.epoch), true, false);
	errno = saved;
	return 0;
}

/*
 * The mirror image.  In place: either the thread sees pending and waits for
 * the text to be whole, or the patcher sees "online" and waits for the thread.
 * Views: if the thread was pulled, it was so while the word still read
 * "offline", that is before this store and after pending was set.
 */
int wflp_online(void)
{
	if (!me)
		return -ESRCH;
	swap_seq(&wflp_self.offline, 0);
	if (load_seq(&wflp_self.pending))
		return wflp_quiescent_slow();
	return 0;
}

static void list_add(struct thread *t)
{
	t->serial = ++G.serial;
	t->prev = G.threads_last;
	if (t->prev)
		t->prev->next = t;
	else
		G.threads = t;
	G.threads_last = t;
	G.nthreads++;
}

static void list_del(struct thread *t)
{
	if (t->prev)
		t->prev->next = t->next;
	else
		G.threads = t->next;
	if (t->next)
		t->next->prev = t->prev;
	else
		G.threads_last = t->prev;
	G.nthreads--;
}

/*
 * as_is: where nobody promises that the thread could move now.  That can be done only
 * before the first patch, when there is nowhere to move to.
 */
static int join(bool as_is)
{
	struct thread *t;
	int64_t born = 0;
	long err = 0;

	if (me)
		return -EALREADY;
	t = wflp_sys.alloc(sizeof(*t));
	if (!t)
		return -ENOMEM;
	memset(t, 0, sizeof(*t));
	t->self = &wflp_self;
	t->tid = (pid_t)syscall(SYS_gettid);
	/* The view that it has from its creator says which variant that was in. */
	if (load_acquire(&G.varied))
		born = wflp_sys.thread_view(t->tid);
	if (born < 0) {
		free(t);
		return (int)born;
	}
	store_relaxed(&wflp_self.pending, 0);
	store_relaxed(&wflp_self.offline, 0);

	pthread_mutex_lock(&G.lock);
	if (G.state != LIB_ON || (as_is && G.epoch)) {
		err = G.state != LIB_ON ? -ENODEV : -EBUSY;
		pthread_mutex_unlock(&G.lock);
		free(t);
		return (int)err;
	}
	/*
	 * In the list first, moved afterwards: a patch that is published in
	 * between counts this thread and so keeps the view it is heading for.
	 * A generation that cannot be: the thread is in its creator's view.
	 */
	t->generation = UINT64_MAX;
	t->at = UINT64_MAX;
	t->seen = UINT64_MAX;
	t->variant = wflp_variant_of_view((uint64_t)born);
	t->where = where_make(0, t->variant, 1u << t->variant);
	if (as_is) {
		t->generation = 0;
		t->at = t->seen = G.variants[0].target;
	}
	list_add(t);
	me = t;
	pthread_mutex_unlock(&G.lock);

	err = -pthread_setspecific(exit_key, t);
	if (!err && G.strategy == WFLP_WAITFREE)
		err = wflp_sys.view_ctl(-1, MM_VIEW_REGISTER, &wflp_self.offline,
					sizeof(wflp_self.offline));
	if (!err && !as_is) {
		/* At most twice: no patch goes by a thread in the list. */
		do
			err = wflp_quiescent_slow();
		while (err >= 0 && load_acquire(&wflp_self.pending));
	}
	if (err < 0) {
		wflp_thread_unregister();
		return (int)err;
	}
	return 0;
}

int wflp_thread_register(void)
{
	return join(false);
}

int wflp_thread_register_as_is(void)
{
	return join(true);
}

int wflp_thread_unregister(void)
{
	struct thread *t = me;
	int err = 0;

	if (!t)
		return -ESRCH;
	swap_seq(&wflp_self.offline, 0);
	/*
	 * Views: leave for the newest one first, since from now on nobody
	 * waits for this thread and it would hold an old view for ever.  At
	 * most twice, as above.  In place there is nowhere to go, and a thread
	 * that stops running patchable code has arrived.
	 */
	for (;;) {
		pthread_mutex_lock(&G.lock);
		if (G.strategy != WFLP_WAITFREE || err < 0 ||
		    !load_acquire(&wflp_self.pending))
			break;
		pthread_mutex_unlock(&G.lock);
		err = wflp_quiescent_slow();
	}
	list_del(t);
	wflp_claim(t, UINT64_MAX, false, false);
	pthread_mutex_unlock(&G.lock);

	if (G.strategy == WFLP_WAITFREE)
		wflp_sys.view_ctl(-1, MM_VIEW_REGISTER, NULL, 0);
	me = NULL;
	pthread_setspecific(exit_key, NULL);
	store_relaxed(&wflp_self.pending, 0);
	free(t);
	return 0;
}

/* A thread that ends without a word: its TLS is still there at this point. */
static void thread_exit(void *arg)
{
	(void)arg;
	wflp_thread_unregister();
}

uint64_t wflp_thread_generation(void)
{
	struct thread *t = me;
	uint64_t generation;

	if (!t)
		return 0;
	generation = load_acquire(&t->generation);
	return generation == UINT64_MAX ? 0 : generation;
}

int wflp_thread_variant(void)
{
	return me ? (int)me->variant : -ESRCH;
}

/*
 * Only notes where the thread belongs from now on, and tells it; the rest is the
 * thread's, at its next quiescence point, or the patcher's if it is asleep.
 */
int wflp_variant_assign(pid_t tid, unsigned int variant)
{
	struct thread *t = me;
	uint64_t where, then;
	int err = 0;

	pthread_mutex_lock(&G.lock);
	if (tid)
		for (t = G.threads; t && t->tid != tid; t = t->next)
			;
	if (G.state != LIB_ON)
		err = -ENODEV;
	else if (G.strategy != WFLP_WAITFREE)
		err = -EOPNOTSUPP;
	else if (variant >= WFLP_VARIANTS_MAX)
		err = -EINVAL;
	else if (G.variants[variant].state != VARIANT_LIVE)
		err = -ENOENT;
	else if (!t)
		err = -ESRCH;
	if (!err && where_variant(load_acquire(&t->where)) != variant) {
		/* Asleep it may be pulled there and, unnoticed, be called back. */
		store_release(&t->at, UINT64_MAX);
		where = load_acquire(&t->where);
		do
			then = where_make(where_serial(where) + 1, variant,
					  where_maybe(where) | 1u << variant);
		while (!__atomic_compare_exchange_n(&t->where, &where, then, false,
						    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
		swap_seq(&t->self->pending, 1);
		wflp_notify();
	}
	pthread_mutex_unlock(&G.lock);
	return err;
}

size_t wflp_threads(struct wflp_thread_info *info, size_t room)
{
	size_t n = 0;

	pthread_mutex_lock(&G.lock);
	for (struct thread *t = G.threads; t; t = t->next, n++)
		if (n < room)
			info[n] = (struct wflp_thread_info){ t->tid, load_acquire(&t->generation) };
	pthread_mutex_unlock(&G.lock);
	return n;
}

uint64_t wflp_newest_view(void)
{
	uint64_t id;

	pthread_mutex_lock(&G.lock);
	id = G.variants[0].view_id;
	pthread_mutex_unlock(&G.lock);
	return id;
}

uint64_t wflp_newest_generation(void)
{
	return load_acquire(&G.newest);
}

/*
 * fork.  The child has one thread, no patcher, and an ordinary address space
 * with the code that the forking thread saw.  The parent's descriptors are
 * worse than useless there: /proc/self/mem was opened on the PARENT's memory.
 */
static void fork_prepare(void)
{
	pthread_mutex_lock(&text_lock);
	pthread_mutex_lock(&G.lock);
}

static void fork_parent(void)
{
	pthread_mutex_unlock(&G.lock);
	pthread_mutex_unlock(&text_lock);
}

static void init_cond(void)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	once_err = pthread_cond_init(&G.changed, &attr);
	pthread_condattr_destroy(&attr);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		wflp_sys.view_close(*fd);
	*fd = -1;
}

static void fork_child(void)
{
	/* Unregistered, a thread of the in-place strategies runs the newest. */
	uint64_t generation = me ? wflp_thread_generation() :
		G.strategy == WFLP_WAITFREE ? 0 : load_relaxed(&G.newest);

	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX; v++) {
		int fd = target_fd(G.variants[v].target);

		close_fd(&fd);
		close_fd(&G.new_fds[v]);
	}
	for (size_t i = 0; i < G.nold; i++)
		close_fd(&G.old[i].fd);
	close_fd(&G.mem_fd);
	close_fd(&G.event_fd);
	G.nold = 0;
	memset(G.variants, 0, sizeof(G.variants));
	G.variants[0].state = VARIANT_LIVE;
	G.varied = false;
	G.ranges = NULL;
	while (G.threads) {
		struct thread *t = G.threads;

		list_del(t);
		free(t);
	}
	for (struct job *j = G.jobs; j; j = j->next)
		j->waiters = 0;
	G.queue = NULL;
	G.queue_tail = &G.queue;
	G.unfinished = 0;
	wflp_jobs_forget(true);
	memset(&G.p, 0, sizeof(G.p));
	G.newest = generation;
	G.epoch = generation;
	G.variants[0].target = target_make(generation, -1);
	G.released = (uint32_t)generation;
	G.state = LIB_OFF;
	me = NULL;
	pthread_setspecific(exit_key, NULL);
	wflp_self.pending = 0;
	wflp_self.offline = 0;
	init_cond();
	pthread_mutex_unlock(&G.lock);
	pthread_mutex_unlock(&text_lock);
}

static void init_once(void)
{
	init_cond();
	if (!once_err)
		once_err = pthread_key_create(&exit_key, thread_exit);
	if (!once_err)
		once_err = pthread_atfork(fork_prepare, fork_parent, fork_child);
}

static int start_patcher(void)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int err;

	err = pthread_attr_init(&attr);
	if (err)
		return -err;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&G.patcher, &attr, wflp_patcher, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -err;
}

static int probe_views(void)
{
	struct mm_view_stat st;
	long err = wflp_sys.view_ctl(-1, MM_VIEW_STAT, &st, sizeof(st));

	/* What prctl() says of an operation that it does not know. */
	if (err == -EINVAL)
		err = -ENOSYS;
	return err < 0 ? (int)err : 0;
}

static bool in_views(void)
{
	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX; v++)
		if (target_fd(G.variants[v].target) >= 0 && G.variants[v].state)
			return true;
	return false;
}

static int start(enum wflp_strategy strategy)
{
	int err;

	if (strategy == WFLP_WAITFREE) {
		err = probe_views();
		if (err)
			return err;
	} else {
		G.mem_fd = wflp_sys.mem_open();
		if (G.mem_fd < 0) {
			err = G.mem_fd;
			G.mem_fd = -1;
			return err;
		}
		G.sync_core = !wflp_sys.sync_core_register();
	}
	G.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (G.event_fd < 0) {
		err = -errno;
		close_fd(&G.mem_fd);
		return err;
	}
	G.strategy = strategy;
	err = start_patcher();
	if (err) {
		close_fd(&G.event_fd);
		close_fd(&G.mem_fd);
	}
	return err;
}

int wflp_init(enum wflp_strategy strategy, unsigned int flags)
{
	int err;

	if (flags & ~WFLP_INIT_ALLOW_UNSAFE)
		return -EINVAL;
	switch ((int)strategy) {
	case WFLP_WAITFREE:
	case WFLP_BARRIER:
		break;
	case WFLP_NAIVE:
		if (flags & WFLP_INIT_ALLOW_UNSAFE)
			break;
		return -EINVAL;
	default:
		return -EINVAL;
	}
	pthread_once(&once, init_once);
	if (once_err)
		return -once_err;

	pthread_mutex_lock(&G.lock);
	if (G.state != LIB_OFF) {
		pthread_mutex_unlock(&G.lock);
		return -EALREADY;
	}
	/*
	 * Generations go on from where an earlier life of the library ended.
	 * Threads may still be in its views, so its kind stays, too.
	 */
	if (in_views() && strategy != WFLP_WAITFREE) {
		pthread_mutex_unlock(&G.lock);
		return -EINVAL;
	}
	/* Epochs of a barrier that failed are not generations; nobody waits. */
	G.epoch = G.newest;
	if (strategy == WFLP_WAITFREE && target_fd(G.variants[0].target) < 0)
		G.variants[0].target = target_make(G.newest, -1);
	G.released = (uint32_t)G.newest;
	G.state = LIB_STARTING;
	pthread_mutex_unlock(&G.lock);

	err = start(strategy);

	pthread_mutex_lock(&G.lock);
	G.state = err ? LIB_OFF : LIB_ON;
	pthread_mutex_unlock(&G.lock);
	return err;
}

int wflp_fini(void)
{
	int state;

	pthread_mutex_lock(&G.lock);
	if (G.state != LIB_ON) {
		pthread_mutex_unlock(&G.lock);
		return -ENODEV;
	}
	if (G.nthreads) {
		pthread_mutex_unlock(&G.lock);
		return -EBUSY;
	}
	G.state = LIB_STOPPING;
	pthread_mutex_unlock(&G.lock);

	wflp_notify();
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	pthread_join(G.patcher, NULL);
	pthread_setcancelstate(state, NULL);

	pthread_mutex_lock(&G.lock);
	/* Closed, an old view goes with its last thread; only the wait ends. */
	while (G.nold)
		close_fd(&G.old[--G.nold].fd);
	close_fd(&G.mem_fd);
	close_fd(&G.event_fd);
	G.state = LIB_OFF;
	pthread_mutex_unlock(&G.lock);
	return 0;
}
