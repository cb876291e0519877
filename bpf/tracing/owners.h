/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TrackSock: the process that owns a socket. Events on a tracked socket, which often come from
 * interrupts, are those of its owner.
 */
#pragma once

#include "record.h"

struct sock_owner {
	u64 image_ktime_ns;
	u64 start_boottime;
	u32 pid, tid;
	u64 since_ns; /* boot clock, of TrackSock */
};

static __always_inline void track_sock(u64 sock)
{
	u64 id = bpf_get_current_pid_tgid();
	struct process_value *process = find_process(id >> 32);
	struct sock_owner owner = {
		.pid = id >> 32, .tid = id, .since_ns = bpf_ktime_get_boot_ns(),
	};

	if (!sock)
		return;
	if (process)
		owner.image_ktime_ns = process->ktime_ns;
	else
		owner.start_boottime = KERNEL(u64, current_task() + OFFSET_task_start_boottime);
	bpf_map_update_elem(MAP(MAP_OWNERS), &sock, &owner, 0);
}

static __always_inline void untrack_sock(u64 sock)
{
	bpf_map_delete_elem(MAP(MAP_OWNERS), &sock);
}

static __always_inline void attribute_to_owner(struct tracing_record *record, u64 sock)
{
	struct sock_owner *owner = bpf_map_lookup_elem(MAP(MAP_OWNERS), &sock);

	if (!owner)
		return;
	record->image_ktime_ns = owner->image_ktime_ns;
	record->start_boottime = owner->start_boottime;
	record->pid = owner->pid;
	record->tid = owner->tid;
	record->flags |= TRACING_SOCK_OWNER;
}

/* For how long the socket has been tracked; 0: it is not tracked. */
static __always_inline u64 sock_age(u64 sock)
{
	struct sock_owner *owner = bpf_map_lookup_elem(MAP(MAP_OWNERS), &sock);

	return owner ? bpf_ktime_get_boot_ns() - owner->since_ns : 0;
}
