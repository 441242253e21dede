/* SPDX-License-Identifier: MIT */
/*
 * Patch files (wflp-patch.h) in the running process: checked, mapped near the
 * program, and applied as one patch of libwflp.  Everything that can be wrong with
 * a file is found before anything changes; on failure each call leaves a sentence
 * that names it in why, a buffer of the caller's of that size (0: none).
 */
#ifndef WFLP_LOAD_H
#define WFLP_LOAD_H

#include <wflp.h>

#ifdef __cplusplus
extern "C" {
#endif

struct wflp_patch;

/*
 * Check a patch file against the running program and map what it brings along.
 * Nobody runs any of it yet.  The same file a second time is the same patch, which
 * is to be closed once for each time.
 *   -EBADMSG  it is no patch file, is damaged, or uses what the loader does not know
 *   -ESTALE   it is for another build of the program or of a library
 *   -ENOENT   a library or a symbol is not there
 *   -ERANGE   something is too far away, or too short for a jump
 *   -ENOMEM   no memory, or none near the program;  or what mmap or memfd_create say
 */
int wflp_patch_open(const void *file, size_t size, struct wflp_patch **patch,
		    char *why, size_t room);

/*
 * Redirect the old functions.  Returns the ticket of the patch, for wflp_wait() and
 * wflp_report(), once the new code is published.
 *   -EALREADY  it is applied;  -EBUSY  another patch is in progress
 *   -ESTALE    a function is not what the patch was made for
 *   or what wflp_apply() or its report say
 */
int64_t wflp_patch_apply(struct wflp_patch *patch, char *why, size_t room);

/*
 * Take a patch back: the last one that was applied, or -EBUSY.
 *   -ENOENT  it is not applied
 */
int64_t wflp_patch_undo(struct wflp_patch *patch, char *why, size_t room);

/* Unmap a patch that was never applied, when all have closed it; -EBUSY if it was. */
int wflp_patch_close(struct wflp_patch *patch);

#ifdef __cplusplus
}
#endif
#endif /* WFLP_LOAD_H */
