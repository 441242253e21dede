/* SPDX-License-Identifier: MIT */
/*
 * A model of the kernel's views behind struct wflp_sys, to run the protocol of
 * the library, races, failures and all, where the kernel has none.  A view's
 * code is a copy of fake_text; to call it is fake_call().
 */
#ifndef FAKE_H
#define FAKE_H

#include "harness.h"
#include "internal.h"

#define FAKE_TEXT 64

enum fake_op {
	FAKE_CREATE, FAKE_STAT, FAKE_READ, FAKE_WRITE, FAKE_SEAL, FAKE_ENTER,
	FAKE_PULL, FAKE_REGISTER, FAKE_REBASE, FAKE_OPS,
};

extern uint8_t fake_text[FAKE_TEXT];

void fake_install(void);
/* Random delays of up to us in and around each call. */
void fake_delay(unsigned int us);
/* The nth call of op from now on fails with err, and only that. */
void fake_fail(enum fake_op op, unsigned int nth, int err);
bool fake_failed(void);		/* the failure has been served */
/* Threads are in no view by themselves: their creator's must be handed on. */
pthread_t fake_spawn(void *(*fn)(void *), void *arg);
/* Sleep so that PULL can tell. */
void fake_sleep(unsigned int us);
/* Call the code: both halves, with a pause between. */
uint64_t fake_call(void);
int64_t fake_patch(uint32_t from, uint32_t to, unsigned int flags);
/* What the code has at an offset, to its own threads. */
uint32_t fake_word(unsigned int offset);
unsigned int fake_views(void);
unsigned int fake_most_views(void);
/* What a correct library never does: enter a view that is gone, and the like. */
unsigned int fake_offences(void);

#endif
