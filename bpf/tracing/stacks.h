/* SPDX-License-Identifier: Apache-2.0 */
/* Stack traces in the record itself: addresses, innermost first. */
#pragma once

#include "record.h"

#define STACK_DEPTH 127 /* PERF_MAX_STACK_DEPTH of Linux */
#define USER_STACK (1u << 8) /* BPF_F_USER_STACK */
#define TRAMPOLINE_FRAMES 2 /* of an fentry program: itself and the trampoline that calls it */
#define SKIPPED_FRAMES 0xff /* BPF_F_SKIP_FIELD_MASK */

static __always_inline void write_stack(void *ctx, struct scratch *s, u32 position, u64 flags)
{
	struct item *item = item_at_end(s);
	long len;

	if (!item)
		return;
	len = bpf_get_stack(ctx, item_payload(item), STACK_DEPTH * sizeof(u64), flags);
#if defined(__x86_64__)
	/*
	 * The trampoline's call at the function's entry has five bytes and returns behind them. A
	 * kprobe there, by ftrace, reports the second of them (kprobe_ftrace_handler() of
	 * arch/x86/kernel/kprobes/ftrace.c): the same event has the same stack by either.
	 */
	if (len > 0 && flags & SKIPPED_FRAMES)
		*(u64 *)item_payload(item) -= 4;
#endif
	if (len > 0)
		item_finish(s, item, ITEM_STACK, position, 0, len);
}
