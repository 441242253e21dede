/* SPDX-License-Identifier: MIT */
/* Makes patch files for the running program, as small as they get. */
#ifndef PACK_H
#define PACK_H

#include <stddef.h>
#include <stdint.h>

/* A function that patches replace; new code calls helper() and uses the other two. */
extern int subject(void);
/* Calls fn from the middle of subject(). */
extern void subject_around(void (*fn)(void));
extern uint32_t subject_size(void);
int helper(void);
extern int counter;

/*
 * A patch after which subject() calls helper(), counts up counter through the table
 * of addresses, and returns value, which it reads from its read-only data.
 */
uint8_t *pack(const char *name, int value, size_t *size);
/* After a change to the file, so that it fits its digest again. */
void repack(uint8_t *file, size_t size);

#endif
