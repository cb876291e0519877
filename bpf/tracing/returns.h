/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions whose return is part of the record: values that were read at entry are kept until the
 * same thread returns. All policies share a table for records of a few numbers and one for short
 * records; nearly all others are short too, so the table of long ones is small. Entries whose call
 * never returns (exit inside the call) are evicted first, by LRU.
 */
#pragma once

#include "record.h"

#define PENDING_NUMBERS 152 /* value size of MAP_PENDING_NUMBERS */
#define PENDING_SHORT 512 /* of MAP_PENDING_SHORT */

struct pending_key {
	u64 thread;
	u32 hook, slot; /* index of the mode word: unique among loaded revisions */
	u32 policy, revision; /* another revision can have the slot when the call returns */
};

/* The piece of struct scratch that is kept: from return_copy on, up to the end of the items. */
#define PENDING_HEAD                                                                           \
	(__builtin_offsetof(struct scratch, items) - __builtin_offsetof(struct scratch, return_copy))
#define PENDING_LONG (PENDING_HEAD + ITEMS_MAX + ITEM_MAX)
_Static_assert(PENDING_HEAD + 4 * sizeof(struct number_item) <= PENDING_NUMBERS,
	       "_PENDING_NUMBERS_MAX of policies/program.py");

_Static_assert(PENDING_LONG == 20896, "PENDING_LONG of policies/maps.py");

static __always_inline struct pending_key pending_key(u32 hook)
{
	struct pending_key key = {
		.thread = bpf_get_current_pid_tgid(),
		.hook = hook,
		.slot = NUMBER(NUMBER_SLOT),
		.policy = NUMBER(NUMBER_POLICY),
		.revision = NUMBER(NUMBER_REVISION),
	};

	return key;
}

static __always_inline void save_pending(struct scratch *s, u32 hook, void *map, u32 size)
{
	struct pending_key key = pending_key(hook);

	s->record.items_len = s->used;
	if (PENDING_HEAD + s->used > size || bpf_map_update_elem(map, &key, &s->return_copy, 0))
		count_loss(LOSS_NO_PENDING);
}

/* The same where a record can be longer. */
static __always_inline void save_pending_or_long(struct scratch *s, u32 hook, void *map, u32 size,
						 void *longer)
{
	if (PENDING_HEAD + s->used <= size)
		save_pending(s, hook, map, size);
	else
		save_pending(s, hook, longer, PENDING_LONG);
}

/* Move a pending record into the scratch space; `saved` has `size` bytes. */
static __always_inline void restore_pending(struct scratch *s, u32 hook, void *map, void *saved,
					    u32 size)
{
	struct pending_key key = pending_key(hook);

	if (size == PENDING_NUMBERS)
		__builtin_memcpy(&s->return_copy, saved, PENDING_NUMBERS);
	else
		bpf_probe_read_kernel(&s->return_copy, size, saved);
	bpf_map_delete_elem(map, &key);
	s->used = s->record.items_len;
}

/* The record that waits for this thread's return from the hook, or NULL. */
static __always_inline void *find_pending(void *map, u32 hook)
{
	struct pending_key key = pending_key(hook);

	return bpf_map_lookup_elem(map, &key);
}
