// SPDX-License-Identifier: Apache-2.0
/* The operations. Each records what it was asked, when, and what came of it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "fuzz.h"
#include "view.h"

/* ---- calls ---- */

static long ctl(int fd, unsigned int op, void *arg, size_t size, bool by_prctl)
{
	if (by_prctl)
		return neg(prctl(PR_VIEW, op, (unsigned long)fd, (unsigned long)arg, size));
	return neg(syscall(NR_VIEW_CTL, fd, op, arg, size));
}

static long create(unsigned int flags, bool by_prctl)
{
	if (by_prctl)
		return neg(prctl(PR_VIEW, VIEW_CREATE, (unsigned long)flags, 0, 0));
	return neg(syscall(NR_VIEW_CREATE, flags));
}

static long enter(int fd, unsigned int flags, bool by_prctl)
{
	if (by_prctl)
		return neg(prctl(PR_VIEW, VIEW_ENTER, (unsigned long)fd, (unsigned long)flags, 0));
	return neg(syscall(NR_VIEW_ENTER, fd, flags));
}

static int fd_of(unsigned int slot)
{
	if (slot == W(SLOT_BASE))
		return -1;
	if (slot >= W(SLOTS))
		return R.other;
	return __atomic_load_n(&R.slots[slot], __ATOMIC_SEQ_CST);
}

/* Unique among all that a scenario writes into code. */
static uint32_t fn_value(void)
{
	return 0x40000000u + (self->list << 17) + ((uint32_t)self->op << 5) + self->sub++;
}

static uint64_t word_value(void)
{
	return 1ull << 60 | (uint64_t)self->list << 40 | (uint64_t)self->op << 16 | self->sub++;
}

static void fn_bytes(unsigned char *buf, uint32_t value)
{
	buf[0] = 0xb8;
	memcpy(buf + 1, &value, 4);
	buf[5] = 0xc3;
}

static void close_record(int fd, unsigned int flags)
{
	struct fuzzwire_record *r = rec_begin(W(OP_CLOSE), 0, fd);

	r->flags = (uint16_t)flags;
	rec_end(r, neg(close(fd)));
}

static void put_slot(unsigned int slot, int fd)
{
	int old;

	slot %= W(SLOTS);
	old = __atomic_exchange_n(&R.slots[slot], fd, __ATOMIC_SEQ_CST);
	if (old >= 0)
		close_record(old, FUZZWIRE_FLAG_BY_SLOT);
}

/* ---- failing allocations ---- */

static void fail_arm(void)
{
	char buf[16];

	if (!self->fail)
		return;
	if (self->fail_fd < 0) {
		int fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);

		if (fd < 0) {
			self->fail = 0;
			return;
		}
		self->fail_fd = fcntl(fd, F_DUPFD_CLOEXEC, 60);
		close(fd);
	}
	snprintf(buf, sizeof(buf), "%u", self->fail);
	if (pwrite(self->fail_fd, buf, strlen(buf), 0) < 0)
		self->fail = 0;
}

static void fail_disarm(struct fuzzwire_record *r)
{
	char buf[16] = "";

	if (!self->fail)
		return;
	self->fail = 0;
	if (pread(self->fail_fd, buf, sizeof(buf) - 1, 0) > 0 && !atoi(buf))
		r->flags |= FUZZWIRE_FLAG_FAILED;
	if (pwrite(self->fail_fd, "0", 1, 0) < 0)
		return;
}

/* ---- views ---- */

static void do_create(const struct fuzzwire_op *o)
{
	struct fuzzwire_record *r = rec_begin(W(OP_CREATE), 0, -1);
	struct view_stat st = { 0 };
	long fd, up;

	fail_arm();
	fd = create(o->b, o->e & 1);
	fail_disarm(r);
	if (fd >= 0) {
		if (!ctl((int)fd, VIEW_STAT, &st, sizeof(st), false))
			r->val = st.id;
		up = neg(fcntl((int)fd, F_DUPFD_CLOEXEC, W(FIRST_FD)));
		close((int)fd);
		fd = up;
	}
	r->fd = (int)fd;
	rec_end(r, fd);
	if (fd >= 0)
		put_slot(o->a, (int)fd);
}

static void do_pull(const struct fuzzwire_op *o, int fd)
{
	struct fuzzwire_record *r;
	uint32_t tids[32] = { 0 }, group = (o->c & 3u) << 1;
	struct view_pull who = { .mask = 1, .value = 1 };
	size_t size = 0;
	long ret;

	if (o->c) {
		who.mask = 7;
		who.value = 1 | group;
	}
	if (o->b == W(PULL_SHORT))
		size = 8;
	if (o->b == W(PULL_TIDS)) {
		size = sizeof(who);
		who.tids = (uint64_t)tids;
		who.nr = 32;
	}
	r = rec_begin(W(OP_PULL), size ? o->b | who.mask << 4 | who.value << 8 : 0, fd);
	fail_arm();
	ret = ctl(fd, VIEW_PULL, size ? &who : NULL, size, o->e & 1);
	fail_disarm(r);
	/* Lists by bit: whose threads were told of. */
	if (ret >= 0 && o->b == W(PULL_TIDS)) {
		for (uint32_t i = 0; i < who.nr && i < 32; i++)
			for (unsigned int l = 0; l <= R.nlists; l++)
				if (R.streams[l].tid == tids[i] &&
				    R.streams[l].pid == (uint32_t)R.pid &&
				    R.streams[l].state == W(STATE_RUNNING))
					r->val |= 1ull << l;
		r->ext = who.nr;
	}
	rec_end(r, ret);
}

static void do_who(void)
{
	struct fuzzwire_record *r;
	char buf[32] = "";
	long ret;

	if (self->who_fd < 0) {
		int fd = open("/proc/thread-self/mm_view", O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return;
		self->who_fd = fcntl(fd, F_DUPFD_CLOEXEC, 60);
		close(fd);
	}
	r = rec_begin(W(OP_WHO), 0, -1);
	ret = neg(pread(self->who_fd, buf, sizeof(buf) - 1, 0));
	r->val = strtoull(buf, NULL, 10);
	rec_end(r, ret > 0 ? 0 : ret);
}

static long poll_view(int fd, unsigned int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	long n = neg(poll(&p, 1, (int)ms));

	if (n > 0 && p.revents & POLLNVAL)
		return -EBADF;
	if (n > 0 && p.revents != POLLIN)
		return -EIO;
	return n;
}

static void do_misuse(const struct fuzzwire_op *o, int fd)
{
	unsigned char buf[FUZZWIRE_FN_BYTES];
	struct fuzzwire_record *r;
	struct view_stat st;
	struct view_pull who = { .mask = 2, .value = 2 };
	char *code = fn_addr(0), *bad = (char *)W(ARENA_ADDR);
	long ret = 0;
	void *p;

	fn_bytes(buf, 0x66);
	r = rec_begin(W(OP_MISUSE), o->b, fd);
	switch (o->b) {
	case W(MISUSE_WRITE_DATA):
		ret = neg(pwrite(fd, buf, sizeof(buf), (off_t)unit_addr(o->c % W(DATA_AREAS), o->d % W(UNITS))));
		break;
	case W(MISUSE_WRITE_KERNEL):
		ret = neg(syscall(SYS_pwrite64, fd, buf, sizeof(buf), 0x7ffffffff000ul));
		break;
	case W(MISUSE_WRITE_NULL):
		ret = neg(pwrite(fd, buf, sizeof(buf), 0));
		break;
	case W(MISUSE_WRITE_NOTHING):
		ret = neg(pwrite(fd, buf, 0, (off_t)code));
		break;
	case W(MISUSE_WRITE_BUFFER):
		ret = neg(pwrite(fd, bad, sizeof(buf), (off_t)code));
		break;
	case W(MISUSE_WRITE_CROSS):
		p = unit_addr(W(AREA_CODE), W(CODE_UNITS)) - 3;
		ret = neg(pwrite(fd, buf, sizeof(buf), (off_t)p));
		break;
	case W(MISUSE_STAT_SIZE):
		ret = ctl(fd, VIEW_STAT, &st, 0, o->e & 1);
		break;
	case W(MISUSE_STAT_HUGE):
		ret = ctl(fd, VIEW_STAT, &st, PAGE + 1, o->e & 1);
		break;
	case W(MISUSE_STAT_BUFFER):
		ret = ctl(fd, VIEW_STAT, bad, sizeof(st), o->e & 1);
		break;
	case W(MISUSE_OP):
		ret = ctl(fd, 77, NULL, 0, o->e & 1);
		break;
	case W(MISUSE_SEAL_ARG):
		ret = ctl(fd, VIEW_SEAL, &st, 8, o->e & 1);
		break;
	case W(MISUSE_PULL_MASK):
		ret = ctl(fd, VIEW_PULL, &who, 8, o->e & 1);
		break;
	case W(MISUSE_PULL_SIZE):
		ret = ctl(fd, VIEW_PULL, &who, 12, o->e & 1);
		break;
	case W(MISUSE_REGISTER_ODD):
		ret = ctl(-1, VIEW_REGISTER, (char *)&self->word + 1, 4, o->e & 1);
		break;
	case W(MISUSE_REGISTER_SIZE):
		ret = ctl(-1, VIEW_REGISTER, &self->word, 8, o->e & 1);
		break;
	case W(MISUSE_REGISTER_FD):
		ret = ctl(R.other, VIEW_REGISTER, &self->word, 4, o->e & 1);
		break;
	case W(MISUSE_READ_BUFFER):
		ret = neg(pread(fd, bad, sizeof(buf), (off_t)code));
		break;
	case W(MISUSE_READ_HOLE):
		ret = neg(pread(fd, buf, sizeof(buf), (off_t)bad));
		break;
	case W(MISUSE_MMAP):
		p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
		ret = p == MAP_FAILED ? -errno : 0;
		if (p != MAP_FAILED)
			munmap(p, PAGE);
		break;
	case W(MISUSE_READ_FILE):
		ret = neg(read(fd, buf, 0));
		break;
	}
	rec_end(r, ret);
}

/* ---- memory ---- */

static void do_load(unsigned int area, unsigned int unit)
{
	struct fuzzwire_record *r = rec_begin(W(OP_LOAD), area << 8 | unit, -1);
	char *p = area == W(AREA_CODE) ? fn_addr(unit) : unit_addr(area, unit) + W(WORD_OFF);
	uint64_t val = 0;
	int ret = probe_load(p, &val);

	if (!ret && area == W(AREA_CODE)) {
		unsigned char buf[8];

		memcpy(buf, &val, 8);
		probe_code(buf, &val);
	}
	r->val = val;
	rec_end(r, ret);
}

static void do_store(unsigned int area, unsigned int unit)
{
	struct fuzzwire_record *r = rec_begin(W(OP_STORE), area << 8 | unit, -1);

	r->val = word_value();
	rec_end(r, probe_store(unit_addr(area, unit) + W(WORD_OFF), r->val));
}

static void do_exec(unsigned int fn)
{
	struct fuzzwire_record *r = rec_begin(W(OP_EXEC), fn, -1);
	uint64_t val = 0;
	int ret = probe_exec(fn_addr(fn), &val);

	r->val = val;
	rec_end(r, ret);
}

static const int mprotect_prot[] = {
	PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC,
	PROT_READ | PROT_WRITE | PROT_EXEC
};

/* ---- sleep ---- */

static void do_sleep(const struct fuzzwire_op *o)
{
	struct timespec ts = { o->a / 1000000, o->a % 1000000 * 1000l };
	struct fuzzwire_record *r = rec_begin(W(OP_SLEEP), o->b, -1);
	long ret;

	if (o->c) {
		r->flags |= FUZZWIRE_FLAG_OFFLINE;
		r->val = 1 | (o->d & 3u) << 1;
		__atomic_store_n(&self->word, (uint32_t)r->val, __ATOMIC_SEQ_CST);
	}
	switch (o->b) {
	case W(SLEEP_FUTEX):
		ret = neg(syscall(SYS_futex, &self->futex, FUTEX_WAIT, 0, &ts, NULL, 0));
		break;
	case W(SLEEP_POLL):
		ret = neg(ppoll(NULL, 0, &ts, NULL));
		break;
	case W(SLEEP_WAIT): {
		sigset_t set;

		sigemptyset(&set);
		sigaddset(&set, SIGUSR2);
		ret = neg(sigtimedwait(&set, NULL, &ts));
		break;
	}
	case W(SLEEP_EPOLL): {
		struct epoll_event ev;
		int fd = epoll_create1(EPOLL_CLOEXEC);

		ret = neg(epoll_wait(fd, &ev, 1, 1));
		close(fd);
		break;
	}
	case W(SLEEP_FAULT): {
		uint64_t val;

		ret = probe_load(unit_addr(W(AREA_NEAR), o->a % W(UNITS)) + W(WORD_OFF), &val);
		break;
	}
	case W(SLEEP_SPIN):
		/* Offline does not mean asleep: it runs, but nothing that is patched. */
		for (uint64_t until = now_ns() + o->a % 200 * 1000ull; now_ns() < until;)
			__builtin_ia32_pause();
		ret = 0;
		break;
	default:
		ret = neg(nanosleep(&ts, NULL));
		break;
	}
	if (o->c)
		__atomic_store_n(&self->word, WORD_ONLINE, __ATOMIC_SEQ_CST);
	rec_end(r, ret);
}

/* ---- others ---- */

static long task_mem(unsigned int list, unsigned int fn, uint64_t *val, bool write)
{
	unsigned char buf[FUZZWIRE_FN_BYTES];
	char path[64];
	long ret;
	int fd;

	if (R.streams[list].pid != (uint32_t)R.pid)
		return -ESRCH;
	snprintf(path, sizeof(path), "/proc/self/task/%u/mem", R.streams[list].tid);
	fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write) {
		fn_bytes(buf, (uint32_t)*val);
		ret = neg(pwrite(fd, buf, sizeof(buf), (off_t)fn_addr(fn)));
	} else {
		ret = neg(pread(fd, buf, sizeof(buf), (off_t)fn_addr(fn)));
		if (ret == sizeof(buf))
			probe_code(buf, val);
	}
	close(fd);
	return ret;
}

static long write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	long ret;

	if (fd < 0)
		return -errno;
	ret = neg(write(fd, text, strlen(text)));
	close(fd);
	return ret;
}

static long read_all(const char *path)
{
	char buf[1024];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	long n;

	if (fd < 0)
		return -errno;
	while ((n = neg(read(fd, buf, sizeof(buf)))) > 0)
		;
	close(fd);
	return n;
}

static bool read_fault(int fd, struct uffd_msg *msg, long wait_ns)
{
	struct timespec ts = { 0, wait_ns };
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return ppoll(&p, 1, &ts, NULL) == 1 && read(fd, msg, sizeof(*msg)) == sizeof(*msg) &&
	       msg->event == UFFD_EVENT_PAGEFAULT;
}

/*
 * For a while, whoever writes there sleeps in its fault. Nothing is let through
 * before the end, so words that another thread's write has changed meanwhile went
 * past the protection: their units are returned in *changed. Words that cannot be
 * read at the begin are left out.
 */
static long do_protect(char *from, size_t unit, unsigned int units, uint64_t ns, uint64_t *changed)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	struct uffdio_register reg = {
		.range = { (uintptr_t)from, units * unit }, .mode = UFFDIO_REGISTER_MODE_WP
	};
	struct uffdio_writeprotect wp = { .range = reg.range, .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	uint64_t until = now_ns() + ns, before[W(UNITS)], after;
	bool known[W(UNITS)];
	struct uffd_msg msg;
	long ret;

	if (fd < 0)
		return -errno;
	ret = neg(ioctl(fd, UFFDIO_API, &api));
	if (!ret)
		ret = neg(ioctl(fd, UFFDIO_REGISTER, &reg));
	/* What is not there cannot be protected: reading puts it there. */
	for (unsigned int u = 0; !ret && u < units; u++)
		known[u] = !probe_load(from + u * unit + W(WORD_OFF), &after);
	if (!ret)
		ret = neg(ioctl(fd, UFFDIO_WRITEPROTECT, &wp));
	for (unsigned int u = 0; !ret && u < units; u++)
		known[u] = known[u] && !probe_load(from + u * unit + W(WORD_OFF), &before[u]);
	while (!ret && now_ns() < until)
		read_fault(fd, &msg, 20000);
	for (unsigned int u = 0; !ret && u < units; u++)
		if (known[u] && !probe_load(from + u * unit + W(WORD_OFF), &after) && after != before[u])
			*changed |= 1ull << u;
	wp.mode = 0;
	ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
	close(fd);
	return ret;
}

/*
 * For a while, whoever misses a page there sleeps in its fault until this thread
 * has put one there, of zeros as the kernel would have. At the end the others go
 * on by themselves.
 */
static long do_userfault(char *from, size_t len, uint64_t ns)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)from, len }, .mode = UFFDIO_REGISTER_MODE_MISSING
	};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	uint64_t until = now_ns() + ns;
	struct uffd_msg msg;
	long ret;

	if (fd < 0)
		return -errno;
	ret = neg(ioctl(fd, UFFDIO_API, &api));
	if (!ret)
		ret = neg(ioctl(fd, UFFDIO_REGISTER, &reg));
	while (!ret && now_ns() < until) {
		struct timespec ts = { 0, 20000 };

		if (!read_fault(fd, &msg, 20000))
			continue;
		nanosleep(&ts, NULL);
		struct uffdio_zeropage zero = {
			.range = { msg.arg.pagefault.address & ~(PAGE - 1), PAGE }
		};

		/* Whatever is in the way, the thread that waits tries again. */
		if (ioctl(fd, UFFDIO_ZEROPAGE, &zero))
			ioctl(fd, UFFDIO_WAKE, &zero.range);
	}
	close(fd);
	return ret;
}

/* Who takes memory while the limit is below what there is gives some back first. */
static long do_high(void)
{
	char text[32];
	long ret;
	int fd = open(GROUP "/memory.current", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	memset(text, 0, sizeof(text));
	ret = neg(read(fd, text, sizeof(text) - 1));
	close(fd);
	if (ret < 0)
		return ret;
	snprintf(text, sizeof(text), "%llu", strtoull(text, NULL, 10) / 2);
	ret = write_file(GROUP "/memory.high", text);
	nanosleep(&(struct timespec){ 0, 100000 }, NULL);
	write_file(GROUP "/memory.high", "max");
	return ret;
}

/*
 * The heap belongs to one thread at a time; which one that is, and so in which
 * view, changes. What is written there is known, so each look tells whether all
 * tables of the process have the same.
 */
static struct {
	uint32_t busy;
	char *base;
	unsigned long pages;
	uint64_t words[BRK_MOST];
} heap;

static char *brk_to(char *end)
{
	return (char *)syscall(SYS_brk, end);
}

static long do_brk(unsigned int what, unsigned long pages, uint64_t *wrong)
{
	unsigned long old = heap.pages, i;
	uint64_t v;

	if (!heap.base)
		heap.base = (char *)(((uintptr_t)brk_to(NULL) + PAGE - 1) & ~(PAGE - 1));
	for (i = 0; i < old; i++)
		if (probe_load(heap.base + i * PAGE, &v))
			*wrong |= W(BRK_MISSING);
		else if (v != heap.words[i])
			*wrong |= W(BRK_LOST);
	if (what == W(BRK_GROW)) {
		if (old + pages > BRK_MOST)
			pages = BRK_MOST - old;
		if (brk_to(heap.base + (old + pages) * PAGE) != heap.base + (old + pages) * PAGE)
			return -ENOMEM;
		for (i = old; i < old + pages; i++) {
			if (probe_load(heap.base + i * PAGE, &v))
				*wrong |= W(BRK_MISSING);
			else if (v)
				*wrong |= W(BRK_OLD);
			heap.words[i] = stamp();
			if (probe_store(heap.base + i * PAGE, heap.words[i]))
				*wrong |= W(BRK_MISSING);
		}
		heap.pages = old + pages;
	} else if (what == W(BRK_SHRINK)) {
		if (pages > old)
			pages = old;
		if (brk_to(heap.base + (old - pages) * PAGE) != heap.base + (old - pages) * PAGE)
			return -ENOMEM;
		heap.pages = old - pages;
		for (i = heap.pages; i < old; i++)
			if (!probe_load(heap.base + i * PAGE, &v))
				*wrong |= W(BRK_THERE);
	}
	return 0;
}

static long do_system(unsigned int what)
{
	switch (what) {
	case W(SYSTEM_CHECK):
		return read_all("/sys/kernel/debug/mm_view/check");
	case W(SYSTEM_VIEWS):
		return read_all("/proc/self/mm_views");
	case W(SYSTEM_SMAPS):
		return read_all("/proc/self/smaps");
	case W(SYSTEM_COMPACT):
		return write_file("/proc/sys/vm/compact_memory", "1");
	case W(SYSTEM_DROP):
		return write_file("/proc/sys/vm/drop_caches", "3");
	case W(SYSTEM_CLEAR):
		return write_file("/proc/self/clear_refs", "1");
	case W(SYSTEM_PAGEMAP):
		return read_all("/proc/self/numa_maps");
	case W(SYSTEM_KSM):
		return write_file("/sys/kernel/mm/ksm/run", "1");
	case W(SYSTEM_HIGH):
		return do_high();
	default:
		return write_file("/sys/fs/cgroup/memory.reclaim", "512K");
	}
}

static long do_vfork(bool exec)
{
	static char *const argv[] = { (char *)"wflp-fuzz", (char *)"-nothing", NULL };
	int status = 0;
	pid_t pid = vfork();

	if (!pid) {
		if (exec)
			execv("/proc/self/exe", argv);
		_exit(0);
	}
	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
		;
	return status;
}

/*
 * A debugger of the thread's own family: stops it, looks, writes perhaps, and
 * goes. The thread it is about need not be there any more.
 */
static long do_trace(unsigned int list, unsigned int fn, bool poke, uint64_t *val)
{
	pid_t tid = (pid_t)R.streams[list].tid;
	uint64_t *shared_val = val;	/* the trace is shared memory */
	pid_t pid;
	int status = 0;

	if (R.streams[list].pid != (uint32_t)R.pid || R.streams[list].state != W(STATE_RUNNING))
		return -ESRCH;
	pid = fork();
	if (!pid) {
		long word;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* Not PTRACE_ATTACH: its SIGSTOP would outlive a debugger that fails. */
		if (ptrace(PTRACE_SEIZE, tid, 0, 0) || ptrace(PTRACE_INTERRUPT, tid, 0, 0))
			_exit(1);
		if (waitpid(tid, &status, __WALL) != tid || !WIFSTOPPED(status))
			_exit(1);
		errno = 0;
		word = ptrace(PTRACE_PEEKTEXT, tid, fn_addr(fn), 0);
		if (!errno) {
			unsigned char buf[8];
			uint64_t v;

			memcpy(buf, &word, 8);
			if (poke) {
				fn_bytes(buf, (uint32_t)*shared_val);
				memcpy(&word, buf, 8);
				if (ptrace(PTRACE_POKETEXT, tid, fn_addr(fn), word))
					_exit(2);
			} else {
				probe_code(buf, &v);
				*shared_val = v;
			}
		}
		status = errno ? 2 : 0;
		ptrace(PTRACE_DETACH, tid, 0, 0);
		_exit(status);
	}
	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return FUZZWIRE_FN_BYTES;
	return WIFEXITED(status) && WEXITSTATUS(status) == 2 ? -EIO : -ESRCH;
}

void op_run(const struct fuzzwire_op *o)
{
	unsigned int area = o->a % W(AREAS), units = area == W(AREA_CODE) ? W(CODE_UNITS) : W(UNITS);
	unsigned int unit = o->b % units, count = o->c, where = area << 8 | unit;
	int fd = fd_of(o->a);
	struct fuzzwire_record *r;
	bool by_prctl = o->e & 1;
	long ret;

	if (!count)
		count = 1;
	if (count > units - unit)
		count = units - unit;
	/* The count goes along, for those that work on a range. */
	switch (o->kind) {
	case W(OP_CREATE):
		do_create(o);
		return;
	case W(OP_WRITE): {
		unsigned char buf[FUZZWIRE_FN_BYTES];
		unsigned int fn = o->b % W(CELLS);

		r = rec_begin(o->kind, fn, fd);
		r->val = fn_value();
		fn_bytes(buf, (uint32_t)r->val);
		fail_arm();
		ret = neg(pwrite(fd, buf, sizeof(buf), (off_t)fn_addr(fn)));
		break;
	}
	case W(OP_READ): {
		unsigned char buf[FUZZWIRE_FN_BYTES] = { 0 };
		unsigned int fn = o->b % W(CELLS);

		r = rec_begin(o->kind, fn, fd);
		ret = neg(pread(fd, buf, sizeof(buf), (off_t)fn_addr(fn)));
		if (ret == sizeof(buf))
			probe_code(buf, &r->val);
		break;
	}
	case W(OP_SEAL):
		r = rec_begin(o->kind, 0, fd);
		fail_arm();
		ret = ctl(fd, VIEW_SEAL, NULL, 0, by_prctl);
		break;
	case W(OP_ENTER):
		r = rec_begin(o->kind, o->b, fd);
		ret = enter(fd, o->b, by_prctl);
		break;
	case W(OP_RETIRE):
		r = rec_begin(o->kind, 0, fd);
		ret = ctl(fd, VIEW_RETIRE, NULL, 0, by_prctl);
		break;
	case W(OP_REBASE):
		r = rec_begin(o->kind, 0, fd);
		fail_arm();
		ret = ctl(fd, VIEW_REBASE, NULL, 0, by_prctl);
		break;
	case W(OP_STAT): {
		struct view_stat st = { 0 };

		r = rec_begin(o->kind, 0, fd);
		ret = ctl(fd, VIEW_STAT, &st, sizeof(st), by_prctl);
		r->val = st.id | (uint64_t)st.flags << 32 | (uint64_t)st.private_pages << 40;
		r->ext = st.threads | (uint64_t)st.views << 16 | (uint64_t)st.threads_in_views << 32;
		break;
	}
	case W(OP_POLL):
		r = rec_begin(o->kind, o->b, fd);
		ret = poll_view(fd, o->b);
		break;
	case W(OP_PULL):
		do_pull(o, fd);
		return;
	case W(OP_REGISTER):
		r = rec_begin(o->kind, o->a & 1, -1);
		ret = ctl(-1, VIEW_REGISTER, o->a & 1 ? &self->word : NULL, o->a & 1 ? 4 : 0, by_prctl);
		break;
	case W(OP_CLOSE):
		if (o->a < W(SLOTS)) {
			fd = __atomic_exchange_n(&R.slots[o->a], -1, __ATOMIC_SEQ_CST);
			close_record(fd, 0);
		}
		return;
	case W(OP_DUP):
		r = rec_begin(o->kind, 0, fd);
		ret = fd < W(FIRST_FD) ? -EBADF : neg(fcntl(fd, F_DUPFD_CLOEXEC, W(FIRST_FD)));
		rec_end(r, ret);
		if (ret >= 0)
			put_slot(o->b, (int)ret);
		return;
	case W(OP_WHO):
		do_who();
		return;
	case W(OP_MISUSE):
		do_misuse(o, fd);
		return;
	case W(OP_LOAD):
		for (unsigned int i = 0; i < count; i++)
			do_load(area, area == W(AREA_CODE) ? (2 * unit + i) % W(CELLS) : unit + i);
		return;
	case W(OP_STORE):
		if (area != W(AREA_CODE))
			for (unsigned int i = 0; i < count; i++)
				do_store(area, unit + i);
		return;
	case W(OP_EXEC):
		for (unsigned int i = 0; i < (o->c ? o->c : 1u); i++)
			do_exec((o->b + i) % W(CELLS));
		return;
	case W(OP_MMAP): {
		unsigned int kind = area == W(AREA_CODE) ? W(MAP_PRIVATE) : o->d % W(MAP_KINDS);
		unsigned int prot = o->e % W(PROT_KINDS);
		void *p;

		r = rec_begin(o->kind, where, (int)count);
		r->val = kind | prot << 8;
		fail_arm();
		p = map_area(area, unit, count, kind, prot);
		ret = p == MAP_FAILED ? -errno : p == unit_addr(area, unit) ? 0 : -EIO;
		break;
	}
	case W(OP_MUNMAP):
		r = rec_begin(o->kind, where, (int)count);
		fail_arm();
		ret = neg(munmap(unit_addr(area, unit), count * unit_len(area)));
		break;
	case W(OP_MPROTECT):
		r = rec_begin(o->kind, where, (int)count);
		r->val = o->d % W(PROT_KINDS);
		fail_arm();
		ret = neg(mprotect(unit_addr(area, unit), count * unit_len(area), mprotect_prot[r->val]));
		break;
	case W(OP_MREMAP): {
		unsigned int to = o->d % W(AREAS), tunits = to == W(AREA_CODE) ? W(CODE_UNITS) : W(UNITS);
		unsigned int tunit = o->e % tunits;
		size_t len = count * unit_len(area);
		void *p;

		r = rec_begin(o->kind, where, (int)count);
		r->val = to << 8 | tunit;
		fail_arm();
		p = mremap(unit_addr(area, unit), len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
			   unit_addr(to, tunit));
		ret = p == MAP_FAILED ? -errno : p == unit_addr(to, tunit) ? 0 : -EIO;
		break;
	}
	case W(OP_MADVISE):
		r = rec_begin(o->kind, where, (int)count);
		r->val = o->d;
		fail_arm();
		ret = neg(madvise(unit_addr(area, unit), count * unit_len(area), o->d));
		break;
	case W(OP_MLOCK):
		r = rec_begin(o->kind, where, (int)count);
		r->val = o->d;
		fail_arm();
		ret = neg((o->d ? mlock : munlock)(unit_addr(area, unit), count * unit_len(area)));
		break;
	case W(OP_TRUNCATE):
		if (area == W(AREA_CODE))
			return;
		r = rec_begin(o->kind, where, (int)(units - unit));
		ret = neg(ftruncate(R.files[area], (off_t)(unit * unit_len(area))));
		if (!ret)
			ret = neg(ftruncate(R.files[area], (off_t)(units * unit_len(area))));
		break;
	case W(OP_FILE_WRITE):
		if (area == W(AREA_CODE))
			return;
		r = rec_begin(o->kind, where, 1);
		r->val = word_value();
		ret = neg(pwrite(R.files[area], &r->val, 8, (off_t)(unit * unit_len(area) + W(WORD_OFF))));
		break;
	case W(OP_FILE_READ):
		if (area == W(AREA_CODE))
			return;
		r = rec_begin(o->kind, where, 1);
		ret = neg(pread(R.files[area], &r->val, 8, (off_t)(unit * unit_len(area) + W(WORD_OFF))));
		break;
	case W(OP_FORK):
		r = rec_begin(o->kind, o->a, -1);
		ret = list_fork(o->a);
		break;
	case W(OP_SPAWN):
		r = rec_begin(o->kind, o->a, -1);
		ret = list_spawn(o->a);
		break;
	case W(OP_VFORK):
		r = rec_begin(o->kind, o->a, -1);
		ret = do_vfork(o->a & 1);
		break;
	case W(OP_SLEEP):
		do_sleep(o);
		return;
	case W(OP_SIGNAL): {
		struct fuzzwire_stream *s = &R.streams[o->a % (R.nlists + 1)];

		if (s->pid != (uint32_t)R.pid || s->state != W(STATE_RUNNING))
			return;
		r = rec_begin(o->kind, o->a, -1);
		ret = neg(syscall(SYS_tgkill, R.pid, s->tid, SIGUSR1));
		break;
	}
	case W(OP_MEET): {
		uint32_t *p = &R.shared->meet[o->a % 16];
		uint64_t until = now_ns() + 3000000;

		__atomic_add_fetch(p, 1, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(p, __ATOMIC_SEQ_CST) < o->b && now_ns() < until)
			sched_yield();
		return;
	}
	case W(OP_YIELD):
		sched_yield();
		return;
	case W(OP_TASK_READ):
	case W(OP_TASK_WRITE): {
		unsigned int fn = o->b % W(CELLS);

		r = rec_begin(o->kind, fn, (int)(o->a % (R.nlists + 1)));
		if (o->kind == W(OP_TASK_WRITE))
			r->val = fn_value();
		ret = task_mem(o->a % (R.nlists + 1), fn, &r->val, o->kind == W(OP_TASK_WRITE));
		break;
	}
	case W(OP_VM_READ): {
		unsigned char buf[FUZZWIRE_FN_BYTES] = { 0 };
		unsigned int fn = o->b % W(CELLS);
		struct iovec to = { buf, sizeof(buf) }, from = { fn_addr(fn), sizeof(buf) };

		r = rec_begin(o->kind, fn, -1);
		ret = neg(process_vm_readv(R.pid, &to, 1, &from, 1, 0));
		if (ret == sizeof(buf))
			probe_code(buf, &r->val);
		break;
	}
	case W(OP_HOTPLUG): {
		char path[64];

		snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/online", o->a);
		r = rec_begin(o->kind, o->a, -1);
		ret = write_file(path, "0");
		if (ret >= 0)
			ret = write_file(path, "1");
		break;
	}
	case W(OP_SYSTEM):
		r = rec_begin(o->kind, o->a, -1);
		ret = do_system(o->a);
		break;
	case W(OP_USERFAULT):
		if (area == W(AREA_CODE))
			return;
		r = rec_begin(o->kind, where, (int)count);
		r->val = o->e;
		if (o->e == W(USERFAULT_PROTECT))
			ret = do_protect(unit_addr(area, unit), unit_len(area), count,
					 (o->d & 15u) * 50000ull, &r->ext);
		else
			ret = do_userfault(unit_addr(area, unit), count * unit_len(area),
					   (o->d & 15u) * 50000ull);
		break;
	case W(OP_BRK):
		if (__atomic_exchange_n(&heap.busy, 1, __ATOMIC_ACQUIRE))
			return;
		r = rec_begin(o->kind, o->a, -1);
		ret = do_brk(o->a, o->b, &r->val);
		__atomic_store_n(&heap.busy, 0, __ATOMIC_RELEASE);
		break;
	case W(OP_FAIL):
		self->fail = o->a;
		return;
	case W(OP_TRACE): {
		unsigned int fn = o->b % W(CELLS);

		r = rec_begin(o->kind, fn, (int)(o->a % (R.nlists + 1)));
		r->ext = o->c & 1;
		if (r->ext)
			r->val = fn_value();
		ret = do_trace(o->a % (R.nlists + 1), fn, o->c & 1, &r->val);
		break;
	}
	default:
		return;
	}
	fail_disarm(r);
	rec_end(r, ret);
}

/* Everything once more from everywhere, by a thread that is alone. */
static void look_at_all(bool data)
{
	for (unsigned int fn = 0; fn < W(CELLS); fn++)
		do_exec(fn);
	for (unsigned int a = 0; data && a < W(DATA_AREAS); a++)
		for (unsigned int u = 0; u < W(UNITS); u++)
			do_load(a, u);
}

void op_final(void)
{
	struct fuzzwire_record *r;
	struct view_stat st;
	uint64_t until;
	long ret;

	self->op = W(MAX_OPS);
	do_who();
	look_at_all(true);
	for (unsigned int s = 0; s < W(SLOTS); s++) {
		if (R.slots[s] < 0)
			continue;
		r = rec_begin(W(OP_ENTER), 0, R.slots[s]);
		if (!rec_end(r, enter(R.slots[s], 0, false))) {
			do_who();
			look_at_all(true);
		}
	}
	r = rec_begin(W(OP_ENTER), 0, -1);
	rec_end(r, enter(-1, 0, false));
	look_at_all(true);
	for (unsigned int s = 0; s < W(SLOTS); s++)
		if (R.slots[s] >= 0)
			close_record(R.slots[s], 0);
	/* What others let go of goes when the kernel comes to it. */
	until = now_ns() + 2000000000ull;
	do {
		memset(&st, 0, sizeof(st));
		ret = ctl(-1, VIEW_STAT, &st, sizeof(st), false);
		if (ret || !(st.views || st.threads_in_views))
			break;
		usleep(200);
	} while (now_ns() < until);
	R.trace->left = st.views;
	r = rec_begin(W(OP_STAT), 1, -1);
	r->ext = (uint64_t)st.views << 16 | (uint64_t)st.threads_in_views << 32;
	rec_end(r, ret);
}

/* ---- coverage ---- */

#define KCOV_INIT_TRACE _IOR('c', 1, unsigned long)
#define KCOV_ENABLE _IO('c', 100)
#define KCOV_DISABLE _IO('c', 101)
#define KCOV_WORDS 32768ul

void kcov_start(void)
{
	int fd;

	self->kcov = NULL;
	if (!R.pcs)
		return;
	fd = open("/sys/kernel/debug/kcov", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	self->kcov_fd = fcntl(fd, F_DUPFD_CLOEXEC, 60);
	close(fd);
	if (ioctl(self->kcov_fd, KCOV_INIT_TRACE, KCOV_WORDS))
		return;
	self->kcov = mmap(NULL, KCOV_WORDS * 8, PROT_READ | PROT_WRITE, MAP_SHARED, self->kcov_fd, 0);
	if (self->kcov == MAP_FAILED || ioctl(self->kcov_fd, KCOV_ENABLE, 0))
		self->kcov = NULL;
	else
		__atomic_store_n(&self->kcov[0], 0, __ATOMIC_RELAXED);
}

/* What has been seen so far goes into the set that all threads share. */
static void kcov_take(void)
{
	uint64_t n = self->kcov[0];

	for (uint64_t i = 1; i <= n && i < KCOV_WORDS; i++) {
		uint64_t pc = self->kcov[i], h = pc * 0x9e3779b97f4a7c15ull >> 48;

		for (unsigned int tries = 0; pc && tries < 64; tries++, h++) {
			uint64_t none = 0, *p = &R.pcs[h % PCS];

			if (*p == pc || __atomic_compare_exchange_n(p, &none, pc, false, __ATOMIC_RELAXED,
								    __ATOMIC_RELAXED) || none == pc)
				break;
		}
	}
	/* Between two operations the kernel adds nothing for this thread. */
	__atomic_store_n(&self->kcov[0], 0, __ATOMIC_RELAXED);
}

/* The kernel drops what does not fit, so it is emptied before it is full. */
void kcov_room(void)
{
	if (self->kcov && self->kcov[0] > KCOV_WORDS / 2)
		kcov_take();
}

void kcov_stop(void)
{
	if (!self->kcov)
		return;
	ioctl(self->kcov_fd, KCOV_DISABLE, 0);
	kcov_take();
	munmap(self->kcov, KCOV_WORDS * 8);
	close(self->kcov_fd);
}
