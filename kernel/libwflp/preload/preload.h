/* SPDX-License-Identifier: MIT */
/*
 * libwflp-preload.so: live patching of programs that know nothing of it.
 *
 *	calls.c		the calls of the C library that it stands in front of
 *	unwind.c	what is on a stack
 *	sites.c		which calls are safe points, if the user names some
 *	stop.c		all threads stopped at once, as others do it
 *	control.c	the control socket
 *	preload.c	start, threads, signals, fork
 */
#ifndef WFLP_PRELOAD_H
#define WFLP_PRELOAD_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "internal.h"

/* Visible to the program: what it calls instead of the C library. */
#define SHOWN __attribute__((visibility("default")))

/* The C library's own. */
void *next(void **cache, const char *name, const char *version) HIDDEN;
#define NEXT(fn) ((__typeof__(fn) *)next(&next_##fn, #fn, NULL))
#define NEXT_AT(fn, version) ((__typeof__(fn) *)next(&next_##fn, #fn, version))

int direct_mutex_lock(pthread_mutex_t *m) HIDDEN;

/* unwind.c; false: the library says why. */
bool unwind_init(void) HIDDEN;
bool stack_free(const struct wflp_frame *f, const struct wflp_ranges *ranges, wflp_reader rd,
		int fd) HIDDEN;

/* sites.c: from a list as in WFLP_SITES; false: what says which one is wrong. */
bool sites_init(const char *list, char *what, size_t room) HIDDEN;
bool site_allowed(uintptr_t caller) HIDDEN;

/* The same for a thread that was stopped anywhere. */
bool interrupted_free(const struct wflp_frame *f, const struct wflp_ranges *ranges) HIDDEN;

/* stop.c */
#define STOP_SIGNAL (SIGRTMAX - 2)
bool stop_init(void) HIDDEN;
int next_sigaction_call(int sig, const struct sigaction *act) HIDDEN;
/* Where the calling thread's stack is. */
void own_stack(struct wflp_frame *f) HIDDEN;
/* A thread of the library's: it runs none of the program's code. */
bool is_helper(pid_t tid) HIDDEN;

/* control.c */
int control_start(void) HIDDEN;
void control_forked(void) HIDDEN;

/*
 * A thread that the C library made without asking us, at its first call: the frame
 * where it stores its registers, or NULL.  ours() is called by threads of ours.
 */
struct wflp_frame *adopt(void) HIDDEN;
void ours(void) HIDDEN;

/* preload.c: why this process cannot be patched, or NULL. */
const char *why_not(void) HIDDEN;
const char *strategy_name(void) HIDDEN;

#endif /* WFLP_PRELOAD_H */
