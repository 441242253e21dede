/* SPDX-License-Identifier: MIT */
/* The real machine behind struct wflp_sys. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

#define neg_errno(expr) ({			\
	__typeof__(expr) r_ = (expr);		\
	r_ < 0 ? -errno : r_;			\
})

/*
 * By prctl(2), which lists of allowed system calls contain: a filter whose answer
 * to an unknown number is SIGKILL must not see one.
 */
static long view_call(unsigned int op, unsigned long a, unsigned long b, unsigned long c)
{
	return neg_errno(mm_view_prctl(op, a, b, c));
}

static int sys_create(unsigned int flags)
{
	return (int)view_call(MM_VIEW_CREATE, flags, 0, 0);
}

static int sys_enter(int fd, unsigned int flags)
{
	return (int)view_call(MM_VIEW_ENTER, (unsigned long)fd, flags, 0);
}

static long sys_ctl(int fd, unsigned int op, void *arg, size_t size)
{
	return view_call(op, (unsigned long)fd, (unsigned long)arg, size);
}

/*
 * An address of the upper half is negative as an offset, which the kernel
 * answers with EINVAL before it looks at any mapping; to a caller who named
 * an address it is simply not one.
 */
static ssize_t sys_read(int fd, void *buf, size_t len, uintptr_t addr)
{
	if ((off_t)addr < 0)
		return -EFAULT;
	return neg_errno(pread(fd, buf, len, (off_t)addr));
}

static ssize_t sys_write(int fd, const void *buf, size_t len, uintptr_t addr)
{
	if ((off_t)addr < 0)
		return -EFAULT;
	return neg_errno(pwrite(fd, buf, len, (off_t)addr));
}

static int sys_close(int fd)
{
	return neg_errno(close(fd));
}

int wflp_proc = -1;

int wflp_proc_open(const char *path, int flags)
{
	char name[64];

	if (wflp_proc >= 0)
		return neg_errno(openat(wflp_proc, path, flags | O_CLOEXEC));
	snprintf(name, sizeof(name), "/proc/%s", path);
	return neg_errno(open(name, flags | O_CLOEXEC));
}

static int64_t sys_thread_view(pid_t tid)
{
	char path[48], buf[32];
	int fd, saved;
	ssize_t n;

	snprintf(path, sizeof(path), "self/task/%d/mm_view", (int)tid);
	fd = wflp_proc_open(path, O_RDONLY);
	if (fd < 0)
		return fd;
	n = read(fd, buf, sizeof(buf) - 1);
	saved = errno;
	close(fd);
	if (n < 0)
		return -saved;
	buf[n] = '\0';
	return (int64_t)strtoull(buf, NULL, 10);
}

static pid_t sys_thread_in_view(uint64_t id)
{
	int fd = wflp_proc_open("self/task", O_RDONLY | O_DIRECTORY);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;
	pid_t found = 0;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (!found && (de = readdir(dir))) {
		pid_t tid = (pid_t)atoi(de->d_name);

		if (tid > 0 && sys_thread_view(tid) == (int64_t)id)
			found = tid;
	}
	closedir(dir);
	return found;
}

static int sys_mem_open(void)
{
	return wflp_proc_open("self/mem", O_RDWR);
}

/* A hole in the address space is EIO to readers and writers of mem. */
static ssize_t sys_mem_read(int fd, void *buf, size_t len, uintptr_t addr)
{
	ssize_t n = sys_read(fd, buf, len, addr);

	return n == -EIO ? -EFAULT : n;
}

static ssize_t sys_mem_write(int fd, const void *buf, size_t len, uintptr_t addr)
{
	ssize_t n = sys_write(fd, buf, len, addr);

	/* The mapping was looked at before: what is refused here is policy. */
	return n == -EIO ? -EACCES : n;
}

static int sys_sync_core_register(void)
{
	return neg_errno((int)syscall(SYS_membarrier,
		MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0));
}

static int sys_sync_core(void)
{
	return neg_errno((int)syscall(SYS_membarrier,
		MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0));
}

struct wflp_sys wflp_sys = {
	.view_create = sys_create,
	.view_enter = sys_enter,
	.view_ctl = sys_ctl,
	.view_read = sys_read,
	.view_write = sys_write,
	.view_close = sys_close,
	.thread_view = sys_thread_view,
	.thread_in_view = sys_thread_in_view,
	.mem_open = sys_mem_open,
	.mem_read = sys_mem_read,
	.mem_write = sys_mem_write,
	.sync_core_register = sys_sync_core_register,
	.sync_core = sys_sync_core,
	.alloc = malloc,
};
