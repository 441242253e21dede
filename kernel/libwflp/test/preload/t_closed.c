/* SPDX-License-Identifier: MIT */
/*
 * A program that closes every descriptor which it does not know, as daemons do, and
 * then gets the number of the control socket for one of its own: its clients are its
 * own.
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

static socklen_t name_of(struct sockaddr_un *name, const char *what, pid_t pid)
{
	int n;

	memset(name, 0, sizeof(*name));
	name->sun_family = AF_UNIX;
	n = snprintf(name->sun_path + 1, sizeof(name->sun_path) - 1, "%s/%d", what, (int)pid);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static int serve(void)
{
	struct sockaddr_un name;
	socklen_t len = name_of(&name, "t_closed", getpid());
	int fd;

	/* The library's thread is in its call by then. */
	sleep_us(200000);
	for (int i = 3; i < 64; i++)
		close(i);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	need(fd == 3 && !bind(fd, (struct sockaddr *)&name, len) && !listen(fd, 8), "a socket");
	for (int i = 4; i < 64; i++)
		dup2(fd, i);
	need(write(1, "r", 1) == 1, "who waits for it");
	for (;;) {
		/* Not at once: who waits already comes first. */
		sleep_us(300000);
		int client = accept(fd, NULL, NULL);

		if (client < 0 || write(client, "program", 7) != 7)
			return 1;
		close(client);
	}
}

/* The first byte that whoever answers says. */
static char answered_by(const char *what, pid_t pid)
{
	struct sockaddr_un name;
	socklen_t len = name_of(&name, what, pid);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char c = '?';

	if (!connect(fd, (struct sockaddr *)&name, len) && send(fd, "status\n", 7, MSG_NOSIGNAL) == 7 &&
	    read(fd, &c, 1) != 1)
		c = '?';
	close(fd);
	return c;
}

int main(int argc, char **argv)
{
	const char *library = getenv("WFLP_PRELOAD");
	int out[2], wrong = 0;
	pid_t pid;
	char c;

	if (argc > 1 && !strcmp(argv[1], "serve"))
		return serve();
	deadline(30);
	need(library && !pipe(out), "WFLP_PRELOAD, a pipe");
	pid = fork();
	if (!pid) {
		dup2(out[1], 1);
		setenv("LD_PRELOAD", library, 1);
		setenv("WFLP_STRATEGY", "barrier", 1);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl("/proc/self/exe", "t_closed", "serve", NULL);
		_exit(127);
	}
	close(out[1]);
	need(read(out[0], &c, 1) == 1, "the server");
	/* The call that waits still has the socket. */
	is(answered_by("wflp", pid), 'w', "the control socket, once more");
	sleep_us(50000);
	for (int i = 0; i < 5; i++)
		wrong += answered_by("t_closed", pid) != 'p';
	is(wrong, 0, "the program's clients that somebody else answered");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return done();
}
