/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Throttling: the rate of one cgroup's events, as Tetragon's --cgroup-rate measures it, but over all
 * CPUs. Intervals are numbered; the rate is the count of this interval plus a part of the previous
 * interval's count: the part that lies less than one interval before now.
 *
 * The state does not depend on user space: events are withheld until the rate has been low enough
 * for THROTTLE_HOLD_NS. So both sides compute the same end from the clock.
 */
#pragma once

#include "events.h"
#include "values.h"

#ifndef THROTTLE_HOLD_NS
#define THROTTLE_HOLD_NS 5000000000ull
#endif

enum throttle_verdict {
	THROTTLE_PASS,
	THROTTLE_WITHHOLD,
	THROTTLE_BEGIN, /* withhold, and this event is the first */
};

/*
 * Count an event and decide whether to withhold it. CPUs that begin an interval at the same time
 * can lose each other's first count: the rate is then slightly too low; the number of withheld
 * events stays exact.
 */
static __always_inline u32 throttle_judge(struct throttle_value *value, u64 now, u64 events,
					  u64 interval_ns)
{
	u64 number = now / interval_ns, left = interval_ns - now % interval_ns;
	u64 over_ns = value->over_ns, rate;
	u32 slot = number & 1;
	bool held;

	if (value->window[slot] != number) {
		value->window[slot] = number;
		value->count[slot] = 0;
	}
	__sync_fetch_and_add(&value->count[slot], 1);
	rate = value->count[slot];
	if (value->window[slot ^ 1] == number - 1)
		rate += value->count[slot ^ 1] * left / interval_ns;
	/* Another CPU can have written a later time. */
	held = over_ns && (s64)(now - over_ns) < (s64)THROTTLE_HOLD_NS;
	if (rate > events) {
		value->over_ns = now;
		return held ? THROTTLE_WITHHOLD : THROTTLE_BEGIN;
	}
	return held ? THROTTLE_WITHHOLD : THROTTLE_PASS;
}

/* The value of a cgroup, entered where it is new; NULL where the map is full. */
#define THROTTLE_VALUE(map, key)                                                            \
	({                                                                                  \
		struct throttle_value *_found = bpf_map_lookup_elem(map, key);              \
		if (!_found) {                                                              \
			struct throttle_value _fresh = {};                                  \
			bpf_map_update_elem(map, key, &_fresh, 1 /* BPF_NOEXIST */);        \
			_found = bpf_map_lookup_elem(map, key);                             \
		}                                                                           \
		_found;                                                                     \
	})

/* Report that throttling begins. If the ring is full, user space finds it in the map. */
static __always_inline void throttle_report(u64 now, u64 cgroup_id, u32 policy, const char *name)
{
	struct throttle_start_record *start =
		bpf_ringbuf_reserve(MAP(MAP_EVENTS), sizeof(*start), 0);
	struct throttle_record *record;
	long len;

	if (!start)
		return;
	record = &start->record;
	record->kind = RECORD_THROTTLE;
	record->type = THROTTLE_START;
	record->ktime_ns = now;
	record->cgroup_id = cgroup_id;
	record->policy = policy;
	record->exec = record->exit = record->tracing = 0;
	len = bpf_probe_read_kernel_str(start->name, THROTTLE_NAME_MAX, name);
	record->name_len = len > 0 ? len - 1 : 0;
	bpf_ringbuf_submit(start, 0);
}
