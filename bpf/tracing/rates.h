/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rateLimit of Post: at most one record per interval with the same hook, scope and arguments. Of
 * each argument the item's head and the first 32 bytes of its payload take part.
 */
#pragma once

#include "record.h"

#define RATE_ITEMS_MAX 8
#define RATE_WORDS 5 /* head and payload of an item, in eight bytes */

static __always_inline u64 mixed(u64 hash, u64 word)
{
	/* FNV-1a on words, with the upper half folded in: multiplication only moves bits up. */
	hash = (hash ^ word) * 0x100000001b3ull;
	return hash ^ hash >> 32;
}

/* Whether a record with this key was posted less than `interval_ns` ago; if not, it is now. */
static __always_inline bool rate_limited(struct scratch *s, u64 scope, u64 interval_ns)
{
	u64 key = mixed(mixed(0xcbf29ce484222325ull, (u64)s->record.hook << 32 | s->record.action),
			mixed((u64)s->record.policy << 32 | s->record.revision, scope));
	u64 now = bpf_ktime_get_boot_ns(), *last;
	u32 at = 0;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < RATE_ITEMS_MAX; i++) {
		if (at >= s->used || i >= s->record.items)
			break;
		FORGET(at);
		at &= ITEMS_MAX - 1;
		u64 *words = (u64 *)(s->items + at);
		u32 len = ((struct item *)words)->len;

#pragma unroll
		for (u32 n = 0; n < RATE_WORDS; n++) {
			/* Padding behind a payload holds anything: whole words of it only. */
			if (n == 0 || 8 * n <= len)
				key = mixed(key, words[n]);
			else if (8 * (n - 1) < len)
				key = mixed(key, words[n] & ((1ull << 8 * (len & 7)) - 1));
		}
		at += sizeof(struct item) + padded(len);
	}
	last = bpf_map_lookup_elem(MAP(MAP_RATES), &key);
	if (last && now - *last < interval_ns)
		return true;
	bpf_map_update_elem(MAP(MAP_RATES), &key, &now, 0);
	return false;
}
