/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters on containers and pods: user space knows which cgroups a filter selects and gives each
 * filter a bit in the value of those cgroups.
 */
#pragma once

#include "maps.h"

#define GROUP_UNKNOWN (1ull << 62) /* a container whose name user space does not know yet */
#define GROUP_POD (1ull << 63)	   /* a container of a pod; every other cgroup is the host's */

/* A bit for each filter that selects the current task's cgroup, and those above. */
static __always_inline u64 current_groups(void)
{
	u64 cgroup = bpf_get_current_cgroup_id(), *groups;

	groups = bpf_map_lookup_elem(MAP(MAP_CGROUPS), &cgroup);
	return groups ? *groups : 0;
}
