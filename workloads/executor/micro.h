/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the micro-benchmarks share. */
#ifndef WFLP_MICRO_H
#define WFLP_MICRO_H

#include <stdbool.h>
#include <stdint.h>

#define PAGE 4096ul
#define MIB (1ul << 20)
#define CHUNK (2 * MIB)
#define LIST 32

struct list {
	long v[LIST];
	int n;
};

/* micro.c */
extern int reps, batch;
extern bool short_batches;
extern char *text;	/* mov $1, %eax; ret */
uint64_t now_ns(void);
void die(const char *what) __attribute__((noreturn));
void after_tick(void);
void map_text(void);
int call_text(void);
bool have_views(void);
int view_create(void);
void view_enter(int fd);
int view_make(void);
void view_drop(int fd);
long view_ctl(int fd, unsigned int op);
uint64_t switch_threads(int n, void (*other)(void));

/* footprint.c */
void footprint(const struct list *views, const struct list *pages, long generations);

/* variants.c */
void variants(void);
void instrument(void);

#endif
