// SPDX-License-Identifier: Apache-2.0
/*
 * inview.so: preloaded into any program, it puts that program into a view with
 * private pages before main() runs.  Threads inherit the view; children that
 * are forked, or cloned in other ways, and programs that are executed, do the
 * same again.
 *
 * The program must not notice: no descriptor stays open (a view whose
 * descriptor is closed is retired, which keeps nobody out who is in it, nor
 * the threads they create), nothing is printed, nothing allocated, and errno
 * and the signal mask are as before.
 *
 * A program that stayed in the base would prove nothing.  So whatever goes
 * wrong leaves a note in NOTES, and each program that was started leaves one
 * when it went well.  Notes are symbolic links to nowhere that carry their text
 * as the target: making one takes no descriptor, which a program may have used
 * up, and no file size, which it may have limited.  Where not even a note can
 * be left the process ends with INVIEW_LOST.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <wflp/mm_view.h>

#include "inview.h"

#define PAGE 4096ul

/*
 * Of each mapping of code so many pages are made private, spread over it.  Not
 * all: the entries between them are to be mirrors, which is where a view and
 * the base could come to disagree.
 */
#define PAGES_EACH 12
#define MAPPINGS_MAX 64

/*
 * What is code, found once.  A child that is forked looks at the same places
 * without reading /proc, which may not be there for it any more.
 */
static struct {
	unsigned long start, end;
} code[MAPPINGS_MAX];
static unsigned int nr_code;

static long raw(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d;
	register long r8 asm("r8") = e;
	register long r9 asm("r9") = f;
	long ret;

	asm volatile("syscall"
		     : "=a"(ret)
		     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	if (ret < 0 && ret > -4096) {
		errno = (int)-ret;
		return -1;
	}
	return ret;
}

static long sys(long nr, long a, long b, long c, long d)
{
	return raw(nr, a, b, c, d, 0, 0);
}

static char *put_str(char *p, char *end, const char *s)
{
	while (*s && p < end)
		*p++ = *s++;
	return p;
}

static char *put_num(char *p, char *end, unsigned long n)
{
	char digits[20];
	int i = 0;

	do {
		digits[i++] = (char)('0' + n % 10);
		n /= 10;
	} while (n);
	while (i && p < end)
		*p++ = digits[--i];
	return p;
}

/* A note named KIND.PID with the text "WHAT A B". */
static void note(const char *kind, const char *what, unsigned long a, unsigned long b)
{
	char name[sizeof(INVIEW_NOTES) + 64], text[96];
	char *p = name, *end = name + sizeof(name) - 1;

	p = put_str(p, end, INVIEW_NOTES "/");
	p = put_str(p, end, kind);
	p = put_str(p, end, ".");
	p = put_num(p, end, (unsigned long)sys(SYS_getpid, 0, 0, 0, 0));
	*p = 0;
	p = text;
	end = text + sizeof(text) - 1;
	p = put_str(p, end, what);
	p = put_str(p, end, " ");
	p = put_num(p, end, a);
	p = put_str(p, end, " ");
	p = put_num(p, end, b);
	*p = 0;
	/* EEXIST is a program that executed another one: it went well before. */
	if (sys(SYS_symlinkat, (long)text, AT_FDCWD, (long)name, 0) && errno != EEXIST)
		sys(SYS_exit_group, INVIEW_LOST, 0, 0, 0);
}

static unsigned long hex(const char **s)
{
	unsigned long n = 0;

	for (;; (*s)++) {
		char c = **s;

		if (c >= '0' && c <= '9')
			n = n << 4 | (unsigned long)(c - '0');
		else if (c >= 'a' && c <= 'f')
			n = n << 4 | (unsigned long)(c - 'a' + 10);
		else
			return n;
	}
}

/* One line of maps: private code of a file, which neither vdso nor vvar are. */
static void map_line(const char *s)
{
	unsigned long start, end;

	start = hex(&s);
	if (*s++ != '-')
		return;
	end = hex(&s);
	if (strncmp(s, " r-xp ", 6) && strncmp(s, " --xp ", 6))
		return;
	if (!strchr(s, '/') || nr_code == MAPPINGS_MAX)
		return;
	code[nr_code].start = start;
	code[nr_code++].end = end;
}

static bool find_code(void)
{
	static char buf[4096 + 1];
	size_t have = 0;
	long n;
	int fd;

	fd = (int)sys(SYS_openat, AT_FDCWD, (long)"/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	while ((n = sys(SYS_read, fd, (long)(buf + have), (long)(sizeof(buf) - 1 - have), 0)) > 0) {
		char *line = buf, *nl;

		have += (size_t)n;
		buf[have] = 0;
		while ((nl = strchr(line, '\n'))) {
			*nl = 0;
			map_line(line);
			line = nl + 1;
		}
		have = (size_t)(buf + have - line);
		memmove(buf, line, have);
	}
	sys(SYS_close, fd, 0, 0, 0);
	return nr_code > 0;
}

/* Exchange a page of the view for a copy of it. */
static long own_page(int fd, unsigned long addr)
{
	static char page[PAGE];

	if (sys(SYS_pread64, fd, (long)page, PAGE, (long)addr) != (long)PAGE)
		return -1;
	return sys(SYS_pwrite64, fd, (long)page, PAGE, (long)addr) == (long)PAGE ? 0 : -1;
}

static unsigned int own_pages(int fd)
{
	unsigned int i, k, nr = 0;

	for (i = 0; i < nr_code; i++) {
		unsigned long pages = (code[i].end - code[i].start) / PAGE;
		unsigned long want = pages < PAGES_EACH ? pages : PAGES_EACH;

		for (k = 0; k < want; k++) {
			/* The first and the last, and what is between them. */
			unsigned long at = want == 1 ? 0 : k * (pages - 1) / (want - 1);

			/*
			 * What the program has unmapped or changed since is no
			 * mistake, as long as some page is left.
			 */
			if (own_page(fd, code[i].start + at * PAGE) == 0)
				nr++;
		}
	}
	return nr;
}

static void move(bool program)
{
	struct mm_view_stat stat;
	const char *failed = NULL;
	int fd;

	fd = mm_view_create(0);
	if (fd < 0) {
		note("failed", "create", (unsigned long)errno, 0);
		return;
	}
	if (!own_pages(fd))
		failed = "pwrite";
	else if (mm_view_ctl(fd, MM_VIEW_SEAL, NULL, 0))
		failed = "seal";
	else if (mm_view_enter(fd, 0))
		failed = "enter";
	else if (mm_view_ctl(fd, MM_VIEW_STAT, &stat, sizeof(stat)))
		failed = "stat";
	if (failed)
		note("failed", failed, (unsigned long)errno, 0);
	else if (!stat.private_pages || !stat.own_tables || stat.threads != 1)
		note("failed", "content", stat.private_pages, stat.own_tables);
	else if (program)
		note("program", "private pages and own tables:", stat.private_pages, stat.own_tables);
	sys(SYS_close, fd, 0, 0, 0);
}

/* With all signals held back: a handler is not to run half in a view. */
static void start(bool program)
{
	unsigned long all = ~0ul, mask;
	int saved = errno;

	sys(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&mask, sizeof(mask));
	if (program && !find_code())
		note("failed", "maps", (unsigned long)errno, nr_code);
	else
		move(program);
	sys(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, sizeof(mask));
	errno = saved;
}

static void forked(void)
{
	start(false);
}

/*
 * Children also come by way of syscall(2): the harness of the kernel's tests
 * makes its own so.  A call that makes a child with memory of its own takes the
 * way through clone_child(); every other one is what libc's would be, and uses
 * no stack: after a clone with CLONE_VM parent and child share it.
 */
__attribute__((used)) static long clone_child(long nr, long a, long b, long c, long d, long e, long f)
{
	long pid = raw(nr, a, b, c, d, e, f);

	if (pid == 0)
		start(false);
	return pid;
}

asm(".text\n"
    ".globl syscall\n"
    ".type syscall, @function\n"
    "syscall:\n"
    "	cmp $56, %rdi\n" /* clone: the flags are its first argument */
    "	jne 1f\n"
    "	test $0x100, %esi\n"
    "	jz clone_child\n"
    "1:	cmp $57, %rdi\n" /* fork */
    "	je clone_child\n"
    "	cmp $435, %rdi\n" /* clone3: the first word of a structure */
    "	jne 2f\n"
    "	cmp $4096, %rsi\n" /* a test of bad pointers */
    "	jb 2f\n"
    "	testl $0x100, (%rsi)\n"
    "	jz clone_child\n"
    "2:	mov %rdi, %rax\n"
    "	mov %rsi, %rdi\n"
    "	mov %rdx, %rsi\n"
    "	mov %rcx, %rdx\n"
    "	mov %r8, %r10\n"
    "	mov %r9, %r8\n"
    "	mov 8(%rsp), %r9\n"
    "	syscall\n"
    "	cmp $-4095, %rax\n"
    "	jae 3f\n"
    "	ret\n"
    "3:	neg %eax\n" /* there is no child: the stack is ours */
    "	push %rax\n"
    "	call __errno_location@PLT\n"
    "	pop %rcx\n"
    "	mov %ecx, (%rax)\n"
    "	or $-1, %rax\n"
    "	ret\n"
    ".size syscall, .-syscall\n");

/* clone(3) without CLONE_VM: what it is to run finds this on a copy of our stack. */
struct task {
	int (*fn)(void *arg);
	void *arg;
};

static int cloned(void *arg)
{
	struct task *task = arg;

	start(false);
	return task->fn(task->arg);
}

static int (*libc_clone)(int (*fn)(void *), void *stack, int flags, void *arg, ...);

__attribute__((visibility("default")))
int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...)
{
	struct task task = { fn, arg };
	void *ptid, *tls, *ctid;
	va_list more;

	va_start(more, arg);
	ptid = va_arg(more, void *);
	tls = va_arg(more, void *);
	ctid = va_arg(more, void *);
	va_end(more);
	if (flags & CLONE_VM || !fn || !stack)
		return libc_clone(fn, stack, flags, arg, ptid, tls, ctid);
	return libc_clone(cloned, stack, flags, &task, ptid, tls, ctid);
}

__attribute__((constructor)) static void inview(void)
{
	libc_clone = dlsym(RTLD_NEXT, "clone");
	start(true);
	if (pthread_atfork(NULL, NULL, forked))
		note("failed", "atfork", (unsigned long)errno, 0);
}
