// SPDX-License-Identifier: Apache-2.0
/*
 * Memory that threads in different views work on in turn, against a model.
 *
 * A region has one user at a time (a lock that is tried, never waited for: a
 * thread that waits would tie its quiescence point to another's).  So the
 * order of operations is known, and the model of sequential memory says what
 * each access must see: the value stored last, by whichever thread in
 * whichever view, or a fault.  Threads on other regions work in parallel.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#include "exec.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

struct region {
	const struct wire_region *r;
	uint32_t id;
	bool busy;		/* atomic */
	uint64_t base, other;
	int fd, prot;
	uint64_t stamp;
	uint64_t *tag;		/* by page: what it holds */
	bool *mapped;
	uint32_t grown;		/* heap: pages that exist */
};

static struct region *regions;

/* A page is represented by words at its start, middle and end. */
static const uint32_t spots[] = { 0, 2040, 4088 };

/*
 * Accesses that may fault: the handler sends such a fault to probe_fault, so
 * -1 is the answer.  A byte, as a fault is all that is in question.
 */
__asm__(".text\n"
	".globl probe_load_at, probe_store_at, probe_fault\n"
	"probe_load:\n"
	"	.cfi_startproc\n"
	"probe_load_at:\n"
	"	movzbl (%rdi), %eax\n"
	"	ret\n"
	"	.cfi_endproc\n"
	"probe_store:\n"
	"	.cfi_startproc\n"
	"	mov %esi, %eax\n"
	"probe_store_at:\n"
	"	movb %al, (%rdi)\n"
	"	xor %eax, %eax\n"
	"	ret\n"
	"	.cfi_endproc\n"
	"probe_fault:\n"
	"	.cfi_startproc\n"
	"	mov $-1, %eax\n"
	"	ret\n"
	"	.cfi_endproc\n");
int probe_load(const void *at) __asm__("probe_load");
int probe_store(void *at, int byte) __asm__("probe_store");

static void fail(struct worker *w, const struct wire_action *a, const struct region *r,
		 int what, uint32_t page, uint64_t got, uint64_t want)
{
	rec(w, WIRE_RECORD_MEM_FAIL, (uint16_t)(a->kind | (uint32_t)what << 8),
	    r->id << 16 | page, got);
	rec(w, WIRE_RECORD_MEM_WANT, 0, 0, want);
}

static char *page_at(const struct region *r, uint32_t page) { return (char *)r->base + page * PAGE; }

static uint64_t file_tag(const struct region *r, uint32_t page)
{
	return 0xf11e000000000000ull | (uint64_t)r->id << 32 | page;
}

/* What a page holds that is freshly mapped, or given back. */
static uint64_t fresh(const struct region *r, uint32_t page)
{
	switch (r->r->kind) {
	case REG_SHARED:
		return r->tag[page]; /* the file keeps it */
	case REG_PRIVATE:
		return file_tag(r, page);
	default:
		return 0;
	}
}

static int map(struct region *r, uint32_t page, uint32_t count)
{
	int flags = MAP_FIXED | (r->r->kind == REG_SHARED ? MAP_SHARED : MAP_PRIVATE) |
		    (r->fd < 0 ? MAP_ANONYMOUS : 0);

	if (mmap(page_at(r, page), count * PAGE, r->prot, flags, r->fd,
		 r->fd < 0 ? 0 : page * (off_t)PAGE) == MAP_FAILED)
		return -errno;
	for (uint32_t i = page; i < page + count; i++) {
		r->tag[i] = fresh(r, i);
		r->mapped[i] = true;
	}
	if (r->r->kind == REG_HUGE)
		madvise(page_at(r, page), count * PAGE, MADV_HUGEPAGE);
	return 0;
}

void memory_init(void)
{
	size_t n = P.spec.h->regions.count;

	regions = calloc(n + 1, sizeof(*regions));
	if (!regions)
		die(WIRE_END_SETUP, "set up regions");
	for (size_t i = 0; i < n; i++) {
		struct region *r = &regions[i];
		uint32_t pages;

		r->r = &P.spec.regions[i];
		r->id = (uint32_t)i;
		pages = r->r->pages;
		r->base = r->r->addr;
		r->other = r->r->other;
		r->fd = -1;
		r->prot = PROT_READ | PROT_WRITE;
		r->tag = calloc(pages, sizeof(*r->tag));
		r->mapped = calloc(pages, sizeof(*r->mapped));
		if (!r->tag || !r->mapped)
			die(WIRE_END_SETUP, "set up regions");
		if (r->r->kind == REG_HEAP) {
			r->base = ((uint64_t)sbrk(0) + PAGE - 1) & ~(PAGE - 1);
			if (brk((void *)r->base))
				die(WIRE_END_SETUP, "set up heap");
			continue;
		}
		if (r->r->kind == REG_SHARED || r->r->kind == REG_PRIVATE) {
			r->fd = memfd_create("wflp-region", MFD_CLOEXEC);
			if (r->fd < 0 || ftruncate(r->fd, pages * (off_t)PAGE))
				die(WIRE_END_SETUP, "set up region file");
		}
		for (uint32_t p = 0; p < pages && r->r->kind == REG_PRIVATE; p++)
			for (size_t k = 0; k < 3; k++) {
				uint64_t tag = file_tag(r, p);

				if (pwrite(r->fd, &tag, 8, p * (off_t)PAGE + spots[k]) != 8)
					die(WIRE_END_SETUP, "set up region file");
			}
		/* Both windows must be free now, as later maps are MAP_FIXED. */
		for (int k = 0; k < 2; k++) {
			void *at = (void *)(k ? r->base : r->other);

			if (mmap(at, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
				 MAP_FIXED_NOREPLACE, -1, 0) != at || munmap(at, pages * PAGE))
				die(WIRE_END_SETUP, "set up region");
		}
		if (map(r, 0, pages))
			die(WIRE_END_SETUP, "set up region");
	}
}

/* ---- operations; the caller has the region ---- */

static void check_fault(struct worker *w, const struct wire_action *a, struct region *r,
			uint32_t page, bool store)
{
	int got = store ? probe_store(page_at(r, page), 1) : probe_load(page_at(r, page));

	if (got >= 0)
		fail(w, a, r, WIRE_MEM_NO_FAULT, page, (uint64_t)got, 0);
}

static void load(struct worker *w, const struct wire_action *a, struct region *r,
		 uint32_t page, uint32_t count)
{
	uint32_t faults = 0;

	for (uint32_t i = page; i < page + count; i++) {
		if (!r->mapped[i] || !(r->prot & PROT_READ)) {
			if (faults++ < 2) /* dear, and the next is no different */
				check_fault(w, a, r, i, false);
			continue;
		}
		if (probe_load(page_at(r, i)) < 0) {
			fail(w, a, r, WIRE_MEM_FAULT, i, 0, r->tag[i]);
			continue;
		}
		for (size_t k = 0; k < 3; k++) {
			uint64_t got = *(volatile uint64_t *)(page_at(r, i) + spots[k]);

			if (got != r->tag[i])
				fail(w, a, r, WIRE_MEM_VALUE, i, got, r->tag[i]);
		}
	}
}

static void store(struct worker *w, const struct wire_action *a, struct region *r,
		  uint32_t page, uint32_t count)
{
	uint32_t faults = 0;

	for (uint32_t i = page; i < page + count; i++) {
		if (!r->mapped[i] || !(r->prot & PROT_WRITE)) {
			if (faults++ < 2)
				check_fault(w, a, r, i, true);
			continue;
		}
		/* The byte is overwritten at once. */
		if (probe_store(page_at(r, i), 0) < 0) {
			fail(w, a, r, WIRE_MEM_FAULT, i, 1, 0);
			continue;
		}
		r->tag[i] = ++r->stamp << 24 | (uint64_t)r->id << 16 | i;
		for (size_t k = 0; k < 3; k++)
			*(volatile uint64_t *)(page_at(r, i) + spots[k]) = r->tag[i];
	}
}

static void call(struct worker *w, const struct wire_action *a, struct region *r,
		 uint32_t page, long ret)
{
	if (ret < 0)
		fail(w, a, r, WIRE_MEM_CALL, page, (uint64_t)errno, 0);
}

/* Each stretch of mapped pages in the range. */
static uint32_t stretch(const struct region *r, uint32_t *page, uint32_t end)
{
	uint32_t to;

	while (*page < end && !r->mapped[*page])
		++*page;
	for (to = *page; to < end && r->mapped[to]; to++)
		;
	return to;
}

static void protect(struct worker *w, const struct wire_action *a, struct region *r, int prot)
{
	for (uint32_t p = 0, to; p < r->r->pages; p = to) {
		to = stretch(r, &p, r->r->pages);
		if (to > p)
			call(w, a, r, p, mprotect(page_at(r, p), (to - p) * PAGE, prot));
	}
	r->prot = prot;
	/* Rights taken away are gone for every thread from here on. */
	load(w, a, r, a->page, 1);
	store(w, a, r, a->page, 1);
}

/*
 * Page by page, because one call must stay within one mapping and the kernel,
 * not the model, knows which neighbours it has merged.
 */
static void remap(struct worker *w, const struct wire_action *a, struct region *r)
{
	uint64_t was = r->base;

	for (uint32_t p = 0; p < r->r->pages; p++) {
		void *to = (void *)(r->other + p * PAGE);

		if (r->mapped[p] &&
		    mremap(page_at(r, p), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to) {
			call(w, a, r, p, -1);
			r->mapped[p] = false; /* nothing is known of it now */
		}
	}
	r->base = r->other;
	r->other = was;
	if (probe_load((void *)(was + a->page * PAGE)) >= 0)
		fail(w, a, r, WIRE_MEM_NO_FAULT, a->page, 0, 0);
	load(w, a, r, a->page, a->count);
}

static void give_back(struct worker *w, const struct wire_action *a, struct region *r)
{
	uint32_t end = a->page + a->count;

	for (uint32_t p = a->page, to; p < end; p = to) {
		to = stretch(r, &p, end);
		if (to == p)
			continue;
		call(w, a, r, p, madvise(page_at(r, p), (to - p) * PAGE, MADV_DONTNEED));
		for (uint32_t i = p; i < to; i++)
			r->tag[i] = fresh(r, i);
	}
	load(w, a, r, a->page, a->count);
}

static void heap(struct worker *w, const struct wire_action *a, struct region *r)
{
	bool grow = a->kind == ACT_BRK_GROW;
	uint32_t to = grow ? a->page + a->count : a->page;

	if (grow ? to <= r->grown : to >= r->grown)
		return;
	if (syscall(SYS_brk, r->base + to * PAGE) != (long)(r->base + to * PAGE)) {
		errno = ENOMEM;
		call(w, a, r, to, -1);
		return;
	}
	for (uint32_t p = grow ? r->grown : to; p < (grow ? to : r->grown); p++) {
		r->mapped[p] = grow;
		r->tag[p] = 0;
	}
	load(w, a, r, a->page, a->count);
	r->grown = to;
}

/* Runs in the child; what it does to memory must not reach the parent. */
static void child(struct worker *w, const struct wire_action *a, struct region *r)
{
	struct wire_record *mine = w->child + 1;
	struct wire_record *first = w->next;

	in_child = true;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(10);
	load(w, a, r, a->page, a->count);
	if (r->r->kind != REG_SHARED)
		store(w, a, r, a->page, a->count);
	if (w->w->max_records + 1 < PAGE / sizeof(*mine)) {
		struct wire_record *end = run_roots(w, w->root, w->w->interval, mine);

		w->child->b = (uint32_t)(end - mine);
	}
	_exit(w->next == first ? 0 : 1);
}

static void fork_and_wait(struct worker *w, const struct wire_action *a, struct region *r)
{
	uint32_t gen = generation();
	uint64_t t = now_ns();
	int status = 0;
	pid_t pid;

	memset(w->child, 0, PAGE);
	pid = fork();
	if (!pid)
		child(w, a, r);
	if (pid < 0) {
		call(w, a, r, a->page, -1);
		return;
	}
	go_offline(w);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	/* Before going online: the child ran what this thread could see till then. */
	if (status) {
		fail(w, a, r, WIRE_MEM_CHILD, a->page, (uint64_t)(uint32_t)status, 0);
	} else if (w->child->b && w->end - w->next > (ptrdiff_t)w->child->b + 8) {
		rec(w, WIRE_RECORD_TXN, WIRE_TXN_CHILD, gen, t);
		memcpy(w->next, w->child + 1, w->child->b * sizeof(*w->next));
		w->next += w->child->b;
	}
	go_online(w);
	load(w, a, r, a->page, a->count);
}

void memory_action(struct worker *w, const struct wire_action *a)
{
	struct region *r = &regions[a->region];

	if (__atomic_exchange_n(&r->busy, true, __ATOMIC_ACQUIRE)) {
		w->mem_skipped++;
		return;
	}
	w->mem_ops++;
	rec(w, WIRE_RECORD_OP, (uint16_t)a->kind, a->region, now_ns());
	switch (a->kind) {
	case ACT_STORE:
		/* What others stored first, then our own for others to see. */
		load(w, a, r, a->page, a->count);
		store(w, a, r, a->page, a->count);
		break;
	case ACT_LOAD:
		load(w, a, r, a->page, a->count);
		break;
	case ACT_MAP:
		if (map(r, a->page, a->count))
			call(w, a, r, a->page, -1);
		load(w, a, r, a->page, a->count);
		store(w, a, r, a->page, a->count);
		break;
	case ACT_UNMAP:
		call(w, a, r, a->page, munmap(page_at(r, a->page), a->count * PAGE));
		memset(r->mapped + a->page, 0, a->count * sizeof(*r->mapped));
		load(w, a, r, a->page, 1);
		break;
	case ACT_PROT_NONE:
		protect(w, a, r, PROT_NONE);
		break;
	case ACT_PROT_READ:
		protect(w, a, r, PROT_READ);
		break;
	case ACT_PROT_WRITE:
		protect(w, a, r, PROT_READ | PROT_WRITE);
		break;
	case ACT_REMAP:
		remap(w, a, r);
		break;
	case ACT_DONTNEED:
		give_back(w, a, r);
		break;
	case ACT_HUGEPAGE:
	case ACT_COLLAPSE:
		/* A wish: it may well be refused. What is stored stays. */
		madvise((void *)(r->base & ~0x1ffffful), 0x200000,
			a->kind == ACT_HUGEPAGE ? MADV_HUGEPAGE : MADV_COLLAPSE);
		load(w, a, r, a->page, a->count);
		break;
	case ACT_FORK:
		fork_and_wait(w, a, r);
		break;
	case ACT_BRK_GROW:
	case ACT_BRK_DROP:
		heap(w, a, r);
		break;
	}
	__atomic_store_n(&r->busy, false, __ATOMIC_RELEASE);
}
