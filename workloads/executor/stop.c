// SPDX-License-Identifier: Apache-2.0
/*
 * Strategy stopworld: what patchers in user space do that need no help of the
 * program.  A process of its own stops all threads by ptrace, walks each stack
 * with libunwind, changes the text if none of the functions to be changed is on
 * one, and lets go; else it lets go and tries again later.
 *
 * It is forked off before the first thread starts, so it has a copy of the
 * program: the spec, the unwinding tables of program and vDSO at the addresses
 * where they are in the original.  It reads those from the copy, the registers
 * once a thread, and each stack in large pieces, so that a stop is as short as
 * ptrace lets it be.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <libunwind.h>
#include <link.h>
#include <linux/membarrier.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exec.h"

/* Declared by no header of libunwind, and exported for who has tables of his own. */
int UNW_OBJ(dwarf_search_unwind_table)(unw_addr_space_t as, unw_word_t ip, unw_dyn_info_t *di,
				       unw_proc_info_t *pi, int need_unwind_info, void *arg);

#define STOPS	(1u << 14)
#define FRAMES	(1u << 16)
#define DEPTH	256	/* frames of one stack: more is no stack */

/*
 * From well below a scheduling tick, doubled up to a rate that costs little; and
 * given up after a time in which every thread has left any function that ends.
 */
#define AGAIN_MIN_NS	50000ull
#define AGAIN_MAX_NS	5000000ull
#define GIVE_UP_NS	2000000000ull

/* Shared by program and patcher. */
struct stopped {
	uint32_t generation;	/* atomic */
	uint32_t nstops, nframes;
	uint64_t lost;
	struct wire_report rep;	/* of the patch under way */
	struct wire_stop stops[STOPS];
	struct wire_frame frames[FRAMES];
};
static struct stopped *S;
static pid_t patcher;
static int ask[2], answer[2];

/* ---- unwinding tables ---- */

/* Where code and the sorted table of its unwinding information lie. */
struct image {
	uint64_t start, end, hdr, count;
};
#define IMAGES 3
static struct image images[IMAGES];	/* program, vDSO, patchable text */

/* Memory of the patcher that has what the program has at the same address. */
static struct { uint64_t start, end; } same[IMAGES * 2];
static size_t nsame;

struct eh_frame_hdr {
	uint8_t version, frame_enc, count_enc, table_enc;
	int32_t frame;
	uint32_t count;
};

static struct image image_of(uint64_t base, const ElfW(Phdr) *ph, size_t n)
{
	struct image m = { .start = UINT64_MAX };

	for (size_t i = 0; i < n; i++) {
		uint64_t at = base + ph[i].p_vaddr;
		const struct eh_frame_hdr *h = (const void *)at;

		if (ph[i].p_type == PT_LOAD && !(ph[i].p_flags & PF_W)) {
			same[nsame].start = at;
			same[nsame++].end = at + ph[i].p_memsz;
		}
		if (ph[i].p_type == PT_LOAD && ph[i].p_flags & PF_X) {
			m.start = at;
			m.end = at + ph[i].p_memsz;
		}
		/* The encodings that every linker writes: pointers of 32 bits, relative. */
		if (ph[i].p_type == PT_GNU_EH_FRAME && h->version == 1 && h->frame_enc == 0x1b &&
		    h->count_enc == 3 && h->table_enc == 0x3b) {
			m.hdr = at;
			m.count = h->count;
		}
	}
	return m;
}

static int program_image(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	*(struct image *)arg = image_of(info->dlpi_addr, info->dlpi_phdr, info->dlpi_phnum);
	return 1; /* the first is the program */
}

/* ---- those of the patchable text, made from where push and pop are ---- */

enum { CIE_LEN = 24, FDE_LEN = 48 };

static uint8_t *cfi;		/* pretends to lie at cfi_at, where nothing is */
static uint64_t cfi_at, cfi_len;

static uint8_t *put(uint8_t *p, const void *v, size_t n)
{
	memcpy(p, v, n);
	return p + n;
}

static uint8_t *put32(uint8_t *p, uint32_t v) { return put(p, &v, 4); }
static uint8_t *put64(uint8_t *p, uint64_t v) { return put(p, &v, 8); }

static void cfi_function(uint8_t *fde, uint64_t fde_at, const struct wire_function *f,
			 const struct wire_code_version *v)
{
	uint8_t *p = fde;

	memset(fde, 0, FDE_LEN);		/* 0 is DW_CFA_nop */
	p = put32(p, FDE_LEN - 4);
	p = put32(p, (uint32_t)(fde_at + 4 - (cfi_at + P.spec.h->functions.count * 8)));
	p = put64(p, f->entry);
	p = put64(p, f->len);
	*p++ = 0;				/* no augmentation data */
	*p++ = 0x04;				/* advance_loc4 */
	p = put32(p, v->saved);
	p = put(p, "\x0e\x10\x83\x02", 4);	/* CFA = rsp + 16, rbx at CFA - 16 */
	*p++ = 0x04;
	p = put32(p, v->restored - v->saved);
	put(p, "\x0e\x08\xc3", 3);		/* CFA = rsp + 8, rbx as it was */
}

/* In the order of addresses, which is that of the functions. */
static void cfi_make(void)
{
	size_t n = P.spec.h->functions.count;
	uint64_t table = n * 8, cie = cfi_at + table;
	uint8_t *p;

	cfi_len = table + CIE_LEN + n * FDE_LEN;
	cfi = calloc(1, cfi_len + 16);
	if (!cfi)
		die(WIRE_END_SETUP, "allocate unwinding tables");
	p = put32(cfi + table, CIE_LEN - 4);
	p = put32(p, 0);
	/* Version 1, "zR", code by 1, data by -8, rip is column 16, absolute pointers. */
	p = put(p, "\x01zR\0\x01\x78\x10\x01\x00", 9);
	put(p, "\x0c\x07\x08\x90\x01", 5);	/* CFA = rsp + 8, rip at CFA - 8 */
	for (size_t i = 0; i < n; i++) {
		const struct wire_function *f = &P.spec.functions[i];
		uint64_t at = cie + CIE_LEN + i * FDE_LEN;

		p = put32(cfi + i * 8, (uint32_t)(f->entry - cfi_at));
		put32(p, (uint32_t)(at - cfi_at));
		cfi_function(cfi + (at - cfi_at), at, f, &P.spec.versions[f->version]);
	}
}

/* ---- what libunwind asks for ---- */

static int mem = -1;		/* /proc/PID/mem */

/* The thread whose stack is walked. */
static struct walk {
	struct user_regs_struct regs;
	uint64_t stack_at, stack_len;
	uint8_t stack[16384];
	bool blind;		/* there was code without unwinding information */
} W;

static int find_proc_info(unw_addr_space_t as, unw_word_t ip, unw_proc_info_t *pi, int need, void *arg)
{
	for (size_t i = 0; i < IMAGES; i++) {
		const struct image *m = &images[i];
		unw_dyn_info_t di = { .format = UNW_INFO_FORMAT_REMOTE_TABLE };
		bool text = i == IMAGES - 1;

		if (ip < m->start || ip >= m->end || !m->count)
			continue;
		di.start_ip = m->start;
		di.end_ip = m->end;
		di.u.rti.segbase = m->hdr;
		di.u.rti.table_data = text ? m->hdr : m->hdr + sizeof(struct eh_frame_hdr);
		di.u.rti.table_len = m->count * 8 / sizeof(unw_word_t);
		if (!UNW_OBJ(dwarf_search_unwind_table)(as, ip, &di, pi, need, arg))
			return 0;
		break;
	}
	W.blind = true;
	return -UNW_ENOINFO;
}

static void put_unwind_info(unw_addr_space_t as, unw_proc_info_t *pi, void *arg)
{
	(void)as, (void)pi, (void)arg;
}

static int no_dyn_info(unw_addr_space_t as, unw_word_t *at, void *arg)
{
	(void)as, (void)at, (void)arg;
	return -UNW_ENOINFO;
}

static int access_mem(unw_addr_space_t as, unw_word_t at, unw_word_t *v, int write, void *arg)
{
	(void)as, (void)arg;
	if (write)
		return -UNW_EREADONLYREG;
	if (at >= cfi_at && at < cfi_at + cfi_len) {
		memcpy(v, cfi + (at - cfi_at), 8);
		return 0;
	}
	for (size_t i = 0; i < nsame; i++)
		if (at >= same[i].start && at + 8 <= same[i].end) {
			memcpy(v, (const void *)at, 8);
			return 0;
		}
	if (at >= W.stack_at && at + 8 <= W.stack_at + W.stack_len) {
		memcpy(v, W.stack + (at - W.stack_at), 8);
		return 0;
	}
	return pread(mem, v, 8, (off_t)at) == 8 ? 0 : -UNW_EUNSPEC;
}

static int access_reg(unw_addr_space_t as, unw_regnum_t reg, unw_word_t *v, int write, void *arg)
{
	const struct user_regs_struct *r = &W.regs;
	const unsigned long long values[] = {
		[UNW_X86_64_RAX] = r->rax, [UNW_X86_64_RDX] = r->rdx, [UNW_X86_64_RCX] = r->rcx,
		[UNW_X86_64_RBX] = r->rbx, [UNW_X86_64_RSI] = r->rsi, [UNW_X86_64_RDI] = r->rdi,
		[UNW_X86_64_RBP] = r->rbp, [UNW_X86_64_RSP] = r->rsp, [UNW_X86_64_R8] = r->r8,
		[UNW_X86_64_R9] = r->r9, [UNW_X86_64_R10] = r->r10, [UNW_X86_64_R11] = r->r11,
		[UNW_X86_64_R12] = r->r12, [UNW_X86_64_R13] = r->r13, [UNW_X86_64_R14] = r->r14,
		[UNW_X86_64_R15] = r->r15, [UNW_X86_64_RIP] = r->rip,
	};

	(void)as, (void)arg;
	if (write || reg < 0 || reg > UNW_X86_64_RIP)
		return -UNW_EBADREG;
	*v = values[reg];
	return 0;
}

static int no_fpreg(unw_addr_space_t as, unw_regnum_t reg, unw_fpreg_t *v, int write, void *arg)
{
	(void)as, (void)reg, (void)v, (void)write, (void)arg;
	return -UNW_EBADREG;
}

static int no_resume(unw_addr_space_t as, unw_cursor_t *c, void *arg)
{
	(void)as, (void)c, (void)arg;
	return -UNW_EINVAL;
}

static int no_name(unw_addr_space_t as, unw_word_t at, char *buf, size_t len, unw_word_t *off, void *arg)
{
	(void)as, (void)at, (void)buf, (void)len, (void)off, (void)arg;
	return -UNW_EUNSPEC;
}

static unw_addr_space_t space;

/* ---- stacks ---- */

static const struct wire_function *function_at(uint64_t ip)
{
	const struct wire_function *f = P.spec.functions;

	for (size_t i = 0; i < P.spec.h->functions.count; i++)
		if (ip >= f[i].entry && ip < f[i].entry + f[i].len)
			return &f[i];
	return NULL;
}

/*
 * Whether a thread is at the end of clone3(): mov $435,%eax; syscall;
 * test %rax,%rax; jl; je; ret.  Both parent and child come by with every birth,
 * and glibc gives no unwinding information for it, since their stacks differ.
 */
static bool at_birth(uint64_t ip)
{
	static const uint8_t is[] = { 0xb8, 0xb3, 1, 0, 0, 0x0f, 5, 0x48, 0x85, 0xc0, 0x7c, 0, 0x74, 1, 0xc3 };
	static const uint8_t at[] = { 7, 10, 12, 14 };	/* what comes after the call */

	if (ip < images[0].start + sizeof(is) || ip + sizeof(is) > images[0].end)
		return false;
	for (size_t i = 0; i < sizeof(at); i++) {
		const uint8_t *code = (const uint8_t *)ip - at[i];

		if (!memcmp(code, is, 11) && !memcmp(code + 12, is + 12, 3))
			return true;
	}
	return false;
}

static void note_frame(struct wire_stop *s, pid_t tid, uint32_t function, uint64_t ip)
{
	if (S->nframes == FRAMES) {
		S->lost++;
		return;
	}
	S->frames[S->nframes++] = (struct wire_frame){ (uint32_t)tid, function, ip };
	s->frames++;
}

static bool changed_by(const struct wire_patch *p, uint32_t function)
{
	for (uint32_t i = 0; i < p->changes; i++)
		if (P.spec.changes[p->change + i].function == function)
			return true;
	return false;
}

/*
 * Whether the stack of a stopped thread lets the patch be applied.  One that
 * cannot be walked to its end by unwinding information alone does not: what
 * libunwind guesses from frame pointers is no proof.
 */
static uint32_t walk(struct wire_stop *s, const struct wire_patch *p, pid_t tid)
{
	uint32_t result = WIRE_STOP_APPLIED;
	unw_cursor_t c;
	ssize_t n;
	int more = 1;

	W.blind = false;
	if (ptrace(PTRACE_GETREGS, tid, NULL, &W.regs))
		return WIRE_STOP_UNKNOWN;
	n = pread(mem, W.stack, sizeof(W.stack), (off_t)W.regs.rsp);
	W.stack_at = W.regs.rsp;
	W.stack_len = n < 0 ? 0 : (uint64_t)n;
	if (at_birth(W.regs.rip)) {
		if (!W.regs.rax)
			return WIRE_STOP_APPLIED; /* the child has run nothing yet */
		if ((long long)W.regs.rax > 0 && n >= 8) {
			memcpy(&W.regs.rip, W.stack, 8); /* the parent is about to return */
			W.regs.rsp += 8;
		}
	}
	if (unw_init_remote(&c, space, &W))
		return WIRE_STOP_UNKNOWN;
	for (int depth = 0; more > 0; depth++) {
		const struct wire_function *f;
		unw_word_t ip;

		if (depth == DEPTH || unw_get_reg(&c, UNW_REG_IP, &ip))
			return WIRE_STOP_UNKNOWN;
		s->walked++;
		f = function_at(ip);
		if (f) {
			uint32_t i = (uint32_t)(f - P.spec.functions);

			note_frame(s, tid, i, ip);
			if (changed_by(p, i))
				result = WIRE_STOP_ACTIVE;
		}
		more = unw_step(&c);
	}
	return more < 0 || W.blind ? WIRE_STOP_UNKNOWN : result;
}

/* ---- stopping ---- */

struct tracee {
	pid_t tid;
	int signal;	/* to be delivered when it is let go */
	bool stopped, gone;
};
static struct tracee *tracees;
static size_t ntracees, room;
static DIR *tasks;

/* A thread that has ended is in the list until it has been buried. */
static bool has_ended(pid_t tid)
{
	char path[32], buf[512], *p;
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof(path), "%d/stat", (int)tid);
	fd = openat(dirfd(tasks), path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, buf, sizeof(buf) - 1);
		close(fd);
	}
	if (n <= 0)
		return true;
	buf[n] = '\0';
	p = strrchr(buf, ')');
	return p && (p[2] == 'Z' || p[2] == 'X');
}

/* The next one, mostly: every pass lists the threads in the order of their births. */
static bool known(pid_t tid)
{
	static size_t next;

	for (size_t k = 0; k < ntracees; k++) {
		const struct tracee *t = &tracees[(next + k) % ntracees];

		if (t->tid == tid && !t->gone) {
			next = (next + k) % ntracees + 1;
			return true;
		}
	}
	return false;
}

/* Interrupts the threads that are not traced yet; returns how many, or -errno. */
static int seize_new(void)
{
	struct dirent *d;
	size_t before = ntracees;
	int found = 0;

	rewinddir(tasks);
	while ((d = readdir(tasks))) {
		pid_t tid = atoi(d->d_name);

		if (tid <= 0)
			continue;
		if (before && known(tid))
			continue;
		if (ptrace(PTRACE_SEIZE, tid, NULL, NULL)) {
			if (errno == ESRCH || has_ended(tid))
				continue;
			return -errno;
		}
		if (ntracees == room) {
			room = room ? 2 * room : 64;
			tracees = realloc(tracees, room * sizeof(*tracees));
			if (!tracees)
				die(WIRE_END_SETUP, "allocate threads to stop");
		}
		tracees[ntracees++] = (struct tracee){ .tid = tid };
		ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
		found++;
	}
	return found;
}

static void wait_stopped(void)
{
	for (size_t i = 0; i < ntracees; i++) {
		struct tracee *t = &tracees[i];
		int status;
		pid_t got;

		if (t->stopped || t->gone)
			continue;
		do
			got = waitpid(t->tid, &status, __WALL);
		while (got < 0 && errno == EINTR);
		if (got < 0 || !WIFSTOPPED(status)) {
			t->gone = true;
			continue;
		}
		t->stopped = true;
		/* It may have been about to take a signal, which is its own. */
		t->signal = status >> 16 == PTRACE_EVENT_STOP ? 0 : WSTOPSIG(status);
	}
}

/* Until a pass over the threads, with all known ones stopped, finds no new one. */
static int stop_all(void)
{
	int found;

	ntracees = 0;
	do {
		found = seize_new();
		wait_stopped();
	} while (found > 0);
	return found;
}

static void let_go(uint64_t *first_ns)
{
	for (size_t i = 0; i < ntracees; i++) {
		if (!tracees[i].stopped)
			continue;
		ptrace(PTRACE_DETACH, tracees[i].tid, NULL, (void *)(intptr_t)tracees[i].signal);
		if (!*first_ns)
			*first_ns = now_ns();
	}
}

/* ---- text ---- */

static int text_put(uint64_t at, const uint8_t *bytes, size_t len)
{
	while (len) {
		ssize_t n = pwrite(mem, bytes, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EFAULT;
		bytes += n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int text_is(const struct wflp_edit *e)
{
	uint8_t buf[4096];

	for (size_t at = 0, n; at < e->len; at += n) {
		n = e->len - at < sizeof(buf) ? e->len - at : sizeof(buf);
		if (pread(mem, buf, n, (off_t)((uintptr_t)e->addr + at)) != (ssize_t)n)
			return -EFAULT;
		if (memcmp(buf, (const uint8_t *)e->old_bytes + at, n))
			return -ESTALE;
	}
	return 0;
}

/* All edits or none. */
static int text_change(const struct edits *x)
{
	size_t i;
	int err = 0;

	for (i = 0; i < x->n && !err; i++)
		err = text_put((uintptr_t)x->e[i].addr, x->e[i].new_bytes, x->e[i].len);
	while (err && i--)
		text_put((uintptr_t)x->e[i].addr, x->e[i].old_bytes, x->e[i].len);
	return err;
}

static void new_cfi(const struct wire_patch *p)
{
	uint64_t fdes = cfi_at + P.spec.h->functions.count * 8 + CIE_LEN;

	for (uint32_t i = 0; i < p->changes; i++) {
		const struct wire_change *c = &P.spec.changes[p->change + i];
		uint64_t at = fdes + c->function * FDE_LEN;

		cfi_function(cfi + (at - cfi_at), at, &P.spec.functions[c->function],
			     &P.spec.versions[c->version]);
	}
	unw_flush_cache(space, 0, 0);
}

/* ---- one patch ---- */

/* 0 or -errno; -EAGAIN: not now. */
static int attempt(const struct edits *x, const struct wire_patch *p)
{
	struct wire_report *r = &S->rep;
	struct wire_stop spare, *s = S->nstops < STOPS ? &S->stops[S->nstops] : &spare;
	uint64_t first = 0;
	int err;

	*s = (struct wire_stop){ .patch = r->patch, .result = WIRE_STOP_APPLIED,
				 .frame = S->nframes, .begin_ns = now_ns() };
	err = stop_all();
	s->all_ns = now_ns();
	if (err)
		s->result = WIRE_STOP_UNKNOWN;
	for (size_t i = 0; i < ntracees; i++) {
		uint32_t stack;

		if (!tracees[i].stopped)
			continue;
		s->threads++;
		stack = walk(s, p, tracees[i].tid);
		/* All stacks are walked, for the record; the worst decides. */
		if (stack > s->result)
			s->result = stack;
	}
	if (s->result == WIRE_STOP_APPLIED) {
		err = text_change(x);
		r->written_ns = now_ns();
		if (!err) {
			r->generation = S->generation + 1;
			r->threads = s->threads;
			r->published_ns = r->written_ns;
			__atomic_store_n(&S->generation, (uint32_t)r->generation, __ATOMIC_RELEASE);
		} else {
			s->result = WIRE_STOP_UNKNOWN;
		}
	} else if (!err) {
		err = -EAGAIN;
	}
	let_go(&first);
	s->end_ns = now_ns();
	if (!err) {
		r->first_over_ns = first;
		r->last_over_ns = r->released_ns = s->end_ns;
	}
	if (s == &spare)
		S->lost++;
	else
		S->nstops++;
	return err;
}

static void patch(struct edits *x, const struct wire_patch *p)
{
	struct wire_report *r = &S->rep;
	uint64_t delay = AGAIN_MIN_NS;
	int err = 0;

	r->preparing_ns = now_ns();
	edits_of(x, p);
	r->edits = (uint32_t)x->n;
	for (size_t i = 0; i < x->n && !err; i++) {
		err = text_is(&x->e[i]);
		if (err)
			r->bad_edit = (int32_t)i;
	}
	while (!err && (err = attempt(x, p)) == -EAGAIN) {
		if (now_ns() - r->preparing_ns > GIVE_UP_NS) {
			err = -EBUSY;
			break;
		}
		sleep_until(now_ns() + delay);
		delay = 2 * delay < AGAIN_MAX_NS ? 2 * delay : AGAIN_MAX_NS;
		err = 0;
	}
	r->error = err;
	r->stage = err ? WFLP_FAILED : WFLP_RELEASED;
	if (err)
		return;
	shadow_apply(p);
	new_cfi(p);
}

static void patcher_main_loop(pid_t program)
{
	static unw_accessors_t accessors = {
		.find_proc_info = find_proc_info, .put_unwind_info = put_unwind_info,
		.get_dyn_info_list_addr = no_dyn_info, .access_mem = access_mem,
		.access_reg = access_reg, .access_fpreg = no_fpreg, .resume = no_resume,
		.get_proc_name = no_name,
	};
	struct edits x = { 0 };
	char path[32];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)program);
	mem = open(path, O_RDWR | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/task", (int)program);
	tasks = opendir(path);
	space = unw_create_addr_space(&accessors, 0);
	if (mem < 0 || !tasks || !space)
		die(WIRE_END_SETUP, "start patcher");
	unw_set_caching_policy(space, UNW_CACHE_GLOBAL);
	cfi_at = P.spec.h->text_addr - (1ul << 24);
	cfi_make();
	images[2] = (struct image){ P.spec.h->text_addr, P.spec.h->text_addr + P.spec.h->text_len,
				    cfi_at, P.spec.h->functions.count };
	for (uint32_t i; read(ask[0], &i, sizeof(i)) == sizeof(i); ) {
		if (i == UINT32_MAX)
			break;
		patch(&x, &P.spec.patches[i]);
		if (write(answer[1], &i, sizeof(i)) != sizeof(i))
			break;
	}
	_exit(0);
}

/* ---- the program's side ---- */

void stop_start(void)
{
	uint64_t vdso = getauxval(AT_SYSINFO_EHDR);
	const ElfW(Ehdr) *e = (const void *)vdso;
	pid_t program = getpid();

	S = mmap(NULL, sizeof(*S), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (S == MAP_FAILED || pipe2(ask, O_CLOEXEC) || pipe2(answer, O_CLOEXEC))
		die(WIRE_END_SETUP, "start patcher");
	dl_iterate_phdr(program_image, &images[0]);
	if (e)
		images[1] = image_of(vdso, (const ElfW(Phdr) *)(vdso + e->e_phoff), e->e_phnum);
	if (!images[0].count) {
		errno = ENOEXEC;
		die(WIRE_END_SETUP, "find unwinding tables");
	}
	/*
	 * Then every switch to a thread of this process serialises the processor's
	 * instructions, if it comes from another process or from none; and between
	 * the moment when all threads are stopped and the next that runs there is
	 * such a switch on each processor.  Not there: a kernel that cannot, and
	 * emulation does not need it.
	 */
	syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
	patcher = fork();
	if (!patcher)
		patcher_main_loop(program);
	if (patcher < 0)
		die(WIRE_END_SETUP, "start patcher");
	prctl(PR_SET_PTRACER, patcher); /* where a security module asks */
}

void stop_patch(struct wire_report *r)
{
	uint32_t i = r->patch;

	r->queued_ns = r->applied_ns;
	S->rep = *r;
	if (write(ask[1], &i, sizeof(i)) != sizeof(i) || read(answer[0], &i, sizeof(i)) != sizeof(i))
		die(WIRE_END_SETUP, "ask patcher");
	*r = S->rep;
	if (r->stage == WFLP_RELEASED)
		r->seen_ns = now_ns();
}

uint32_t stop_generation(void) { return __atomic_load_n(&S->generation, __ATOMIC_ACQUIRE); }

void stop_end(void)
{
	uint32_t end = UINT32_MAX;

	if (write(ask[1], &end, sizeof(end)) != sizeof(end))
		die(WIRE_END_SETUP, "end patcher");
	waitpid(patcher, NULL, 0);
	for (int i = 0; i < 2; i++) {
		close(ask[i]);
		close(answer[i]);
	}
}

/* Async-signal-safe. */
void stop_tables(const struct wire_stop **stops, uint64_t *nstops,
		 const struct wire_frame **frames, uint64_t *nframes, uint64_t *lost)
{
	if (!S)
		return;
	*stops = S->stops;
	*nstops = S->nstops;
	*frames = S->frames;
	*nframes = S->nframes;
	*lost = S->lost;
}
