/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Throttling of one policy's events in one cgroup: the policy still filters and acts, but its
 * records are withheld and counted. The text defines THROTTLE_EVENTS and THROTTLE_INTERVAL_NS, and
 * CGROUP_SUBSYS where containers are in a hierarchy of cgroup v1.
 */
#pragma once

#include "record.h"
#include "throttle.h"

/* The kernfs_node of the current task's cgroup, as task_cgroup() of lib/task.h finds it. */
static __always_inline u64 current_cgroup_node(void)
{
	u64 cgroups = KERNEL(u64, current_task() + OFFSET_task_cgroups), cgroup;

#ifdef CGROUP_SUBSYS
	cgroup = KERNEL(u64, KERNEL(u64, cgroups + OFFSET_css_set_subsys + 8 * CGROUP_SUBSYS) +
			     OFFSET_css_cgroup);
#else
	cgroup = KERNEL(u64, cgroups + OFFSET_css_set_dfl_cgrp);
#endif
	return KERNEL(u64, cgroup + OFFSET_cgroup_kn);
}

/* Whether this record is withheld; then it is counted. */
static __always_inline bool policy_throttled(void)
{
	u64 node = current_cgroup_node(), now = bpf_ktime_get_boot_ns();
	struct throttle_key key = {};
	struct throttle_value *value;
	u32 verdict;

	key.cgroup_id = KERNEL(u64, node + OFFSET_kernfs_node_id);
	key.policy = NUMBER(NUMBER_POLICY);
	value = THROTTLE_VALUE(MAP(MAP_THROTTLES), &key);
	if (!value)
		return false;
	verdict = throttle_judge(value, now, THROTTLE_EVENTS, THROTTLE_INTERVAL_NS);
	if (verdict == THROTTLE_PASS)
		return false;
	if (verdict == THROTTLE_BEGIN)
		throttle_report(now, key.cgroup_id, key.policy,
				(const char *)KERNEL(u64, node + OFFSET_kernfs_node_name));
	__sync_fetch_and_add(&value->withheld[WITHHELD_POLICY], 1);
	return true;
}
