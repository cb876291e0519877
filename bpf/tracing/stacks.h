/* SPDX-License-Identifier: Apache-2.0 */
/* Stack traces in the record itself: addresses, innermost first. */
#pragma once

#include "record.h"

#define STACK_DEPTH 127 /* PERF_MAX_STACK_DEPTH of Linux */
#define USER_STACK (1u << 8) /* BPF_F_USER_STACK */
#define TRAMPOLINE_FRAMES 2 /* of an fentry program: itself and the trampoline that calls it */
#define SKIPPED_FRAMES 0xff /* BPF_F_SKIP_FIELD_MASK */

#if defined(__x86_64__)
/*
 * Whether the trampoline returns to an address: the return address is in its frame, above the
 * function's arguments, to which the context points (invoke_bpf_prog() of
 * arch/x86/net/bpf_jit_comp.c).
 */
static __always_inline bool returns_to(void *ctx, u64 address)
{
	u64 words[16] = {};
	bool found = false;

	bpf_probe_read_kernel(words, sizeof(words), ctx);
#pragma unroll
	for (int i = 0; i < 16; i++)
		found |= words[i] == address;
	return found;
}
#endif

static __always_inline void write_stack(void *ctx, struct scratch *s, u32 position, u64 flags)
{
	struct item *item = item_at_end(s);
	long len;

	if (!item)
		return;
	len = bpf_get_stack(ctx, item_payload(item), STACK_DEPTH * sizeof(u64), flags);
#if defined(__x86_64__)
	/* Some kernels, such as 5.10, report one more frame of the BPF program. */
	if (len > 0 && flags & SKIPPED_FRAMES && !returns_to(ctx, *(u64 *)item_payload(item))) {
		len = bpf_get_stack(ctx, item_payload(item), STACK_DEPTH * sizeof(u64), flags + 1);
		if (len > 0 && !returns_to(ctx, *(u64 *)item_payload(item)))
			len = bpf_get_stack(ctx, item_payload(item), STACK_DEPTH * sizeof(u64),
					    flags);
	}
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
