// SPDX-License-Identifier: Apache-2.0
/* The patchable text, and the thread that hands patches over. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "exec.h"

/* What the text is if every patch handed over so far takes effect. */
static uint8_t *shadow;

static int backing_file(void)
{
	const struct wire_spec_header *h = P.spec.h;
	char path[] = "/tmp/wflp-text-XXXXXX";
	int fd;

	if (h->backing == WIRE_BACKING_MEMFD) {
		fd = memfd_create("wflp-text", MFD_CLOEXEC);
	} else {
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			unlink(path);
	}
	if (fd < 0 || pwrite(fd, P.spec.image, h->text_len, 0) != (ssize_t)h->text_len)
		die(WIRE_END_SETUP, "write text");
	return fd;
}

void text_map(void)
{
	const struct wire_spec_header *h = P.spec.h;
	void *at = (void *)h->text_addr, *p;
	int fd = -1;

	if (h->backing == WIRE_BACKING_ANONYMOUS) {
		p = mmap(at, h->text_len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		if (p == at)
			memcpy(p, P.spec.image, h->text_len);
		if (p == at && mprotect(p, h->text_len, PROT_READ | PROT_EXEC))
			p = MAP_FAILED;
	} else {
		fd = backing_file();
		p = mmap(at, h->text_len, PROT_READ | PROT_EXEC,
			 MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0);
		close(fd);
	}
	if (p != at)
		die(WIRE_END_SETUP, "map text");
	shadow = malloc(h->text_len);
	if (!shadow)
		die(WIRE_END_SETUP, "map text");
	memcpy(shadow, P.spec.image, h->text_len);
}

/* ---- a patch as edits ---- */

static void edit_add(struct edits *x, uint64_t addr, const uint8_t *old_bytes,
		     const uint8_t *new_bytes, size_t len)
{
	if (x->n == x->room) {
		x->room = x->room ? 2 * x->room : 64;
		x->e = realloc(x->e, x->room * sizeof(*x->e));
		if (!x->e)
			die(WIRE_END_SETUP, "allocate edits");
	}
	x->e[x->n++] = (struct wflp_edit){ (void *)addr, old_bytes, new_bytes, len };
}

static const uint8_t *version_bytes(const struct wire_change *c)
{
	return P.spec.blob + P.spec.versions[c->version].blob;
}

static uint8_t *shadow_at(uint64_t addr) { return shadow + (addr - P.spec.h->text_addr); }

static void list_edits(struct edits *x, const struct wire_patch *p, bool runs)
{
	x->n = 0;
	for (uint32_t i = 0; i < p->changes; i++) {
		const struct wire_change *c = &P.spec.changes[p->change + i];
		const struct wire_function *f = &P.spec.functions[c->function];
		const uint8_t *old_bytes = shadow_at(f->entry), *new_bytes = version_bytes(c);

		if (!runs) {
			edit_add(x, f->entry, old_bytes, new_bytes, f->len);
			continue;
		}
		for (uint32_t at = 0, to; at < f->len; at = to) {
			to = at + 1;
			if (old_bytes[at] == new_bytes[at])
				continue;
			while (to < f->len && old_bytes[to] != new_bytes[to])
				to++;
			edit_add(x, f->entry + at, old_bytes + at, new_bytes + at, to - at);
		}
	}
}

void shadow_apply(const struct wire_patch *p)
{
	for (uint32_t i = 0; i < p->changes; i++) {
		const struct wire_change *c = &P.spec.changes[p->change + i];
		const struct wire_function *f = &P.spec.functions[c->function];

		memcpy(shadow_at(f->entry), version_bytes(c), f->len);
	}
}

void edits_of(struct edits *x, const struct wire_patch *p)
{
	list_edits(x, p, p->flags & WIRE_PATCH_RUNS);
	if (!x->n) /* nothing differs; a patch of no edits is not a patch */
		list_edits(x, p, false);
	free(x->wrong);
	x->wrong = NULL;
	if (p->flags & WIRE_PATCH_WRONG) {
		/* In the last edit: all others are already known to be good then. */
		struct wflp_edit *e = &x->e[x->n - 1];

		x->wrong = malloc(e->len);
		if (!x->wrong)
			die(WIRE_END_SETUP, "allocate edits");
		memcpy(x->wrong, e->old_bytes, e->len);
		x->wrong[e->len - 1] ^= 0x40;
		e->old_bytes = x->wrong;
	}
}

static int64_t hand_over(struct edits *x, const struct wire_patch *p)
{
	edits_of(x, p);
	return wflp_apply(x->e, x->n, p->flags & WIRE_PATCH_TRY ? WFLP_APPLY_TRY : 0);
}

/* ---- the queue ---- */

struct ticket {
	int64_t id;
	struct wire_report *rep;
	bool done;	/* all over, or failed */
};

static void update(struct ticket *t)
{
	struct wire_report *r = t->rep;
	struct wflp_report w;

	if (t->id <= 0 || wflp_report(t->id, &w, sizeof(w)))
		return;
	r->generation = w.generation;
	r->stage = w.stage;
	r->error = w.error;
	r->queued_ns = w.queued_ns;
	r->preparing_ns = w.preparing_ns;
	r->create_ns = w.create_ns;
	r->written_ns = w.written_ns;
	r->sealed_ns = w.sealed_ns;
	r->published_ns = w.published_ns;
	r->first_over_ns = w.first_over_ns;
	r->last_over_ns = w.last_over_ns;
	r->released_ns = w.released_ns;
	r->threads = w.threads;
	r->migrated = w.migrated;
	r->pulled = w.pulled;
	r->bad_edit = w.bad_edit;
	r->held_gen = w.held_generation;
	r->held_tid = w.held_tid;
}

static void published(struct ticket *t)
{
	if (t->rep->seen_ns || wflp_wait(t->id, WFLP_PUBLISHED, -1) < 0)
		return;
	t->rep->seen_ns = now_ns();
}

/* Returns false if it failed though it should not have. */
static bool settle(struct ticket *t, const struct wire_patch *p, bool drain)
{
	if (t->id <= 0 || t->done)
		return true;
	published(t);
	wflp_wait(t->id, WFLP_LAST_OVER, -1);
	/* Not for ever: a thread that is no thread of ours may hold a view. */
	if (drain)
		wflp_wait(t->id, WFLP_RELEASED, 2000000000);
	update(t);
	t->done = true;
	return (t->rep->stage == WFLP_FAILED) == !!(p->flags & WIRE_PATCH_WRONG);
}

static void shadow_again(const struct ticket *t, size_t n)
{
	memcpy(shadow, P.spec.image, P.spec.h->text_len);
	for (size_t i = 0; i < n; i++)
		if (t[i].id > 0 && t[i].rep->stage != WFLP_FAILED)
			shadow_apply(&P.spec.patches[i]);
}

void *patcher_main(void *arg)
{
	const struct spec *s = &P.spec;
	size_t n = s->h->patches.count, oldest = 0;
	struct ticket *tickets = calloc(n + 1, sizeof(*tickets));
	struct edits x = { 0 };

	(void)arg;
	if (!tickets)
		die(WIRE_END_SETUP, "allocate tickets");
	for (size_t i = 0; i < n; i++) {
		const struct wire_patch *p = &s->patches[i];
		struct ticket *t = &tickets[i];
		bool good = true;

		sleep_until(P.start_ns + p->at_ns);
		while (i - oldest >= s->h->depth) {
			good &= settle(&tickets[oldest], &s->patches[oldest], s->h->drain);
			oldest++;
		}
		if (!good) { /* whatever was queued behind it was made for other text */
			for (; oldest < i; oldest++)
				settle(&tickets[oldest], &s->patches[oldest], false);
			shadow_again(tickets, i);
		}
		t->rep = &P.reports[i];
		t->rep->patch = (uint32_t)i;
		t->rep->bad_edit = -1;
		t->rep->applied_ns = now_ns();
		P.nreports = i + 1;
		if (!patching() && p->stall_ns)
			__atomic_store_n(&P.stalled_until, t->rep->applied_ns + p->stall_ns, __ATOMIC_RELEASE);
		if (P.strategy == WIRE_STRATEGY_STOPWORLD)
			stop_patch(t->rep);
		if (!by_library())
			continue;
		t->id = hand_over(&x, p);
		t->rep->edits = (uint32_t)x.n;
		t->rep->result = t->id < 0 ? (int32_t)t->id : 0;
		if (t->id > 0 && !(p->flags & WIRE_PATCH_WRONG))
			shadow_apply(p);
		if (t->id > 0 && s->h->depth == 1)
			published(t);
	}
	for (; oldest < n; oldest++)
		settle(&tickets[oldest], &s->patches[oldest], false);
	__atomic_store_n(&P.patches_done, true, __ATOMIC_RELEASE);
	/* The last generations drain once the workers have ended. */
	while (__atomic_load_n(&P.alive, __ATOMIC_ACQUIRE))
		sleep_until(now_ns() + 200000);
	for (size_t i = 0; i < n && by_library(); i++) {
		if (tickets[i].id > 0 && tickets[i].rep->stage == WFLP_LAST_OVER)
			wflp_wait(tickets[i].id, WFLP_RELEASED, 2000000000);
		update(&tickets[i]);
	}
	free(x.wrong);
	free(x.e);
	free(tickets);
	return NULL;
}
