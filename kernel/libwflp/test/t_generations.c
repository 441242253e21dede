/* SPDX-License-Identifier: MIT */
/*
 * t_generations waitfree [N]: N generations in a row (200 if not said) in a busy
 * program of 64 threads, which serve requests, map and unmap memory, and rest, some
 * of them online, most of them offline.  What the process and the system have of anything that a
 * generation takes is the same at the end as it was near the beginning.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"
#include "wflp/mm_view.h"

#define THREADS 64
#define PAGE 4096

static struct subject s;
static bool stop;
static uint64_t calls, wrong, failed, naps, maps;

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

static void call(uint64_t *n)
{
	uint64_t v = s.call();

	++*n;
	if (first_half(v) != second_half(v) || first_half(v) != (uint32_t)wflp_thread_generation())
		__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
}

static void map(void)
{
	char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		__atomic_add_fetch(&failed, 1, __ATOMIC_RELAXED);
		return;
	}
	for (int i = 0; i < 4; i++)
		p[i * PAGE] = 1;
	if (munmap(p, 4 * PAGE))
		__atomic_add_fetch(&failed, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&maps, 1, __ATOMIC_RELAXED);
}

/* One in eight is always online, and has to be waited for; the others are not. */
static void *worker(void *arg)
{
	uintptr_t i = (uintptr_t)arg;
	uint64_t seed = i + 1, n = 0;

	need(!wflp_thread_register(), "register");
	while (!stopped()) {
		for (int k = 0; k < 20; k++)
			call(&n);
		if (rnd(&seed) % 16 == 0)
			map();
		call(&n);
		if (i % 8 == 0) {
			sleep_us(rnd(&seed) % 20000);
			if (wflp_quiescent() < 0)
				__atomic_add_fetch(&failed, 1, __ATOMIC_RELAXED);
			continue;
		}
		wflp_offline();
		sleep_us(50000 + rnd(&seed) % 250000);
		if (wflp_online() < 0)
			__atomic_add_fetch(&failed, 1, __ATOMIC_RELAXED);
		__atomic_add_fetch(&naps, 1, __ATOMIC_RELAXED);
	}
	need(!wflp_thread_unregister(), "unregister");
	__atomic_add_fetch(&calls, n, __ATOMIC_RELAXED);
	return NULL;
}

/* What there is of everything; in kB where it is memory. */
enum {
	TABLES, RSS, PAGES, OWN, VIEWS, FDS, FILES, SLAB, ALL_TABLES, USED, COUNTERS
};

/*
 * How much more is no growth. Exact where nothing but views makes a difference;
 * for the system it is less than what 10,000 generations that each lose 64 bytes
 * of it would amount to.
 */
static const struct {
	const char *name;
	long slack;
} counters[COUNTERS] = {
	[TABLES] = { "VmPTE", 16 }, [RSS] = { "VmRSS", 256 }, [PAGES] = { "private pages", 0 },
	[OWN] = { "own tables", 0 }, [VIEWS] = { "views", 0 }, [FDS] = { "descriptors", 0 },
	[FILES] = { "files of the system", 64 }, [SLAB] = { "Slab", 640 },
	[ALL_TABLES] = { "PageTables of the system", 64 }, [USED] = { "memory not free", 1536 },
};

struct sample {
	long of[COUNTERS];
	uint64_t id;		/* of the newest view */
};

/* The number behind key, in a file of lines; without a file that is too old to have it, 0. */
static long value(const char *path, const char *key)
{
	size_t len = strlen(key);
	FILE *f = fopen(path, "re");
	char line[256];
	long v = 0;

	need(f != NULL, path);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, len)) {
			v = strtol(line + len, NULL, 10);
			break;
		}
	fclose(f);
	return v;
}

/* Free pages that each processor keeps on lists are not in MemFree. */
static long listed(void)
{
	FILE *f = fopen("/proc/zoneinfo", "re");
	char line[256];
	long pages = 0, n;

	need(f != NULL, "/proc/zoneinfo");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, " count: %ld", &n) == 1)
			pages += n;
	fclose(f);
	return pages * (PAGE / 1024);
}

static long descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	long n = 0;

	need(d != NULL, "/proc/self/fd");
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void refresh(void)
{
	int fd = open("/proc/sys/vm/stat_refresh", O_WRONLY | O_CLOEXEC);

	/* Fold the parts of counters that each processor keeps. */
	if (fd >= 0) {
		if (write(fd, "1", 1) != 1)
			note("stat_refresh: %s", strerror(errno));
		close(fd);
	}
}

/* id state threads private_pages own_tables, a line a view */
static void views(struct sample *c)
{
	FILE *f = fopen("/proc/self/mm_views", "re");
	unsigned long long id, threads, pages, tables;
	char line[256], state[32];

	need(f != NULL, "/proc/self/mm_views");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llu %31s %llu %llu %llu", &id, state, &threads, &pages, &tables) != 5)
			continue;
		c->of[VIEWS]++;
		c->of[PAGES] += (long)pages;
		c->of[OWN] += (long)tables;
		c->id = id > c->id ? id : c->id;
	}
	fclose(f);
}

/* The least of some looks: at any moment something is on its way. */
static struct sample sample(void)
{
	struct sample least = { .id = 0 };

	for (int look = 0; look < 10; look++) {
		struct sample c = { .id = 0 };

		sleep_us(3000);
		refresh();
		views(&c);
		c.of[TABLES] = value("/proc/self/status", "VmPTE:");
		c.of[RSS] = value("/proc/self/status", "VmRSS:");
		c.of[FDS] = descriptors();
		c.of[FILES] = value("/proc/sys/fs/file-nr", "");
		c.of[SLAB] = value("/proc/meminfo", "Slab:");
		c.of[ALL_TABLES] = value("/proc/meminfo", "PageTables:");
		c.of[USED] = value("/proc/meminfo", "MemTotal:") - value("/proc/meminfo", "MemFree:") - listed();
		for (int i = 0; i < COUNTERS; i++)
			if (!look || c.of[i] < least.of[i])
				least.of[i] = c.of[i];
		least.id = c.id;
	}
	return least;
}

static void show(const char *when, const struct sample *c)
{
	note("%s: VmPTE %ld, VmRSS %ld, private pages %ld, own tables %ld, views %ld (newest %llu), descriptors %ld, "
	     "files %ld, Slab %ld, PageTables %ld, not free %ld", when, c->of[TABLES], c->of[RSS], c->of[PAGES],
	     c->of[OWN], c->of[VIEWS], (unsigned long long)c->id, c->of[FDS], c->of[FILES], c->of[SLAB],
	     c->of[ALL_TABLES], c->of[USED]);
}

/* Bits of the counters that have grown. */
static unsigned int grown(const struct sample *from, const struct sample *to)
{
	unsigned int bits = 0;

	for (int i = 0; i < COUNTERS; i++)
		if (to->of[i] > from->of[i] + counters[i].slack)
			bits |= 1u << i;
	return bits;
}

static uint32_t version;

/* last: and until the one before it has gone, so that one can count. */
static bool generation(struct wflp_report *r, bool last)
{
	int64_t ticket = subject_patch(&s, version, version + 1, 0);
	int stage = finish(ticket, last ? WFLP_RELEASED : WFLP_LAST_OVER);

	version++;
	if (stage >= WFLP_LAST_OVER && stage <= WFLP_RELEASED && !wflp_report(ticket, r, sizeof(*r)) && report_sane(r, WFLP_WAITFREE))
		return true;
	note("generation %u: stage %d, error %d, over %u+%u of %u", version, stage, r->error,
	     r->migrated, r->pulled, r->threads);
	return false;
}

int main(int argc, char **argv)
{
	unsigned int n = argc > 2 ? (unsigned int)atoi(argv[2]) : scaled(200), settle, bits;
	uint64_t migrated = 0, pulled = 0, began;
	struct sample first, last;
	bool good = true;
	pthread_t t[THREADS];
	struct wflp_report r;

	need(n >= 20, "N of at least 20");
	init_from_args(argc, argv);
	deadline(120 + n);
	subject_make(&s, 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		t[i] = spawn(worker, (void *)i);

	/* First what allocators keep once they have had it: a tenth, but some. */
	settle = n / 10 > 50 ? n / 10 : 10;
	while (good && version < settle)
		good = generation(&r, version + 1 == settle);
	first = sample();
	show("early", &first);
	began = now_ns();
	while (good && version < settle + n) {
		bool look = (version + 1) % (1 + n / 4) == 0;

		good = generation(&r, look || version + 1 == settle + n);
		migrated += r.migrated;
		pulled += r.pulled;
		if (look) {
			last = sample();
			show("meanwhile", &last);
		}
	}
	last = sample();
	show("late", &last);
	note("%u generations after %u, in %llu ms: %llu moved, %llu pulled, %llu naps, %llu mappings", version - settle,
	     settle, (unsigned long long)((now_ns() - began) / 1000000), (unsigned long long)migrated,
	     (unsigned long long)pulled, (unsigned long long)naps, (unsigned long long)maps);
	bits = grown(&first, &last);
	ok(good && version == settle + n, "%u generations", n);
	for (int i = 0; i < COUNTERS; i++)
		ok(!(bits & 1u << i), "%s: %ld, then %ld", counters[i].name, first.of[i], last.of[i]);
	is((long long)(last.id - first.id), (long long)n, "one view a generation");
	ok(migrated && pulled, "awake and asleep");

	/* The same look must find what is really lost: four files and 16 kB at a time. */
	first = last;
	for (int i = 0; good && i < 100; i++) {
		char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

		need(p != MAP_FAILED, "lose memory");
		for (int k = 0; k < 4; k++)
			need(open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0, "lose a file");
		good = generation(&r, i == 99);
	}
	last = sample();
	show("losing", &last);
	bits = grown(&first, &last);
	ok(bits & 1u << RSS && bits & 1u << FDS && bits & 1u << FILES && bits & 1u << USED, "a loss shows (%#x)", bits);

	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	is((long long)failed, 0, "moves, mappings that failed");
	is((long long)wrong, 0, "calls that mixed versions or ran another");
	ok(calls > 0, "%llu calls", (unsigned long long)calls);
	is(wflp_fini(), 0, "fini");
	return done();
}
