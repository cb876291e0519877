/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Override: the function returns an error and its body does not run.
 *
 * One program per function, the gate (policies/gates.py), is attached so that its result replaces
 * the function's. Programs of policies run before it, at the same function's entry, and leave their
 * verdict in MAP_VERDICTS; the gate takes it out. So every policy sees the call, even if another
 * policy refuses it: of several programs that return an error themselves the kernel runs only the
 * first (kernel/bpf/trampoline.c, arch/x86/net/bpf_jit_comp.c: invoke_bpf_mod_ret()).
 */
#pragma once

#include "act.h"

struct verdict_key {
	u64 thread;
	u64 function; /* its id in the kernel's BTF */
};

/* Threads have numbers, but for the idle thread of each CPU. */
static __always_inline u64 verdict_thread(void)
{
	u64 id = bpf_get_current_pid_tgid();

	return id ? id : ~(u64)bpf_get_smp_processor_id();
}

static __always_inline u32 override(u32 mode, s64 error)
{
	struct verdict_key key = { .thread = verdict_thread(),
				   .function = NUMBER(NUMBER_FUNCTION) };

	if (mode != MODE_ENFORCE)
		return COUNTER_MONITOR_OVERRIDE;
	if (is_spared())
		return COUNTER_SPARED;
	return bpf_map_update_elem(MAP(MAP_VERDICTS), &key, &error, 0) ? COUNTER_FAILED
								       : COUNTER_OVERRIDE;
}

/* The same for programs whose own result, or a helper, makes the function return. */
static __always_inline u32 may_override(u32 mode)
{
	if (mode != MODE_ENFORCE)
		return COUNTER_MONITOR_OVERRIDE;
	return is_spared() ? COUNTER_SPARED : COUNTER_OVERRIDE;
}
