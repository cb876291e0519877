/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters on containers and pods: user space knows which cgroups a filter selects and gives each
 * filter a bit in the value of those cgroups. Processes in other cgroups are the host's.
 */
#pragma once

#include "maps.h"

/* A bit for each filter that selects the current task's cgroup; 0: not in a known container. */
static __always_inline u64 current_groups(void)
{
	u64 cgroup = bpf_get_current_cgroup_id(), *groups;

	groups = bpf_map_lookup_elem(MAP(MAP_CGROUPS), &cgroup);
	return groups ? *groups : 0;
}
