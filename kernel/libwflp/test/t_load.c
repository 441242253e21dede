/* SPDX-License-Identifier: MIT */
/*
 * Patch files: applied, stacked, taken back; refused where they do not fit, and
 * whatever is damaged leaves the program as it is.  Under PR_SET_MDWE, if asked.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "harness.h"
#include "load.h"
#include "pack.h"
#include "wflp-patch.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

static char why[256];

static int run(void)
{
	wflp_quiescent();
	return subject();
}

static int over(int64_t ticket)
{
	int stage;

	if (ticket < 0)
		return (int)ticket;
	wflp_offline();
	stage = finish(ticket, WFLP_LAST_OVER);
	wflp_online();
	return stage;
}

static struct wflp_patch *load(const char *name, int value)
{
	struct wflp_patch *p = NULL;
	size_t size;
	uint8_t *file = pack(name, value, &size);
	int err = wflp_patch_open(file, size, &p, why, sizeof(why));

	is(err, 0, name);
	if (err)
		note("%s", why);
	free(file);
	return p;
}

/* No line of maps is writable and executable. */
static bool no_wx(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	bool good = f;

	while (f && fgets(line, sizeof(line), f))
		good = good && !strstr(line, " rwx") && !strstr(line, " -wx");
	if (f)
		fclose(f);
	return good;
}

static void refused(const char *what, size_t at, uint8_t value, int want)
{
	struct wflp_patch *p;
	size_t size;
	uint8_t *file = pack("refused", 9, &size);
	int err;

	file[at] ^= value;
	repack(file, size);
	why[0] = '\0';
	err = wflp_patch_open(file, size, &p, why, sizeof(why));
	ok(err == want && why[0], "%s: %d, want %d: %s", what, err, want, why);
	free(file);
}

static size_t find(const void *bytes, size_t n)
{
	size_t size;
	uint8_t *file = pack("refused", 9, &size), *at = memmem(file, size, bytes, n);
	size_t found = at ? (size_t)(at - file) : 0;

	free(file);
	need(found, "what is to be damaged");
	return found;
}

/*
 * Each type of relocation, against a number in read-only data: what fits it is taken.
 * An address fits in 32 bits if the program lies low, as one without PIE does, for
 * the patch lies near the program.  The number is no thread's own, and a type that is
 * not known is named by its number.
 */
static void test_relocations(void)
{
	const bool low = (uintptr_t)subject < INT32_MAX;
	static const char not_ours[] = "thread-local here and not there";
	const struct {
		uint8_t type;
		const char *name;
		bool fits;
	} known[] = {
		{ R_X86_64_NONE, "NONE", true }, { R_X86_64_64, "64", true },
		{ R_X86_64_PC32, "PC32", true }, { R_X86_64_PC64, "PC64", true },
		{ R_X86_64_PLT32, "PLT32", true }, { R_X86_64_GOTPCREL, "GOTPCREL", true },
		{ R_X86_64_GOTPCRELX, "GOTPCRELX", true },
		{ R_X86_64_REX_GOTPCRELX, "REX_GOTPCRELX", true },
		{ R_X86_64_32, "R_X86_64_32", low }, { R_X86_64_32S, "R_X86_64_32S", low },
		{ R_X86_64_TPOFF32, not_ours, false }, { R_X86_64_TPOFF64, not_ours, false },
		{ R_X86_64_GOTTPOFF, not_ours, false }, { R_X86_64_TLSGD, not_ours, false },
		{ R_X86_64_TLSLD, "TLSLD", true },	/* whose symbol says nothing but the module */
		{ R_X86_64_DTPOFF32, not_ours, false }, { R_X86_64_DTPOFF64, not_ours, false },
	};
	const uint64_t info = 4ul << 32 | R_X86_64_PC32;
	size_t at = find(&info, sizeof(info));

	for (unsigned int type = 0; type < 64; type++) {
		struct wflp_patch *p = NULL;
		const char *name = NULL;
		char number[16];
		bool fits = false;
		size_t size;
		uint8_t *file = pack("relocation", 9, &size);
		int err;

		for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
			if (known[i].type == type) {
				name = known[i].name;
				fits = known[i].fits;
			}
		snprintf(number, sizeof(number), "%u", type);
		file[at] = (uint8_t)type;
		repack(file, size);
		why[0] = '\0';
		err = wflp_patch_open(file, size, &p, why, sizeof(why));
		if (fits)
			ok(!err, "relocation %u: %d %s", type, err, why);
		else
			ok(err < 0 && strstr(why, name ? name : number), "relocation %u: %d %s",
			   type, err, why);
		if (!err)
			is(wflp_patch_close(p), 0, "closed");
		free(file);
	}
}

static void test_refusals(void)
{
	size_t head = find(WFLP_PATCH_MAGIC, 8), size;
	uint8_t *file = pack("refused", 9, &size);
	const uint64_t plt = 2ul << 32 | 4;
	struct wflp_patch *p;

	refused("another version", head + 8, 2, -EBADMSG);
	refused("unknown flags", head + 28, 1, -EBADMSG);
	refused("another count of functions", head + 20, 2, -EBADMSG);
	refused("an unknown relocation", find(&plt, sizeof(plt)), 0x20, -EBADMSG);
	refused("another machine", 18, 1, -EBADMSG);
	file[size / 2] ^= 1;
	is(wflp_patch_open(file, size, &p, why, sizeof(why)), -EBADMSG, "a digest that does not fit");
	file[size / 2] ^= 1;
	for (size_t n = 0; n < size; n += 7)
		if (wflp_patch_open(file, n, &p, NULL, 0) != -EBADMSG) {
			ok(false, "cut off after %zu bytes", n);
			break;
		}
	free(file);
	/* Behind the count and the id of the first object. */
	{
		size_t at;

		file = pack("refused", 9, &size);
		at = (size_t)((uint8_t *)memmem(file, size, WFLP_PATCH_MAGIC, 8) - file);
		at = (at + sizeof(struct wflp_patch_head) + 15) & ~15ul;
		refused("another build", at + 8, 1, -ESTALE);
		at = (at + sizeof(struct wflp_patch_object) + 15) & ~15ul;
		refused("other old code", at + offsetof(struct wflp_patch_func, old_sha256), 1,
			-ESTALE);
		refused("a function that is too short", at + offsetof(struct wflp_patch_func, old_size),
			(uint8_t)(subject_size() ^ 4), -ESTALE);
		free(file);
	}
	is(run(), 1, "after refusals the code is");
}

/*
 * Frame descriptions are counted before they are relocated.  Here the file says that
 * there is one, and a relocation makes the end of the list a length: 2000 follow.
 */
static void test_frames_by_relocation(void)
{
	enum { MORE = 2000, EACH = 24, FIRST = 48, PLACE = 4096 + 8 };
	static uint8_t eh[FIRST + MORE * EACH];
	Elf64_Rela relas[2] = {
		{ 0 }, { FIRST, ELF64_R_INFO(0, R_X86_64_32), EACH - 4 },
	};
	struct wflp_patch *p;
	size_t size, at;
	uint8_t *file = pack("frames", 9, &size), *more;
	Elf64_Shdr h[2];
	Elf64_Ehdr e;

	memcpy(&e, file, sizeof(e));
	at = size;
	more = realloc(file, size + sizeof(eh) + sizeof(relas));
	need(more, "memory");
	file = more;
	/* .eh_frame and its relocations, where pack() has them. */
	memcpy(&h[0], file + e.e_shoff + 3 * sizeof(h[0]), sizeof(h[0]));
	memcpy(&h[1], file + e.e_shoff + 5 * sizeof(h[1]), sizeof(h[1]));
	need(h[0].sh_size == FIRST && h[1].sh_size == sizeof(relas[0]), "the frames");
	memcpy(eh, file + h[0].sh_offset, FIRST);
	memcpy(relas, file + h[1].sh_offset, sizeof(relas[0]));
	for (uint32_t i = 0, o = FIRST; i < MORE; i++, o += EACH) {
		const uint32_t fde[4] = { i ? EACH - 4 : 0, o + 4, -(PLACE + o + 8), 1 };

		memcpy(eh + o, fde, sizeof(fde));
	}
	h[0].sh_offset = at;
	h[0].sh_size = sizeof(eh);
	h[1].sh_offset = at + sizeof(eh);
	h[1].sh_size = sizeof(relas);
	memcpy(file + at, eh, sizeof(eh));
	memcpy(file + at + sizeof(eh), relas, sizeof(relas));
	memcpy(file + e.e_shoff + 3 * sizeof(h[0]), &h[0], sizeof(h[0]));
	memcpy(file + e.e_shoff + 5 * sizeof(h[1]), &h[1], sizeof(h[1]));
	size = at + sizeof(eh) + sizeof(relas);
	repack(file, size);
	is(wflp_patch_open(file, size, &p, why, sizeof(why)), -EBADMSG,
	   "more frame descriptions than were counted");
	ok(strstr(why, "frame descriptions"), "which is what it says: %s", why);
	free(file);
}

/* Whoever has opened a patch may close it, and nobody else's is gone by that. */
static void test_opened_twice(void)
{
	struct wflp_patch *a = load("twice", 4), *b = load("twice", 4);

	ok(a == b, "opened twice, it is the same");
	is(wflp_patch_close(a), 0, "one closes it");
	is(over(wflp_patch_apply(b, why, sizeof(why))) >= WFLP_LAST_OVER, 1, "the other applies it");
	is(run(), 4, "and it runs");
	is(over(wflp_patch_undo(b, why, sizeof(why))) >= WFLP_LAST_OVER, 1, "and takes it back");
}

/* What has got as far as to be opened, and is refused then, leaves nothing behind. */
static void test_refused_late(void)
{
	struct wflp_patch_func func;
	struct wflp_sha256 sum;
	struct wflp_patch *p;
	size_t size, at;
	uint8_t *file = pack("late", 9, &size);

	at = (size_t)((uint8_t *)memmem(file, size, WFLP_PATCH_MAGIC, 8) - file);
	at = (at + sizeof(struct wflp_patch_head) + 15) & ~15ul;
	at = (at + sizeof(struct wflp_patch_object) + 15) & ~15ul;
	memcpy(&func, file + at, sizeof(func));
	func.old_size = 4;
	wflp_sha256_begin(&sum);
	wflp_sha256_add(&sum, (void *)subject, func.old_size);
	wflp_sha256_end(&sum, func.old_sha256);
	memcpy(file + at, &func, sizeof(func));
	repack(file, size);
	is(wflp_patch_open(file, size, &p, why, sizeof(why)), 0, "a function of 4 bytes");
	is(wflp_patch_apply(p, why, sizeof(why)), -ERANGE, "is too short for a jump");
	is(wflp_patch_close(p), 0, "closed");
	free(file);
}

/* Damage that fits its digest: refused or not, nothing goes wrong and nothing leaks in. */
static void test_mutations(unsigned int rounds)
{
	unsigned int taken = 0;
	uint64_t state = 1;

	for (unsigned int i = 0; i < rounds; i++) {
		struct wflp_patch *p = NULL;
		size_t size;
		uint8_t *file = pack("mutant", 9, &size);

		for (uint32_t n = 1 + rnd(&state) % 4; n; n--) {
			size_t at = rnd(&state) % size;

			if (rnd(&state) % 2)
				file[at] ^= (uint8_t)(1u << rnd(&state) % 8);
			else
				file[at] = (uint8_t)rnd(&state);
		}
		repack(file, size);
		if (!wflp_patch_open(file, size, &p, why, sizeof(why))) {
			taken++;
			wflp_patch_close(p);
		}
		free(file);
	}
	note("%u mutants, %u of them patches", rounds, taken);
	ok(taken < rounds, "damaged files are refused");
	is(run(), 1, "and the code is");
}

int main(int argc, char **argv)
{
	bool mdwe = argc > 2 && !strcmp(argv[2], "mdwe");
	struct wflp_patch *a, *b, *again;
	FILE *f;
	int before;

	deadline(120);
	if (mdwe) {
		f = fopen("/proc/sys/vm/mm_view", "w");
		if (f) {
			fputs("2", f);
			fclose(f);
		}
		need(!prctl(PR_SET_MDWE, 1, 0, 0, 0), "PR_SET_MDWE");
	}
	init_from_args(argc, argv);
	need(!wflp_thread_register(), "register");
	is(run(), 1, "as built");
	test_refusals();
	test_relocations();
	test_frames_by_relocation();
	test_refused_late();
	test_mutations(scaled(20000));

	test_opened_twice();
	a = load("first", 2);
	b = load("second", 3);
	again = load("first", 2);
	ok(a == again && a != b, "the same file is the same patch");
	is(over(wflp_patch_apply(a, why, sizeof(why))) >= WFLP_LAST_OVER, 1, "first applied");
	before = counter;
	is(run(), 2, "and runs");
	is(counter, before + 1, "with the program's own data");
	is(wflp_patch_apply(a, why, sizeof(why)), -EALREADY, "twice");
	is(wflp_patch_close(a), -EBUSY, "closed while applied");
	is(over(wflp_patch_apply(b, why, sizeof(why))) >= WFLP_LAST_OVER, 1, "second on top");
	is(run(), 3, "and runs");
	is(wflp_patch_undo(a, why, sizeof(why)), -EBUSY, "not from below");
	is(over(wflp_patch_undo(b, why, sizeof(why))) >= WFLP_LAST_OVER, 1, "second taken back");
	is(run(), 2, "first runs");
	for (int i = 0; i < 20; i++) {
		if (over(wflp_patch_undo(a, why, sizeof(why))) < WFLP_LAST_OVER || run() != 1 ||
		    over(wflp_patch_apply(a, why, sizeof(why))) < WFLP_LAST_OVER || run() != 2) {
			ok(false, "round %d: %s", i, why);
			break;
		}
	}
	is(over(wflp_patch_undo(a, why, sizeof(why))) >= WFLP_LAST_OVER, 1, "first taken back");
	is(run(), 1, "as built");
	is(wflp_patch_undo(a, why, sizeof(why)), -ENOENT, "nothing to take back");
	ok(no_wx(), "no mapping is writable and executable");
	return done();
}
