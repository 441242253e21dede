/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interface of views by number, so that the driver, and a reproducer that is
 * made of it, builds anywhere and depends on no other header.
 */
#ifndef WFLP_FUZZ_VIEW_H
#define WFLP_FUZZ_VIEW_H

#include <stdint.h>

enum { NR_VIEW_CREATE = 480, NR_VIEW_ENTER, NR_VIEW_CTL, PR_VIEW = 0x6d6d7677 };

enum {
	VIEW_SEAL = 1, VIEW_RETIRE, VIEW_STAT, VIEW_PULL, VIEW_REGISTER, VIEW_CREATE, VIEW_ENTER,
	VIEW_REBASE
};

enum { WORD_ONLINE, WORD_OFFLINE };

struct view_pull {
	uint32_t mask, value;
	uint64_t tids;
	uint32_t nr, pad;
};

struct view_stat {
	uint64_t id;
	uint32_t flags, threads, private_pages, own_tables, views, threads_in_views;
};

#endif
