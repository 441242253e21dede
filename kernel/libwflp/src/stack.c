/* SPDX-License-Identifier: MIT */
/*
 * Applying patches and taking them back.  Applied patches are a stack: each one
 * redirects the entries of functions as the program was built, and those of the
 * copies that earlier patches have put in their place, since these may be called
 * directly by other new code, or through pointers that are about.
 *
 * What is mapped stays mapped once it was applied, because nobody knows who has
 * a pointer into it.  A patch that is applied again uses it again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

/* jmp rel32; jmp *0(%rip) and the address. */
#define JUMP_NEAR 5u
#define JUMP_FAR 14u

/* What the program had where it was ever changed. */
struct pristine {
	struct pristine *next;
	uintptr_t addr;
	uint8_t bytes[JUMP_FAR];
};

static struct {
	pthread_mutex_t lock;
	bool busy;		/* a transaction is under way, without the lock */
	bool torn;		/* forked by a thread that was not in the newest code */
	struct wflp_patch *mapped;
	struct wflp_patch *top;
	struct wflp_patch *run;	/* atomic: those that were ever applied, for ever */
	struct pristine *pristine;
	/* the last transaction */
	int64_t ticket;
	uint64_t generation;
	struct wflp_patch *patch;
	bool undo;
} L = { .lock = PTHREAD_MUTEX_INITIALIZER };

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fork_prepare(void)
{
	pthread_mutex_lock(&L.lock);
}

static void fork_parent(void)
{
	pthread_mutex_unlock(&L.lock);
}

/* The library's own handler has been here: its newest generation is our content. */
static void fork_child(void)
{
	L.torn = L.busy || (L.ticket && L.generation > wflp_newest_generation());
	L.busy = false;
	L.ticket = 0;
	pthread_mutex_unlock(&L.lock);
}

static void init_once(void)
{
	pthread_atfork(fork_prepare, fork_parent, fork_child);
}

/* ---- bytes ---- */

static void overlay(uint8_t *buf, uintptr_t addr, size_t len, uintptr_t at, const uint8_t *bytes,
		    size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (at + i >= addr && at + i - addr < len)
			buf[at + i - addr] = bytes[i];
}

/*
 * The code as it was loaded.  What the calling thread sees of a changed entry
 * depends on its view; what was there first does not.
 */
static void read_pristine(uint8_t *buf, uintptr_t addr, size_t len)
{
	memcpy(buf, (const void *)addr, len);
	for (const struct pristine *x = L.pristine; x; x = x->next)
		overlay(buf, addr, len, x->addr, x->bytes, sizeof(x->bytes));
}

static void replay(const struct wflp_patch *p, uint8_t *buf, uintptr_t addr, size_t len)
{
	if (!p)
		return;
	replay(p->below, buf, addr, len);
	for (size_t i = 0; i < p->nedits; i++)
		overlay(buf, addr, len, (uintptr_t)p->edits[i].addr, p->edits[i].new_bytes,
			p->edits[i].len);
}

/* And as the newest generation has it. */
static void read_newest(uint8_t *buf, uintptr_t addr, size_t len)
{
	read_pristine(buf, addr, len);
	replay(L.top, buf, addr, len);
}

static int keep_pristine(uintptr_t addr)
{
	struct pristine *x;

	for (x = L.pristine; x; x = x->next)
		if (x->addr == addr)
			return 0;
	x = malloc(sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->addr = addr;
	read_pristine(x->bytes, addr, sizeof(x->bytes));
	x->next = L.pristine;
	L.pristine = x;
	return 0;
}

static int check_old(const struct wflp_patch *p, const struct why *why)
{
	for (size_t i = 0; i < p->ntargets; i++) {
		const struct target *t = &p->targets[i];
		struct wflp_sha256 sum;
		uint8_t digest[32];
		uint8_t buf[512];

		wflp_sha256_begin(&sum);
		for (size_t done = 0; done < t->size; ) {
			size_t n = t->size - done < sizeof(buf) ? t->size - done : sizeof(buf);

			read_pristine(buf, t->addr + done, n);
			wflp_sha256_add(&sum, buf, n);
			done += n;
		}
		wflp_sha256_end(&sum, digest);
		if (memcmp(digest, t->sha256, sizeof(digest)))
			return wflp_why(why, -ESTALE,
					"function %s is not the code that the patch was made for",
					t->name);
	}
	return 0;
}

/* ---- edits ---- */

static size_t jump(uint8_t *out, uintptr_t from, uintptr_t to)
{
	uint64_t rel = to - (from + JUMP_NEAR);

	if ((uint64_t)(int64_t)(int32_t)rel == rel) {
		out[0] = 0xe9;
		memcpy(out + 1, &rel, 4);
		return JUMP_NEAR;
	}
	memcpy(out, "\xff\x25\0\0\0\0", 6);
	memcpy(out + 6, &to, 8);
	return JUMP_FAR;
}

static int add_edit(struct wflp_patch *p, uintptr_t from, size_t size, const struct target *t,
		    const struct why *why)
{
	struct wflp_edit *e = &p->edits[p->nedits];
	uint8_t *old = p->bytes + p->nedits * 2 * JUMP_FAR, *new = old + JUMP_FAR;
	size_t len = jump(new, from, t->new_addr);

	if (len > size)
		return wflp_why(why, -ERANGE, "function %s has %zu bytes, and a jump takes %zu",
				t->name, size, len);
	if (keep_pristine(from))
		return wflp_why(why, -ENOMEM, "no memory");
	read_newest(old, from, len);
	*e = (struct wflp_edit){ (void *)from, old, new, len };
	p->nedits++;
	return 0;
}

static const struct target *same_target(const struct wflp_patch *p, uintptr_t addr)
{
	for (size_t i = 0; i < p->ntargets; i++)
		if (p->targets[i].addr == addr && p->targets[i].new_addr)
			return &p->targets[i];
	return NULL;
}

static int make_edits(struct wflp_patch *p, const struct why *why)
{
	size_t layers = 1;
	int err = 0;

	for (const struct wflp_patch *q = L.top; q; q = q->below)
		layers++;
	free(p->edits);
	free(p->bytes);
	p->nedits = 0;
	p->edits = calloc(p->ntargets * layers, sizeof(*p->edits));
	p->bytes = calloc(p->ntargets * layers, 2 * JUMP_FAR);
	if (!p->edits || !p->bytes)
		return wflp_why(why, -ENOMEM, "no memory");
	for (size_t i = 0; i < p->ntargets && !err; i++) {
		const struct target *t = &p->targets[i];

		if (!t->new_addr)
			continue;
		err = add_edit(p, t->addr, t->size, t, why);
		for (const struct wflp_patch *q = L.top; q && !err; q = q->below) {
			const struct target *earlier = same_target(q, t->addr);

			if (earlier)
				err = add_edit(p, earlier->new_addr, earlier->new_size, t, why);
		}
	}
	if (!err && !p->nedits)
		err = wflp_why(why, -EBADMSG, "it replaces nothing");
	return err;
}

/* ---- what a stack must be free of ---- */

static int by_lo(const void *a, const void *b)
{
	const struct wflp_range *x = a, *y = b;

	return x->lo < y->lo ? -1 : x->lo > y->lo;
}

static void sort_ranges(struct wflp_ranges *r)
{
	size_t n = 0;

	qsort(r->r, r->n, sizeof(r->r[0]), by_lo);
	for (size_t i = 0; i < r->n; i++)
		if (n && r->r[i].lo <= r->r[n - 1].hi) {
			if (r->r[i].hi > r->r[n - 1].hi)
				r->r[n - 1].hi = r->r[i].hi;
		} else {
			r->r[n++] = r->r[i];
		}
	r->n = n;
}

/*
 * Threads may look at ranges at any time, so these are never freed, but used again
 * if they are the same.
 */
static const struct wflp_ranges *keep_ranges(const struct wflp_ranges *old, struct wflp_ranges *r)
{
	sort_ranges(r);
	if (!old || old->n != r->n || memcmp(old->r, r->r, r->n * sizeof(r->r[0])))
		return r;
	free(r);
	return old;
}

static bool replaced_again(const struct wflp_patch *p, const struct wflp_patch *q)
{
	for (size_t i = 0; i < p->ntargets; i++)
		if (!p->targets[i].anytime && same_target(q, p->targets[i].addr))
			return true;
	return false;
}

/*
 * To apply: the old functions, and the code of patches some of whose functions are
 * replaced once more.  To undo: all the code of the patch, which may call itself.
 */
static int make_ranges(struct wflp_patch *p, const struct why *why)
{
	struct wflp_ranges *away, *back;
	size_t n = p->ntargets;

	for (const struct wflp_patch *q = L.top; q; q = q->below)
		n++;
	away = calloc(1, sizeof(*away) + n * sizeof(away->r[0]));
	back = calloc(1, sizeof(*back) + sizeof(back->r[0]));
	if (!away || !back) {
		free(away);
		free(back);
		return wflp_why(why, -ENOMEM, "no memory");
	}
	for (size_t i = 0; i < p->ntargets; i++)
		if (!p->targets[i].anytime)
			away->r[away->n++] = (struct wflp_range){
				p->targets[i].addr, p->targets[i].addr + p->targets[i].size,
			};
	for (const struct wflp_patch *q = L.top; q; q = q->below)
		if (replaced_again(p, q))
			away->r[away->n++] = (struct wflp_range){ q->code, q->code_end };
	back->r[back->n++] = (struct wflp_range){ p->code, p->code_end };
	p->away = keep_ranges(p->away, away);
	p->back = keep_ranges(p->back, back);
	return 0;
}

/* ---- transactions ---- */

/* A patch that was published in place may still have failed. */
static void settle(void)
{
	struct wflp_report r;

	if (!L.ticket || wflp_report(L.ticket, &r, sizeof(r)) || r.stage != WFLP_FAILED)
		return;
	L.patch->applied = L.undo;
	if (L.undo) {
		L.patch->below = L.top;
		L.top = L.patch;
	} else {
		L.top = L.patch->below;
	}
	L.ticket = 0;
}

static const char *reason(int err)
{
	switch (err) {
	case -EACCES:
		return "the code may not be changed: either its mapping forbids it, or vm.mm_view has to be 2, because the process has given up changing its code (PR_SET_MDWE or a seccomp filter)";
	case -EPERM:
		return "vm.mm_view is 0, or a filter forbids it";
	case -ESTALE:
		return "it was changed by somebody else";
	case -EMFILE:
		return "too many earlier versions of the code are still in use";
	case -EBUSY:
		return "a patch is in progress";
	case -EAGAIN:
		return "within 2 s there was no stop at which it was on no stack";
	case -ENODEV:
		return "the library is not initialised";
	case -EINVAL:
		return "two of its functions are one and the same";
	default:
		return strerrordesc_np(-err);
	}
}

static const char *function_of_edit(const struct wflp_patch *p, int32_t i)
{
	uintptr_t new_addr, from;
	int32_t rel;

	if (i < 0 || (size_t)i >= p->nedits)
		return p->name;
	from = (uintptr_t)p->edits[i].addr;
	memcpy(&rel, (const uint8_t *)p->edits[i].new_bytes + 1, 4);
	new_addr = from + JUMP_NEAR + (uintptr_t)(intptr_t)rel;
	for (size_t t = 0; t < p->ntargets; t++)
		if (p->targets[t].addr == from || p->targets[t].new_addr == new_addr)
			return p->targets[t].name;
	return p->name;
}

/* Called with the lock, which it lets go of: threads may fork meanwhile. */
static int64_t transact(struct wflp_patch *p, bool undo, const struct wflp_edit *edits,
			const struct why *why)
{
	struct wflp_report r = { .error = 0, .bad_edit = -1 };
	int64_t ticket;
	int err;

	L.busy = true;
	pthread_mutex_unlock(&L.lock);
	ticket = wflp_apply_watched(edits, p->nedits, WFLP_APPLY_TRY, undo ? p->back : p->away);
	if (ticket > 0) {
		wflp_wait(ticket, WFLP_PUBLISHED, -1);
		err = wflp_report(ticket, &r, sizeof(r));
		if (!err && r.stage == WFLP_FAILED)
			err = r.error ? r.error : -EIO;
	} else {
		err = (int)ticket;
	}
	pthread_mutex_lock(&L.lock);
	L.busy = false;
	if (!err) {
		L.ticket = ticket;
		L.generation = r.generation;
		L.patch = p;
		L.undo = undo;
		p->generation = r.generation;
		p->applied = !undo;
		if (undo) {
			L.top = p->below;
		} else {
			p->below = L.top;
			L.top = p;
		}
	}
	return err ? wflp_why(why, err, "%s: %s", function_of_edit(p, r.bad_edit), reason(err)) :
		     ticket;
}

/* Locks. */
static int begin(const struct why *why)
{
	pthread_once(&once, init_once);
	pthread_mutex_lock(&L.lock);
	if (L.busy)
		return wflp_why(why, -EBUSY, "another patch is being applied");
	if (L.torn)
		return wflp_why(why, -ESTALE,
				"the process was forked in the middle of a patch, and is not to be patched");
	settle();
	return 0;
}

int64_t wflp_patch_apply(struct wflp_patch *p, char *text, size_t room)
{
	const struct why why = { text, room };
	int64_t ret = begin(&why);

	if (!ret && p->applied)
		ret = wflp_why(&why, -EALREADY, "it is applied already");
	if (!ret)
		ret = check_old(p, &why);
	if (!ret)
		ret = make_edits(p, &why);
	if (!ret)
		ret = make_ranges(p, &why);
	if (!ret) {
		/* Before anybody can be in its code. */
		if (!p->ever) {
			p->ever = true;
			p->run_next = L.run;
			store_release(&L.run, p);
		}
		ret = transact(p, false, p->edits, &why);
	}
	pthread_mutex_unlock(&L.lock);
	return ret;
}

int64_t wflp_patch_undo(struct wflp_patch *p, char *text, size_t room)
{
	const struct why why = { text, room };
	struct wflp_edit *edits = NULL;
	int64_t ret = begin(&why);

	if (!ret && !p->applied)
		ret = wflp_why(&why, -ENOENT, "it is not applied");
	if (!ret && p != L.top)
		ret = wflp_why(&why, -EBUSY, "patch %s was applied after it", L.top->name);
	if (!ret) {
		edits = calloc(p->nedits, sizeof(*edits));
		if (!edits)
			ret = wflp_why(&why, -ENOMEM, "no memory");
	}
	if (!ret) {
		for (size_t i = 0; i < p->nedits; i++)
			edits[i] = (struct wflp_edit){ p->edits[i].addr, p->edits[i].new_bytes,
						       p->edits[i].old_bytes, p->edits[i].len };
		ret = transact(p, true, edits, &why);
	}
	pthread_mutex_unlock(&L.lock);
	free(edits);
	return ret;
}

/* ---- files ---- */

static int open_new(const struct patchfile *pf, struct wflp_patch **patch, const struct why *why)
{
	struct wflp_patch *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return wflp_why(why, -ENOMEM, "no memory");
	memcpy(p->id, pf->head.id, sizeof(p->id));
	err = wflp_patch_map(p, pf, why);
	if (!err)
		err = check_old(p, why);
	if (err) {
		wflp_patch_unmap(p);
		free(p);
		return err;
	}
	p->next = L.mapped;
	L.mapped = p;
	*patch = p;
	return 0;
}

int wflp_patch_open(const void *file, size_t size, struct wflp_patch **patch, char *text,
		    size_t room)
{
	const struct why why = { text, room };
	struct wflp_patch *p;
	struct patchfile pf;
	int err;

	err = wflp_patchfile_read(&pf, file, size, &why);
	if (err)
		return err;
	err = begin(&why);
	if (!err) {
		for (p = L.mapped; p && memcmp(p->id, pf.head.id, sizeof(p->id)); p = p->next)
			;
		if (p)
			*patch = p;
		else
			err = open_new(&pf, patch, &why);
		if (!err)
			(*patch)->opened++;
	}
	pthread_mutex_unlock(&L.lock);
	wflp_patchfile_free(&pf);
	return err;
}

int wflp_patch_close(struct wflp_patch *p)
{
	struct wflp_patch **link = &L.mapped;
	bool last = false;
	int err = 0;

	pthread_mutex_lock(&L.lock);
	if (p->ever) {
		err = -EBUSY;
	} else if (!--p->opened) {
		last = true;
		while (*link != p)
			link = &(*link)->next;
		*link = p->next;
	}
	pthread_mutex_unlock(&L.lock);
	if (last) {
		/* Never published, so no thread has looked at the ranges. */
		free(p->edits);
		free(p->bytes);
		free((void *)p->away);
		free((void *)p->back);
		wflp_patch_unmap(p);
		free(p);
	}
	return err;
}

/* ---- for whoever runs patches in a process ---- */

const struct wflp_patch *wflp_patch_of(uintptr_t addr)
{
	const struct wflp_patch *p = load_acquire(&L.run);

	while (p && addr - (uintptr_t)p->map >= p->map_size)
		p = p->run_next;
	return p;
}

const struct wflp_patch *wflp_patch_at(uintptr_t addr)
{
	const struct wflp_patch *p = wflp_patch_of(addr);

	return p && addr < p->code_end ? p : NULL;
}

struct wflp_patch *wflp_patch_newest(void)
{
	struct wflp_patch *p;

	pthread_mutex_lock(&L.lock);
	settle();
	p = L.top;
	pthread_mutex_unlock(&L.lock);
	return p;
}

int64_t wflp_patch_ticket(void)
{
	int64_t ticket;

	pthread_mutex_lock(&L.lock);
	ticket = L.ticket;
	pthread_mutex_unlock(&L.lock);
	return ticket;
}

size_t wflp_patches(struct wflp_patch_info *info, size_t room)
{
	size_t n = 0, i = 0;

	pthread_mutex_lock(&L.lock);
	settle();
	for (const struct wflp_patch *p = L.top; p; p = p->below)
		n++;
	for (const struct wflp_patch *p = L.top; p; p = p->below) {
		size_t functions = 0, at = n - ++i;

		for (size_t t = 0; t < p->ntargets; t++)
			functions += !!p->targets[t].new_addr;
		if (at >= room)
			continue;
		info[at] = (struct wflp_patch_info){
			.name = p->name,
			.generation = p->generation,
			.functions = functions,
		};
		memcpy(info[at].id, p->id, sizeof(p->id));
	}
	pthread_mutex_unlock(&L.lock);
	return n;
}
