/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions whose return is part of the record: what was read at entry waits for the return of the
 * same thread. Nearly all records are short; the table of long ones is small. Entries whose return
 * never comes (exit inside the call) are the first that LRU evicts.
 */
#pragma once

#include "record.h"

#define PENDING_SHORT 512 /* value size of MAP_PENDING */

struct pending_key {
	u64 thread;
	u32 hook, pad;
};

/* The piece of struct scratch that is kept: from return_copy on, up to the end of the items. */
#define PENDING_HEAD                                                                           \
	(__builtin_offsetof(struct scratch, items) - __builtin_offsetof(struct scratch, return_copy))
#define PENDING_LONG (PENDING_HEAD + ITEMS_MAX + ITEM_MAX)

_Static_assert(PENDING_LONG == 20896, "PENDING_LONG of policies/maps.py");

static __always_inline struct pending_key pending_key(u32 hook)
{
	struct pending_key key = { .thread = bpf_get_current_pid_tgid(), .hook = hook };

	return key;
}

static __always_inline bool save_pending(struct scratch *s, u32 hook)
{
	struct pending_key key = pending_key(hook);
	long failed;

	s->record.items_len = s->used;
	if (PENDING_HEAD + s->used <= PENDING_SHORT)
		failed = bpf_map_update_elem(MAP(MAP_PENDING), &key, &s->return_copy, 0);
	else
#ifdef MAP_PENDING_LONG
		failed = bpf_map_update_elem(MAP(MAP_PENDING_LONG), &key, &s->return_copy, 0);
#else
		failed = 1;
#endif
	if (failed)
		count_loss(LOSS_NO_PENDING);
	return !failed;
}

/* What waits for this thread's return from the hook, moved into the scratch space. */
static __always_inline bool restore_pending(struct scratch *s, u32 hook)
{
	struct pending_key key = pending_key(hook);
	void *saved = bpf_map_lookup_elem(MAP(MAP_PENDING), &key);

	if (saved) {
		bpf_probe_read_kernel(&s->return_copy, PENDING_SHORT, saved);
		bpf_map_delete_elem(MAP(MAP_PENDING), &key);
		s->used = s->record.items_len;
		return true;
	}
#ifdef MAP_PENDING_LONG
	saved = bpf_map_lookup_elem(MAP(MAP_PENDING_LONG), &key);
	if (saved) {
		bpf_probe_read_kernel(&s->return_copy, PENDING_LONG, saved);
		bpf_map_delete_elem(MAP(MAP_PENDING_LONG), &key);
		s->used = s->record.items_len;
		return true;
	}
#endif
	return false;
}

/* Whether anything waits: asked before scratch space is taken. */
static __always_inline bool is_pending(u32 hook)
{
	struct pending_key key = pending_key(hook);

#ifdef MAP_PENDING_LONG
	if (bpf_map_lookup_elem(MAP(MAP_PENDING_LONG), &key))
		return true;
#endif
	return bpf_map_lookup_elem(MAP(MAP_PENDING), &key) != NULL;
}
