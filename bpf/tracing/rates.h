/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rateLimit of Post: at most one record per interval with the same hook, scope and arguments. Of
 * each argument the first bytes are compared, as many as in Tetragon: 32 of a text or path, 28 of a
 * buffer, addresses and ports of a socket or packet, 36 of others.
 */
#pragma once

#include "record.h"

#define RATE_ITEMS_MAX 8
#define RATE_WORDS 6 /* of a payload, in eight bytes */

static __always_inline u64 mixed(u64 hash, u64 word)
{
	/* FNV-1a on words, with the upper half folded in, because multiplication only carries bits
	 * upwards. */
	hash = (hash ^ word) * 0x100000001b3ull;
	return hash ^ hash >> 32;
}

/* The part of an item's payload that is compared: its first word and its largest size in bytes. */
static __always_inline u32 rated_part(u32 type, u32 *first)
{
	*first = 0;
	switch (type) {
	case ITEM_SOCK: /* sockets.h: from the ports on */
	case ITEM_SOCKET:
	case ITEM_FD_SOCK:
		*first = 3;
		return 40;
	case ITEM_SKB: /* from family and protocol on */
		*first = 2;
		return 48;
	case ITEM_PATH:
	case ITEM_FILE:
	case ITEM_FD:
	case ITEM_KIOCB:
	case ITEM_LINUX_BINPRM:
	case ITEM_DENTRY:
		return 8 + 32; /* struct file_item, path */
	case ITEM_STRING:
	case ITEM_FILENAME:
	case ITEM_DATA_LOC:
	case ITEM_NET_DEVICE:
		return 32;
	}
	return 36; /* a buffer begins with its size, in eight bytes */
}

/* Whether a record with this key was posted less than `interval_ns` ago; if not, the time is now
 * noted. */
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
		u32 size = ((struct item *)words)->len, first, len;

		len = rated_part(((struct item *)words)->type, &first);
		if (len > size)
			len = size;
		key = mixed(key, words[0]);
		FORGET(first);
		words += 1 + (first & 3);
#pragma unroll
		for (u32 n = 0; n < RATE_WORDS; n++) {
			/* Padding behind a payload is undefined: only whole words of the payload are hashed. */
			if (8 * (n + 1) <= len)
				key = mixed(key, words[n]);
			else if (8 * n < len)
				key = mixed(key, words[n] & ((1ull << 8 * (len & 7)) - 1));
		}
		at += sizeof(struct item) + padded(size);
	}
	last = bpf_map_lookup_elem(MAP(MAP_RATES), &key);
	if (last && now - *last < interval_ns)
		return true;
	bpf_map_update_elem(MAP(MAP_RATES), &key, &now, 0);
	return false;
}
