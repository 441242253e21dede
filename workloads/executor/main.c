// SPDX-License-Identifier: Apache-2.0
/*
 * wflp-exec run --strategy STRATEGY SPECFILE TRACEFILE
 *
 * STRATEGY is none, waitfree, barrier, naive, stopworld or restart.
 * Exit status: WIRE_END_... of wire.h.  A status other than USAGE, UNSUPPORTED
 * and SETUP comes with a trace that is complete as far as it goes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exec.h"

struct program P;

void die(int status, const char *what)
{
	fprintf(stderr, "wflp-exec: %s: %s\n", what, strerror(errno));
	_exit(status);
}

static void usage(void)
{
	fputs("usage: wflp-exec run --strategy STRATEGY SPECFILE TRACEFILE\n",
	      stderr);
	_exit(WIRE_END_USAGE);
}

static const void *table(const char *file, size_t len, struct wire_table t, size_t size)
{
	if (t.off > len || t.count > (len - t.off) / size) {
		errno = EINVAL;
		die(WIRE_END_USAGE, "read spec: a table is outside the file");
	}
	return file + t.off;
}

static void spec_load(const char *path)
{
	struct spec *s = &P.spec;
	struct stat st;
	const char *file;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st))
		die(WIRE_END_USAGE, path);
	/* Populated, so that no worker's first transaction reads the disk. */
	file = mmap(NULL, (size_t)st.st_size + 1, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (file == MAP_FAILED)
		die(WIRE_END_USAGE, path);
	close(fd);
	s->h = (const struct wire_spec_header *)file;
	if ((size_t)st.st_size < sizeof(*s->h) || s->h->magic != WIRE_MAGIC_SPEC ||
	    s->h->version != WIRE_VERSION) {
		errno = EINVAL;
		die(WIRE_END_USAGE, path);
	}
#define TABLE(field) s->field = table(file, (size_t)st.st_size, s->h->field, sizeof(*s->field))
	TABLE(image);
	TABLE(blob);
	TABLE(functions);
	TABLE(versions);
	TABLE(workers);
	TABLE(roots);
	TABLE(arrivals);
	TABLE(actions);
	TABLE(regions);
	TABLE(patches);
	TABLE(changes);
}

static uint32_t strategy_of(const char *name)
{
	static const char *const names[] = {
		"none", "waitfree", "barrier", "naive", "stopworld", "restart",
	};

	for (uint32_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strcmp(name, names[i]))
			return i;
	usage();
	return 0;
}

static void library_start(void)
{
	static const enum wflp_strategy strategies[] = {
		[WIRE_STRATEGY_WAITFREE] = WFLP_WAITFREE,
		[WIRE_STRATEGY_BARRIER] = WFLP_BARRIER,
		[WIRE_STRATEGY_NAIVE] = WFLP_NAIVE,
	};
	int err;

	if (P.strategy == WIRE_STRATEGY_STOPWORLD)
		stop_start();
	if (!by_library())
		return;
	err = wflp_init(strategies[P.strategy],
			P.strategy == WIRE_STRATEGY_NAIVE ? WFLP_INIT_ALLOW_UNSAFE : 0);
	if (err) {
		errno = -err;
		die(err == -ENOSYS ? WIRE_END_UNSUPPORTED : WIRE_END_SETUP, "start libwflp");
	}
	P.trace.base_generation = wflp_newest_generation();
}

int main(int argc, char **argv)
{
	pthread_t patcher;
	uint64_t deadline;

	if (argc != 6 || strcmp(argv[1], "run") || strcmp(argv[2], "--strategy"))
		usage();
	P.strategy = strategy_of(argv[3]);
	/*
	 * The heap belongs to the spec's brk operations: everything that malloc
	 * gives out is a mapping of its own.
	 */
	mallopt(M_MMAP_THRESHOLD, 0);
	spec_load(argv[4]);
	P.trace_path = argv[5];
	P.trace_fd = open(P.trace_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (P.trace_fd < 0)
		die(WIRE_END_USAGE, P.trace_path);
	P.nworkers = P.spec.h->workers.count;
	trace_alloc();
	text_map();
	memory_init();
	crash_init();
	P.spin_per_ms = spin_calibrate();
	trace_counters(0);
	library_start();

	P.start_ns = now_ns() + 500000;
	deadline = P.start_ns + P.spec.h->watchdog_ms * 1000000ull;
	if (P.strategy == WIRE_STRATEGY_RESTART) {
		bool good = restart_run(deadline);

		P.trace.finish_ns = now_ns();
		P.trace.last_generation = generation();
		trace_counters(1);
		trace_write(good ? WIRE_END_COMPLETE : WIRE_END_HANG);
		return good ? WIRE_END_COMPLETE : WIRE_END_HANG;
	}
	if (pthread_create(&patcher, NULL, patcher_main, NULL))
		die(WIRE_END_SETUP, "start patcher");
	for (size_t i = 0; i < P.nworkers; i++)
		if (P.workers[i].w->parent < 0)
			worker_start(&P.workers[i]);
	/*
	 * Not a join: it must end by the deadline.  A worker that starts
	 * others is alive until it has, so zero means that nobody will come.
	 */
	while (__atomic_load_n(&P.alive, __ATOMIC_ACQUIRE) ||
	       !__atomic_load_n(&P.patches_done, __ATOMIC_ACQUIRE)) {
		if (now_ns() > deadline) {
			trace_states();
			trace_write(WIRE_END_HANG);
			_exit(WIRE_END_HANG);
		}
		sleep_until(now_ns() + 500000);
	}
	P.trace.finish_ns = now_ns();
	for (size_t i = 0; i < P.nworkers; i++)
		if (P.workers[i].started)
			pthread_join(P.workers[i].thread, NULL);
	pthread_join(patcher, NULL);
	if (P.strategy == WIRE_STRATEGY_STOPWORLD) {
		P.trace.last_generation = generation();
		stop_end();
	}
	if (by_library()) {
		P.trace.last_generation = wflp_newest_generation();
		P.trace.fini_error = wflp_fini();
	}
	trace_counters(1);
	trace_write(WIRE_END_COMPLETE);
	return WIRE_END_COMPLETE;
}
