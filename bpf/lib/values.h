/* SPDX-License-Identifier: Apache-2.0 */
/* Values of maps that user space reads or writes. collector/records/layouts.py mirrors them. */
#pragma once

/* A living process, by tgid: what the kernel side must know to identify an image and its parent. */
struct process_value {
	u64 ktime_ns; /* when the image started; never 0 */
	u64 parent_ktime_ns;
	u32 parent_pid;
	u32 flags; /* FLAG_CLONE until the first exec, FLAG_IN_INIT_TREE, FLAG_WITHHELD */
	u64 start_boottime; /* task_struct.start_boottime: distinguishes a reused pid */
};
_Static_assert(sizeof(struct process_value) == 32, "process_value has a hole");

/* Slots of the map `lost`: records that could not be delivered, by kind. */
enum loss {
	LOST_EXEC,
	LOST_FORK,
	LOST_EXIT,
	LOST_DATA,
	LOST_PROCESS, /* the process map was full */
	LOSSES,
};

/* Throttling: events of a cgroup, by process life (policy 0) or by one loaded policy. */
struct throttle_key {
	u64 cgroup_id;
	u32 policy;
	u32 pad;
};

/* Slots of throttle_value.withheld and of the map `withheld_totals`. */
enum withheld_kind {
	WITHHELD_EXEC,
	WITHHELD_FORK,
	WITHHELD_EXIT,
	WITHHELD_POLICY,
	WITHHELD_KINDS,
};

struct throttle_value {
	u64 window[2]; /* number of the interval that the count of the same slot belongs to */
	u64 count[2];
	u64 over_ns; /* when the rate was last too high, boot clock; 0: never */
	u64 withheld[WITHHELD_KINDS];
};
_Static_assert(sizeof(struct throttle_value) == 72, "throttle_value has a hole");

/* A living image that user space does not know, by (pid, ktime_ns). */
struct withheld_key {
	u64 ktime_ns;
	u64 pid;
};

struct withheld_value {
	u64 known_ktime_ns; /* the pid's last image that user space knows; 0: none */
	u64 cgroup_id;
	u32 is_clone; /* that image is a fork without an exec: no event named it */
	u32 pad;
};
_Static_assert(sizeof(struct withheld_value) == 24, "withheld_value has a hole");
