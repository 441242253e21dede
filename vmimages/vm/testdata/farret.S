# SPDX-License-Identifier: Apache-2.0
#
# A far return with a 32-bit operand, with a stack beyond 4 GiB. It is as valid
# as any return; an emulator that takes the stack address modulo 2^32, and reads
# it as the kernel would, brings the kernel down.
	.globl	_start
_start:	sub	$8, %rsp
	movl	$1f, (%rsp)
	movl	$0x33, 4(%rsp)		# the user's code segment in 64-bit mode
	lret
1:	mov	$60, %eax		# exit(0)
	xor	%edi, %edi
	syscall
