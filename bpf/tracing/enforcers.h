/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NotifyEnforcer: a hook leaves a notification for its thread, and the next of the policy's
 * `enforcers` that the thread reaches acts on it.
 */
#pragma once

#include "override.h"

struct notification_key {
	u64 thread;
	u64 slot; /* of the policy */
};

struct notification {
	s32 error;
	u32 signal;
	u64 missed; /* counter for a notification that reaches no enforcer */
};

static __always_inline struct notification_key notification_key(void)
{
	struct notification_key key = { .thread = verdict_thread(),
					.slot = NUMBER(NUMBER_SLOT) };

	return key;
}

/* `missed`: the counter for a notification that reaches no enforcer. */
static __always_inline u32 notify_enforcer(u32 mode, s32 error, u32 signal, u32 missed)
{
	struct notification_key key = notification_key();
	struct notification one = { .error = error, .signal = signal, .missed = missed };
	struct notification *old;

	if (mode != MODE_ENFORCE)
		return COUNTER_MONITOR_NOTIFY;
	if (is_spared())
		return COUNTER_SPARED;
	old = bpf_map_lookup_elem(MAP(MAP_NOTIFICATIONS), &key);
	if (old)
		count(old->missed + COUNTER_OVERWRITTEN - COUNTER_MISSED);
	return bpf_map_update_elem(MAP(MAP_NOTIFICATIONS), &key, &one, 0) ? COUNTER_FAILED
									  : COUNTER_NOTIFY;
}

/* Drop the thread's notification; one that was there has missed its enforcer. */
static __always_inline void cleanup_notification(void)
{
	struct notification_key key = notification_key();
	struct notification *old = bpf_map_lookup_elem(MAP(MAP_NOTIFICATIONS), &key);

	if (!old)
		return;
	count(old->missed);
	bpf_map_delete_elem(MAP(MAP_NOTIFICATIONS), &key);
}

/* At an enforcer: remove and return the notification that waits for this thread; false if there is
 * none. */
static __always_inline bool take_notification(struct notification *to)
{
	struct notification_key key = notification_key();
	struct notification *found = bpf_map_lookup_elem(MAP(MAP_NOTIFICATIONS), &key);

	if (!found)
		return false;
	*to = *found;
	bpf_map_delete_elem(MAP(MAP_NOTIFICATIONS), &key);
	return true;
}
