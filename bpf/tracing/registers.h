/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Override and Set in programs of user space: a uprobe may write the registers that the program
 * continues with (newer than v6.18: "bpf: Allow uprobe program to change context registers").
 */
#pragma once

#include "override.h"

#if defined(__x86_64__)
#define REG_INSTRUCTION 128 /* ip */

/* Leave the function at its first instruction: its return address is on top of the stack. */
static __always_inline bool return_from_function(void *ctx, u64 value)
{
	u64 stack = CONTEXT_REGISTER(ctx, REG_STACK), caller = 0;

	if (bpf_probe_read_user(&caller, sizeof(caller), (void *)stack))
		return false;
	CONTEXT_REGISTER(ctx, REG_RETURN) = value;
	CONTEXT_REGISTER(ctx, REG_STACK) = stack + 8;
	CONTEXT_REGISTER(ctx, REG_INSTRUCTION) = caller;
	return true;
}
#else
#define REG_INSTRUCTION 256 /* pc */

static __always_inline bool return_from_function(void *ctx, u64 value)
{
	CONTEXT_REGISTER(ctx, REG_RETURN) = value;
	CONTEXT_REGISTER(ctx, REG_INSTRUCTION) = CONTEXT_REGISTER(ctx, 240); /* x30 */
	return true;
}
#endif

static __always_inline u32 may_set(u32 mode)
{
	if (mode != MODE_ENFORCE)
		return COUNTER_MONITOR_SET;
	return is_spared() ? COUNTER_SPARED : COUNTER_SET;
}
