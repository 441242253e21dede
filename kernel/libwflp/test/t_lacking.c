/* SPDX-License-Identifier: MIT */
/*
 * What wflp_init() says of a kernel, checked against the calls themselves;
 * without the mechanism the barrier works all the same.
 */
#include <errno.h>

#include "harness.h"

int main(void)
{
	struct subject s;
	bool has = kernel_has_views();

	deadline(20);
	note("kernel %s mm_view", has ? "with" : "without");
	is(wflp_init(WFLP_WAITFREE, 0), has ? 0 : -ENOSYS, "init waitfree");
	if (has)
		is(wflp_fini(), 0, "fini");
	is(wflp_init(WFLP_BARRIER, 0), 0, "init barrier");
	subject_make(&s, 0);
	is(finish(subject_patch(&s, 0, 1, 0), WFLP_RELEASED), WFLP_RELEASED, "patch");
	is((long long)s.call(), 1ll << 32 | 1, "patched");
	is(wflp_fini(), 0, "fini");
	subject_free(&s);
	return done();
}
