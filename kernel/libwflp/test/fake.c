/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fake.h"

uint8_t fake_text[FAKE_TEXT];

struct view {
	bool used, sealed, retired, open;
	int fd;
	uint64_t id;
	unsigned int threads;
	uint8_t text[FAKE_TEXT];
};

struct fthread {
	struct fthread *next;
	struct view *view;	/* NULL: base */
	uint32_t *word;
	pid_t tid;
	bool asleep, ending;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct view views[VIEWS_MAX];
static struct fthread *threads;
static unsigned int nviews, most, offences, delay_us;
/* Only a rebase closes views that threads may be on their way to. */
static bool rebases;
static uint64_t ids;
static __thread struct fthread *self;
static __thread uint64_t seed;
static pthread_key_t key;

static struct {
	enum fake_op op;
	unsigned int nth;
	int err;
} failure;

static void dawdle(void)
{
	unsigned int us = __atomic_load_n(&delay_us, __ATOMIC_RELAXED);
	uint32_t r;

	if (!us)
		return;
	if (!seed)
		seed = (uint64_t)syscall(SYS_gettid);
	r = rnd(&seed);
	if (r % 4 == 0)
		sleep_us((r >> 8) % us);
}

void fake_delay(unsigned int us)
{
	__atomic_store_n(&delay_us, us, __ATOMIC_RELAXED);
}

void fake_fail(enum fake_op op, unsigned int nth, int err)
{
	pthread_mutex_lock(&lock);
	failure.op = op;
	failure.nth = nth;
	failure.err = err;
	pthread_mutex_unlock(&lock);
}

bool fake_failed(void)
{
	bool yes;

	pthread_mutex_lock(&lock);
	yes = !failure.nth;
	failure.nth = 0;
	pthread_mutex_unlock(&lock);
	return yes;
}

static int fails(enum fake_op op)
{
	if (failure.nth && failure.op == op && !--failure.nth)
		return failure.err;
	return 0;
}

static void set_drained(struct view *v, bool drained)
{
	uint64_t x = 1;

	if (!v->open)
		return;
	if (drained ? write(v->fd, &x, 8) < 0 : read(v->fd, &x, 8) < 0)
		abort();
}

static void put(struct view *v)
{
	if (v->used && !v->open && !v->threads) {
		v->used = false;
		nviews--;
	}
}

static void set_view(struct fthread *t, struct view *v)
{
	struct view *old = t->view;

	if (old == v)
		return;
	if (v && !v->threads++)
		set_drained(v, false);
	t->view = v;
	if (old && !--old->threads) {
		set_drained(old, true);
		put(old);
	}
}

static struct view *find(int fd)
{
	for (size_t i = 0; i < VIEWS_MAX; i++)
		if (views[i].used && views[i].open && views[i].fd == fd)
			return &views[i];
	return NULL;
}

/* Twice round: the library's own destructor may still want to enter a view. */
static void thread_end(void *arg)
{
	struct fthread *t = arg, **link;

	if (!t->ending) {
		t->ending = true;
		pthread_setspecific(key, t);
		return;
	}
	pthread_mutex_lock(&lock);
	set_view(t, NULL);
	for (link = &threads; *link != t; link = &(*link)->next)
		;
	*link = t->next;
	pthread_mutex_unlock(&lock);
	self = NULL;
	free(t);
}

static struct fthread *current(void)
{
	if (self)
		return self;
	self = calloc(1, sizeof(*self));
	self->tid = (pid_t)syscall(SYS_gettid);
	pthread_setspecific(key, self);
	pthread_mutex_lock(&lock);
	self->next = threads;
	threads = self;
	pthread_mutex_unlock(&lock);
	return self;
}

struct start {
	void *(*fn)(void *);
	void *arg;
	struct fthread *parent;
	bool done;
};

static void *run(void *arg)
{
	struct start *st = arg, mine;
	struct fthread *t = current();

	pthread_mutex_lock(&lock);
	set_view(t, st->parent->view);
	mine = *st;
	pthread_mutex_unlock(&lock);
	__atomic_store_n(&st->done, true, __ATOMIC_RELEASE);
	return mine.fn(mine.arg);
}

pthread_t fake_spawn(void *(*fn)(void *), void *arg)
{
	struct start st = { fn, arg, current(), false };
	pthread_t t = spawn(run, &st);

	while (!__atomic_load_n(&st.done, __ATOMIC_ACQUIRE))
		sleep_us(10);
	return t;
}

static int f_create(unsigned int flags)
{
	struct fthread *t = current();
	struct view *v = views;
	int err;

	(void)flags;
	dawdle();
	pthread_mutex_lock(&lock);
	err = fails(FAKE_CREATE);
	if (!err && nviews == VIEWS_MAX)
		err = -EMFILE;
	if (!err) {
		while (v->used)
			v++;
		memset(v, 0, sizeof(*v));
		v->used = v->open = true;
		v->id = ++ids;
		v->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		memcpy(v->text, t->view ? t->view->text : fake_text, FAKE_TEXT);
		set_drained(v, true);
		if (++nviews > most)
			most = nviews;
		err = v->fd;
	}
	pthread_mutex_unlock(&lock);
	dawdle();
	return err;
}

static int f_enter(int fd, unsigned int flags)
{
	struct fthread *t = current();
	struct view *v = NULL;
	int err;

	(void)flags;
	dawdle();
	pthread_mutex_lock(&lock);
	err = fails(FAKE_ENTER);
	if (!err && fd >= 0) {
		v = find(fd);
		if (!v || v->retired) {
			offences += !load_acquire(&rebases);
			err = -EBADF;
		} else if (!v->sealed) {
			offences++;
			err = -EBUSY;
		}
	}
	if (!err)
		set_view(t, v);
	pthread_mutex_unlock(&lock);
	dawdle();
	return err;
}

static long pull(struct view *v, struct mm_view_pull *who)
{
	uint32_t *tids = (uint32_t *)(uintptr_t)who->tids;
	uint32_t told = 0;
	long n = 0;

	for (struct fthread *t = threads; t && told < who->nr; t = t->next)
		if (t->word && t->asleep &&
		    (__atomic_load_n(t->word, __ATOMIC_ACQUIRE) & who->mask) == who->value) {
			n += t->view != v;
			if (t->view != v)
				set_view(t, v);
			tids[told++] = (uint32_t)t->tid;
		}
	who->nr = told;
	return n;
}

/* As the kernel: not while a thread is in the base, or a view would change. */
static long rebase(struct view *v)
{
	for (struct fthread *t = threads; t; t = t->next)
		if (!t->view)
			return -EBUSY;
	for (size_t i = 0; i < VIEWS_MAX; i++)
		if (views[i].used && &views[i] != v && views[i].threads)
			return -EBUSY;
	memcpy(fake_text, v->text, FAKE_TEXT);
	v->retired = true;
	store_release(&rebases, true);
	for (struct fthread *t = threads; t; t = t->next)
		if (t->view == v)
			set_view(t, NULL);
	return 0;
}

static long f_ctl(int fd, unsigned int op, void *arg, size_t size)
{
	static const enum fake_op ops[] = {
		[MM_VIEW_SEAL] = FAKE_SEAL, [MM_VIEW_STAT] = FAKE_STAT,
		[MM_VIEW_PULL] = FAKE_PULL, [MM_VIEW_REGISTER] = FAKE_REGISTER,
		[MM_VIEW_RETIRE] = FAKE_OPS, [MM_VIEW_REBASE] = FAKE_REBASE,
	};
	struct fthread *t = current();
	struct mm_view_stat st = { 0 };
	struct view *v;
	long ret;

	dawdle();
	pthread_mutex_lock(&lock);
	v = fd >= 0 ? find(fd) : NULL;
	ret = fails(ops[op]);
	if (ret) {
		pthread_mutex_unlock(&lock);
		return ret;
	}
	if (fd >= 0 && !v)
		ret = -EBADF;
	else if (op == MM_VIEW_SEAL)
		v->sealed = true;
	else if (op == MM_VIEW_RETIRE)
		v->retired = true;
	else if (op == MM_VIEW_PULL)
		ret = pull(v, arg);
	else if (op == MM_VIEW_REBASE)
		ret = rebase(v);
	else if (op == MM_VIEW_REGISTER)
		t->word = arg;
	if (op == MM_VIEW_STAT && !ret) {
		if (v) {
			st.id = v->id;
			st.threads = v->threads;
		}
		st.views = nviews;
		memcpy(arg, &st, size < sizeof(st) ? size : sizeof(st));
	}
	if (ret == -EBADF)
		offences++;
	pthread_mutex_unlock(&lock);
	dawdle();
	return ret;
}

static bool in_text(uintptr_t addr, size_t len)
{
	uintptr_t base = (uintptr_t)fake_text;

	return addr >= base && len <= FAKE_TEXT && addr - base <= FAKE_TEXT - len;
}

static ssize_t f_read(int fd, void *buf, size_t len, uintptr_t addr)
{
	ssize_t ret = -EFAULT;
	struct view *v;

	pthread_mutex_lock(&lock);
	v = find(fd);
	if (fails(FAKE_READ)) {
		ret = failure.err;
	} else if (v && in_text(addr, len)) {
		memcpy(buf, v->text + (addr - (uintptr_t)fake_text), len);
		ret = (ssize_t)len;
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

static ssize_t f_write(int fd, const void *buf, size_t len, uintptr_t addr)
{
	ssize_t ret = -EFAULT;
	struct view *v;

	pthread_mutex_lock(&lock);
	v = find(fd);
	if (fails(FAKE_WRITE)) {
		ret = failure.err;
	} else if (v && !v->sealed && in_text(addr, len)) {
		len = len > 3 ? 3 : len;	/* short, as it may be */
		memcpy(v->text + (addr - (uintptr_t)fake_text), buf, len);
		ret = (ssize_t)len;
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

static int f_close(int fd)
{
	struct view *v;

	pthread_mutex_lock(&lock);
	v = find(fd);
	if (v) {
		v->open = false;
		put(v);
	}
	pthread_mutex_unlock(&lock);
	return close(fd);
}

static int64_t f_thread_view(pid_t tid)
{
	int64_t ret = -ENOENT;

	dawdle();
	pthread_mutex_lock(&lock);
	for (struct fthread *t = threads; t; t = t->next)
		if (t->tid == tid)
			ret = t->view ? (int64_t)t->view->id : 0;
	pthread_mutex_unlock(&lock);
	dawdle();
	return ret;
}

static pid_t f_thread_in_view(uint64_t id)
{
	pid_t tid = 0;

	pthread_mutex_lock(&lock);
	for (struct fthread *t = threads; t; t = t->next)
		if ((t->view ? t->view->id : 0) == id)
			tid = t->tid;
	pthread_mutex_unlock(&lock);
	return tid;
}

void fake_install(void)
{
	pthread_key_create(&key, thread_end);
	wflp_sys.view_create = f_create;
	wflp_sys.view_enter = f_enter;
	wflp_sys.view_ctl = f_ctl;
	wflp_sys.view_read = f_read;
	wflp_sys.view_write = f_write;
	wflp_sys.view_close = f_close;
	wflp_sys.thread_view = f_thread_view;
	wflp_sys.thread_in_view = f_thread_in_view;
	current();
}

void fake_sleep(unsigned int us)
{
	struct fthread *t = current();

	pthread_mutex_lock(&lock);
	t->asleep = true;
	pthread_mutex_unlock(&lock);
	sleep_us(us);
	/* Awake, but not yet running: a PULL may still come in between. */
	dawdle();
	pthread_mutex_lock(&lock);
	t->asleep = false;
	pthread_mutex_unlock(&lock);
}

static uint32_t half(int which)
{
	struct fthread *t = current();
	uint32_t v;

	pthread_mutex_lock(&lock);
	memcpy(&v, (t->view ? t->view->text : fake_text) + 32 * which, 4);
	pthread_mutex_unlock(&lock);
	return v;
}

uint64_t fake_call(void)
{
	uint64_t v = half(0);

	dawdle();
	return v | (uint64_t)half(1) << 32;
}

uint32_t fake_word(unsigned int offset)
{
	struct fthread *t = current();
	uint32_t v;

	pthread_mutex_lock(&lock);
	memcpy(&v, (t->view ? t->view->text : fake_text) + offset, 4);
	pthread_mutex_unlock(&lock);
	return v;
}

int64_t fake_patch(uint32_t from, uint32_t to, unsigned int flags)
{
	const struct wflp_edit e[2] = {
		{ fake_text, &from, &to, 4 }, { fake_text + 32, &from, &to, 4 },
	};

	return wflp_apply(e, 2, flags);
}

unsigned int fake_views(void)
{
	unsigned int n;

	pthread_mutex_lock(&lock);
	n = nviews;
	pthread_mutex_unlock(&lock);
	return n;
}

unsigned int fake_most_views(void)
{
	unsigned int n;

	pthread_mutex_lock(&lock);
	n = most;
	most = nviews;
	pthread_mutex_unlock(&lock);
	return n;
}

unsigned int fake_offences(void)
{
	unsigned int n;

	pthread_mutex_lock(&lock);
	n = offences;
	pthread_mutex_unlock(&lock);
	return n;
}
