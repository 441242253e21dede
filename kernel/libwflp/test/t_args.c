/* SPDX-License-Identifier: MIT */
/* Every documented error of every call that needs no running patch. */
#define _GNU_SOURCE
#include <errno.h>

#include "harness.h"

int main(void)
{
	uint8_t a = 1, b = 2, area[8];
	struct wflp_edit e[2] = { { area, &a, &b, 1 }, { area + 1, &a, &b, 1 } };
	struct { struct wflp_report r; uint64_t later; } big;
	struct wflp_report r;

	deadline(20);
	is(wflp_thread_register(), -ENODEV, "register before init");
	is(wflp_thread_unregister(), -ESRCH, "unregister before init");
	is(wflp_offline(), -ESRCH, "offline before init");
	is(wflp_online(), -ESRCH, "online before init");
	is(wflp_quiescent(), 0, "quiescent before init");
	is(wflp_apply(e, 2, 0), -ENODEV, "apply before init");
	is(wflp_fini(), -ENODEV, "fini before init");
	is(wflp_report(1, &r, sizeof(r)), -ENOENT, "report before init");
	is(wflp_wait(1, WFLP_PUBLISHED, 0), -ENOENT, "wait before init");

	is(wflp_init((enum wflp_strategy)0, 0), -EINVAL, "strategy 0");
	is(wflp_init((enum wflp_strategy)4, 0), -EINVAL, "strategy 4");
	is(wflp_init(WFLP_BARRIER, 2), -EINVAL, "unknown init flag");
	is(wflp_init(WFLP_NAIVE, 0), -EINVAL, "naive without leave");
	is(wflp_init(WFLP_BARRIER, 0), 0, "init");
	is(wflp_init(WFLP_BARRIER, 0), -EALREADY, "init again");

	is(wflp_apply(NULL, 1, 0), -EINVAL, "null edits");
	is(wflp_apply(e, 0, 0), -EINVAL, "no edits");
	is(wflp_apply(e, 2, 2), -EINVAL, "unknown apply flag");
	is(wflp_apply(e, SIZE_MAX, 0), -EINVAL, "absurd number of edits");
	e[1].len = 0;
	is(wflp_apply(e, 2, 0), -EINVAL, "length 0");
	e[1].len = SIZE_MAX;
	is(wflp_apply(e, 2, 0), -EINVAL, "length beyond the address space");
	e[1] = (struct wflp_edit){ area, &a, &b, 1 };
	is(wflp_apply(e, 2, 0), -EINVAL, "same address twice");
	e[0] = (struct wflp_edit){ area + 2, area, area, 4 };
	e[1] = (struct wflp_edit){ area, area, area, 3 };
	is(wflp_apply(e, 2, 0), -EINVAL, "overlap, not in order");
	e[1] = (struct wflp_edit){ area, NULL, &b, 1 };
	is(wflp_apply(e, 2, 0), -EINVAL, "no old bytes");
	e[1] = (struct wflp_edit){ area, &a, NULL, 1 };
	is(wflp_apply(e, 2, 0), -EINVAL, "no new bytes");
	is(wflp_report(1, &r, sizeof(r)), -ENOENT, "a refused patch has no ticket");

	is(wflp_thread_unregister(), -ESRCH, "unregister of a stranger");
	is(wflp_thread_register(), 0, "register");
	is(wflp_thread_register(), -EALREADY, "register again");
	is(wflp_fini(), -EBUSY, "fini with a thread registered");
	is(wflp_offline(), 0, "offline");
	is(wflp_offline(), 0, "offline again");
	is(wflp_quiescent(), 0, "quiescent while offline");
	is(wflp_online(), 0, "online");
	is(wflp_online(), 0, "online again");
	is(wflp_quiescent(), 0, "quiescent");
	is(wflp_thread_generation(), 0, "generation");
	is(wflp_newest_generation(), 0, "newest generation");
	is(wflp_thread_unregister(), 0, "unregister");
	is(wflp_thread_unregister(), -ESRCH, "unregister again");

	e[0] = (struct wflp_edit){ area, &a, &b, 1 };
	is(wflp_apply(e, 1, 0), 1, "first ticket");
	is(wflp_wait(1, WFLP_RELEASED, -1), WFLP_FAILED, "data is not patched");
	is(wflp_report(1, NULL, sizeof(r)), -EINVAL, "report to nowhere");
	is(wflp_report(1, &r, 0), -EINVAL, "report of size 0");
	is(wflp_report(1, &r, sizeof(r)), 0, "report");
	is(r.error, -EACCES, "its error");
	is(r.bad_edit, 0, "its edit");
	big.later = 7;
	is(wflp_report(1, &big.r, sizeof(big)), 0, "report to a newer caller");
	is((long long)big.later, 0, "what this library does not know is zero");
	is(wflp_report(2, &r, sizeof(r)), -ENOENT, "unknown ticket");
	is(wflp_report(-1, &r, sizeof(r)), -ENOENT, "negative ticket");
	is(wflp_wait(2, WFLP_PUBLISHED, 0), -ENOENT, "wait for an unknown ticket");
	is(wflp_wait(1, WFLP_FAILED, 0), -EINVAL, "wait for failure");
	is(wflp_wait(1, (enum wflp_stage)-1, 0), -EINVAL, "wait for no stage");

	is(wflp_fini(), 0, "fini");
	is(wflp_fini(), -ENODEV, "fini again");
	is(wflp_apply(e, 1, 0), -ENODEV, "apply after fini");
	is(wflp_init(WFLP_NAIVE, WFLP_INIT_ALLOW_UNSAFE), 0, "init once more");
	is(wflp_fini(), 0, "fini once more");
	return done();
}
