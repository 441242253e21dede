/* SPDX-License-Identifier: MIT */
/* A patch is refused whole, says why and where, and changes nothing. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"

static struct subject s;
static const uint32_t zero, one = 1, wrong = 77;

static void refused(struct wflp_edit second, int error, const char *what)
{
	/* The first edit is good: it must not be left behind. */
	struct wflp_edit e[2] = { { s.imm[0], &zero, &one, 4 }, second };
	struct wflp_report r;
	int64_t ticket = wflp_apply(e, 2, 0);

	int stage = ticket > 0 ? finish(ticket, WFLP_RELEASED) : -1;

	need(!wflp_report(ticket, &r, sizeof(r)), "report");
	ok(stage == WFLP_FAILED && r.error == error &&
	   r.bad_edit == 1 && r.generation == 0 && !r.last_over_ns,
	   "%s: error %d, want %d, edit %d", what, r.error, error, r.bad_edit);
	wflp_quiescent();
	if (s.call() || wflp_newest_generation() || wflp_thread_generation())
		ok(false, "%s: something changed", what);
}

static uint8_t *page(int prot, int flags, int fd)
{
	uint8_t *p = mmap(NULL, 4096, prot, flags, fd, 0);

	need(p != MAP_FAILED, "mmap");
	return p;
}

int main(int argc, char **argv)
{
	enum wflp_strategy strategy = init_from_args(argc, argv);
	const int anon = MAP_PRIVATE | MAP_ANONYMOUS;
	static uint8_t zeros[8192], ones[8192];
	struct wflp_report r;
	uint8_t *p;
	int64_t t;
	int fd;

	deadline(20);
	memset(ones, 1, sizeof(ones));
	subject_make(&s, 0);
	/* The sleeper's part is not in question here. */
	need(!wflp_thread_register(), "register");

	refused((struct wflp_edit){ s.imm[1], &wrong, &one, 4 }, -ESTALE, "old bytes differ");
	refused((struct wflp_edit){ s.imm[1] - 1, "\xba\0\0\0\1", "\xba\1\0\0\0", 5 },
		-ESTALE, "the last old byte differs");

	p = page(PROT_READ | PROT_EXEC, anon, -1);
	munmap(p, 4096);
	refused((struct wflp_edit){ p, zeros, ones, 1 }, -EFAULT, "unmapped");
	refused((struct wflp_edit){ NULL, zeros, ones, 1 }, -EFAULT, "address 0");
	refused((struct wflp_edit){ (void *)0xffffffff81000000, zeros, ones, 1 }, -EFAULT,
		"an address of the kernel");

	p = mmap(NULL, 8192, PROT_READ | PROT_EXEC, anon, -1, 0);
	need(p != MAP_FAILED, "mmap");
	munmap(p + 4096, 4096);
	refused((struct wflp_edit){ p + 4090, zeros, ones, 12 }, -EFAULT, "runs into a hole");
	munmap(p, 4096);

	p = mmap(NULL, 8192, PROT_READ | PROT_EXEC, anon, -1, 0);
	need(p != MAP_FAILED, "mmap");
	mprotect(p + 4096, 4096, PROT_READ);
	refused((struct wflp_edit){ p + 4090, zeros, ones, 12 }, -EACCES, "runs into data");
	munmap(p, 8192);

	p = page(PROT_READ, anon, -1);
	refused((struct wflp_edit){ p, zeros, ones, 1 }, -EACCES, "not executable");
	munmap(p, 4096);
	p = page(PROT_READ | PROT_WRITE | PROT_EXEC, anon, -1);
	refused((struct wflp_edit){ p, zeros, ones, 1 }, -EACCES, "writable");
	munmap(p, 4096);

	fd = memfd_create("t_refuse", 0);
	need(fd >= 0 && !ftruncate(fd, 4096), "memfd");
	p = page(PROT_READ | PROT_EXEC, MAP_SHARED, fd);
	refused((struct wflp_edit){ p, zeros, ones, 1 }, -EACCES, "shared");
	munmap(p, 4096);
	close(fd);

	p = (uint8_t *)getauxval(AT_SYSINFO_EHDR);
	if (p)
		refused((struct wflp_edit){ p, "\x7f""ELF", "\x7f""ELG", 4 }, -EACCES, "vdso");

	p = mmap(NULL, 2 << 20, PROT_READ | PROT_EXEC, anon | MAP_HUGETLB, -1, 0);
	if (p != MAP_FAILED) {
		refused((struct wflp_edit){ p, zeros, ones, 1 }, -EOPNOTSUPP, "hugetlb");
		munmap(p, 2 << 20);
	} else {
		note("no huge page to be had: hugetlb not tried");
	}

	/* After all that the next patch is the first. */
	t = subject_patch(&s, 0, 1, 0);
	wflp_offline();
	finish(t, WFLP_LAST_OVER);
	wflp_online();
	need(!wflp_report(t, &r, sizeof(r)), "report");
	ok(report_sane(&r, strategy) && r.generation == 1,
	   "a good patch goes through: generation %llu", (unsigned long long)r.generation);
	is((long long)s.call(), 1ll << 32 | 1, "and is seen");

	/* What is old now is what the last patch made. */
	t = subject_patch(&s, 0, 2, 0);
	wflp_offline();
	is(finish(t, WFLP_LAST_OVER), WFLP_FAILED, "the same old bytes a second time");
	wflp_online();
	ok(!wflp_report(t, &r, sizeof(r)) && r.error == -ESTALE && r.bad_edit == 0, "stale");

	/* An edit over many pages, and many edits. */
	p = mmap(NULL, 8192, PROT_READ | PROT_EXEC, anon, -1, 0);
	need(p != MAP_FAILED, "mmap");
	t = wflp_apply(&(struct wflp_edit){ p, zeros, ones, 8192 }, 1, 0);
	wflp_offline();
	ok(finish(t, WFLP_LAST_OVER) >= WFLP_LAST_OVER, "two whole pages");
	wflp_online();
	ok(!memcmp(p, ones, 8192), "are changed");
	munmap(p, 8192);

	wflp_thread_unregister();
	is(wflp_fini(), 0, "fini");
	return done();
}
