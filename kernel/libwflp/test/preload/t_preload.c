/* SPDX-License-Identifier: MIT */
/*
 * t_preload STRATEGY: starts itself as a server that knows nothing of the library
 * (`t_preload serve`), with the preloaded library ($WFLP_PRELOAD), and patches it.
 *
 * The server's threads sleep in as many ways as there are, count how often they
 * woke, and say what subject() returns when they are asked.
 *
 * It is also patched as a worker (`t_preload worker`): a child of fork that has left
 * /proc by a chroot, and changed its user, before it makes threads.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "pack.h"

enum { EPOLL, EPOLL_TOO, POLL, READ, RECV, COND, MUTEX, STALE, INSIDE, THREADS };
static const char *const kinds[] = {
	"epoll", "epoll too", "poll", "read", "recv", "condition", "mutex",
	"read, with a left-over on the stack", "read, within the old function",
};

/* ---- the server ---- */

static struct worker {
	int in[2], out[2];
	uint32_t wakes;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	uint32_t asked;
} workers[THREADS];
static __thread struct worker *self;
/* A thread that has not got there yet runs new code as soon as there is any. */
static uint32_t is_inside;

static void read_one(void)
{
	char c;

	while (read(self->in[0], &c, 1) != 1)
		;
}

static void read_one_inside(void)
{
	__atomic_store_n(&is_inside, 1, __ATOMIC_RELAXED);
	read_one();
}

/* Until somebody asks. */
static void wait_for_work(int kind)
{
	struct worker *w = self;
	struct pollfd p = { w->in[0], POLLIN, 0 };
	volatile uintptr_t stale[4] __attribute__((unused)) = { 0 };
	struct epoll_event ev = { .events = EPOLLIN };
	static __thread int ep;
	char c;

	switch (kind) {
	case EPOLL:
	case EPOLL_TOO:
		if (!ep) {
			ep = epoll_create1(0);
			epoll_ctl(ep, EPOLL_CTL_ADD, w->in[0], &ev);
		}
		epoll_wait(ep, &ev, 1, -1);
		break;
	case POLL:
		poll(&p, 1, -1);
		break;
	case RECV:
		if (recv(w->in[0], &c, 1, 0) != 1)
			_exit(3);
		return;
	case COND:
		pthread_mutex_lock(&w->lock);
		while (!w->asked)
			pthread_cond_wait(&w->cond, &w->lock);
		w->asked = 0;
		pthread_mutex_unlock(&w->lock);
		return;
	case MUTEX:
		pthread_mutex_lock(&w->lock);
		pthread_mutex_unlock(&w->lock);
		break;
	case STALE:
		for (int i = 0; i < 4; i++)
			stale[i] = (uintptr_t)subject + 5;
		read_one();
		return;
	case INSIDE:
		subject_around(read_one_inside);
		return;
	}
	read_one();
}

static void *worker(void *arg)
{
	int kind = (int)(uintptr_t)arg;
	char c;

	self = &workers[kind];
	for (;;) {
		wait_for_work(kind);
		__atomic_add_fetch(&self->wakes, 1, __ATOMIC_RELAXED);
		c = (char)('0' + subject());
		if (write(self->out[1], &c, 1) != 1)
			return NULL;
		/* Only once, so that it comes over afterwards. */
		if (kind == INSIDE)
			kind = READ;
	}
}

static char ask(int kind)
{
	struct worker *w = &workers[kind];
	char c = 'x';

	pthread_mutex_lock(&w->lock);
	w->asked = 1;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
	if (kind != COND && write(w->in[1], &c, 1) != 1)
		return '?';
	while (read(w->out[0], &c, 1) != 1)
		;
	return c;
}

static int serve(void)
{
	char line[3];

	for (uintptr_t i = 0; i < THREADS; i++) {
		struct worker *w = &workers[i];
		pthread_t t;

		pthread_mutex_init(&w->lock, NULL);
		pthread_cond_init(&w->cond, NULL);
		need(!socketpair(AF_UNIX, SOCK_STREAM, 0, w->in) && !pipe(w->out), "pipes");
		if (i == MUTEX)
			pthread_mutex_lock(&w->lock);
		need(!pthread_create(&t, NULL, worker, (void *)i), "pthread_create");
	}
	while (!__atomic_load_n(&is_inside, __ATOMIC_RELAXED))
		sleep_us(1000);
	/* Not by stdio, whose reading nobody can stand in front of. */
	while (read(0, line, 3) == 3) {
		int kind = line[1] - 'A';

		if (line[0] == 'w')
			printf("%u\n", __atomic_load_n(&workers[kind].wakes, __ATOMIC_RELAXED));
		else if (line[0] == 'u')	/* unlocks */
			printf("%d\n", pthread_mutex_unlock(&workers[MUTEX].lock));
		else
			printf("%c\n", ask(kind));
		fflush(stdout);
	}
	return 0;
}

/*
 * A server with one event loop.  In the middle of a request its thread sleeps, too,
 * and it may be cancelled or get a signal whose handler is in the old code for long.
 */
#define MIDDLE_US 1000000

void wait_at_loop(void);

/* As compilers take functions apart: what is exported is not what makes the call. */
static __attribute__((noinline, noclone)) void wait_at_loop_part(void) __asm__("wait_at_loop.part.0");
static void wait_at_loop_part(void)
{
	char c;

	while (read(workers[0].in[0], &c, 1) != 1)
		;
}

__attribute__((noinline, noclone)) void wait_at_loop(void)
{
	wait_at_loop_part();
	__asm__ volatile("");
}

static void *serve_requests(void *arg)
{
	for (;;) {
		char both[2];

		wait_at_loop();
		both[0] = (char)('0' + subject());
		usleep(MIDDLE_US);
		both[1] = (char)('0' + subject());
		if (write(workers[0].out[1], both, 2) != 2)
			return arg;
	}
}

static void spin(void)
{
	uint64_t end = now_ns() + MIDDLE_US * 1000ull;
	char c = 's';

	if (write(workers[1].out[1], &c, 1) != 1)
		_exit(3);
	while (now_ns() < end)
		;
}

static void spin_inside(void *arg)
{
	(void)arg;
	subject_around(spin);
}

static void on_user(int sig)
{
	spin_inside(sig ? NULL : &sig);
}

static void *victim(void *arg)
{
	char c;

	pthread_cleanup_push(spin_inside, NULL);
	while (read(workers[1].in[0], &c, 1) != 1)
		;
	pthread_cleanup_pop(0);
	return arg;
}

static __attribute__((noinline, noclone)) int serve_one_loop(void)
{
	struct sigaction act = { .sa_handler = on_user, .sa_flags = SA_RESTART }, was;
	char line[3], got[2];
	pthread_t t;

	for (int i = 0; i < 2; i++)
		need(!socketpair(AF_UNIX, SOCK_STREAM, 0, workers[i].in) && !pipe(workers[i].out), "pipes");
	need(!sigaction(SIGUSR1, &act, NULL) && !sigaction(SIGUSR1, NULL, &was), "sigaction");
	need(was.sa_handler == on_user && !(was.sa_flags & SA_SIGINFO), "the program's own handler");
	need(signal(SIGUSR2, on_user) == SIG_DFL && signal(SIGUSR2, SIG_IGN) == on_user, "signal");
	need(!pthread_create(&t, NULL, serve_requests, NULL), "pthread_create");
	need(!pthread_create(&t, NULL, victim, NULL), "pthread_create");
	while (read(0, line, 3) == 3) {
		if (line[0] == 'r') {
			need(write(workers[0].in[1], line, 1) == 1, "a request");
			need(read(workers[0].out[0], got, 2) == 2, "an answer");
			printf("%.2s\n", got);
		} else {
			need(!(line[0] == 's' ? pthread_kill(t, SIGUSR1) : pthread_cancel(t)), "a thread to disturb");
			need(read(workers[1].out[0], got, 1) == 1, "that it is disturbed");
			printf("1\n");
		}
		fflush(stdout);
	}
	return 0;
}

/* Says who serves, or 0 if nobody here may do what a worker does. */
static int serve_as_worker(void)
{
	pid_t child = fork();
	int status;

	need(child >= 0, "fork");
	if (child)
		return waitpid(child, &status, 0) == child && WIFEXITED(status) ? 0 : 1;
	/* A folder that is everywhere and has no /proc in it. */
	if (geteuid() && unshare(CLONE_NEWUSER)) {
		printf("0\n");
		return 0;
	}
	need(!chroot("/dev") && !chdir("/"), "chroot");
	need(geteuid() || !setresuid(65534, 65534, 65534), "change of user");
	/* Not before: with the user the wish is gone. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	printf("%d\n", (int)getpid());
	fflush(stdout);
	return serve();
}

/* ---- who patches it ---- */

/* In place: who changes code and who runs it wait for each other. */
static bool is_in_place(const char *strategy)
{
	return !strcmp(strategy, "barrier") || !strcmp(strategy, "stopworld");
}

static FILE *to, *from;
static pid_t server;

static void send_request(char verb, int kind)
{
	fprintf(to, "%c%c\n", verb, 'A' + kind);
	fflush(to);
}

static int answer(void)
{
	char line[16] = "";

	need(fgets(line, sizeof(line), from), "an answer of the server");
	return atoi(line);
}

static int request(char verb, int kind)
{
	send_request(verb, kind);
	return answer();
}

/* The answer to a request, all of it. */
static const char *control(const char *head, const void *file, size_t size)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	static char answer[8192];
	size_t got = 0;
	ssize_t n;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	n = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "wflp/%d", (int)server);
	for (int i = 0; connect(fd, (struct sockaddr *)&name,
				(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)); i++) {
		need(i < 500, "the control socket");
		sleep_us(10000);
	}
	need(write(fd, head, strlen(head)) == (ssize_t)strlen(head), "a request");
	if (size)
		need(write(fd, file, size) == (ssize_t)size, "the file");
	while ((n = read(fd, answer + got, sizeof(answer) - 1 - got)) > 0)
		got += (size_t)n;
	close(fd);
	answer[got] = '\0';
	return answer;
}

/* Asked by another user. */
static void ask_as_nobody(void)
{
	int status = 0;
	pid_t child;

	if (geteuid()) {
		note("no other user to be: not root");
		return;
	}
	child = fork();
	if (!child) {
		time_t before = time(NULL);

		if (setresuid(65534, 65534, 65534))
			_exit(2);
		/* One who says nothing does not keep others out for long. */
		if (!strstr(control("", NULL, 0), "end\terror\t1\t") || time(NULL) - before > 5)
			_exit(3);
		_exit(!strstr(control("undo\n", NULL, 0), "end\terror\t1\tonly root and the user"));
	}
	ok(waitpid(child, &status, 0) == child && !status, "another user is not answered: %#x", status);
}

static bool came_over(void)
{
	return strstr(control("status\n", NULL, 0), "\nover\tyes\n");
}

static bool wait_over(void)
{
	for (unsigned int i = 0; i < 300 * slow(); i++) {
		if (came_over())
			return true;
		sleep_us(10000);
	}
	note("%s", control("status\n", NULL, 0));
	return false;
}

static bool apply(const char *name, int value)
{
	const char *answer;
	size_t size;
	uint8_t *file = pack(name, value, &size);
	char head[32];

	snprintf(head, sizeof(head), "apply %zu\n", size);
	answer = control(head, file, size);
	free(file);
	if (!strstr(answer, "end\tok"))
		note("%s", answer);
	return strstr(answer, "end\tok");
}

/* As filters of services do, which have lists of what may be called. */
static void kill_at(unsigned int call)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		_exit(126);
}

static void start(const char *strategy, const char *as, bool filtered)
{
	const char *library = getenv("WFLP_PRELOAD");
	int in[2], out[2];

	need(library && !pipe(in) && !pipe(out), "WFLP_PRELOAD, pipes");
	server = fork();
	if (!server) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		for (int fd = 3; fd < 64; fd++)
			close(fd);
		setenv("LD_PRELOAD", library, 1);
		setenv("WFLP_STRATEGY", strategy, 1);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (filtered)
			kill_at(SYS_mincore);
		execl("/proc/self/exe", "t_preload", as, NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	to = fdopen(in[1], "w");
	from = fdopen(out[0], "r");
	need(server > 0 && to && from, "the server");
}

static void stop(void)
{
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	fclose(to);
	fclose(from);
}

static bool undo(void)
{
	return strstr(control("undo\n", NULL, 0), "end\tok");
}

static void patch_worker(const char *strategy)
{
	bool possible = is_in_place(strategy) || !strcmp(strategy, "waitfree");
	char line[16] = "";
	pid_t parent;

	start(strategy, "worker", false);
	parent = server;
	need(fgets(line, sizeof(line), from), "an answer of the worker");
	server = atoi(line);
	if (!server) {
		note("no worker: neither root nor a user namespace");
		server = parent;
		stop();
		return;
	}
	if (!possible) {
		is(request('a', READ), 1, "a worker that cannot be patched runs");
		ok(strstr(control("status\n", NULL, 0), "there is no such"), "and says why");
		kill(server, SIGKILL);
		server = parent;
		stop();
		return;
	}
	is(request('w', INSIDE), 0, "the worker is there");
	if (is_in_place(strategy))
		is(request('a', INSIDE), 1, "the worker's old code");
	/* The forking thread, too, which the worker's main thread is. */
	ok(apply("worker", 2), "a worker");
	if (!is_in_place(strategy))
		is(request('a', INSIDE), 1, "the worker's old code");
	ok(wait_over(), "all of a worker's threads come over");
	request('u', 0);
	for (int i = 0; i < THREADS; i++)
		is(request('a', i), 2, kinds[i]);
	ok(undo() && wait_over(), "and back");
	for (int i = 0; i < THREADS; i++)
		is(request('a', i), 1, kinds[i]);
	kill(server, SIGKILL);
	server = parent;
	stop();
}

/* In place: under a filter views are the administrator's choice. */
static void serve_filtered(const char *strategy)
{
	int status = 0;

	start(is_in_place(strategy) ? strategy : "barrier", "serve", true);
	sleep_us(200000);
	if (!ok(!waitpid(server, &status, WNOHANG), "no call that services may not make: signal %d",
		WTERMSIG(status)))
		return;
	is(request('a', INSIDE), 1, "filtered");
	ok(apply("filtered", 2) && wait_over(), "a patch, filtered");
	/* Here the left-over has libunwind look. */
	is(request('a', STALE), 2, "filtered");
	stop();
}

/*
 * Without sites a thread goes over wherever it sleeps, and a request has seen both;
 * with the loop as the only site it has not.
 */
static void patch_requests(const char *strategy, const char *sites)
{
	if (sites)
		setenv("WFLP_SITES", sites, 1);
	start(strategy, "requests", false);
	unsetenv("WFLP_SITES");
	is(request('r', 0), 11, "a request before the patch");
	send_request('r', 0);
	sleep_us(MIDDLE_US / 4);
	ok(apply("requests", 2), "a patch in the middle of a request");
	if (sites) {
		sleep_us(MIDDLE_US / 4);
		ok(!came_over(), "is not over while the request is not");
	} else {
		ok(wait_over(), "is over before the request is");
	}
	is(answer(), sites ? 11 : 12, sites ? "a request sees one version" : "a request sees both versions");
	ok(wait_over(), "over");
	is(request('r', 0), 22, "a request after the patch");
	stop();
}

/* A thread that is taken out of its call is awake, wherever it goes from there. */
static void patch_disturbed(const char *strategy, char how, const char *what)
{
	uint64_t began;

	start(strategy, "requests", false);
	is(request('r', 0), 11, what);
	is(request(how, 0), 1, what);
	began = now_ns();
	ok(apply(what, 2), "%s: a patch", what);
	if (!strcmp(strategy, "stopworld")) {
		ok(now_ns() - began > MIDDLE_US / 2 * 1000ull, "%s: waits for the thread to leave the old function", what);
	} else {
		sleep_us(MIDDLE_US / 4);
		ok(!came_over(), "%s: is not over while the thread is within the old function", what);
	}
	ok(wait_over(), "%s: over", what);
	is(request('r', 0), 22, what);
	stop();
}

static void patch_loops(const char *strategy)
{
	patch_requests(strategy, NULL);
	/* Who is stopped anywhere goes on from there. */
	if (strcmp(strategy, "stopworld"))
		patch_requests(strategy, "wait_at_loop,serve_one_loop,victim");
	patch_disturbed(strategy, 's', "a signal");
	patch_disturbed(strategy, 'c', "a cancellation");
}

int main(int argc, char **argv)
{
	const char *strategy = argc > 1 ? argv[1] : "waitfree";
	bool in_place = is_in_place(strategy);

	if (!strcmp(strategy, "serve"))
		return serve();
	if (!strcmp(strategy, "requests"))
		return serve_one_loop();
	if (!strcmp(strategy, "worker"))
		return serve_as_worker();
	deadline(180);
	start(strategy, "serve", false);
	ok(came_over(), "nothing is old at the start");
	ask_as_nobody();
	is(request('w', INSIDE), 0, "the server is there");
	sleep_us(200000);

	/* A thread that stays within the old function is in the way of any stop. */
	if (!strcmp(strategy, "stopworld")) {
		ok(!apply("first", 2), "no stop at which the old function is on no stack");
		ok(came_over(), "and nothing has changed");
	}
	/*
	 * At a barrier all would wait for the thread that is within the old function,
	 * also the one that has to let it go.
	 */
	if (in_place)
		is(request('a', INSIDE), 1, kinds[INSIDE]);
	ok(apply("first", 2), "a patch");
	if (!in_place) {
		sleep_us(300000);
		ok(!came_over(), "is not over while a thread is within the old function");
		for (int i = 0; i < THREADS; i++)
			is(request('w', i), 0, kinds[i]);
		is(request('a', INSIDE), 1, "that thread ends what it was at in the old code");
	}
	ok(wait_over(), "over");
	for (int i = 0; i < INSIDE; i++)
		is(request('w', i), 0, "nobody woke for it");
	is(request('u', 0), 0, "unlock");
	for (int i = 0; i < THREADS; i++)
		is(request('a', i), 2, kinds[i]);
	ok(apply("second", 3) && wait_over(), "another");
	for (int i = 0; i < THREADS; i++)
		is(request('a', i), 3, kinds[i]);
	for (int i = 0; i < 10; i++) {
		bool undone = undo() && wait_over();

		if (!undone || request('a', i % THREADS) != 2 || !apply("second", 3) ||
		    !wait_over() || request('a', i % THREADS) != 3) {
			ok(false, "round %d", i);
			break;
		}
	}
	ok(undo() && wait_over(), "one taken back");
	ok(undo() && wait_over(), "both taken back");
	for (int i = 0; i < THREADS; i++)
		is(request('a', i), 1, kinds[i]);
	ok(strstr(control("undo\n", NULL, 0), "end\terror\t2\t"), "nothing to take back");
	ok(strstr(control("apply 5\n", "wrong", 5), "not an ELF file"), "no patch");
	stop();
	patch_loops(strategy);
	patch_worker(strategy);
	patch_worker("such");
	serve_filtered(strategy);
	return done();
}
