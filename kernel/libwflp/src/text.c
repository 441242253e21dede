/* SPDX-License-Identifier: MIT */
/*
 * Text as bytes: comparing it, judging whether it may be patched, and changing
 * it in place (barrier and naive; views are written by the kernel).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

#include "internal.h"

#ifndef HUGETLBFS_MAGIC
#define HUGETLBFS_MAGIC 0x958458f6
#endif

/*
 * The same judgement as the kernel's for a view, so that a patch which one
 * strategy refuses is refused by all.  /proc/self/mem alone would not do: it
 * writes through any protection.
 */
static int judge(const char *perms, const char *name)
{
	static const char *const special[] = {
		"[vdso]", "[vvar", "[vsyscall]", "[uprobes]",
	};
	struct statfs fs;

	if (perms[2] != 'x' || perms[1] == 'w' || perms[3] == 's')
		return -EACCES;
	for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
		if (!strncmp(name, special[i], strlen(special[i])))
			return -EACCES;
	if (!strncmp(name, "/anon_hugepage", strlen("/anon_hugepage")))
		return -EOPNOTSUPP;
	if (name[0] == '/' && !statfs(name, &fs) && fs.f_type == HUGETLBFS_MAGIC)
		return -EOPNOTSUPP;
	return 0;
}

/*
 * Edits are sorted by address and do not overlap, mappings are listed in the
 * order of their addresses: one walk serves all edits.  cur is the address up
 * to which edit i is known to be good.
 */
static int walk(FILE *maps, const struct edit *e, const size_t *order, size_t n,
		int32_t *bad)
{
	char *line = NULL;
	size_t cap = 0, i = 0;
	uintptr_t cur = n ? e[order[0]].addr : 0;
	int err = 0;

	while (!err && i < n && getline(&line, &cap, maps) > 0) {
		uintptr_t start, end;
		char perms[5];
		int name = 0;

		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*s %*s %*s %n",
			   &start, &end, perms, &name) != 3)
			continue;
		line[strcspn(line, "\n")] = '\0';
		while (i < n && cur < end) {
			const struct edit *x = &e[order[i]];

			if (cur < start)
				err = -EFAULT;
			else
				err = judge(perms, name ? line + name : "");
			if (err)
				break;
			if (x->addr + x->len > end) {
				cur = end;
				break;
			}
			if (++i < n)
				cur = e[order[i]].addr;
		}
	}
	free(line);
	if (!err && i < n)
		err = ferror(maps) ? -EIO : -EFAULT;
	if (err)
		*bad = (int32_t)order[i];
	return err;
}

static int by_addr(const void *a, const void *b, void *arg)
{
	const struct edit *e = arg;
	uintptr_t x = e[*(const size_t *)a].addr, y = e[*(const size_t *)b].addr;

	return x < y ? -1 : x > y;
}

int wflp_text_check(const struct edit *e, size_t n, int32_t *bad)
{
	size_t *order;
	FILE *maps;
	int fd, err;

	order = wflp_sys.alloc(n * sizeof(*order));
	if (!order)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		order[i] = i;
	qsort_r(order, n, sizeof(*order), by_addr, (void *)e);
	fd = wflp_proc_open("self/maps", O_RDONLY);
	maps = fd < 0 ? NULL : fdopen(fd, "r");
	if (maps) {
		err = walk(maps, e, order, n, bad);
		fclose(maps);
	} else {
		err = fd < 0 ? fd : -errno;
		if (fd >= 0)
			close(fd);
	}
	free(order);
	return err;
}

int wflp_text_verify(ssize_t (*rd)(int, void *, size_t, uintptr_t), int fd,
		     const struct edit *e, size_t n, int32_t *bad)
{
	uint8_t buf[1024];

	for (size_t i = 0; i < n; i++) {
		for (size_t done = 0; done < e[i].len; ) {
			size_t want = e[i].len - done;
			ssize_t got;

			if (want > sizeof(buf))
				want = sizeof(buf);
			got = rd(fd, buf, want, e[i].addr + done);
			if (got == -EINTR)
				continue;
			if (got <= 0) {
				*bad = (int32_t)i;
				return got ? (int)got : -EFAULT;
			}
			if (memcmp(buf, e[i].old_bytes + done, (size_t)got)) {
				*bad = (int32_t)i;
				return -ESTALE;
			}
			done += (size_t)got;
		}
	}
	return 0;
}

static int write_all(int fd, const uint8_t *bytes, size_t len, uintptr_t addr,
		     size_t *written)
{
	while (*written < len) {
		ssize_t put = wflp_sys.mem_write(fd, bytes + *written,
						 len - *written, addr + *written);

		if (put == -EINTR)
			continue;
		if (put <= 0)
			return put ? (int)put : -EFAULT;
		*written += (size_t)put;
	}
	return 0;
}

/*
 * All edits or none.  Undoing can only fail if the mapping has gone meanwhile,
 * and then there is nothing left to undo.
 */
int wflp_text_write(int fd, const struct edit *e, size_t n, int32_t *bad)
{
	size_t written = 0, ignored;
	int err = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		written = 0;
		err = write_all(fd, e[i].new_bytes, e[i].len, e[i].addr, &written);
		if (err)
			break;
	}
	if (!err)
		return 0;
	if (err != -ENOMEM)
		*bad = (int32_t)i;
	do {
		ignored = 0;
		write_all(fd, e[i].old_bytes, written, e[i].addr, &ignored);
		if (i)
			written = e[i - 1].len;
	} while (i--);
	return err;
}
