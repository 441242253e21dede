// SPDX-License-Identifier: Apache-2.0
/*
 * wflp-micro: what single operations cost.
 *
 *   wflp-micro ops [options]   the calls of the mechanism, and fork beside them
 *     --resident L  resident sizes in MiB      --mappings L  numbers of mappings
 *     --views L     views that exist besides   --threads L   threads asleep besides
 *     (each list is a sweep of its own, all other factors at their least)
 *   wflp-micro mm [options]    what everyone else pays: faults, mappings, ...
 *     --without NAME  no view is ever made, and the setting is called so (base,
 *                     or stock); else there are two, beside views and in one
 *   wflp-micro footprint [options]  what views, patches and generations take of memory
 *     --views L, --pages L of one view, --generations N in a row
 *   wflp-micro variants  different code for different threads, for good
 *   wflp-micro instrument  what the clock and the records of wflp-exec cost
 *   all: --reps N  --batch N  --seed N
 *     --short       batches that end before the next tick of the clock, and begin
 *                   right after one: for where instructions are counted
 *
 * Each line of output is a JSON object: one measured batch, raw, warm-up
 * included; or {"unsupported": ..., "why": ...} for what cannot be measured
 * here.  Nothing is averaged or dropped.  Exit status 0 unless the arguments
 * are wrong (64) or something failed that must not (66).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <linux/futex.h>
#include <pthread.h>
#include <spawn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "micro.h"
#include "wflp/mm_view.h"

int reps = 20, batch = 256;
bool short_batches;
static uint64_t seed = 1;

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void die(const char *what)
{
	fprintf(stderr, "wflp-micro: %s: %s\n", what, strerror(errno));
	exit(66);
}

/*
 * Right after a tick, as there is an interval without one then: what a tick costs
 * has nothing to do with what is measured, and one more or less of them in a batch
 * is more than what views are to be allowed. An interrupt shows as a gap.
 */
void after_tick(void)
{
	uint64_t began = now_ns(), then = began, now, gap, least = UINT64_MAX;

	if (!short_batches)
		return;
	do {
		now = now_ns();
		gap = now - then;
		then = now;
		if (least != UINT64_MAX && gap > 8 * least)
			return;
		if (gap < least)
			least = gap;
	} while (now - began < 20000000);
}

/* splitmix64: the order of settings must be repeatable, nothing more. */
static uint64_t rnd(void)
{
	uint64_t z = seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static void parse_list(struct list *l, char *arg)
{
	l->n = 0;
	for (char *s = strtok(arg, ","); s && l->n < LIST; s = strtok(NULL, ","))
		l->v[l->n++] = strtol(s, NULL, 10);
}

/* ---- the mechanism ---- */

/*
 * Text to patch: "mov $1, %eax; ret" at the start of a page that lies in a
 * chunk of its own, with room beside it for data that shares the chunk.
 */
char *text;
int call_text(void) { return ((int (*)(void))(void *)text)(); }

void map_text(void)
{
	static const unsigned char code[] = { 0xb8, 1, 0, 0, 0, 0xc3 };
	char *area = mmap(NULL, 2 * CHUNK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int fd = memfd_create("wflp-micro", MFD_CLOEXEC);

	if (area == MAP_FAILED || fd < 0 || ftruncate(fd, PAGE) ||
	    pwrite(fd, code, sizeof(code), 0) != sizeof(code))
		die("make text");
	area = (char *)(((uintptr_t)area + CHUNK - 1) & ~(CHUNK - 1));
	text = mmap(area, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0);
	close(fd);
	if (text == MAP_FAILED || call_text() != 1)
		die("map text");
}

bool have_views(void)
{
	return mm_view_create(~0u) < 0 && errno == EINVAL;
}

int view_create(void)
{
	int fd = mm_view_create(0);

	if (fd < 0)
		die("mm_view_create");
	return fd;
}

static void view_write(int fd)
{
	static const unsigned char two[] = { 0xb8, 2 };

	if (pwrite(fd, two, sizeof(two), (off_t)(uintptr_t)text) != sizeof(two))
		die("write to view");
}

void view_enter(int fd)
{
	if (mm_view_enter(fd, 0))
		die("mm_view_enter");
}

long view_ctl(int fd, unsigned int op)
{
	long r = mm_view_ctl(fd, op, NULL, 0);

	if (r < 0)
		die("mm_view_ctl");
	return r;
}

int view_make(void)
{
	int fd = view_create();

	view_write(fd);
	view_ctl(fd, MM_VIEW_SEAL);
	return fd;
}

void view_drop(int fd)
{
	view_ctl(fd, MM_VIEW_RETIRE);
	close(fd);
}

/* ---- ops ---- */

struct setting {
	const char *sweep;
	long resident_mib, mappings, views, threads;
};

static void line(const struct setting *s, const char *bench, int rep, long count, uint64_t ns)
{
	printf("{\"experiment\":\"E4\",\"bench\":\"%s\",\"sweep\":\"%s\",\"resident_kib\":%ld,\"mappings\":%ld,"
	       "\"views\":%ld,\"threads\":%ld,\"rep\":%d,\"batch\":%ld,\"ns\":%llu}\n",
	       bench, s->sweep, s->resident_mib * 1024, s->mappings, s->views, s->threads,
	       rep, count, (unsigned long long)ns);
}

static void unsupported(const char *what, const char *sweep, long value, const char *why)
{
	printf("{\"unsupported\":\"%s\",\"sweep\":\"%s\",\"value\":%ld,\"why\":\"%s\"}\n", what, sweep, value, why);
}

static long available_mib(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	char buf[256];
	long kib = 0;

	while (f && fgets(buf, sizeof(buf), f))
		if (sscanf(buf, "MemAvailable: %ld", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib / 1024;
}

/* Small pages, so that the size shows in page tables, as fork must copy them. */
static void populate(long mib)
{
	char *p;

	if (mib <= 0)
		return;
	p = mmap(NULL, (size_t)mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		die("map resident memory");
	madvise(p, (size_t)mib * MIB, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < (size_t)mib * MIB; i += PAGE)
		p[i] = 1;
}

/* Neighbours differ in protection, or the kernel would make one of them. */
static void make_mappings(long n)
{
	char *p;

	if (n <= 0)
		return;
	p = mmap(NULL, (size_t)n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		die("map");
	for (long i = 0; i < n; i++)
		p[(size_t)i * PAGE] = 1;
	for (long i = 0; i < n; i += 2)
		if (mprotect(p + (size_t)i * PAGE, PAGE, PROT_READ))
			die("split mapping");
}

static uint32_t gate;		/* futex: sleepers wait until it is 1 */
static uint32_t asleep;
static bool views_exist;

static void *sleeper(void *arg)
{
	static __thread uint32_t word;

	(void)arg;
	word = MM_VIEW_WORD_OFFLINE;
	if (views_exist && mm_view_ctl(-1, MM_VIEW_REGISTER, &word, sizeof(word)))
		die("register");
	__atomic_add_fetch(&asleep, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&gate, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &gate, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	return NULL;
}

static void start_sleepers(long n)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 32 * 1024);
	for (long i = 0; i < n; i++)
		if ((errno = pthread_create(&t, &attr, sleeper, NULL)))
			die("start thread");
	pthread_attr_destroy(&attr);
	while (__atomic_load_n(&asleep, __ATOMIC_SEQ_CST) < (uint32_t)n)
		usleep(1000);
}

#define TIMED(bench, count, op) do { \
	uint64_t t_; \
	after_tick(); \
	t_ = now_ns(); \
	op; \
	t_ = now_ns() - t_; \
	line(s, bench, rep, count, t_); \
} while (0)

static void rep_views(const struct setting *s, int rep, int *last)
{
	long moved = 0;
	int fd = -1;

	TIMED("create", 1, fd = view_create());
	TIMED("write", 1, view_write(fd));
	TIMED("seal", 1, view_ctl(fd, MM_VIEW_SEAL));
	view_enter(fd);
	if (call_text() != 2)
		die("the view does not show its code");
	view_enter(-1);
	if (call_text() != 1)
		die("the base shows the view's code");
	TIMED("enter", batch, for (int i = 0; i < batch; i += 2) { view_enter(fd); view_enter(-1); });
	/* The last two of the list that is walked: no enter takes longer. */
	view_enter(*last);
	view_enter(fd);
	TIMED("enter-last", batch, for (int i = 0; i < batch; i += 2) { view_enter(*last); view_enter(fd); });
	view_enter(-1);
	/* Moves every sleeper, out of the view of the repetition before. */
	TIMED("pull", 1, moved = view_ctl(fd, MM_VIEW_PULL));
	if (moved != s->threads) {
		errno = ESRCH;
		die("pull did not move every sleeper");
	}
	/* What the last patch leaves behind when this one has taken its threads. */
	TIMED("retire", 1, view_ctl(*last, MM_VIEW_RETIRE));
	TIMED("close", 1, close(*last));
	*last = fd;
}

static void rep_fork(const struct setting *s, int rep)
{
	uint64_t t = now_ns(), returned;
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	returned = now_ns();
	if (pid < 0)
		die("fork");
	waitpid(pid, NULL, 0);
	line(s, "fork-exit-wait", rep, 1, now_ns() - t);
	line(s, "fork", rep, 1, returned - t);
}

/*
 * A thread that is on its way into its sleep is not pulled.  Once all have been,
 * they stay asleep, so that every pull that is measured moves all of them.
 */
static int pull_all(long threads)
{
	int fd = view_make();
	uint64_t deadline = now_ns() + 10000000000ull;

	for (long moved = 0; moved < threads; usleep(1000)) {
		moved += view_ctl(fd, MM_VIEW_PULL);
		if (now_ns() > deadline) {
			errno = ETIMEDOUT;
			die("pull sleepers");
		}
	}
	return fd;
}

static int bench_setting(const struct setting *s)
{
	int last = -1;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	views_exist = have_views();
	map_text();
	make_mappings(s->mappings);
	populate(s->resident_mib);
	start_sleepers(s->threads);
	for (long i = 0; views_exist && i < s->views; i++)
		view_make(); /* gone with the process */
	if (views_exist)
		last = pull_all(s->threads);
	for (int rep = 0; rep < reps; rep++) {
		if (views_exist)
			rep_views(s, rep, &last);
		rep_fork(s, rep);
	}
	fflush(stdout);
	_exit(0);
}

static void sweep(const char *name, const struct list *l, size_t field)
{
	for (int i = 0; i < l->n; i++) {
		struct setting s = { .sweep = name, .resident_mib = 1 };
		long need;
		int status = 0;
		pid_t pid;

		*(long *)((char *)&s + field) = l->v[i];
		/* Pages, page tables, and those again for a forked child. */
		need = s.resident_mib + s.resident_mib / 128 + 24;
		if (need > available_mib()) {
			unsupported("ops", name, l->v[i], "not enough memory");
			continue;
		}
		fflush(stdout);
		/* A process of its own: nothing is left of the setting before. */
		pid = fork();
		if (!pid)
			bench_setting(&s);
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			die("run setting");
		if (status) {
			fprintf(stderr, "wflp-micro: %s %ld: wait status %#x\n", name, l->v[i], status);
			exit(66);
		}
	}
}

/* ---- mm ---- */

enum where { BASE, BASE_VIEWS, IN_VIEW, WHERES };
static const char *where_names[WHERES] = { NULL, "base-views", "view" };

static char *fresh(size_t len, char *at, int fd)
{
	int flags = MAP_PRIVATE | (fd < 0 ? MAP_ANONYMOUS : 0) | (at ? MAP_FIXED : 0);
	char *p = mmap(at, len, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		die("map");
	madvise(p, len, MADV_NOHUGEPAGE);
	return p;
}

static uint64_t touch(char *p, int n)
{
	uint64_t t;

	after_tick();
	t = now_ns();
	for (int i = 0; i < n; i++)
		((volatile char *)p)[(size_t)i * PAGE] = 1;
	return now_ns() - t;
}

static int data_fd = -1;

/* First touches of n pages, in few of which a page table has to be made. */
static uint64_t fault(char *at, int fd, int n)
{
	int before = short_batches ? 32 : 0;
	size_t len = (size_t)(before + n) * PAGE;
	char *p = fresh(len, at, fd);
	uint64_t ns;

	for (int i = 0; i < before; i++)
		((volatile char *)p)[(size_t)(n + i) * PAGE] = 1;
	ns = touch(p, n);
	munmap(p, len);
	return ns;
}

static uint64_t b_fault_anon(int n)
{
	return fault(NULL, -1, n);
}

/* In the chunk of the patched page, which a view mirrors leaf by leaf. */
static uint64_t b_fault_near(int n)
{
	return fault(text + 16 * PAGE, -1, n);
}

/*
 * Copies on write of a file's pages.  Reads would not do: a read fault brings
 * its neighbours along, so most of them would be no fault at all.
 */
static uint64_t b_fault_cow(int n)
{
	return fault(NULL, data_fd, n);
}

static uint64_t b_map_unmap(int n)
{
	uint64_t t;

	after_tick();
	t = now_ns();
	for (int i = 0; i < n; i++) {
		char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED || munmap(p, 4 * PAGE))
			die("map and unmap");
	}
	return now_ns() - t;
}

static uint64_t b_map_touch_unmap(int n)
{
	uint64_t t;

	after_tick();
	t = now_ns();
	for (int i = 0; i < n; i++) {
		char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			die("map");
		for (size_t k = 0; k < 4; k++)
			p[k * PAGE] = 1;
		if (munmap(p, 4 * PAGE))
			die("unmap");
	}
	return now_ns() - t;
}

static uint64_t b_mprotect(int n)
{
	char *p = fresh(4 * PAGE, NULL, -1);
	uint64_t t;

	memset(p, 1, 4 * PAGE);
	after_tick();
	t = now_ns();
	for (int i = 0; i < n; i += 2)
		if (mprotect(p, 4 * PAGE, PROT_READ) || mprotect(p, 4 * PAGE, PROT_READ | PROT_WRITE))
			die("mprotect");
	t = now_ns() - t;
	munmap(p, 4 * PAGE);
	return t;
}

/* Nothing of memory in it: if this differs, something else does. */
static uint64_t b_syscall(int n)
{
	uint64_t t;

	after_tick();
	t = now_ns();
	for (int i = 0; i < n; i++)
		syscall(SYS_getppid);
	return now_ns() - t;
}

/* A process is made, ends, and is waited for. */
static uint64_t b_fork(int n)
{
	uint64_t t;

	after_tick();
	t = now_ns();
	for (int i = 0; i < n; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			die("fork and wait");
	}
	return now_ns() - t;
}

/* The same with another program in it, which does nothing: this one. */
static uint64_t b_exec(int n)
{
	static char name[] = "wflp-micro", what[] = "nothing";
	char *argv[] = { name, what, NULL }, *env[] = { NULL };
	uint64_t t;

	after_tick();
	t = now_ns();
	for (int i = 0; i < n; i++) {
		int status = 0;
		pid_t pid;

		if ((errno = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, env)) ||
		    waitpid(pid, &status, 0) != pid || status)
			die("spawn and wait");
	}
	return now_ns() - t;
}

static void *no_work(void *arg)
{
	return arg;
}

/* A thread is made, ends, and is waited for. */
static uint64_t b_thread(int n)
{
	pthread_attr_t attr;
	uint64_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 32 * 1024);
	after_tick();
	t = now_ns();
	for (int i = 0; i < n; i++) {
		pthread_t thread;

		if ((errno = pthread_create(&thread, &attr, no_work, NULL)) ||
		    (errno = pthread_join(thread, NULL)))
			die("create and join thread");
	}
	t = now_ns() - t;
	pthread_attr_destroy(&attr);
	return t;
}

static int to[2], fro[2];

/* The other side begins with this, if it is anything. */
static void (*other_first)(void);

/* Answer each byte until there are no more. */
static void *echo(void *arg)
{
	char c;

	if (other_first)
		other_first();
	while (read(to[0], &c, 1) == 1 && c)
		if (write(fro[1], &c, 1) != 1)
			die("answer");
	return arg;
}

static uint64_t ping(int n)
{
	uint64_t t = 0;
	char c = 1;

	/* Once before: the other side has to come up. */
	for (int i = -1; i < n; i++) {
		if (!i) {
			after_tick();
			t = now_ns();
		}
		if (write(to[1], &c, 1) != 1 || read(fro[0], &c, 1) != 1)
			die("ping");
	}
	t = now_ns() - t;
	c = 0;
	if (write(to[1], &c, 1) != 1)
		die("end ping");
	return t;
}

/* To and fro between two threads: two switches, two writes, two reads. */
static uint64_t b_switch_thread(int n)
{
	pthread_t thread;
	uint64_t t;

	if ((errno = pthread_create(&thread, NULL, echo, NULL)))
		die("create thread");
	t = ping(n);
	pthread_join(thread, NULL);
	return t;
}

uint64_t switch_threads(int n, void (*other)(void))
{
	uint64_t ns;

	if (!to[1] && (pipe(to) || pipe(fro)))
		die("make pipes");
	other_first = other;
	ns = b_switch_thread(n);
	other_first = NULL;
	return ns;
}

/* The same between two processes, so that the page tables are switched, too. */
static uint64_t b_switch_process(int n)
{
	pid_t pid = fork();
	uint64_t t;

	if (!pid) {
		echo(NULL);
		_exit(0);
	}
	if (pid < 0)
		die("fork");
	t = ping(n);
	waitpid(pid, NULL, 0);
	return t;
}

/*
 * Of a full batch, how much; how many of it fit between two ticks; and how many
 * such pieces make a repetition. What something else has a part in (the scheduler,
 * work that is put off) comes in several lengths: a median of single ones would
 * jump between these, one of sums does not.
 */
static const struct {
	const char *name;
	uint64_t (*run)(int n);
	int part, few, often;
} mm_benches[] = {
	{ "page-fault", b_fault_anon, 1, 16, 1 },
	{ "page-fault-near", b_fault_near, 1, 16, 1 },
	{ "page-fault-cow", b_fault_cow, 1, 16, 1 },
	{ "map-unmap", b_map_unmap, 1, 16, 1 },
	{ "map-touch-unmap", b_map_touch_unmap, 1, 4, 1 },
	{ "mprotect", b_mprotect, 1, 32, 1 },
	{ "syscall", b_syscall, 1, 256, 1 },
	{ "fork-exit", b_fork, 16, 1, 8 },
	{ "exec-exit", b_exec, 16, 1, 8 },
	{ "thread", b_thread, 8, 1, 12 },
	{ "switch-thread", b_switch_thread, 4, 4, 16 },
	{ "switch-process", b_switch_process, 4, 4, 16 },
};
#define MM_BENCHES (int)(sizeof(mm_benches) / sizeof(*mm_benches))

static void shuffle(int *v, int n)
{
	for (int i = 0; i < n; i++)
		v[i] = i;
	for (int i = n - 1; i > 0; i--) {
		int j = (int)(rnd() % (uint64_t)(i + 1)), x = v[i];

		v[i] = v[j];
		v[j] = x;
	}
}

static void mm(void)
{
	char page[PAGE];

	if (batch > 400)
		batch = 400; /* what fits beside the text */
	memset(page, 7, sizeof(page));
	map_text();
	data_fd = memfd_create("wflp-data", MFD_CLOEXEC);
	for (int i = 0; i < batch + 32; i++)
		if (pwrite(data_fd, page, PAGE, (off_t)i * (off_t)PAGE) != (ssize_t)PAGE)
			die("write data");
	if (pipe(to) || pipe(fro))
		die("make pipes");
	if (!where_names[BASE] && !have_views()) {
		unsupported("mm", "base-views,view", 0, "this kernel has no views");
		return;
	}
	for (int rep = 0; rep < reps; rep++) {
		int order[WHERES], benches[MM_BENCHES];

		shuffle(order, WHERES);
		for (int o = 0; o < WHERES; o++) {
			int w = order[o], fd = -1;

			/* Views that have been leave something behind: not in one run with them. */
			if ((w == BASE) != (where_names[BASE] != NULL))
				continue;
			/* Each setting is made and taken down, so that any order will do. */
			if (w != BASE)
				fd = view_make();
			if (w == IN_VIEW) {
				view_enter(fd);
				if (call_text() != 2)
					die("the view does not show its code");
			}
			shuffle(benches, MM_BENCHES);
			for (int b = 0; b < MM_BENCHES; b++) {
				int of = benches[b], full = batch / mm_benches[of].part;
				int n = short_batches ? mm_benches[of].few : full > 2 ? full : 2;
				int often = short_batches ? mm_benches[of].often : 1;
				uint64_t ns = 0;

				for (int i = 0; i < often; i++)
					ns += mm_benches[of].run(n);
				printf("{\"experiment\":\"E5\",\"bench\":\"%s\",\"setting\":\"%s\",\"rep\":%d,\"batch\":%d,\"ns\":%llu}\n",
				       mm_benches[of].name, where_names[w], rep, n * often, (unsigned long long)ns);
			}
			if (w == IN_VIEW)
				view_enter(-1);
			if (w != BASE)
				view_drop(fd);
		}
	}
}

static void usage(void)
{
	fputs("usage: wflp-micro ops|mm|footprint|variants|instrument [--reps N] [--batch N] [--seed N]\n"
	      "       [--resident L] [--mappings L] [--views L] [--threads L] [--pages L]\n"
	      "       [--generations N] [--without NAME] [--short]\n", stderr);
	exit(64);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "reps", 1, 0, 'r' }, { "batch", 1, 0, 'b' }, { "seed", 1, 0, 's' },
		{ "resident", 1, 0, 'R' }, { "mappings", 1, 0, 'M' }, { "views", 1, 0, 'V' },
		{ "threads", 1, 0, 'T' }, { "without", 1, 0, 'W' }, { "short", 0, 0, 'S' },
		{ "pages", 1, 0, 'P' }, { "generations", 1, 0, 'G' },
		{ 0, 0, 0, 0 },
	};
	struct list resident = { { 1, 16, 64 }, 3 }, mappings = { { 10, 100, 1000 }, 3 };
	struct list views = { { 0, 1, 8, 32 }, 4 }, threads = { { 0, 1, 8, 32 }, 4 };
	struct list pages = { { 1, 16, 256 }, 3 };
	long generations = 100;
	const char *what;
	int c;

	if (argc < 2)
		usage();
	what = argv[1];
	if (!strcmp(what, "nothing"))
		return 0;
	while ((c = getopt_long(argc - 1, argv + 1, "", options, NULL)) != -1) {
		switch (c) {
		case 'r': reps = atoi(optarg); break;
		case 'b': batch = atoi(optarg) & ~1; break;
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 'R': parse_list(&resident, optarg); break;
		case 'M': parse_list(&mappings, optarg); break;
		case 'V': parse_list(&views, optarg); break;
		case 'T': parse_list(&threads, optarg); break;
		case 'P': parse_list(&pages, optarg); break;
		case 'G': generations = strtol(optarg, NULL, 10); break;
		case 'W': where_names[BASE] = optarg; break;
		case 'S': short_batches = true; break;
		default: usage();
		}
	}
	if (reps < 1 || batch < 2 || generations < 1 || optind + 1 != argc)
		usage();
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	if (!strcmp(what, "mm")) {
		mm();
	} else if (!strcmp(what, "instrument")) {
		instrument();
	} else if (!strcmp(what, "footprint") || !strcmp(what, "variants")) {
		if (!have_views())
			unsupported(what, "all", 0, "this kernel has no views");
		else if (*what == 'f')
			footprint(&views, &pages, generations);
		else
			variants();
	} else if (!strcmp(what, "ops")) {
		if (!have_views())
			unsupported("ops", "all but fork", 0, "this kernel has no views");
#define SWEEP(name, list, field) sweep(name, &(list), offsetof(struct setting, field))
		SWEEP("resident", resident, resident_mib);
		SWEEP("mappings", mappings, mappings);
		SWEEP("views", views, views);
		SWEEP("threads", threads, threads);
	} else {
		usage();
	}
	return fflush(stdout) ? 66 : 0;
}
