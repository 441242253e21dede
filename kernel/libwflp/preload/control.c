/* SPDX-License-Identifier: MIT */
/*
 * The control socket: an abstract one named wflp/PID, so that it needs no file
 * system, goes with the process, and is there under any confinement that allows
 * AF_UNIX.  Root may use it, and whoever could debug the process, see may_ask().
 *
 * One request a connection: a line, for "apply SIZE" followed by the file.  The
 * answer is lines of fields with tabs between; the last one begins with "end".
 * A client that takes its time is hung up on.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "load.h"
#include "preload.h"

#define PROTOCOL 1
#define REQUEST_SECONDS 10
#define FILE_MAX (64ul << 20)
#define PATCHES_MAX 256

static int listener = -1;
static struct stat listener_is;

/* Programs close descriptors that they do not know, and get the numbers for theirs. */
static bool listener_is_ours(void)
{
	struct stat st;

	return listener >= 0 && !fstat(listener, &st) && st.st_dev == listener_is.st_dev &&
	       st.st_ino == listener_is.st_ino;
}

static pid_t server_tid;

static void say(FILE *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(FILE *out, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(out, fmt, ap);
	va_end(ap);
}

static int64_t read_number(const char *path, char *buf, size_t room)
{
	int fd = wflp_proc_open(path, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return fd;
	n = read(fd, buf, room - 1);
	close(fd);
	if (n < 0)
		return -EIO;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return (int64_t)strtoull(buf, NULL, 10);
}

bool is_helper(pid_t tid)
{
	return tid == load_acquire(&server_tid) || tid == load_acquire(&G.patcher_tid);
}

enum answer { NO, YES, UNKNOWN };
static const char *const answers[] = { "no", "yes", "unknown" };

static enum answer both(enum answer a, enum answer b)
{
	return a == NO || b == NO ? NO : a == UNKNOWN || b == UNKNOWN ? UNKNOWN : YES;
}

struct known {
	struct wflp_thread_info *info;
	size_t n;
};

/*
 * A thread is over if it is in the newest view, whoever it is: that is the kernel's
 * word.  In place there is one code, and the last change is over for all threads that
 * it waited for; of others nobody knows what they were in the middle of.
 */
static enum answer status_thread(FILE *out, pid_t tid, const struct known *known,
				 enum answer last)
{
	char path[64], text[64], name[32] = "";
	const struct wflp_thread_info *info = NULL;
	enum answer over = UNKNOWN;
	const char *kind;
	bool helper;
	int64_t view;

	for (size_t i = 0; i < known->n; i++)
		if (known->info[i].tid == tid)
			info = &known->info[i];
	helper = is_helper(tid);
	kind = helper ? "helper" : info ? "thread" : "unregistered";
	snprintf(path, sizeof(path), "self/task/%d/comm", (int)tid);
	if (read_number(path, name, sizeof(name)) < 0)
		return YES;	/* it has ended */
	for (char *c = name; *c; c++)
		if (*c == '\t')
			*c = ' ';
	if (helper) {
		over = YES;
	} else if (G.strategy != WFLP_WAITFREE) {
		over = !info ? UNKNOWN : last == YES ||
		       info->generation == wflp_newest_generation() ? YES : NO;
	} else {
		snprintf(path, sizeof(path), "self/task/%d/mm_view", (int)tid);
		view = read_number(path, text, sizeof(text));
		if (view >= 0)
			over = (uint64_t)view == wflp_newest_view() ? YES : NO;
		else if (view == -ENOENT)
			return YES;
	}
	say(out, "thread\t%d\t%s\t", (int)tid, kind);
	if (info && info->generation != UINT64_MAX)
		say(out, "%" PRIu64, info->generation);
	else
		say(out, "-");
	say(out, "\t%s\t%s\n", answers[over], name);
	return over;
}

static enum answer status_threads(FILE *out, enum answer last)
{
	struct known known = { 0 };
	enum answer over = YES;
	struct dirent *de;
	DIR *dir;
	int fd;

	for (size_t room = 64;; room = known.n + 64) {
		free(known.info);
		known.info = calloc(room, sizeof(*known.info));
		if (!known.info)
			return UNKNOWN;
		known.n = wflp_threads(known.info, room);
		if (known.n <= room)
			break;
	}
	fd = wflp_proc_open("self/task", O_RDONLY | O_DIRECTORY);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		if (fd >= 0)
			close(fd);
		over = UNKNOWN;
	}
	while (dir && (de = readdir(dir)))
		if (atoi(de->d_name) > 0)
			over = both(over, status_thread(out, atoi(de->d_name), &known, last));
	if (dir)
		closedir(dir);
	free(known.info);
	return over;
}

static void status_patches(FILE *out)
{
	static struct wflp_patch_info info[PATCHES_MAX];
	size_t n = wflp_patches(info, PATCHES_MAX);

	for (size_t i = 0; i < n && i < PATCHES_MAX; i++) {
		say(out, "patch\t");
		for (size_t b = 0; b < sizeof(info[i].id); b++)
			say(out, "%02x", info[i].id[b]);
		say(out, "\t%" PRIu64 "\t%zu\t%s\n", info[i].generation, info[i].functions,
		    info[i].name);
	}
}

/* Is the last transaction over? */
static enum answer status_last(FILE *out)
{
	int64_t ticket = wflp_patch_ticket();
	struct wflp_report r;

	if (!ticket || wflp_report(ticket, &r, sizeof(r)))
		return YES;
	say(out, "last\t%" PRId64 "\t%d\t%d", ticket, r.stage, r.error);
	say(out, "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64,
	    r.queued_ns, r.preparing_ns, r.create_ns, r.written_ns, r.sealed_ns);
	say(out, "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64,
	    r.published_ns, r.first_over_ns, r.last_over_ns, r.released_ns);
	say(out, "\t%u\t%u\t%u\n", r.threads, r.migrated, r.pulled);
	return r.stage >= WFLP_LAST_OVER ? YES : NO;
}

static void status(FILE *out)
{
	enum answer over = UNKNOWN;

	if (!why_not()) {
		say(out, "strategy\t%s\n", strategy_name());
		say(out, "generation\t%" PRIu64 "\n", wflp_newest_generation());
		status_patches(out);
		over = status_last(out);
		over = both(over, status_threads(out, over));
		/* As it was loaded is all that there is. */
		if (!wflp_patch_ticket() && !wflp_newest_generation())
			over = YES;
	}
	say(out, "over\t%s\n", answers[over]);
}

static void answer(FILE *out, int64_t err, const char *text)
{
	if (err < 0)
		say(out, "end\terror\t%" PRId64 "\t%s\n", -err, text);
	else
		say(out, "end\tok\n");
}

static void apply(FILE *out, FILE *in, const char *size)
{
	char text[512] = "", *end;
	unsigned long n = strtoul(size, &end, 10);
	struct wflp_patch *patch;
	void *file = NULL;
	int64_t ret;

	if (*end || !n || n > FILE_MAX) {
		answer(out, -EINVAL, "no file, or one that is too large");
		return;
	}
	file = malloc(n);
	if (!file || fread(file, 1, n, in) != n) {
		answer(out, file ? -EIO : -ENOMEM, "the file did not arrive");
		free(file);
		return;
	}
	ret = wflp_patch_open(file, n, &patch, text, sizeof(text));
	free(file);
	if (!ret) {
		ret = wflp_patch_apply(patch, text, sizeof(text));
		/* Stays if it was ever applied. */
		if (ret < 0)
			wflp_patch_close(patch);
	}
	answer(out, ret, text);
}

static void undo(FILE *out)
{
	struct wflp_patch *patch = wflp_patch_newest();
	char text[512] = "no patch is applied";
	int64_t ret = -ENOENT;

	if (patch)
		ret = wflp_patch_undo(patch, text, sizeof(text));
	answer(out, ret, text);
}

/*
 * Who applies a patch runs code as the process, so the rule is that of debuggers: a
 * process of that user that never was another's, or could be again.
 */
static bool may_ask(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	uid_t real, effective, saved;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return false;
	if (!peer.uid)
		return true;
	return !getresuid(&real, &effective, &saved) && peer.uid == real &&
	       peer.uid == effective && peer.uid == saved &&
	       prctl(PR_GET_DUMPABLE) == 1;
}

static void serve(int fd)
{
	/* A stranger gets as long as a request takes that is on its way. */
	const bool known = may_ask(fd);
	const struct timeval limit = { .tv_sec = known ? REQUEST_SECONDS : 0, .tv_usec = known ? 0 : 100000 };
	FILE *in = NULL, *out = NULL;
	char line[64];
	int copy;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	in = fdopen(fd, "r");
	out = copy < 0 ? NULL : fdopen(copy, "w");
	if (!in || !out) {
		if (!in)
			close(fd);
		if (copy >= 0 && !out)
			close(copy);
	} else {
		say(out, "wflp-ctl\t%d\n", PROTOCOL);
		if (!known) {
			/* Read once: a request that is left unread is an error to who sent it. */
			(void)!recv(fd, line, sizeof(line), 0);
			answer(out, -EPERM, "only root and the user of the process may ask, and that one only if it never was another's");
		} else if (fgets(line, sizeof(line), in)) {
			line[strcspn(line, "\n")] = '\0';
			if (why_not() && strcmp(line, "status"))
				answer(out, -ENOTSUP, why_not());
			else if (!strcmp(line, "status")) {
				status(out);
				answer(out, why_not() ? -ENOTSUP : 0, why_not());
			} else if (!strncmp(line, "apply ", 6))
				apply(out, in, line + 6);
			else if (!strcmp(line, "undo"))
				undo(out);
			else
				answer(out, -EINVAL, "unknown request");
		}
	}
	if (in)
		fclose(in);
	if (out)
		fclose(out);
}

static void *server(void *arg)
{
	ours();
	pthread_setname_np(pthread_self(), "wflp-ctl");
	store_release(&server_tid, (pid_t)syscall(SYS_gettid));
	while (listener_is_ours()) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			serve(fd);
		else if (errno != EINTR && errno != ECONNABORTED)
			break;
	}
	return arg;
}

int control_start(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	sigset_t all, old;
	pthread_t t;
	int n, err;

	n = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "wflp/%d", (int)getpid());
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0)
		return -errno;
	if (bind(listener, (struct sockaddr *)&name,
		 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) ||
	    listen(listener, 8) || fstat(listener, &listener_is)) {
		err = -errno;
		close(listener);
		listener = -1;
		return err;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	/* Not the one that registers threads, which it is while we start. */
	err = -pthread_create(&t, NULL, server, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!err)
		pthread_detach(t);
	return err;
}

void control_forked(void)
{
	if (listener_is_ours())
		close(listener);
	listener = -1;
}
