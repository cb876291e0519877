/* SPDX-License-Identifier: Apache-2.0 */
/*
 * maxData: a buffer that is longer than an item. The record is assembled in the ring, since no
 * scratch space is large enough: first what was written so far, then the buffer as one more item,
 * which replaces the short item at its position. The size that is reserved is a constant of two
 * classes; what is not used of it is skipped by the reader like any padding.
 */
#pragma once

#include "buffers.h"

#define LONG_MAX 327360 /* Tetragon reports at most this */
#define MEDIUM_MAX 32768
#define LONG_MASK 0x7ffff
#define LONG_HEAD (sizeof(struct tracing_record) + 2 * ITEMS_MAX + sizeof(struct item) + \
		   sizeof(struct buffer_item))

#define post_long_of(s, limit, type, position, address, size, user)                            \
	({                                                                                     \
		char *_record = bpf_ringbuf_reserve(MAP(MAP_EVENTS), LONG_HEAD + (limit) + 8, 0); \
		bool _posted = false;                                                          \
		if (_record) {                                                                 \
			fill_long(_record, s, limit, type, position, address, size, user);     \
			bpf_ringbuf_submit(_record, 0);                                        \
			_posted = true;                                                        \
		} else {                                                                       \
			count_loss(LOSS_RING_FULL);                                            \
		}                                                                              \
		_posted;                                                                       \
	})

static __always_inline void fill_long(char *record, struct scratch *s, u32 limit, u32 type,
				      u32 position, u64 address, u64 size, bool user)
{
	u32 used = s->used, len = size > limit ? limit : size;
	long failed;

	FORGET(used);
	used &= 2 * ITEMS_MAX - 1;
	FORGET(len);
	len &= LONG_MASK;
	if (len > limit)
		return; /* for the verifier */
	struct item *item = (struct item *)(record + sizeof(struct tracing_record) + used);
	struct buffer_item *head = item_payload(item);

	if (user)
		failed = bpf_probe_read_user(head + 1, len, (void *)address);
	else
		failed = bpf_probe_read_kernel(head + 1, len, (void *)address);
	if (!failed) {
		head->original_size = size;
		item->type = type;
		item->position = position;
		item->flags = size > len ? ITEM_TRUNCATED : 0;
		item->len = sizeof(*head) + len;
		s->record.items++;
		s->record.items_len = used + sizeof(*item) + padded(sizeof(*head) + len);
	} else {
		s->record.items_len = used;
	}
	bpf_probe_read_kernel(record, sizeof(struct tracing_record), &s->record);
	if (used <= sizeof(s->items))
		bpf_probe_read_kernel(record + sizeof(struct tracing_record), used, s->items);
}

/* Post the record with the buffer at `address`, of `size` bytes, at most LONG_MAX of them. */
static __always_inline bool post_long(struct scratch *s, u32 type, u32 position, u64 address,
				      u64 size, bool user)
{
	if (size > MEDIUM_MAX)
		return post_long_of(s, LONG_MAX, type, position, address, size, user);
	return post_long_of(s, MEDIUM_MAX, type, position, address, size, user);
}
