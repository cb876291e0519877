/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How often each system call is made, for policies/frequent.py, which detaches the program from
 * the functions of frequent ones.
 */
#pragma once

#include "maps.h"

#define CALLS_MAX 512

/*
 * Not atomic: it is compared with a rate, and has no need of exactness. A 32-bit call counts for
 * the 64-bit call of its number.
 */
static __always_inline void count_call(u64 number)
{
	u64 *calls = MAP_VALUE(MAP_CALLS);
	u32 at = number;

	FORGET(at);
	calls[at & (CALLS_MAX - 1)] += 1;
}
