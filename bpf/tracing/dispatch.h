/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls on kernels that cannot hook their functions: one program at raw tracepoint
 * sys_enter, or sys_exit, jumps by the call's number to the programs that policies hook it with.
 * A system call without hooks costs one load, however many policies there are.
 *
 * Programs of one call stand at levels of the program array; each jumps to the next used level at
 * its end. The level of a program never changes. bpf_tail_call() allows 33 in a row. A program that
 * hooks every call is at a high level of all numbers. The last number stands for all numbers above
 * it (x32, -1), at which only programs that hook every call run: they see the number of an x32 call
 * unmasked.
 */
#pragma once

#include "context.h"

#define SYSCALLS_MAX 512 /* numbers of both ABIs are below 511; x32's carry bit 30 */
#define SYSCALL_LEVELS 32
#define SYSCALL_ENTER 0
#define SYSCALL_EXIT ((SYSCALL_LEVELS + 1) * SYSCALLS_MAX)

/*
 * MAP_SYSCALL_LEVELS holds, for each direction, level and call, the first used level from this one
 * on, plus 1; 0: none. A jump fails if its program was removed meanwhile; that level is then
 * skipped.
 */
static __always_inline void jump_to_level(void *ctx, void *programs, u32 direction, u32 number,
					  u32 level)
{
	volatile u8 *levels = MAP_VALUE(MAP_SYSCALL_LEVELS);

	FORGET(number);
	number &= SYSCALLS_MAX - 1;
	levels += direction + level * SYSCALLS_MAX;
#pragma unroll
	for (u32 attempts = 0; attempts < 2; attempts++) {
		u32 next = levels[number];

		if (!next)
			return;
		bpf_tail_call(ctx, programs, (next - 1) * SYSCALLS_MAX + number);
	}
}
