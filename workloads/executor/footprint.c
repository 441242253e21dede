// SPDX-License-Identifier: Apache-2.0
/*
 * What views, patches and generations take of memory, and whether they give it
 * back: counted by the kernel for this process, and for the whole system as all
 * that is not free, which nothing can hide from.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "micro.h"
#include "wflp.h"
#include "wflp/mm_view.h"

struct sample {
	long views, private_pages, own_tables, files, rss, pte, used;
};

static long value(const char *path, const char *key)
{
	FILE *f = fopen(path, "re");
	size_t len = strlen(key);
	char line[256];
	long v = 0;

	if (!f)
		die(path);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, len)) {
			v = strtol(line + len, NULL, 10);
			break;
		}
	fclose(f);
	return v;
}

/* Free pages that each processor keeps on lists of its own are not in MemFree. */
static long listed_kib(void)
{
	FILE *f = fopen("/proc/zoneinfo", "re");
	char line[256];
	long pages = 0, n;

	if (!f)
		die("/proc/zoneinfo");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, " count: %ld", &n) == 1)
			pages += n;
	fclose(f);
	return pages * (long)(PAGE / 1024);
}

static void views_of(struct sample *s)
{
	FILE *f = fopen("/proc/self/mm_views", "re");
	unsigned long long id, threads, pages, tables;
	char line[256], state[32];

	if (!f)
		die("/proc/self/mm_views");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%llu %31s %llu %llu %llu", &id, state, &threads, &pages, &tables) == 5) {
			s->views++;
			s->private_pages += (long)pages;
			s->own_tables += (long)tables;
		}
	fclose(f);
}

static long descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	long n = -3; /* . and .. and its own */

	if (!d)
		die("/proc/self/fd");
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static struct sample look(void)
{
	struct sample s = { 0 };
	int fd = open("/proc/sys/vm/stat_refresh", O_WRONLY | O_CLOEXEC);

	/* Counters have parts that each processor keeps. */
	if (fd >= 0 && write(fd, "1", 1) != 1)
		die("/proc/sys/vm/stat_refresh");
	if (fd >= 0)
		close(fd);
	views_of(&s);
	s.files = descriptors();
	s.rss = value("/proc/self/status", "VmRSS:");
	s.pte = value("/proc/self/status", "VmPTE:");
	s.used = value("/proc/meminfo", "MemTotal:") - value("/proc/meminfo", "MemFree:") - listed_kib();
	return s;
}

/* The least of some looks: at any moment something is on its way to be freed. */
static void tell(const char *series, long n)
{
	struct sample s = look();

	for (int i = 1; i < 5; i++) {
		struct sample t;

		usleep(3000);
		t = look();
#define LEAST(field) s.field = t.field < s.field ? t.field : s.field
		LEAST(views);
		LEAST(private_pages);
		LEAST(own_tables);
		LEAST(files);
		LEAST(rss);
		LEAST(pte);
		LEAST(used);
	}
	printf("{\"experiment\":\"E6\",\"series\":\"%s\",\"n\":%ld,\"views\":%ld,\"private_pages\":%ld,\"own_tables\":%ld,"
	       "\"files\":%ld,\"rss_kib\":%ld,\"pte_kib\":%ld,\"used_kib\":%ld}\n",
	       series, n, s.views, s.private_pages, s.own_tables, s.files, s.rss, s.pte, s.used);
}

/* ---- views that live at the same time, one patched page each ---- */

static void views_series(const struct list *l)
{
	long have = 0;

	map_text();
	tell("views", 0);
	for (int i = 0; i < l->n; i++) {
		for (; have < l->v[i]; have++)
			view_make();
		tell("views", have);
	}
}

/* ---- patched pages in one view: side by side, or each in 2 MiB of its own ---- */

static void pages_series(const char *series, const struct list *l, size_t step)
{
	static const char nops[] = { (char)0x90, (char)0x90 };

	tell(series, 0);
	for (int i = 0; i < l->n; i++) {
		size_t len = (size_t)l->v[i] * step;
		char *at = mmap(NULL, len + CHUNK, PROT_READ | PROT_EXEC,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		char *first = (char *)(((uintptr_t)at + CHUNK - 1) & ~(CHUNK - 1));
		int fd;

		if (at == MAP_FAILED)
			die("map code");
		fd = view_create();
		for (long k = 0; k < l->v[i]; k++)
			if (pwrite(fd, nops, sizeof(nops), (off_t)(uintptr_t)(first + (size_t)k * step)) != sizeof(nops))
				die("write to view");
		view_ctl(fd, MM_VIEW_SEAL);
		tell(series, l->v[i]);
		view_drop(fd);
		munmap(at, len + CHUNK);
	}
}

/* ---- generations in a row ---- */

#define THREADS 4
static bool stop;

/* Half of them run, half sleep at a safe point, so that generations take both ways. */
static void *worker(void *arg)
{
	uintptr_t i = (uintptr_t)arg;

	if (wflp_thread_register())
		die("register thread");
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		call_text();
		if (i % 2) {
			usleep(200);
			wflp_quiescent();
			continue;
		}
		wflp_offline();
		usleep(5000);
		wflp_online();
	}
	if (wflp_thread_unregister())
		die("unregister thread");
	return NULL;
}

static void next_generation(uint32_t n)
{
	static uint32_t now = 1;
	uint32_t next = n + 2;
	struct wflp_edit e = { text + 1, &now, &next, sizeof(now) };
	int64_t ticket = wflp_apply(&e, 1, 0);

	if (ticket < 0) {
		errno = (int)-ticket;
		die("apply patch");
	}
	/* The view before it has gone, too, or a count would not be one. */
	if (wflp_wait(ticket, WFLP_RELEASED, 20000000000) != WFLP_RELEASED) {
		errno = ETIMEDOUT;
		die("wait for generation");
	}
	now = next;
}

static void generations_series(long n)
{
	long every = n / 40 > 0 ? n / 40 : 1;
	pthread_t t[THREADS];
	int err = wflp_init(WFLP_WAITFREE, 0);

	if (err) {
		errno = -err;
		die("start libwflp");
	}
	map_text();
	for (uintptr_t i = 0; i < THREADS; i++)
		if ((errno = pthread_create(&t[i], NULL, worker, (void *)i)))
			die("start thread");
	for (long i = 0; i <= n; i++) {
		next_generation((uint32_t)i);
		if (i % every == 0)
			tell("generations", i);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	if (wflp_fini())
		die("stop libwflp");
}

void footprint(const struct list *views, const struct list *pages, long generations)
{
	for (int series = 0; series < 4; series++) {
		int status;
		pid_t pid;

		fflush(stdout);
		/* A process each: nothing is left of the one before. */
		pid = fork();
		if (!pid) {
			if (series == 0)
				views_series(views);
			else if (series == 1)
				pages_series("pages-together", pages, PAGE);
			else if (series == 2)
				pages_series("pages-apart", pages, CHUNK);
			else
				generations_series(generations);
			fflush(stdout);
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
			errno = ECHILD;
			die("run series");
		}
	}
}
