/* SPDX-License-Identifier: Apache-2.0 */
/* Values of maps that user space reads or writes. collector/records/layouts.py mirrors them. */
#pragma once

/* A living process, by tgid: what the kernel side must know to identify an image and its parent. */
struct process_value {
	u64 ktime_ns; /* when the image started; never 0 */
	u64 parent_ktime_ns;
	u32 parent_pid;
	u32 flags; /* FLAG_CLONE until the first exec, FLAG_IN_INIT_TREE */
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
