/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops that the verifier follows once, in place of every step of them:
 *
 *	for (u64 i = 0; i < STEPS; i += STEP_KNOWN) {
 *		if (MAY_LEAVE() || <a bound that lies in memory is reached>)
 *			break;
 *
 * What changes from step to step must lie in memory, read and written as volatile: the verifier knows
 * nothing of it there, so that all steps look the same.
 */
#pragma once

/*
 * Leave a loop early: never true at run time. With it the verifier looks for a state that holds for
 * every step of the loop, and does not follow each step ("bpf: Introduce may_goto instruction",
 * v6.9). The compiler does not know the instruction: BPF_JMP | BPF_JCOND with a jump of 16 bits.
 */
#ifdef HAVE_MAY_GOTO
#define MAY_LEAVE()                                                                          \
	({                                                                                   \
		__label__ leave, stay;                                                       \
		bool _left = false;                                                          \
		asm volatile goto("1: .byte 0xe5; .byte 0;"                                  \
				  ".long ((%l[leave] - 1b - 8) / 8) & 0xffff; .short 0"      \
				  :: :: leave);                                              \
		goto stay;                                                                   \
	leave:                                                                               \
		_left = true;                                                                \
	stay:;                                                                               \
		_left;                                                                       \
	})
#define STEP_KNOWN 0 /* a counter that the verifier tracks makes each step a different state */
#else
#define MAY_LEAVE() false
#define STEP_KNOWN 1
#endif
