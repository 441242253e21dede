/* SPDX-License-Identifier: MIT */
/*
 * A small harness: TAP on stdout, exit 0 / 1 / 77 (skipped), and a subject to
 * patch: a function made of machine code that lies on two pages and says with
 * each half which version it is.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wflp.h"

#define EXIT_SKIP 77

/* TAP; ok() returns its condition. */
bool ok(bool cond, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int done(void);
#define is(got, want, what) \
	({ long long g_ = (got), w_ = (want); \
	   ok(g_ == w_, "%s: %lld, want %lld", what, g_, w_); })
/* For what the test itself needs: not a finding about the library. */
void need(bool cond, const char *what);

/* Any call that does not come back is a failure, not a hang. */
void deadline(unsigned int seconds);

/* Smaller numbers where a sanitiser or the machine makes everything slow. */
unsigned int slow(void);
unsigned int scaled(unsigned int n);

/* argv[1], one of the names; initialises the library; skips where it proves that it must. */
enum wflp_strategy init_from_args(int argc, char **argv);
bool kernel_has_views(void);

uint64_t now_ns(void);
void sleep_us(unsigned int us);
uint32_t rnd(uint64_t *state);

struct subject {
	uint8_t *map;
	size_t size;
	uint8_t *imm[2];	/* where each half says its version */
	uint64_t (*call)(void);
};
void subject_make(struct subject *s, uint32_t version);
void subject_free(struct subject *s);
static inline uint32_t first_half(uint64_t v) { return (uint32_t)v; }
static inline uint32_t second_half(uint64_t v) { return (uint32_t)(v >> 32); }
/* Apply from -> to as one unit. */
int64_t subject_patch(const struct subject *s, uint32_t from, uint32_t to,
		      unsigned int flags);

/* Wait with a limit that only a defect reaches; returns the stage or -errno. */
int finish(int64_t ticket, enum wflp_stage stage);
/* What holds of every successful report. */
bool report_sane(const struct wflp_report *r, enum wflp_strategy strategy);

pthread_t spawn(void *(*fn)(void *), void *arg);

#endif
