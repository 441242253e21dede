// SPDX-License-Identifier: Apache-2.0
/*
 * Strategy restart: the program is stopped and started again, patched.
 *
 * As kindly as a service manager can do it: every thread ends the request that
 * it is at; requests that arrive meanwhile wait, as in a socket that the manager
 * keeps open, and are handed over; and the new process is forked off a manager
 * that has all of it ready, so that nothing is loaded, linked or initialised.
 * What is lost is what the process had in memory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "exec.h"

/* Shared by the manager and the processes that serve. */
static struct {
	uint32_t stopping;	/* futex */
	uint32_t running;	/* atomic: threads of the process that have started */
	uint32_t handed_over;	/* atomic: requests that waited when their thread came up */
	uint32_t lost_kib;	/* private memory of the process when it ended */
	uint64_t first_ns, last_ns;
} *R;
static uint32_t generation_now;

uint32_t restart_generation(void) { return generation_now; }

bool restart_stopping(void)
{
	return P.strategy == WIRE_STRATEGY_RESTART &&
	       __atomic_load_n(&R->stopping, __ATOMIC_ACQUIRE);
}

/* Until then, or until the process is to end. */
void restart_sleep_until(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

	while (!restart_stopping() && now_ns() < ns)
		syscall(SYS_futex, &R->stopping, FUTEX_WAIT_BITSET, 0, &ts, NULL, FUTEX_BITSET_MATCH_ANY);
}

/* A thread of a new process is about to take requests; so many have waited. */
void restart_up(uint32_t waited)
{
	uint64_t now = now_ns(), none = 0;

	__atomic_add_fetch(&R->handed_over, waited, __ATOMIC_RELAXED);
	__atomic_compare_exchange_n(&R->first_ns, &none, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	if (__atomic_add_fetch(&R->running, 1, __ATOMIC_ACQ_REL) == P.nworkers)
		R->last_ns = now;
}

static void serve_process(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (size_t i = 0; i < P.nworkers; i++)
		worker_start(&P.workers[i]);
	for (size_t i = 0; i < P.nworkers; i++)
		pthread_join(P.workers[i].thread, NULL);
	R->lost_kib = (uint32_t)trace_private_kib();
	_exit(0);
}

static pid_t start(void)
{
	pid_t pid;

	R->stopping = R->running = R->handed_over = 0;
	R->first_ns = R->last_ns = 0;
	pid = fork();
	if (!pid)
		serve_process();
	if (pid < 0)
		die(WIRE_END_SETUP, "start process");
	return pid;
}

static void on_alarm(int sig) { (void)sig; }

/* Returns true if the process has ended; false: it was not in time. */
static bool ended(pid_t pid, uint64_t deadline)
{
	int status;

	while (waitpid(pid, &status, 0) < 0) {
		if (errno == EINTR && now_ns() < deadline)
			continue;
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		return false;
	}
	if (status) /* it has written the trace */
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : WIRE_END_CRASH);
	return true;
}

static void change_text(struct edits *x, const struct wire_patch *p)
{
	int fd = open("/proc/self/mem", O_WRONLY | O_CLOEXEC);

	edits_of(x, p);
	for (size_t i = 0; i < x->n; i++)
		if (fd < 0 || pwrite(fd, x->e[i].new_bytes, x->e[i].len, (off_t)(uintptr_t)x->e[i].addr) !=
			      (ssize_t)x->e[i].len)
			die(WIRE_END_SETUP, "patch program");
	close(fd);
	shadow_apply(p);
}

/* Manages until all requests are served; false: not by the deadline. */
bool restart_run(uint64_t deadline)
{
	const struct spec *s = &P.spec;
	struct sigaction sa = { .sa_handler = on_alarm };
	struct edits x = { 0 };
	bool good;
	pid_t pid;

	R = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (R == MAP_FAILED || sigaction(SIGALRM, &sa, NULL))
		die(WIRE_END_SETUP, "start manager");
	alarm(s->h->watchdog_ms / 1000 + 1);
	pid = start();
	for (size_t i = 0; i < s->h->patches.count; i++) {
		struct wire_report *r = &P.reports[i];

		sleep_until(P.start_ns + s->patches[i].at_ns);
		r->patch = (uint32_t)i;
		r->bad_edit = -1;
		r->applied_ns = r->queued_ns = r->preparing_ns = now_ns();
		P.nreports = i + 1;
		r->threads = (uint32_t)P.nworkers;
		__atomic_store_n(&R->stopping, 1, __ATOMIC_RELEASE);
		syscall(SYS_futex, &R->stopping, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
		if (!ended(pid, deadline))
			return false;
		r->lost = R->lost_kib;
		change_text(&x, &s->patches[i]);
		r->edits = (uint32_t)x.n;
		r->written_ns = now_ns();
		r->generation = ++generation_now;
		r->published_ns = now_ns();
		pid = start();
		/* The next patch must not come before this process is up. */
		while (__atomic_load_n(&R->running, __ATOMIC_ACQUIRE) < P.nworkers && now_ns() < deadline)
			sleep_until(now_ns() + 100000);
		r->first_over_ns = R->first_ns;
		r->last_over_ns = r->released_ns = R->last_ns;
		r->handed_over = R->handed_over;
		r->seen_ns = r->last_over_ns;
		r->stage = WFLP_RELEASED;
	}
	good = ended(pid, deadline);
	alarm(0);
	free(x.wrong);
	free(x.e);
	return good;
}
