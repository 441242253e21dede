/* SPDX-License-Identifier: MIT */
/*
 * Under a seccomp filter that kills at any system call that a stock kernel does
 * not have, as one does that lists what is allowed, all of the library works.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "groups.h"

/* The first number after those of Linux 6.12. */
#define FIRST_UNKNOWN 463

static void confine(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, FIRST_UNKNOWN, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };

	need(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	need(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), "seccomp");
}

/* A confined process may have views only where the administrator says so. */
static bool allow_views(void)
{
	FILE *f = fopen("/proc/sys/vm/mm_view", "w");
	bool ok = f && fputs("2", f) >= 0;

	return f && !fclose(f) && ok;
}

static bool stop;

static void *worker(void *arg)
{
	need(!wflp_thread_register(), "register");
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		check();
		wflp_quiescent();
		if (arg) {
			wflp_offline();
			sleep_us(2000);
			wflp_online();
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct wflp_report r;
	pthread_t t[2];
	unsigned int v;
	int64_t rebase;

	if (argc > 1 && !strcmp(argv[1], "waitfree") && !kernel_has_views()) {
		printf("1..0 # SKIP kernel without mm_view\n");
		return EXIT_SKIP;
	}
	deadline(60);
	need(allow_views(), "vm.mm_view");
	confine();
	if (groups_init(argc, argv) != WFLP_WAITFREE)
		return 2;
	for (uintptr_t i = 0; i < 2; i++)
		t[i] = groups_spawn(worker, (void *)i);
	ok(over(patch_own(0), &r), "a patch");
	ok(over(create(0, &v), &r), "a variant");
	ok(over(patch_own(v), &r), "a patch of it");
	ok(over(adopt(0, v), &r), "adopted");
	is(finish(wflp_variant_remove(v), WFLP_RELEASED), WFLP_RELEASED, "removed");
	groups_same();
	rebase = wflp_rebase();
	is(finish(rebase, WFLP_RELEASED), WFLP_FAILED, "a rebase, with this thread in the base");
	need(!wflp_report(rebase, &r, sizeof(r)), "report");
	is(r.error, -EBUSY, "is refused as it should be");
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	is((long long)wrong, 0, "calls of other code than that of the generation");
	is(wflp_fini(), 0, "fini");
	return done();
}
