/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "wflp/mm_view.h"

static int count, failures;
static pthread_mutex_t out = PTHREAD_MUTEX_INITIALIZER;

bool ok(bool cond, const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&out);
	if (!cond)
		failures++;
	printf("%sok %d - ", cond ? "" : "not ", ++count);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	pthread_mutex_unlock(&out);
	return cond;
}

void note(const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&out);
	printf("# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	pthread_mutex_unlock(&out);
}

int done(void)
{
	printf("1..%d\n", count);
	return failures || !count;
}

void need(bool cond, const char *what)
{
	if (cond)
		return;
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(2);
}

static void too_late(int sig)
{
	static const char msg[] = "Bail out! deadline passed\n";

	(void)sig;
	if (write(1, msg, sizeof(msg) - 1) < 0)
		_exit(3);
	_exit(1);
}

/* WFLP_TEST_SLOW=N: a machine N times slower, such as an emulated debug kernel. */
unsigned int slow(void)
{
	const char *s = getenv("WFLP_TEST_SLOW");
	int n = s ? atoi(s) : 1;

	return n > 0 ? (unsigned int)n : 1;
}

void deadline(unsigned int seconds)
{
	signal(SIGALRM, too_late);
	alarm(seconds * slow());
}

unsigned int scaled(unsigned int n)
{
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
	n /= 4;
#endif
	n /= slow();
	return n ? n : 1;
}

/* By another call than the one wflp_init() asks: a skip must prove itself. */
bool kernel_has_views(void)
{
	int fd = mm_view_create(0);

	if (fd >= 0)
		close(fd);
	return fd >= 0 || errno != ENOSYS;
}

enum wflp_strategy init_from_args(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "barrier";
	enum wflp_strategy s;
	int err;

	if (!strcmp(name, "waitfree"))
		s = WFLP_WAITFREE;
	else if (!strcmp(name, "barrier"))
		s = WFLP_BARRIER;
	else if (!strcmp(name, "naive"))
		s = WFLP_NAIVE;
	else
		exit(2);
	err = wflp_init(s, s == WFLP_NAIVE ? WFLP_INIT_ALLOW_UNSAFE : 0);
	if (err == -ENOSYS && s == WFLP_WAITFREE && !kernel_has_views()) {
		printf("1..0 # SKIP kernel without mm_view\n");
		exit(EXIT_SKIP);
	}
	errno = -err;
	need(!err, "wflp_init");
	return s;
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void sleep_us(unsigned int us)
{
	struct timespec ts = { us / 1000000, us % 1000000 * 1000 };

	nanosleep(&ts, NULL);
}

uint32_t rnd(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15;
	uint64_t z = *state;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (uint32_t)(z >> 32);
}

/*
 *	page 0:	mov  $version, %eax
 *		mov  $200, %ecx
 *	1:	dec  %ecx
 *		jnz  1b			time for somebody to interfere
 *		jmp  page 1
 *	page 1:	mov  $version, %edx
 *		shl  $32, %rdx
 *		or   %rdx, %rax
 *		ret
 */
void subject_make(struct subject *s, uint32_t version)
{
	static const uint8_t head[] = {
		0xb8, 0, 0, 0, 0, 0xb9, 200, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0xe9,
	};
	static const uint8_t tail[] = {
		0xba, 0, 0, 0, 0, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0xc3,
	};
	int32_t rel = (int32_t)(4096 - sizeof(head) - sizeof(rel));

	s->size = 2 * 4096;
	s->map = mmap(NULL, s->size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(s->map != MAP_FAILED, "mmap");
	memcpy(s->map, head, sizeof(head));
	memcpy(s->map + sizeof(head), &rel, sizeof(rel));
	memcpy(s->map + 4096, tail, sizeof(tail));
	s->imm[0] = s->map + 1;
	s->imm[1] = s->map + 4096 + 1;
	memcpy(s->imm[0], &version, 4);
	memcpy(s->imm[1], &version, 4);
	need(!mprotect(s->map, s->size, PROT_READ | PROT_EXEC), "mprotect");
	s->call = (uint64_t (*)(void))(void *)s->map;
}

void subject_free(struct subject *s)
{
	munmap(s->map, s->size);
}

int64_t subject_patch(const struct subject *s, uint32_t from, uint32_t to,
		      unsigned int flags)
{
	const struct wflp_edit e[2] = {
		{ s->imm[0], &from, &to, 4 },
		{ s->imm[1], &from, &to, 4 },
	};

	return wflp_apply(e, 2, flags);
}

int finish(int64_t ticket, enum wflp_stage stage)
{
	return wflp_wait(ticket, stage, 20000000000ll * slow());
}

bool report_sane(const struct wflp_report *r, enum wflp_strategy strategy)
{
	bool order = r->queued_ns <= r->preparing_ns &&
		     r->preparing_ns <= r->published_ns &&
		     r->published_ns <= r->first_over_ns &&
		     r->first_over_ns <= r->last_over_ns && r->last_over_ns;

	if (strategy == WFLP_WAITFREE)
		order = order && r->preparing_ns <= r->create_ns &&
			r->create_ns <= r->written_ns &&
			r->written_ns <= r->sealed_ns &&
			r->sealed_ns <= r->published_ns;
	else if (strategy == WFLP_BARRIER)
		order = order && r->published_ns <= r->written_ns &&
			r->written_ns <= r->sealed_ns &&
			r->sealed_ns <= r->first_over_ns;
	return order && !r->error && r->bad_edit == -1 &&
	       r->migrated + r->pulled == r->threads &&
	       (r->stage == WFLP_LAST_OVER || r->stage == WFLP_RELEASED) &&
	       !!r->released_ns == (r->stage == WFLP_RELEASED);
}

pthread_t spawn(void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	errno = pthread_create(&t, &attr, fn, arg);
	need(!errno, "pthread_create");
	pthread_attr_destroy(&attr);
	return t;
}
