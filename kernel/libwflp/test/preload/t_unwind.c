/* SPDX-License-Identifier: MIT */
/*
 * Whether a stack is free of a function, where a frame below cannot be understood: the
 * answer is no, for there is no knowing what is above it.  preload/unwind.c alone, with
 * the stack of this program.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

#include "harness.h"
#include "preload.h"

void *next(void **cache, const char *name, const char *version)
{
	(void)version;
	return *cache = dlsym(RTLD_NEXT, name);
}

bool site_allowed(uintptr_t caller)
{
	(void)caller;
	return true;
}

/*
 * outer(f) calls what is in the middle, which calls f.  sound says where its caller is;
 * astray sends the reader out of the stack; bare says nothing.  All of them end the
 * chain of frame pointers.
 */
void outer_sound(void (*f)(void));
void outer_astray(void (*f)(void));
void outer_bare(void (*f)(void));
extern char outer[], outer_end[];

#define OUTER(name)							\
	".globl outer_" #name "\nouter_" #name ":\n.cfi_startproc\n"	\
	"sub $8, %rsp\n.cfi_adjust_cfa_offset 8\n"			\
	"call " #name "\n"						\
	"add $8, %rsp\n.cfi_adjust_cfa_offset -8\nret\n.cfi_endproc\n"
#define MIDDLE(name, start, cfa, end)					\
	#name ":\n" start						\
	"push %rbp\n" cfa						\
	"xor %ebp, %ebp\ncall *%rdi\npop %rbp\nret\n" end

__asm__(".pushsection .text.unwind,\"ax\",@progbits\n"
	".globl outer\nouter:\nnop\n"
	OUTER(sound) OUTER(astray) OUTER(bare)
	".globl outer_end\nouter_end:\nnop\n"
	MIDDLE(sound, ".cfi_startproc\n", ".cfi_def_cfa rsp, 16\n.cfi_offset rbp, -16\n",
	       ".cfi_endproc\n")
	MIDDLE(astray, ".cfi_startproc\n", ".cfi_def_cfa rbp, 16\n.cfi_offset rbp, -16\n",
	       ".cfi_endproc\n")
	MIDDLE(bare, "", "", "")
	"nop\n.popsection\n");

static struct wflp_ranges *ranges;
static uintptr_t low, high;
static bool is_free;

/* As calls.c stores them. */
static __attribute__((noinline)) void look(void)
{
	struct wflp_frame f = { .stack_low = low, .stack_end = high };

	__asm__ volatile("leaq 0(%%rip), %%rax\n\t"
			 "movq %%rax, 0(%0)\n\t"
			 "movq %%rsp, 8(%0)\n\t"
			 "movq %%rbp, 16(%0)\n\t"
			 "movq %%rbx, 24(%0)\n\t"
			 "movq %%r12, 32(%0)\n\t"
			 "movq %%r13, 40(%0)\n\t"
			 "movq %%r14, 48(%0)\n\t"
			 "movq %%r15, 56(%0)"
			 : : "r"(&f) : "rax", "memory");
	is_free = stack_free(&f, ranges, NULL, -1);
}

static bool free_of(uintptr_t lo, uintptr_t hi, void (*through)(void (*)(void)))
{
	ranges->n = 1;
	ranges->r[0] = (struct wflp_range){ lo, hi };
	through(look);
	return is_free;
}

int main(void)
{
	volatile uintptr_t stale[2] = { 0 };
	uintptr_t lo = (uintptr_t)outer, hi = (uintptr_t)outer_end;
	pthread_attr_t attr;
	size_t size;
	void *at;

	need(!pthread_getattr_np(pthread_self(), &attr), "the stack");
	pthread_attr_getstack(&attr, &at, &size);
	pthread_attr_destroy(&attr);
	low = (uintptr_t)at;
	high = low + size;
	ranges = calloc(1, sizeof(*ranges) + sizeof(ranges->r[0]));
	need(ranges && unwind_init(), "memory, libunwind");

	ok(!free_of(lo, hi, outer_sound), "a function that is on the stack");
	ok(!free_of(lo, hi, outer_astray), "above a frame whose caller cannot be read");
	ok(!free_of(lo, hi, outer_bare), "above a frame without a description");
	/* An address that no word of the stack is. */
	ok(free_of(hi + (1ul << 21), hi + (1ul << 21) + 1, outer_bare), "no word of the stack points there");
	stale[0] = hi + (1ul << 20) + 1;
	ok(free_of(stale[0] - 1, stale[0] + 1, outer_sound), "a left-over, and all frames are known");
	ok(!free_of(stale[0] - 1, stale[0] + 1, outer_astray), "a left-over above a frame that is not");
	free(ranges);
	return done();
}
