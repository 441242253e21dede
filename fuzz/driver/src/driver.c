// SPDX-License-Identifier: Apache-2.0
/*
 * wflp-fuzz SCENARIO TRACE
 *
 * A monitor sets up memory that outlives anything, and runs the scenario in a
 * child: the subject.  The subject's threads write their records straight into
 * the trace, so whatever becomes of them, what they had done is there.  The
 * monitor ends the subject if nothing moves any more, and says who stood where.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "fuzz.h"
#include "view.h"

struct run R;
__thread struct self *self;

#define STACK 65536ul

void die(const char *what)
{
	fprintf(stderr, "wflp-fuzz: %s: %s\n", what, strerror(errno));
	_exit(W(END_SETUP));
}

static void usage(const char *what)
{
	fprintf(stderr, "wflp-fuzz: %s\n", what);
	_exit(W(END_USAGE));
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- records ---- */

struct fuzzwire_record *rec_begin(unsigned int kind, unsigned int unit, int fd)
{
	static __thread struct fuzzwire_record spare;
	struct fuzzwire_stream *s = self->stream;
	struct fuzzwire_record *r;

	if (s->count == s->cap) {
		s->dropped++;
		r = &spare;
		memset(r, 0, sizeof(*r));
	} else {
		r = &self->records[s->count];
	}
	r->kind = (uint16_t)kind;
	r->unit = (uint16_t)unit;
	r->fd = fd;
	r->op = self->op;
	r->begin = stamp();
	if (r != &spare)
		__atomic_store_n(&s->count, s->count + 1, __ATOMIC_RELEASE);
	return r;
}

long rec_end(struct fuzzwire_record *r, long ret)
{
	r->ret = (int32_t)ret;
	__atomic_store_n(&r->end, stamp(), __ATOMIC_RELEASE);
	return ret;
}

/* ---- lists ---- */

static void self_init(unsigned int list)
{
	self = &R.selves[list];
	self->list = list;
	self->stream = &R.streams[list];
	self->records = R.records + self->stream->first;
	self->who_fd = self->fail_fd = self->kcov_fd = -1;
	self->stream->tid = (uint32_t)syscall(SYS_gettid);
	self->stream->pid = (uint32_t)R.pid;
	__atomic_store_n(&self->stream->state, W(STATE_RUNNING), __ATOMIC_RELEASE);
}

void list_run(unsigned int list)
{
	const struct fuzzwire_list *l = &R.lists[list];

	kcov_start();
	for (uint32_t i = 0; i < l->count; i++) {
		const struct fuzzwire_op *o = &R.ops[l->first + i];

		if (o->kind == W(OP_EXIT))
			break;
		self->op = (uint16_t)i;
		self->sub = 0;
		op_run(o);
		kcov_room();
	}
	kcov_stop();
	if (self->who_fd >= 0)
		close(self->who_fd);
	if (self->fail_fd >= 0)
		close(self->fail_fd);
	__atomic_store_n(&self->stream->state, W(STATE_DONE), __ATOMIC_RELEASE);
}

static void *thread_main(void *arg)
{
	unsigned int list = (unsigned int)(uintptr_t)arg;

	self_init(list);
	if (R.lists[list].flags & W(LIST_START))
		while (!__atomic_load_n(&R.shared->go, __ATOMIC_ACQUIRE))
			syscall(SYS_futex, &R.shared->go, FUTEX_WAIT, 0, NULL, NULL, 0);
	list_run(list);
	return NULL;
}

static bool claim(unsigned int list)
{
	return list < R.nlists && !__atomic_exchange_n(&R.shared->claimed[list], 1, __ATOMIC_SEQ_CST);
}

static char *stacks;

static long start(unsigned int list)
{
	pthread_attr_t attr;
	long ret;

	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, stacks + list * STACK, STACK);
	ret = -pthread_create(&R.selves[list].thread, &attr, thread_main, (void *)(uintptr_t)list);
	pthread_attr_destroy(&attr);
	if (!ret)
		__atomic_store_n(&R.selves[list].started, true, __ATOMIC_RELEASE);
	return ret;
}

static void begun_by(unsigned int list, bool forked)
{
	struct fuzzwire_stream *s = &R.streams[list];

	s->by = (int32_t)self->list;
	s->by_op = self->stream->count - 1;	/* the record that is open */
	s->forked = forked;
}

long list_spawn(unsigned int list)
{
	if (!claim(list))
		return -EAGAIN;
	begun_by(list, false);
	return start(list);
}

/* Threads of this process, until there are no more that have not been waited for. */
static void join_all(void)
{
	bool again = true;

	while (again) {
		again = false;
		for (unsigned int i = 0; i < R.nlists; i++) {
			if (!__atomic_load_n(&R.selves[i].started, __ATOMIC_ACQUIRE))
				continue;
			R.selves[i].started = false;
			pthread_join(R.selves[i].thread, NULL);
			again = true;
		}
	}
}

long list_fork(unsigned int list)
{
	pid_t pid;

	if (!claim(list))
		return -EAGAIN;
	begun_by(list, true);
	pid = fork();
	if (pid)
		return neg(pid);
	/* The monitor ends the whole group; the thread that forked may go before. */
	R.pid = getpid();
	for (unsigned int i = 0; i < R.nlists; i++)
		R.selves[i].started = false;
	self_init(list);
	list_run(list);
	join_all();
	_exit(0);
}

/* ---- the subject ---- */

static const int mmap_prot[] = {
	PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC,
	PROT_READ | PROT_WRITE | PROT_EXEC
};

void *map_area(unsigned int area, unsigned int unit, unsigned int count, unsigned int kind,
	       unsigned int prot)
{
	int flags = MAP_FIXED | MAP_NORESERVE;
	size_t len = unit_len(area);

	if (kind == W(MAP_ANON))
		flags |= MAP_PRIVATE | MAP_ANONYMOUS;
	else
		flags |= kind == W(MAP_SHARED) ? MAP_SHARED : MAP_PRIVATE;
	return mmap(unit_addr(area, unit), count * len, mmap_prot[prot], flags,
		    kind == W(MAP_ANON) ? -1 : R.files[area],
		    kind == W(MAP_ANON) ? 0 : (off_t)(unit * len));
}

static int high(int fd)
{
	/* Descriptors of files that nobody closes, below those of views. */
	int ret = fcntl(fd, F_DUPFD_CLOEXEC, 40);

	if (fd < 0 || ret < 0)
		die("make file");
	close(fd);
	return ret;
}

static void set_up(void)
{
	unsigned char page[PAGE];

	for (unsigned int a = 0; a < W(AREAS); a++) {
		unsigned int units = a == W(AREA_CODE) ? W(CODE_UNITS) : W(UNITS);

		R.files[a] = high(memfd_create("fuzz", MFD_CLOEXEC));
		if (ftruncate(R.files[a], (off_t)(units * unit_len(a))))
			die("size file");
		if (a != W(AREA_CODE)) {
			if (map_area(a, 0, units, R.scenario->area_kinds[a], W(PROT_RW)) == MAP_FAILED)
				die("map area");
			continue;
		}
		for (unsigned int u = 0; u < units; u++) {
			memset(page, 0xcc, sizeof(page));
			for (unsigned int i = 0; i < 2; i++) {
				uint32_t v = W(BASE_VALUE) + 2 * u + i;

				page[i * W(CELL_BYTES)] = 0xb8;
				memcpy(page + i * W(CELL_BYTES) + 1, &v, 4);
				page[i * W(CELL_BYTES) + 5] = 0xc3;
			}
			if (pwrite(R.files[a], page, PAGE, (off_t)(u * PAGE)) != (ssize_t)PAGE)
				die("write code");
		}
		if (map_area(a, 0, units, W(MAP_PRIVATE), W(PROT_RX)) == MAP_FAILED)
			die("map code");
	}
	stacks = mmap(NULL, W(MAX_LISTS) * STACK, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stacks == MAP_FAILED)
		die("map stacks");
	for (int i = 0; i < W(SLOTS); i++)
		R.slots[i] = -1;
	R.other = high(eventfd(0, EFD_CLOEXEC));
	probe_init();
}

/* A group of its own, for a scenario that sets its limits: it costs some time. */
static void own_group(void)
{
	for (uint64_t i = 0; i < R.scenario->ops.count; i++) {
		FILE *f;

		if (R.ops[i].kind != W(OP_SYSTEM) || R.ops[i].a != W(SYSTEM_HIGH))
			continue;
		f = fopen("/sys/fs/cgroup/cgroup.subtree_control", "we");
		if (f) {
			fputs("+memory", f);
			fclose(f);
		}
		mkdir(GROUP, 0755);	/* there already, or the operation finds none */
		f = fopen(GROUP "/cgroup.procs", "we");
		if (f) {
			fputs("0", f);
			fclose(f);
		}
		return;
	}
}

static int subject(void)
{
	uint64_t *times = &R.trace->counters[2 * W(COUNTER_SET_UP)], from = now_ns();
	struct fuzzwire_record *r;
	int status;

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	R.pid = getpid();
	/* The heap is for OP_BRK: what malloc() will need, it gets now and keeps. */
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	free(malloc(1 << 20));
	own_group();
	set_up();
	self_init(R.nlists);
	self->stream->by = -1;
	for (unsigned int i = 0; i < R.nlists; i++) {
		R.streams[i].by = -1;
		if (!(R.lists[i].flags & W(LIST_START)))
			continue;
		claim(i);
		if (start(i))
			die("start thread");
	}
	times[0] = now_ns() - from;
	/* Nobody is held up by the thread that waits: it says that it may be moved. */
	r = rec_begin(W(OP_REGISTER), 1, -1);
	rec_end(r, neg(syscall(NR_VIEW_CTL, -1, VIEW_REGISTER, &self->word, 4)));
	r = rec_begin(W(OP_SLEEP), 0, -1);
	r->flags = FUZZWIRE_FLAG_OFFLINE;
	__atomic_store_n(&self->word, WORD_OFFLINE, __ATOMIC_SEQ_CST);
	__atomic_store_n(&R.shared->go, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &R.shared->go, FUTEX_WAKE, 1000, NULL, NULL, 0);
	join_all();
	while (waitpid(-1, &status, __WALL) > 0 || errno == EINTR)
		if (status)
			__atomic_add_fetch(&R.trace->children, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&self->word, WORD_ONLINE, __ATOMIC_SEQ_CST);
	rec_end(r, 0);
	times[1] = now_ns() - from - times[0];
	op_final();
	times[2] = now_ns() - from - times[0] - times[1];
	return 0;
}

/* ---- the monitor ---- */

/*
 * A RAM disk to swap to, where there is one. It stays for the next program, which
 * is told that it is in use.
 */
static void swap_on(void)
{
	union {
		struct {
			char boot[1024];
			uint32_t version, last_page, bad_pages;
		} head;
		char page[PAGE];
	} h = { .head = { .version = 1 } };
	const char *disk = "/dev/ram0";
	int fd = open(disk, O_WRONLY | O_CLOEXEC | O_EXCL);
	off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);

	if (size > 2 * (off_t)PAGE) {
		h.head.last_page = (uint32_t)((size_t)size / PAGE - 1);
		memcpy(h.page + PAGE - 10, "SWAPSPACE2", 10);
		if (pwrite(fd, h.page, PAGE, 0) == (ssize_t)PAGE) {
			close(fd);
			fd = -1;
			syscall(SYS_swapon, disk, 0);
		}
	}
	if (fd >= 0)
		close(fd);
}

static size_t trace_size;

static uint64_t proc_number(const char *path, const char *key)
{
	FILE *f = fopen(path, "re");
	unsigned long long v = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key))) {
			sscanf(line + strlen(key), "%llu", &v);
			break;
		}
	if (f)
		fclose(f);
	return v;
}

static void count(int when)
{
	FILE *f;

	f = fopen("/proc/sys/vm/stat_refresh", "we");
	if (f) {
		fputs("1", f);
		fclose(f);
	}
	R.trace->counters[2 * W(COUNTER_TABLES) + when] =
		proc_number("/proc/vmstat", "nr_page_table_pages");
	R.trace->counters[2 * W(COUNTER_ANON) + when] = proc_number("/proc/vmstat", "nr_anon_pages");
}

#ifdef FUZZ_REPRODUCER
/* The program that is made of one scenario has it in itself. */
extern const unsigned char fuzz_scenario[];
extern const size_t fuzz_scenario_len;

static const void *read_scenario(const char *path, size_t *len)
{
	(void)path;
	*len = fuzz_scenario_len;
	return fuzz_scenario;
}
#else
static const void *read_scenario(const char *path, size_t *len)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *p;

	if (fd < 0 || fstat(fd, &st))
		usage("cannot open the scenario");
	*len = (size_t)st.st_size;
	if (!*len)
		usage("the scenario is too short");
	p = mmap(NULL, *len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		die("map scenario");
	close(fd);
	return p;
}
#endif

static void load_scenario(const char *path)
{
	const struct fuzzwire_scenario_header *h;
	uint64_t ops;
	size_t len;

	h = read_scenario(path, &len);
	if (len < sizeof(*h))
		usage("the scenario is too short");
	if (h->magic != W(MAGIC_SCENARIO) || h->version != W(VERSION))
		usage("not a scenario of this version");
	if (h->lists.count > W(MAX_LISTS) ||
	    h->lists.off + h->lists.count * sizeof(*R.lists) > len ||
	    h->ops.off + h->ops.count * sizeof(*R.ops) > len)
		usage("the scenario's tables are not in it");
	R.scenario = h;
	R.lists = (const void *)((const char *)h + h->lists.off);
	R.ops = (const void *)((const char *)h + h->ops.off);
	R.nlists = (unsigned int)h->lists.count;
	ops = h->ops.count;
	for (unsigned int i = 0; i < R.nlists; i++)
		if ((uint64_t)R.lists[i].first + R.lists[i].count > ops || R.lists[i].records > 100000)
			usage("a list is not in the scenario");
	for (uint64_t i = 0; i < ops; i++)
		if (R.ops[i].kind >= W(OP_KINDS))
			usage("an operation is unknown");
}

static void make_trace(const char *path)
{
	uint64_t n = 0, final = 4096, off;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	char *p;

	for (unsigned int i = 0; i < R.nlists; i++)
		n += R.lists[i].records;
	off = sizeof(struct fuzzwire_trace_header) + (R.nlists + 1) * sizeof(struct fuzzwire_stream);
	trace_size = off + (n + final) * sizeof(struct fuzzwire_record);
	if (fd < 0 || ftruncate(fd, (off_t)trace_size))
		die("make trace");
	p = mmap(NULL, trace_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		die("map trace");
	close(fd);
	R.trace = (void *)p;
	R.streams = (void *)(p + sizeof(struct fuzzwire_trace_header));
	R.records = (void *)(p + off);
	*R.trace = (struct fuzzwire_trace_header){
		.magic = W(MAGIC_TRACE), .version = W(VERSION), .seed = R.scenario->seed,
		.end = W(END_SETUP), .crash_list = -1,
		.streams = { sizeof(struct fuzzwire_trace_header), R.nlists + 1 },
		.records = { off, n + final },
	};
	n = 0;
	for (unsigned int i = 0; i <= R.nlists; i++) {
		R.streams[i].first = (uint32_t)n;
		R.streams[i].cap = i < R.nlists ? R.lists[i].records : (uint32_t)final;
		n += R.streams[i].cap;
	}
}

/* The trace as far as it is, without the room for records that nobody needed. */
static void append(const char *path, const struct fuzzwire_thread *threads, uint64_t nthreads)
{
	uint64_t off = R.trace->records.off, npcs = 0;
	uint64_t n = 0;
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	/* Move the records together: the last stream is long and hardly used. */
	for (unsigned int i = 0; i <= R.nlists; i++) {
		struct fuzzwire_stream *s = &R.streams[i];

		memmove(R.records + n, R.records + s->first, s->count * sizeof(*R.records));
		s->first = (uint32_t)n;
		n += s->count;
	}
	R.trace->records.count = n;
	off += n * sizeof(*R.records);
	R.trace->threads = (struct fuzzwire_table){ off, nthreads };
	off += nthreads * sizeof(*threads);
	for (unsigned int i = 0; R.pcs && i < PCS; i++)
		if (R.pcs[i])
			R.pcs[npcs++] = R.pcs[i];
	R.trace->coverage = (struct fuzzwire_table){ off, npcs };
	if (fd < 0 || pwrite(fd, threads, nthreads * sizeof(*threads),
			     (off_t)R.trace->threads.off) < 0 ||
	    (npcs && pwrite(fd, R.pcs, npcs * 8, (off_t)off) != (ssize_t)(npcs * 8)) ||
	    ftruncate(fd, (off_t)(off + npcs * 8)))
		die("write trace");
	close(fd);
}

static void read_small(const char *path, char *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, len - 1);

	buf[n > 0 ? n : 0] = 0;
	if (fd >= 0)
		close(fd);
}

static uint64_t look(struct fuzzwire_thread *t)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i <= R.nlists; i++) {
		struct fuzzwire_stream *s = &R.streams[i];
		char path[64], buf[256], *p;

		if (s->state != W(STATE_RUNNING))
			continue;
		memset(&t[n], 0, sizeof(*t));
		t[n].tid = s->tid;
		t[n].list = (int32_t)i;
		snprintf(path, sizeof(path), "/proc/%u/task/%u/stat", s->pid, s->tid);
		read_small(path, buf, sizeof(buf));
		p = strrchr(buf, ')');
		t[n].letter = p && p[1] ? (uint32_t)p[2] : '?';
		snprintf(path, sizeof(path), "/proc/%u/task/%u/syscall", s->pid, s->tid);
		read_small(path, buf, sizeof(buf));
		t[n].call = (uint32_t)strtoul(buf, NULL, 10);
		snprintf(path, sizeof(path), "/proc/%u/task/%u/wchan", s->pid, s->tid);
		read_small(path, (char *)t[n].where, sizeof(t[n].where));
		n++;
	}
	return n;
}

int main(int argc, char **argv)
{
	static struct fuzzwire_thread threads[W(MAX_LISTS) + 1];
	uint64_t nthreads = 0, last = 0, limit;
	struct rlimit memlock = { RLIM_INFINITY, RLIM_INFINITY };
	int status = 0, end = W(END_COMPLETE), pidfd;
	unsigned int still = 0, ticks = 0;
	uint64_t from = now_ns();
	pid_t pid;

	if (argc == 2 && !strcmp(argv[1], "-nothing"))
		return 0;
#ifdef FUZZ_REPRODUCER
	static char *own[] = { NULL, NULL, (char *)"/tmp/reproducer.trace" };

	if (argc > 1)
		own[2] = argv[1];
	argv = own;
#else
	if (argc != 3)
		usage("usage: wflp-fuzz SCENARIO TRACE");
#endif
	load_scenario(argv[1]);
	make_trace(argv[2]);
	R.shared = mmap(NULL, sizeof(*R.shared), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (R.shared == MAP_FAILED)
		die("map shared memory");
	if (!access("/sys/kernel/debug/kcov", R_OK)) {
		R.pcs = mmap(NULL, PCS * 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (R.pcs == MAP_FAILED)
			die("map coverage");
	}
	setrlimit(RLIMIT_MEMLOCK, &memlock);
	swap_on();
	R.trace->has_views = neg(syscall(NR_VIEW_CREATE, ~0u)) == -EINVAL;
	count(0);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid)
		_exit(subject());
	setpgid(pid, pid);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		die("open subject");
	/* Nothing has moved for the whole of the limit: stuck. Four times that in all: slow. */
	limit = R.scenario->watchdog_ms ? R.scenario->watchdog_ms : 5000;
	for (;;) {
		struct pollfd p = { .fd = pidfd, .events = POLLIN };
		uint64_t now;

		if (poll(&p, 1, (int)(limit / 4)) == 1)
			break;
		now = __atomic_load_n(&R.shared->stamp, __ATOMIC_SEQ_CST);
		still = now == last ? still + 1 : 0;
		last = now;
		ticks++;
		if (still < 4 && ticks < 16)
			continue;
		R.trace->slow = still < 4;
		nthreads = look(threads);
		end = W(END_STUCK);
		break;
	}
	kill(-pid, SIGKILL);
	if (end == W(END_STUCK)) {
		/* What cannot be killed stays. */
		struct pollfd p = { .fd = pidfd, .events = POLLIN };

		poll(&p, 1, (int)limit);
		waitpid(pid, &status, WNOHANG);
	} else {
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		if (WIFEXITED(status) && WEXITSTATUS(status) == W(END_SETUP))
			end = W(END_SETUP);
		else if (status)
			end = W(END_CRASH);
		count(1);
	}
	R.trace->status = status;
	R.trace->stamps = R.shared->stamp;
	R.trace->end = (uint32_t)end;
	R.trace->counters[2 * W(COUNTER_FINAL) + 1] = now_ns() - from;
	append(argv[2], threads, nthreads);
	return end;
}
