// SPDX-License-Identifier: Apache-2.0
/*
 * Records, and getting them out whatever happens.  All memory is there before
 * the first thread starts, so that a crash handler need only write().
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "exec.h"

static struct wire_stream *streams;
__thread bool in_child;

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void sleep_until(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

void rec(struct worker *w, uint16_t kind, uint16_t a, uint32_t b, uint64_t c)
{
	if (w->next == w->end) {
		w->dropped++;
		return;
	}
	*w->next++ = (struct wire_record){ .kind = kind, .a = a, .b = b, .c = c };
}

static void *pages(size_t bytes, int flags)
{
	size_t len = (bytes + PAGE - 1) & ~(PAGE - 1);
	char *p = mmap(NULL, len + PAGE, PROT_READ | PROT_WRITE,
		       MAP_ANONYMOUS | MAP_POPULATE | flags, -1, 0);

	if (p == MAP_FAILED || mprotect(p + len, PAGE, PROT_NONE))
		die(WIRE_END_SETUP, "allocate records");
	return p;
}

void trace_alloc(void)
{
	size_t npatches = P.spec.h->patches.count;
	/* Under restart one process after the other goes on with them. */
	int sharing = P.strategy == WIRE_STRATEGY_RESTART ? MAP_SHARED : MAP_PRIVATE;

	/* A stack overrun of one worker must not be the next one's records. */
	P.workers = pages(P.nworkers * sizeof(*P.workers), sharing);
	streams = pages(P.nworkers * sizeof(*streams), sharing);
	P.reports = pages((npatches + 1) * sizeof(*P.reports), sharing);
	P.counters = pages(64 * sizeof(*P.counters), sharing);
	P.states = pages(P.nworkers * sizeof(*P.states), sharing);
	P.shared = pages(PAGE, sharing);
	for (size_t i = 0; i < P.nworkers; i++) {
		const struct wire_worker *w = &P.spec.workers[i];
		/*
		 * Around a transaction: itself, moved, offline, online, one
		 * spare; an action: itself, a finding of two, offline, online,
		 * a child's transaction.
		 */
		size_t n = (size_t)w->cap * (w->max_records + 5) +
			   (size_t)w->actions * 6 + (size_t)w->arrivals * 6 +
			   8 * npatches + 64;

		P.workers[i].id = (uint32_t)i;
		P.workers[i].w = w;
		P.workers[i].first = P.workers[i].next =
			pages(n * sizeof(struct wire_record), sharing);
		P.workers[i].end = P.workers[i].first + n;
		if (w->actions)
			P.workers[i].child = pages(PAGE, MAP_SHARED);
	}
}

static uint64_t status_field(const char *name)
{
	FILE *f = fopen("/proc/self/status", "re");
	unsigned long long v = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)))
			sscanf(line + strlen(name), "%*[: \t]%llu", &v);
	if (f)
		fclose(f);
	return v;
}

uint64_t trace_private_kib(void) { return status_field("RssAnon"); }

static uint64_t lines(const char *path)
{
	FILE *f = fopen(path, "re");
	uint64_t n = 0;
	int c;

	while (f && (c = getc(f)) != EOF)
		n += c == '\n';
	if (f)
		fclose(f);
	return n;
}

static uint64_t files(void)
{
	DIR *d = opendir("/proc/self/fd");
	uint64_t n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n ? n - 3 : 0; /* . and .. and the directory's own */
}

static void counter(uint32_t id, uint32_t end, uint64_t value)
{
	P.counters[P.ncounters++] = (struct wire_counter){ id, end, value };
}

static uint64_t read_counter(uint32_t id)
{
	uint64_t n;

	switch (id) {
	case WIRE_COUNTER_VM_RSS:
		return status_field("VmRSS");
	case WIRE_COUNTER_VM_PTE:
		return status_field("VmPTE");
	case WIRE_COUNTER_FILES:
		return files();
	case WIRE_COUNTER_VIEWS:
		n = lines("/proc/self/mm_views");
		return n ? n - 1 : 0; /* a header */
	case WIRE_COUNTER_THREADS:
		return status_field("Threads");
	default:
		return lines("/proc/self/maps");
	}
}

/* The view that the last patch left the code in, and its file: none is a leak. */
static uint64_t kept(uint32_t id)
{
	return P.strategy == WIRE_STRATEGY_WAITFREE &&
	       P.trace.last_generation > P.trace.base_generation &&
	       (id == WIRE_COUNTER_FILES || id == WIRE_COUNTER_VIEWS);
}

void trace_counters(uint32_t end)
{
	for (uint32_t id = WIRE_COUNTER_VM_RSS; id <= WIRE_COUNTER_MAPPINGS; id++) {
		uint64_t v = read_counter(id);

		/*
		 * A joined thread is counted until the kernel has buried it, and
		 * a closed file may go a little later: a leak is what stays.
		 */
		for (int i = 0; end && v > P.counters[id - 1].value + kept(id) && i < 100 &&
		     (id == WIRE_COUNTER_FILES || id == WIRE_COUNTER_VIEWS ||
		      id == WIRE_COUNTER_THREADS); i++) {
			sleep_until(now_ns() + 10000000);
			v = read_counter(id);
		}
		counter(id, end, v);
	}
}

static void put(const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = write(P.trace_fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(WIRE_END_SETUP);
		p += n;
		len -= (size_t)n;
	}
}

/* Async-signal-safe; other threads may still be running and recording. */
void trace_write(uint32_t end)
{
	struct wire_trace_header *h = &P.trace;
	uint64_t off = sizeof(*h), count = 0, nstops = 0, nframes = 0;
	const struct wire_stop *stops = NULL;
	const struct wire_frame *frames = NULL;

	for (size_t i = 0; i < P.nworkers; i++) {
		struct worker *w = &P.workers[i];
		struct wire_record *next = __atomic_load_n(&w->next, __ATOMIC_ACQUIRE);

		streams[i] = (struct wire_stream){
			.worker = w->id, .tid = (uint32_t)w->tid, .first = count,
			.count = (uint64_t)(next - w->first), .dropped = w->dropped,
			.txns = w->txns, .requests = w->requests,
			.mem_ops = w->mem_ops, .mem_skipped = w->mem_skipped,
			.started = w->started, .ended = w->ended,
		};
		count += streams[i].count;
		h->share_want += w->added;
	}
	for (size_t i = 0; i < SHARED_WORDS; i++)
		h->share_got += P.shared[i];
	h->magic = WIRE_MAGIC_TRACE;
	h->version = WIRE_VERSION;
	h->strategy = P.strategy;
	h->seed = P.spec.h->seed;
	h->end = end;
	h->cpu_count = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	h->start_ns = P.start_ns;
	h->spin_per_ms = P.spin_per_ms;
#define TABLE(name, n, type) \
	h->name = (struct wire_table){ off, (n) }; off += (n) * sizeof(type)
	TABLE(streams, P.nworkers, struct wire_stream);
	TABLE(records, count, struct wire_record);
	TABLE(reports, P.nreports, struct wire_report);
	TABLE(counters, P.ncounters, struct wire_counter);
	TABLE(states, P.nstates, struct wire_state);
	stop_tables(&stops, &nstops, &frames, &nframes, &h->stops_lost);
	TABLE(stops, nstops, struct wire_stop);
	TABLE(frames, nframes, struct wire_frame);
	put(h, sizeof(*h));
	put(streams, P.nworkers * sizeof(*streams));
	for (size_t i = 0; i < P.nworkers; i++)
		put(P.workers[i].first, streams[i].count * sizeof(struct wire_record));
	put(P.reports, P.nreports * sizeof(*P.reports));
	put(P.counters, P.ncounters * sizeof(*P.counters));
	put(P.states, P.nstates * sizeof(*P.states));
	put(stops, nstops * sizeof(*stops));
	put(frames, nframes * sizeof(*frames));
}

/* ---- the watchdog's look at threads that have not ended ---- */

static bool look(struct worker *w, struct wire_state *s, int i)
{
	unsigned long utime = 0, stime = 0;
	char path[64], line[512], letter = '?';
	FILE *f;
	bool ok = false;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)w->tid);
	f = fopen(path, "re");
	s->txns[i] = __atomic_load_n(&w->txns, __ATOMIC_RELAXED);
	if (!f)
		return false;
	if (fgets(line, sizeof(line), f)) {
		char *p = strrchr(line, ')');

		ok = p && sscanf(p + 2, "%c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
				 &letter, &utime, &stime) == 3;
	}
	fclose(f);
	s->cpu_tick[i] = utime + stime;
	s->letter = (uint32_t)letter;
	return ok;
}

void trace_states(void)
{
	for (int round = 0; round < 2; round++) {
		size_t n = 0;

		if (round)
			sleep_until(now_ns() + WIRE_STATE_GAP_MS * 1000000ull);
		for (size_t i = 0; i < P.nworkers; i++) {
			struct worker *w = &P.workers[i];

			if (!w->started || (!round && w->ended))
				continue;
			if (!round)
				P.states[P.nstates++] = (struct wire_state){
					.worker = w->id, .tid = (uint32_t)w->tid };
			else if (n == P.nstates || P.states[n].worker != w->id)
				continue;
			P.states[n].exists = look(w, &P.states[n], round);
			n++;
		}
	}
	/* Whoever got through meanwhile was slow, not lost. */
	for (size_t i = 0; i < P.nstates; i++)
		if (P.workers[P.states[i].worker].ended)
			P.states[i].exists = 1;
}

/* ---- fatal signals ---- */

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	static int crashed;
	uint64_t ip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];

	if ((sig == SIGSEGV || sig == SIGBUS) &&
	    (ip == (uint64_t)probe_load_at || ip == (uint64_t)probe_store_at)) {
		uc->uc_mcontext.gregs[REG_RIP] = (greg_t)probe_fault;
		return;
	}
	if (in_child)
		_exit(WIRE_END_CRASH);
	if (__atomic_exchange_n(&crashed, 1, __ATOMIC_SEQ_CST))
		for (;;)
			pause();
	P.trace.signal = (uint32_t)sig;
	P.trace.crash_worker = self ? (int32_t)self->id : -1;
	P.trace.crash_addr = (uint64_t)info->si_addr;
	P.trace.crash_ip = ip;
	trace_write(WIRE_END_CRASH);
	_exit(WIRE_END_CRASH);
}

void crash_altstack(struct worker *w)
{
	stack_t st = { .ss_sp = w->altstack, .ss_size = sizeof(w->altstack) };

	if (sigaltstack(&st, NULL))
		die(WIRE_END_SETUP, "set signal stack");
}

void crash_init(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE };
	/* NODEFER: another fault in the handler must end it, not hang it. */
	struct sigaction sa = { .sa_sigaction = on_signal,
				.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };

	P.trace.crash_worker = -1;
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		if (sigaction(signals[i], &sa, NULL))
			die(WIRE_END_SETUP, "set signal handler");
}
