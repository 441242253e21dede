/* SPDX-License-Identifier: MIT */
/*
 * Raw system calls of the view mechanism, for programs that drive it without
 * libwflp (micro-benchmarks, tests).  The constants are copies of
 * <linux/mm_view.h>, so that this builds on a machine whose kernel headers
 * know nothing of views; where those headers do know, theirs are used and a
 * difference is a compile error by redefinition.
 *
 * As with syscall(2) each wrapper returns -1 and sets errno on failure.
 */
#ifndef WFLP_MM_VIEW_H
#define WFLP_MM_VIEW_H

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef __x86_64__
#error "views exist on x86-64 only"
#endif

#ifndef __NR_mm_view_create
#define __NR_mm_view_create 480
#endif
#ifndef __NR_mm_view_enter
#define __NR_mm_view_enter 481
#endif
#ifndef __NR_mm_view_ctl
#define __NR_mm_view_ctl 482
#endif

#if defined(__has_include)
#if __has_include(<linux/mm_view.h>)
#include <linux/mm_view.h>
#define WFLP_HAVE_UAPI_MM_VIEW 1
#endif
#endif

#ifndef WFLP_HAVE_UAPI_MM_VIEW
#define MM_VIEW_SEAL		1
#define MM_VIEW_RETIRE		2
#define MM_VIEW_STAT		3
#define MM_VIEW_PULL		4
#define MM_VIEW_REGISTER	5

#define MM_VIEW_STAT_SEALED	1
#define MM_VIEW_STAT_RETIRED	2

#define MM_VIEW_WORD_ONLINE	0
#define MM_VIEW_WORD_OFFLINE	1
#define MM_VIEW_WORD_STATE	1

#define MM_VIEW_CREATE		6
#define MM_VIEW_ENTER		7
#define MM_VIEW_REBASE		8

struct mm_view_pull {
	uint32_t mask;
	uint32_t value;
	uint64_t tids;
	uint32_t nr;
	uint32_t pad;
};

#define MM_VIEW_PULL_SIZE_VER0	8

struct mm_view_stat {
	uint64_t id;
	uint32_t flags;
	uint32_t threads;
	uint32_t private_pages;
	uint32_t own_tables;
	uint32_t views;
	uint32_t threads_in_views;
};
#endif

static inline int mm_view_create(unsigned int flags)
{
	return (int)syscall(__NR_mm_view_create, flags);
}

static inline int mm_view_enter(int fd, unsigned int flags)
{
	return (int)syscall(__NR_mm_view_enter, fd, flags);
}

static inline long mm_view_ctl(int fd, unsigned int op, void *arg, size_t size)
{
	return syscall(__NR_mm_view_ctl, fd, op, arg, size);
}

/*
 * The same calls by way of prctl(2), for programs under a filter that lists the
 * system calls they may use: MM_VIEW_CREATE (flags, 0, 0), MM_VIEW_ENTER (fd,
 * flags, 0), and the operations of mm_view_ctl() (fd, arg, size).
 */
#ifndef PR_MM_VIEW
#define PR_MM_VIEW	0x6d6d7677
#endif

static inline long mm_view_prctl(unsigned int op, unsigned long a, unsigned long b,
				 unsigned long c)
{
	return syscall(SYS_prctl, PR_MM_VIEW, (unsigned long)op, a, b, c);
}

#endif /* WFLP_MM_VIEW_H */
