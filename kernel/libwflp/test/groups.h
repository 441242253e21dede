/* SPDX-License-Identifier: MIT */
/*
 * Two functions, in the machine or in the model of the kernel, for tests with
 * variants: own, which says which variant's patch it is of, and common, which is
 * patched in all variants at once.  What each must say in a generation of a
 * variant is noted down before that generation can be published; so a thread can
 * tell at any time whether it runs the code of its variant.
 */
#ifndef GROUPS_H
#define GROUPS_H

#include "fake.h"

#define GENERATIONS 16384

struct code {
	uint32_t own, common;
};

extern struct code now[WFLP_VARIANTS_MAX];	/* as of the last change */
extern uint64_t calls, wrong;
extern bool model;

/* argv[1]: model, or a strategy */
enum wflp_strategy groups_init(int argc, char **argv);
pthread_t groups_spawn(void *(*fn)(void *), void *arg);
void groups_sleep(unsigned int us);

/* Call both; counts in calls and wrong.  Returns what own said. */
uint32_t check(void);

/* Changes by one thread only.  They return the ticket. */
int64_t patch_own(unsigned int variant);
int64_t patch_common(void);
/* A patch of own to all variants, unrecorded: for one that is to fail. */
int64_t groups_patch_all_own(uint32_t from, uint32_t to);
int64_t create(unsigned int like, unsigned int *variant);
int64_t adopt(unsigned int variant, unsigned int from);
/* The next generation has the same content as this one. */
void groups_same(void);
/* Wait for LAST_OVER, and say if it did not succeed. */
bool over(int64_t ticket, struct wflp_report *r);

#endif
