/* SPDX-License-Identifier: MIT */
/*
 * Who is answered by the control socket: whoever could change the process anyway, by
 * a debugger.  Not another process of its user if it has privileges put aside, which
 * new code could take up again.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define USER 65534

/* What uid is told by the server; 'e': an error, 'o': it is answered. */
static char asked_by(pid_t server, uid_t uid)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	char answer[8192], c = '?';
	int out[2], n, fd;
	size_t got = 0;
	ssize_t r;
	pid_t pid;

	need(!pipe(out), "pipe");
	pid = fork();
	if (!pid) {
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		n = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "wflp/%d", (int)server);
		if (setresuid(uid, uid, uid) ||
		    connect(fd, (struct sockaddr *)&name,
			    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) ||
		    send(fd, "status\n", 7, MSG_NOSIGNAL) < 0)
			_exit(1);
		while (got < sizeof(answer) - 1 && (r = read(fd, answer + got, sizeof(answer) - 1 - got)) > 0)
			got += (size_t)r;
		answer[got] = '\0';
		c = strstr(answer, "end\tok") ? 'o' : strstr(answer, "end\terror\t1\t") ? 'e' : '?';
		_exit(write(out[1], &c, 1) != 1);
	}
	close(out[1]);
	if (read(out[0], &c, 1) != 1)
		c = '?';
	close(out[0]);
	waitpid(pid, NULL, 0);
	return c;
}

/* uids: before exec, then real, effective and saved. */
static pid_t start(const char *before, const char *ids)
{
	char ready;
	int out[2];
	pid_t pid;

	need(!pipe(out), "pipe");
	pid = fork();
	if (!pid) {
		uid_t uid = (uid_t)atoi(before);

		dup2(out[1], 1);
		setenv("LD_PRELOAD", getenv("WFLP_PRELOAD"), 1);
		setenv("WFLP_STRATEGY", "barrier", 1);
		if (setresuid(uid, uid, uid))
			_exit(126);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl("/proc/self/exe", "t_ask", "serve", ids, NULL);
		_exit(127);
	}
	close(out[1]);
	need(read(out[0], &ready, 1) == 1, "a server");
	close(out[0]);
	return pid;
}

static int serve(const char *ids)
{
	unsigned int r, e, s;

	if (sscanf(ids, "%u,%u,%u", &r, &e, &s) != 3 || setresuid(r, e, s) || write(1, "r", 1) != 1)
		return 1;
	for (;;)
		pause();
}

static void stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	pid_t server;

	if (argc > 2)
		return serve(argv[2]);
	need(getenv("WFLP_PRELOAD"), "WFLP_PRELOAD");
	if (geteuid()) {
		note("only root can have processes of several users");
		return EXIT_SKIP;
	}
	deadline(30);
	server = start("65534", "65534,65534,65534");
	is(asked_by(server, 0), 'o', "root");
	is(asked_by(server, USER), 'o', "the user of a process that never was another's");
	is(asked_by(server, 1), 'e', "another user");
	stop(server);
	server = start("0", "65534,65534,0");
	is(asked_by(server, 0), 'o', "root, of one that may be root again");
	is(asked_by(server, USER), 'e', "its user for now");
	stop(server);
	server = start("0", "65534,65534,65534");
	is(asked_by(server, 0), 'o', "root, of one that was started by root");
	is(asked_by(server, USER), 'e', "its user, who is not let at its memory either");
	stop(server);
	return done();
}
