/* SPDX-License-Identifier: MIT */
/*
 * Is a function on a stack?
 *
 * First every word of the stack is looked at.  A return address into the function
 * would be one of them, so if none points there, it is not: that needs no
 * description of frames, takes no lock, and is what happens nearly always.
 *
 * A word that does point there may be the rest of an earlier call.  Then the stack
 * is unwound with libunwind, which can begin at stored registers and read through
 * functions of ours, as perf(1) does; libgcc's unwinder knows the calling thread's
 * stack only, and here the patcher looks at stacks of others.  A frame without a
 * description is a stack of which nothing is known: libunwind would go on by
 * guessing.
 *
 * The stack of another thread may change, or go, while it is read.  What comes out
 * is then wrong and not used (WORD_CANDIDATE in internal.h); reading it is a system
 * call that fails, and frames' descriptions are read only where a file is mapped.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <libunwind.h>

#include "load.h"
#include "preload.h"

/* Frames of a stack that is sane. */
#define DEPTH_MAX 1024

/* Not in libunwind's header, but made for this; others who unwind from a copy use it. */
#define search_table UNW_OBJ(dwarf_search_unwind_table)
int search_table(unw_addr_space_t as, unw_word_t ip, unw_dyn_info_t *di, unw_proc_info_t *pi,
		 int need, void *arg);

static unw_addr_space_t space;

struct stack {
	const struct wflp_frame *f;
	wflp_reader rd;
	int fd;
	bool unknown;	/* a frame without a description */
};

static bool in_ranges(const struct wflp_ranges *ranges, uintptr_t addr)
{
	size_t lo = 0, hi = ranges->n;

	/* A return address follows a call: the last one may be just behind its function. */
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (addr > ranges->r[mid].hi)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < ranges->n && addr > ranges->r[lo].lo;
}

static bool read_stack(const struct stack *s, void *buf, size_t len, uintptr_t addr)
{
	uint8_t *p = buf;

	if (addr < s->f->rsp || addr > s->f->stack_end || len > s->f->stack_end - addr)
		return false;
	if (!s->rd) {
		memcpy(buf, (const void *)addr, len);
		return true;
	}
	while (len) {
		ssize_t n = s->rd(s->fd, p, len, addr);

		if (n <= 0)
			return false;
		p += n;
		addr += (size_t)n;
		len -= (size_t)n;
	}
	return true;
}

/* 1: there is a word that points into the ranges; -1: the stack cannot be read. */
static int scan(const struct stack *s, const struct wflp_ranges *ranges)
{
	uintptr_t buf[512], at = s->f->rsp & ~7ul, end = s->f->stack_end & ~7ul;

	while (at < end) {
		size_t n = end - at < sizeof(buf) ? end - at : sizeof(buf);

		if (!read_stack(s, buf, n, at))
			return -1;
		for (size_t i = 0; i < n / sizeof(buf[0]); i++)
			if (in_ranges(ranges, buf[i]))
				return 1;
		at += n;
	}
	return 0;
}

static int find_info(unw_addr_space_t as, unw_word_t ip, unw_proc_info_t *pi, int need, void *arg)
{
	const struct wflp_patch *patch = wflp_patch_at(ip);
	struct dl_find_object found;
	unw_dyn_info_t di = { .format = UNW_INFO_FORMAT_REMOTE_TABLE };
	struct stack *s = arg;
	int err = -UNW_ENOINFO;

	if (patch && patch->nunwind) {
		di.start_ip = patch->code;
		di.end_ip = patch->code_end;
		di.u.rti.segbase = (uintptr_t)patch->unwind;
		di.u.rti.table_data = (uintptr_t)patch->unwind;
		di.u.rti.table_len = patch->nunwind * sizeof(*patch->unwind) / sizeof(unw_word_t);
		err = search_table(as, ip, &di, pi, need, arg);
	} else if (!patch && !_dl_find_object((void *)ip, &found) && found.dlfo_eh_frame) {
		const uint8_t *hdr = found.dlfo_eh_frame;
		uint32_t n;

		/* A sorted table of offsets from here, as linkers make it. */
		if (hdr[0] == 1 && hdr[2] == 0x03 && hdr[3] == 0x3b) {
			memcpy(&n, hdr + 8, sizeof(n));
			di.start_ip = (uintptr_t)found.dlfo_map_start;
			di.end_ip = (uintptr_t)found.dlfo_map_end;
			di.u.rti.segbase = (uintptr_t)hdr;
			di.u.rti.table_data = (uintptr_t)hdr + 12;
			di.u.rti.table_len = n * 8ul / sizeof(unw_word_t);
			err = search_table(as, ip, &di, pi, need, arg);
		}
	}
	if (err)
		s->unknown = true;
	return err;
}

static void put_info(unw_addr_space_t as, unw_proc_info_t *pi, void *arg)
{
	(void)as;
	(void)pi;
	(void)arg;
}

static int no_dynamic(unw_addr_space_t as, unw_word_t *addr, void *arg)
{
	(void)as;
	(void)addr;
	(void)arg;
	return -UNW_ENOINFO;
}

static bool is_mapped(uintptr_t addr)
{
	struct dl_find_object found;
	const struct wflp_patch *patch;

	if (!_dl_find_object((void *)addr, &found))
		return addr + sizeof(unw_word_t) <= (uintptr_t)found.dlfo_map_end;
	patch = wflp_patch_of(addr);
	return patch && addr + sizeof(unw_word_t) <= (uintptr_t)patch->map + patch->map_size;
}

static int access_mem(unw_addr_space_t as, unw_word_t addr, unw_word_t *value, int write, void *arg)
{
	struct stack *s = arg;

	(void)as;
	if (write)
		return -UNW_EINVAL;
	if (read_stack(s, value, sizeof(*value), addr))
		return 0;
	if (!is_mapped(addr))
		return -UNW_EINVAL;
	memcpy(value, (const void *)addr, sizeof(*value));
	return 0;
}

static int access_reg(unw_addr_space_t as, unw_regnum_t reg, unw_word_t *value, int write, void *arg)
{
	const struct wflp_frame *f = ((struct stack *)arg)->f;

	(void)as;
	if (write)
		return -UNW_EREADONLYREG;
	switch (reg) {
	case UNW_X86_64_RIP: *value = f->rip; return 0;
	case UNW_X86_64_RSP: *value = f->rsp; return 0;
	case UNW_X86_64_RBP: *value = f->rbp; return 0;
	case UNW_X86_64_RBX: *value = f->rbx; return 0;
	case UNW_X86_64_R12: *value = f->r12; return 0;
	case UNW_X86_64_R13: *value = f->r13; return 0;
	case UNW_X86_64_R14: *value = f->r14; return 0;
	case UNW_X86_64_R15: *value = f->r15; return 0;
	default:
		/* Not saved across a call, and so of no use to any frame above. */
		*value = 0;
		return 0;
	}
}

static int no_fpreg(unw_addr_space_t as, unw_regnum_t reg, unw_fpreg_t *value, int write, void *arg)
{
	(void)as;
	(void)reg;
	(void)value;
	(void)write;
	(void)arg;
	return -UNW_EBADREG;
}

static int no_resume(unw_addr_space_t as, unw_cursor_t *cursor, void *arg)
{
	(void)as;
	(void)cursor;
	(void)arg;
	return -UNW_EINVAL;
}

static int no_name(unw_addr_space_t as, unw_word_t addr, char *buf, size_t len, unw_word_t *off,
		   void *arg)
{
	(void)as;
	(void)addr;
	(void)buf;
	(void)len;
	(void)off;
	(void)arg;
	return -UNW_ENOINFO;
}

/*
 * At its start libunwind tries mincore(2), with which it would look before it reads
 * its own address space; it reads through functions of ours, so it never does.  But
 * the call is in none of systemd's groups, and a filter that does not have it may
 * kill.  So libunwind is told that there is none.
 */
static __thread bool beginning __attribute__((tls_model("initial-exec")));

static void *next_mincore;
SHOWN int mincore(void *addr, size_t len, unsigned char *vec)
{
	if (beginning) {
		errno = ENOSYS;
		return -1;
	}
	return NEXT(mincore)(addr, len, vec);
}

bool unwind_init(void)
{
	static unw_accessors_t accessors = {
		.find_proc_info = find_info,
		.put_unwind_info = put_info,
		.get_dyn_info_list_addr = no_dynamic,
		.access_mem = access_mem,
		.access_reg = access_reg,
		.access_fpreg = no_fpreg,
		.resume = no_resume,
		.get_proc_name = no_name,
	};

	if (space)
		return true;
	space = unw_create_addr_space(&accessors, 0);
	if (!space)
		return false;
	/* A cache would be a lock that threads share. It is here that libunwind begins. */
	beginning = true;
	unw_set_caching_policy(space, UNW_CACHE_NONE);
	beginning = false;
	return true;
}

/* Every frame is described, down to the thread's first one, and none is in the ranges. */
static bool unwound_free(struct stack *s, const struct wflp_ranges *ranges)
{
	unw_cursor_t cursor;
	unw_word_t ip;
	int step;

	if (unw_init_remote(&cursor, space, s))
		return false;
	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		if (unw_get_reg(&cursor, UNW_REG_IP, &ip) || in_ranges(ranges, ip) ||
		    in_ranges(ranges, ip + 1))
			return false;
		step = unw_step(&cursor);
		if (step < 0 || s->unknown)
			return false;
		if (!step)
			return true;
	}
	return false;
}

bool interrupted_free(const struct wflp_frame *f, const struct wflp_ranges *ranges)
{
	struct stack s = { .f = f, .fd = -1 };
	int hit;

	if (!ranges)
		return true;
	if (f->rsp >= f->stack_end || f->rsp < f->stack_low || in_ranges(ranges, f->rip) ||
	    in_ranges(ranges, f->rip + 1))
		return false;
	hit = scan(&s, ranges);
	return !hit || (hit > 0 && unwound_free(&s, ranges));
}

bool stack_free(const struct wflp_frame *f, const struct wflp_ranges *ranges, wflp_reader rd, int fd)
{
	struct stack s = { .f = f, .rd = rd, .fd = fd };
	int hit;

	/* On another stack than the thread's own: that of a signal, or of a coroutine. */
	if (f->rsp >= f->stack_end || f->rsp < f->stack_low)
		return false;
	if (!site_allowed(f->caller))
		return false;
	hit = scan(&s, ranges);
	return !hit || (hit > 0 && unwound_free(&s, ranges));
}
