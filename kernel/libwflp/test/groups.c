/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "groups.h"

struct code now[WFLP_VARIANTS_MAX];
uint64_t calls, wrong;
bool model;

static struct code was[WFLP_VARIANTS_MAX][GENERATIONS];
static struct subject own, common;

enum wflp_strategy groups_init(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "model")) {
		model = true;
		fake_install();
		need(!wflp_init(WFLP_WAITFREE, 0), "wflp_init");
		return WFLP_WAITFREE;
	}
	subject_make(&own, 0);
	subject_make(&common, 0);
	return init_from_args(argc, argv);
}

pthread_t groups_spawn(void *(*fn)(void *), void *arg)
{
	return model ? fake_spawn(fn, arg) : spawn(fn, arg);
}

void groups_sleep(unsigned int us)
{
	if (model)
		fake_sleep(us);
	else
		sleep_us(us);
}

uint32_t check(void)
{
	unsigned int v = (unsigned int)wflp_thread_variant();
	uint64_t g = wflp_thread_generation();
	uint64_t o = model ? fake_call() : own.call();
	uint32_t c = model ? fake_word(8) : (uint32_t)common.call();
	bool bad = first_half(o) != second_half(o) || v >= WFLP_VARIANTS_MAX ||
		   g >= GENERATIONS || first_half(o) != was[v][g].own || c != was[v][g].common;

	__atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
	if (bad && !__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED))
		note("variant %u generation %llu: own %#x/%#x common %u, want %#x and %u", v,
		     (unsigned long long)g, first_half(o), second_half(o), c,
		     g < GENERATIONS ? was[v % 32][g].own : 0,
		     g < GENERATIONS ? was[v % 32][g].common : 0);
	return first_half(o);
}

static uint64_t next_generation(const struct code *then)
{
	uint64_t g = wflp_newest_generation() + 1;

	need(g < GENERATIONS, "room for generations");
	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX; v++)
		was[v][g] = then[v];
	return g;
}

void groups_same(void)
{
	next_generation(now);
}

static int64_t patch(unsigned int variant, bool of_all, uint32_t from, uint32_t to)
{
	const struct subject *s = of_all ? &common : &own;
	uint8_t *at = of_all ? fake_text + 8 : fake_text;
	const struct wflp_edit e[2] = {
		{ model ? at : s->imm[0], &from, &to, 4 },
		{ model ? at + 32 : s->imm[1], &from, &to, 4 },
	};

	return wflp_variant_apply(variant, e, 2, 0);
}

int64_t groups_patch_all_own(uint32_t from, uint32_t to)
{
	return patch(WFLP_VARIANT_ALL, false, from, to);
}

int64_t patch_own(unsigned int variant)
{
	struct code then[WFLP_VARIANTS_MAX];
	uint32_t from = now[variant].own;
	int64_t t;

	memcpy(then, now, sizeof(now));
	then[variant].own = (uint32_t)(wflp_newest_generation() + 1) << 8 | variant;
	next_generation(then);
	t = patch(variant, false, from, then[variant].own);
	if (t > 0)
		memcpy(now, then, sizeof(now));
	return t;
}

int64_t patch_common(void)
{
	struct code then[WFLP_VARIANTS_MAX];
	int64_t t;

	memcpy(then, now, sizeof(now));
	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX; v++)
		then[v].common = now[0].common + 1;
	next_generation(then);
	t = patch(WFLP_VARIANT_ALL, true, now[0].common, now[0].common + 1);
	if (t > 0)
		memcpy(now, then, sizeof(now));
	return t;
}

int64_t create(unsigned int like, unsigned int *variant)
{
	int64_t t;

	/* The number is not known before; none of its threads is there either. */
	next_generation(now);
	t = wflp_variant_create(like, variant);
	if (t > 0) {
		now[*variant] = now[like];
		was[*variant][wflp_newest_generation()] = now[like];
		was[*variant][wflp_newest_generation() + 1] = now[like];
	}
	return t;
}

int64_t adopt(unsigned int variant, unsigned int from)
{
	struct code then[WFLP_VARIANTS_MAX];
	int64_t t;

	memcpy(then, now, sizeof(now));
	for (unsigned int v = 0; v < WFLP_VARIANTS_MAX; v++)
		if (v == variant || variant == WFLP_VARIANT_ALL)
			then[v] = now[from];
	next_generation(then);
	t = wflp_variant_adopt(variant, from, 0);
	if (t > 0)
		memcpy(now, then, sizeof(now));
	return t;
}

bool over(int64_t ticket, struct wflp_report *r)
{
	int stage = ticket > 0 ? finish(ticket, WFLP_LAST_OVER) : (int)ticket;

	memset(r, 0, sizeof(*r));
	if (stage >= WFLP_LAST_OVER && stage != WFLP_FAILED &&
	    !wflp_report(ticket, r, sizeof(*r)) && report_sane(r, WFLP_WAITFREE))
		return true;
	wflp_report(ticket, r, sizeof(*r));
	note("ticket %lld: stage %d error %d over %u+%u of %u", (long long)ticket, stage,
	     r->error, r->migrated, r->pulled, r->threads);
	return false;
}
