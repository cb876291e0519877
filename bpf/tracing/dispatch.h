/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls on kernels that cannot hook their functions: one program at raw tracepoint
 * sys_enter, or sys_exit, jumps by the call's number to the programs that policies hook it with.
 * Another system call pays for one failed jump, whatever the number of policies.
 *
 * Programs of one call stand at levels of the program array; each jumps to the next level at its
 * end. The level of a program never changes, so a policy that is removed leaves a hole: a jump into
 * a hole continues behind it. bpf_tail_call() allows 33 in a row.
 */
#pragma once

#include "context.h"

#define SYSCALLS_MAX 512 /* numbers of both ABIs are below; x32's carry bit 30 */
#define SYSCALL_LEVELS 32

/* The program at the first used level from `level` on. */
static __always_inline void jump_to_level(void *ctx, void *programs, u32 number, u32 level)
{
	const u8 *levels = MAP_VALUE(MAP_SYSCALL_LEVELS);
	u32 used;

	FORGET(number);
	number &= SYSCALLS_MAX - 1;
	used = levels[number]; /* highest level in use, plus 1 */
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < SYSCALL_LEVELS; i++, level++) {
		if (level >= used)
			break;
		bpf_tail_call(ctx, programs, level * SYSCALLS_MAX + number);
	}
}
