// SPDX-License-Identifier: Apache-2.0
/*
 * inview-run: runs a program, with a library preloaded if asked to, and looks
 * meanwhile at which view each thread of the machine is in.
 *
 *   inview-run [-p LIBRARY] [-u UID] [-r REPORT] PROGRAM [ARGUMENT...]
 *
 * The program's end becomes its own: exit code or signal.  REPORT gets a line
 * for each thing that was seen:
 *
 *   program TEXT      a note of inview.so: a program that is in a view
 *   failed TEXT       a note of inview.so: one that is not
 *   in N              how often a thread was seen in a view
 *   base N            and in the base
 *   worker N          and how often one of io_uring's, which belong there
 *   stray NAME        a thread that was in the base for longer than STRAY_MS,
 *                     and whether its program has the library
 *
 * Programs that are linked statically, this one and the shell, know of no
 * preloaded library and do not count.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "inview.h"

/*
 * A new program is in the base until its loader has come to the library, and a
 * child until its view is made, which takes a while where many wait for the
 * processor.
 */
#define STRAY_MS 5000
#define SAMPLE_MS 100

struct seen {
	int tid;
	long since; /* in the base without a break, ms */
	bool told, now;
};

static struct seen *base;
static size_t nr_base;
static unsigned long nr_in, nr_in_base, nr_worker;
static FILE *report;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "inview-run: %s: %s\n", what, strerror(errno));
	exit(125);
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool read_text(const char *path, char *buf, size_t size)
{
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	n = read(fd, buf, size - 1);
	close(fd);
	if (n <= 0)
		return false;
	buf[n] = 0;
	buf[strcspn(buf, "\n")] = 0;
	return true;
}

static struct seen *base_thread(int tid)
{
	struct seen *s;

	for (size_t i = 0; i < nr_base; i++)
		if (base[i].tid == tid)
			return &base[i];
	s = realloc(base, (nr_base + 1) * sizeof(*base));
	if (!s)
		die("remember a thread");
	base = s;
	base[nr_base] = (struct seen){ .tid = tid, .since = now_ms() };
	return &base[nr_base++];
}

/* Is the library mapped? A program executed with another environment lacks it. */
static bool has_library(const char *task)
{
	char path[128], line[512];
	bool found = false;
	FILE *maps;

	snprintf(path, sizeof(path), "%.60s/../maps", task);
	maps = fopen(path, "re");
	if (!maps)
		return false;
	while (!found && fgets(line, sizeof(line), maps))
		found = strstr(line, "inview.so") != NULL;
	fclose(maps);
	return found;
}

static void look_at_thread(const char *task, int tid)
{
	char path[128], text[64], name[64];
	struct seen *s;

	snprintf(path, sizeof(path), "%s/%d/mm_view", task, tid);
	if (!read_text(path, text, sizeof(text)))
		return;
	if (strcmp(text, "0")) {
		nr_in++;
		return;
	}
	snprintf(path, sizeof(path), "%s/%d/comm", task, tid);
	if (!read_text(path, name, sizeof(name)))
		return;
	if (!strncmp(name, "iou-", 4)) {
		nr_worker++;
		return;
	}
	nr_in_base++;
	s = base_thread(tid);
	s->now = true;
	if (!s->told && now_ms() - s->since > STRAY_MS) {
		s->told = true;
		fprintf(report, "stray %s %s the library\n", name, has_library(task) ? "with" : "without");
	}
}

static bool counts(int pid)
{
	char path[64], exe[256];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	if (n <= 0) /* a thread of the kernel, or a process that has ended */
		return false;
	exe[n] = 0;
	return strcmp(exe, "/bin/busybox") && strcmp(exe, "/init") && pid != getpid();
}

static void sample(void)
{
	DIR *proc = opendir("/proc"), *tasks;
	struct dirent *p, *t;
	char task[64];
	size_t kept = 0;

	if (!proc)
		die("open /proc");
	for (size_t i = 0; i < nr_base; i++)
		base[i].now = false;
	while ((p = readdir(proc))) {
		if (p->d_name[0] < '1' || p->d_name[0] > '9' || !counts(atoi(p->d_name)))
			continue;
		snprintf(task, sizeof(task), "/proc/%d/task", atoi(p->d_name));
		tasks = opendir(task);
		if (!tasks)
			continue;
		while ((t = readdir(tasks)))
			if (t->d_name[0] != '.')
				look_at_thread(task, atoi(t->d_name));
		closedir(tasks);
	}
	closedir(proc);
	for (size_t i = 0; i < nr_base; i++)
		if (base[i].now)
			base[kept++] = base[i];
	nr_base = kept;
}

static void take_notes(bool say)
{
	DIR *notes = opendir(INVIEW_NOTES);
	struct dirent *e;
	char text[128], path[sizeof(INVIEW_NOTES) + 300];
	ssize_t n;

	if (!notes)
		die("open " INVIEW_NOTES);
	while ((e = readdir(notes))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", INVIEW_NOTES, e->d_name);
		n = readlink(path, text, sizeof(text) - 1);
		if (say && n > 0) {
			text[n] = 0;
			fprintf(report, "%.*s %s\n", (int)strcspn(e->d_name, "."), e->d_name, text);
		}
		unlink(path);
	}
	closedir(notes);
}

int main(int argc, char **argv)
{
	const char *library = NULL, *to = "/dev/null";
	struct timespec wait = { 0, 2000000 };
	int opt, status, uid = -1;
	sigset_t chld, old;
	bool views;
	pid_t pid;

	while ((opt = getopt(argc, argv, "+p:u:r:")) != -1) {
		if (opt == 'p')
			library = optarg;
		else if (opt == 'u')
			uid = atoi(optarg);
		else if (opt == 'r')
			to = optarg;
		else
			return 125;
	}
	if (optind == argc) {
		fprintf(stderr, "usage: inview-run [-p LIBRARY] [-u UID] [-r REPORT] PROGRAM [ARGUMENT...]\n");
		return 125;
	}
	report = fopen(to, "we");
	if (!report)
		die("open report");
	setvbuf(report, NULL, _IOLBF, 0);
	if (mkdir(INVIEW_NOTES, 0777) && errno != EEXIST)
		die("make " INVIEW_NOTES);
	if (chmod(INVIEW_NOTES, 01777))
		die("open " INVIEW_NOTES " to all");
	take_notes(false);
	views = !access("/proc/self/mm_views", F_OK);

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, &old);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		sigprocmask(SIG_SETMASK, &old, NULL);
		if (uid >= 0 && (setgroups(0, NULL) || setgid((gid_t)uid) || setuid((uid_t)uid)))
			die("become another user");
		if (library && setenv("LD_PRELOAD", library, 1))
			die("set LD_PRELOAD");
		execvp(argv[optind], argv + optind);
		fprintf(stderr, "inview-run: execute %s: %s\n", argv[optind], strerror(errno));
		_exit(errno == ENOENT ? 127 : 126);
	}
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (views)
			sample();
		sigtimedwait(&chld, NULL, &wait);
		if (wait.tv_nsec < SAMPLE_MS * 1000000l)
			wait.tv_nsec *= 2;
	}
	take_notes(true);
	if (views)
		fprintf(report, "in %lu\nbase %lu\nworker %lu\n", nr_in, nr_in_base, nr_worker);
	fclose(report);
	if (WIFSIGNALED(status)) {
		struct rlimit none = { 0, 0 };

		/* The same end, without a second core. */
		setrlimit(RLIMIT_CORE, &none);
		signal(WTERMSIG(status), SIG_DFL);
		sigemptyset(&old);
		sigprocmask(SIG_SETMASK, &old, NULL);
		raise(WTERMSIG(status));
	}
	return WEXITSTATUS(status);
}
