// SPDX-License-Identifier: Apache-2.0
/*
 * Accesses that may fault, each one instruction, so that neither compiler nor
 * libc touches the memory at another time.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "fuzz.h"

long probe_do_load(const void *p, uint64_t *val);
long probe_do_store(void *p, uint64_t val);
long probe_do_exec(const void *fn, uint64_t *val);
extern char probe_load_at[], probe_store_at[], probe_fault[], probe_exec_fault[];

/* The handler leaves the signal in rax. */
asm(".pushsection .text\n"
    ".globl probe_do_load, probe_load_at, probe_do_store, probe_store_at\n"
    ".globl probe_fault, probe_do_exec, probe_exec_fault\n"
    "probe_do_load:\n"
    "probe_load_at:\n\tmovq (%rdi), %rdx\n"
    "\tmovq %rdx, (%rsi)\n\txorl %eax, %eax\n\tret\n"
    "probe_do_store:\n\txorl %eax, %eax\n"
    "probe_store_at:\n\tmovq %rsi, (%rdi)\n"
    "probe_fault:\n\tret\n"
    /* rbx has the stack pointer: what is called may be anything but that. */
    "probe_do_exec:\n\tpushq %rbx\n\tpushq %rsi\n\tmovq %rsp, %rbx\n"
    "\tcall *%rdi\n\tmovq %rbx, %rsp\n\tpopq %rsi\n\tmovl %eax, %eax\n"
    "\tmovq %rax, (%rsi)\n\txorl %eax, %eax\n\tpopq %rbx\n\tret\n"
    "probe_exec_fault:\n\tmovq %rbx, %rsp\n\tpopq %rsi\n\tpopq %rbx\n\tret\n"
    ".popsection\n");

int probe_load(const void *p, uint64_t *val)
{
	return (int)-probe_do_load(p, val);
}

int probe_store(void *p, uint64_t val)
{
	return (int)-probe_do_store(p, val);
}

int probe_exec(const void *fn, uint64_t *val)
{
	return (int)-probe_do_exec(fn, val);
}

/* Is this the code of a function, whole? Then what it returns, else the bytes and a mark. */
bool probe_code(const unsigned char *b, uint64_t *val)
{
	uint64_t v = 0;

	if (b[0] == 0xb8 && b[5] == 0xc3) {
		memcpy(&v, b + 1, 4);
		*val = v;
		return true;
	}
	memcpy(&v, b, W(FN_BYTES));
	*val = v | 1ull << 63;
	return false;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *regs = uc->uc_mcontext.gregs;
	uint64_t ip = (uint64_t)regs[REG_RIP];
	struct fuzzwire_trace_header *t = R.trace;

	if ((sig == SIGSEGV || sig == SIGBUS) &&
	    (ip == (uint64_t)probe_load_at || ip == (uint64_t)probe_store_at)) {
		regs[REG_RAX] = sig;
		regs[REG_RIP] = (greg_t)probe_fault;
		return;
	}
	if (ip >= W(ARENA_ADDR) && ip < W(ARENA_END)) {
		regs[REG_RAX] = sig;
		regs[REG_RIP] = (greg_t)probe_exec_fault;
		return;
	}
	if (!__atomic_exchange_n(&t->signal, (uint32_t)sig, __ATOMIC_SEQ_CST)) {
		t->crash_list = self ? (int32_t)self->list : -1;
		t->crash_addr = (uint64_t)info->si_addr;
		t->crash_ip = ip;
	}
	syscall(SYS_exit_group, W(END_CRASH));
}

static void on_nudge(int sig)
{
	(void)sig;
}

void probe_init(void)
{
	static const int sigs[] = { SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE };
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct sigaction nudge = { .sa_handler = on_nudge };

	for (size_t i = 0; i < sizeof(sigs) / sizeof(*sigs); i++)
		if (sigaction(sigs[i], &sa, NULL))
			die("set signal handler");
	if (sigaction(SIGUSR1, &nudge, NULL))
		die("set signal handler");
}
