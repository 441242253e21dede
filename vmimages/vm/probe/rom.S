/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ROM that asks a virtual processor for all that a kernel will ask of it,
 * and prints a letter to port 0xe9 for each thing that came back right:
 *
 *   R  real mode runs
 *   P  protected mode
 *   L  long mode with paging
 *   I  int3 is delivered and returns
 *   C  a changed mapping is seen after invlpg, and after a CR3 load
 *   F  a page fault is delivered, with the right CR2, and the access repeated
 *   U  user mode, and syscall out of it
 *   T  a timer interrupt ends hlt
 *   2  a second processor starts
 *
 * and then leaves through isa-debug-exit with the value 0x31. Where KVM is
 * nested in something that emulates it half, real, protected and long mode run
 * and the first exception hangs: only the way to the end says that it works.
 *
 * There is nothing to link: every address is BASE plus a difference of two
 * labels, which the assembler knows.
 */
	.set	BASE, 0xf0000		/* where a 64 KiB ROM shows below 1 MiB */
	.set	PML4, 0x10000
	.set	PDPT, 0x11000
	.set	PD0,  0x12000		/* four: 4 GiB in 2 MiB pages */
	.set	PT,   0x16000		/* 4 KiB pages, first of them at WINDOW */
	.set	IDT,  0x18000
	.set	FLAG_INT3,  0x1a000
	.set	FLAG_TIMER, 0x1a008
	.set	FLAG_AP,    0x1a010
	.set	FLAG_FAULT, 0x1a018
	.set	PAGE_A, 0x1b000
	.set	PAGE_B, 0x1c000
	.set	STACK,  0x20000
	.set	TRAMPOLINE, 0x8000
	.set	WINDOW, 0x140000000	/* 5 GiB: PDPT entry 5 */
	.set	HOLE,   0x180000000	/* 6 GiB: PDPT entry 6, absent at first */
	.set	PDW,    0x17000		/* its page directory */
	.set	APIC,   0xfee00000

	.macro	say c
	movb	$\c, %al
	outb	%al, $0xe9
	.endm

	.macro	gate vector, handler
	movl	$(BASE + \handler - rom), %eax
	movw	%ax, IDT + \vector * 16
	movw	$0x18, IDT + \vector * 16 + 2
	movw	$0x8e00, IDT + \vector * 16 + 4
	shrl	$16, %eax
	movw	%ax, IDT + \vector * 16 + 6
	movq	$0, IDT + \vector * 16 + 8
	.endm

	.text
rom:
	.code16
real:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$0x7000, %sp
	say	'R'
	lgdtl	%cs:(gdtr - rom)
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$0x08, $(BASE + protected - rom)

	.code32
protected:
	movw	$0x10, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movl	$STACK, %esp
	say	'P'

	/* Tables: clear them, then map 4 GiB one to one, for user mode, too. */
	cld
	xorl	%eax, %eax
	movl	$PML4, %edi
	movl	$((STACK - 0x1000 - PML4) / 4), %ecx
	rep stosl
	movl	$(PDPT | 7), PML4
	movl	$(PD0 | 7), PDPT
	movl	$(PD0 + 0x1000 | 7), PDPT + 8
	movl	$(PD0 + 0x2000 | 7), PDPT + 16
	movl	$(PD0 + 0x3000 | 7), PDPT + 24
	movl	$(PDW | 7), PDPT + 40
	movl	$(PT | 7), PDW
	movl	$(PAGE_A | 7), PT
	movl	$PD0, %edi
	movl	$0x87, %eax
	movl	$2048, %ecx
1:	movl	%eax, (%edi)
	addl	$0x200000, %eax
	addl	$8, %edi
	decl	%ecx
	jnz	1b

	movl	%cr4, %eax
	orl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	$PML4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER: LME and SCE */
	rdmsr
	orl	$0x101, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000000, %eax
	movl	%eax, %cr0
	ljmp	$0x18, $(BASE + long_mode - rom)

	.code64
long_mode:
	movl	$0x20, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$STACK, %esp
	say	'L'

	gate	3, on_int3
	gate	6, on_other
	gate	8, on_other
	gate	13, on_other
	gate	14, on_fault
	gate	32, on_timer
	lidt	BASE + idtr - rom

	int3
	cmpl	$1, FLAG_INT3
	jne	fail
	say	'I'

	movl	$0xaaaa, PAGE_A
	movl	$0xbbbb, PAGE_B
	movabsq	$WINDOW, %rbx
	cmpl	$0xaaaa, (%rbx)
	jne	fail
	movl	$(PAGE_B | 7), PT
	invlpg	(%rbx)
	cmpl	$0xbbbb, (%rbx)
	jne	fail
	movl	$(PAGE_A | 7), PT
	movq	%cr3, %rax
	movq	%rax, %cr3
	cmpl	$0xaaaa, (%rbx)
	jne	fail
	say	'C'

	movabsq	$HOLE, %rbx
	movl	(%rbx), %eax		/* faults; the handler maps 0 there */
	cmpl	$1, FLAG_FAULT
	jne	fail
	say	'F'

	movl	$0xc0000081, %ecx	/* STAR */
	xorl	%eax, %eax
	movl	$(0x002b << 16 | 0x0018), %edx
	wrmsr
	movl	$0xc0000082, %ecx	/* LSTAR */
	movl	$(BASE + on_syscall - rom), %eax
	xorl	%edx, %edx
	wrmsr
	movl	$0xc0000084, %ecx	/* FMASK */
	movl	$0x200, %eax
	xorl	%edx, %edx
	wrmsr
	movl	$(BASE + user - rom), %ecx
	movl	$0x002, %r11d
	sysretq

user:
	movl	$0x5ca11, %edi
	syscall
	hlt				/* privileged: on_other */

on_syscall:
	movl	$STACK, %esp
	cmpl	$0x5ca11, %edi
	jne	fail
	say	'U'

	movl	$APIC, %ebx
	movl	$0x1ff, 0xf0(%rbx)	/* on */
	movl	$0xb, 0x3e0(%rbx)	/* divide by 1 */
	movl	$32, 0x320(%rbx)	/* one shot, vector 32 */
	movl	$100000, 0x380(%rbx)
1:	sti
	hlt
	cli
	cmpl	$1, FLAG_TIMER
	jne	1b
	say	'T'

	movl	$(BASE + trampoline - rom), %esi
	movl	$TRAMPOLINE, %edi
	movl	$(trampoline_end - trampoline), %ecx
	rep movsb
	movl	$0, 0x310(%rbx)
	movl	$0xc4500, 0x300(%rbx)	/* INIT to all but me */
	movl	$200000, %ecx
1:	pause
	decl	%ecx
	jnz	1b
	movl	$(0xc4600 | TRAMPOLINE >> 12), 0x300(%rbx)
	movl	$20000, %ecx
1:	pause
	decl	%ecx
	jnz	1b
	movl	$(0xc4600 | TRAMPOLINE >> 12), 0x300(%rbx)
1:	pause
	cmpl	$1, FLAG_AP
	jne	1b
	say	'2'

	movb	$0x31, %al
	outb	%al, $0xf4
fail:
	say	'!'
	movb	$0x01, %al
	outb	%al, $0xf4
1:	hlt
	jmp	1b

on_int3:
	movl	$1, FLAG_INT3
	iretq

on_fault:
	pushq	%rax
	pushq	%rbx
	movq	%cr2, %rax
	movabsq	$HOLE, %rbx
	cmpq	%rbx, %rax
	jne	fail
	movl	$(PD0 | 7), PDPT + 48
	movl	$1, FLAG_FAULT
	popq	%rbx
	popq	%rax
	addq	$8, %rsp		/* error code */
	iretq

on_timer:
	movl	$1, FLAG_TIMER
	pushq	%rbx
	movl	$APIC, %ebx
	movl	$0, 0xb0(%rbx)		/* end of interrupt */
	popq	%rbx
	iretq

on_other:
	jmp	fail

	.code16
trampoline:
	cli
	movw	$(FLAG_AP >> 4), %ax
	movw	%ax, %ds
	movl	$1, FLAG_AP & 0xf
1:	hlt
	jmp	1b
trampoline_end:

	.balign	16
gdt:	/* with the accessed bits set: the processor cannot write into a ROM */
	.quad	0
	.quad	0x00cf9b000000ffff	/* 08 code, 32 bits */
	.quad	0x00cf93000000ffff	/* 10 data */
	.quad	0x00af9b000000ffff	/* 18 code, 64 bits */
	.quad	0x00cf93000000ffff	/* 20 data, for syscall */
	.quad	0x00cffb000000ffff	/* 28 user code, 32 bits */
	.quad	0x00cff3000000ffff	/* 30 user data */
	.quad	0x00affb000000ffff	/* 38 user code, 64 bits */
gdt_end:
gdtr:	.word	gdt_end - gdt - 1
	.long	BASE + gdt - rom
	.balign	8
idtr:	.word	33 * 16 - 1
	.quad	IDT

	.org	0xfff0
	ljmp	$0xf000, $(real - rom)
	.org	0x10000
