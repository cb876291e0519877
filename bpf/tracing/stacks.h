/* SPDX-License-Identifier: Apache-2.0 */
/* Stack traces in the record itself: addresses, innermost first. */
#pragma once

#include "record.h"

#define STACK_DEPTH 127 /* PERF_MAX_STACK_DEPTH of Linux */
#define USER_STACK (1u << 8) /* BPF_F_USER_STACK */

static __always_inline void write_stack(void *ctx, struct scratch *s, u32 position, u64 flags)
{
	struct item *item = item_at_end(s);
	long len;

	if (!item)
		return;
	len = bpf_get_stack(ctx, item_payload(item), STACK_DEPTH * sizeof(u64), flags);
	if (len > 0)
		item_finish(s, item, ITEM_STACK, position, 0, len);
}
