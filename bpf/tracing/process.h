/* SPDX-License-Identifier: Apache-2.0 */
/* Filters on the current process: ids, ancestors, binaries, namespaces, capabilities, users. */
#pragma once

#include "record.h"

#define ANCESTORS_MAX 9

static __always_inline u32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline u64 current_cred(void)
{
	return KERNEL(u64, current_task() + OFFSET_task_cred);
}

/* struct upid of a task in its own pid namespace: number and namespace; the level. */
struct upid_view {
	u32 number, pad;
	u64 ns;
};

static __always_inline u32 own_upid(u64 task, struct upid_view *upid)
{
	u64 pid = KERNEL(u64, task + OFFSET_task_thread_pid);
	u32 level = KERNEL(u32, pid + OFFSET_pid_level);

	/* MAX_PID_NS_LEVEL is 32 (include/linux/pid_namespace.h). */
	bpf_probe_read_kernel(upid, sizeof(*upid),
			      (void *)(pid + OFFSET_pid_numbers + (level & 31) * sizeof(*upid)));
	return level;
}

/* The process's id in its own pid namespace, 0 in the host's. */
static __always_inline u32 current_namespace_tgid(void)
{
	struct upid_view upid = {};
	u64 leader = KERNEL(u64, current_task() + OFFSET_task_group_leader);

	return own_upid(leader, &upid) ? upid.number : 0;
}

/* Inode numbers of the current task's namespaces. */
static __always_inline u32 namespace_of(u64 offset_in_nsproxy, u64 offset_of_inum)
{
	u64 nsproxy = KERNEL(u64, current_task() + OFFSET_task_nsproxy);

	return KERNEL(u32, KERNEL(u64, nsproxy + offset_in_nsproxy) + offset_of_inum);
}

static __always_inline u32 pid_namespace(void)
{
	struct upid_view upid = {};

	own_upid(current_task(), &upid);
	return KERNEL(u32, upid.ns + OFFSET_pid_namespace_inum);
}

static __always_inline u32 user_namespace(void)
{
	u64 user_ns = KERNEL(u64, current_cred() + OFFSET_cred_user_ns);

	return KERNEL(u32, user_ns + OFFSET_user_ns_inum);
}

/* Whether the task's user namespace is not the host's. */
static __always_inline bool in_user_namespace(void)
{
	u64 user_ns = KERNEL(u64, current_cred() + OFFSET_cred_user_ns);

	return KERNEL(s32, user_ns + OFFSET_user_ns_level) > 0;
}

/* Login uid: set once per session, kept across su and sudo; 0xffffffff where unset. */
static __always_inline u32 login_uid(void)
{
#ifdef HAVE_task_loginuid
	return KERNEL(u32, current_task() + OFFSET_task_loginuid);
#else
	return ~0u; /* CONFIG_AUDIT is off */
#endif
}

/* The image of the process that forked this one, or the image that it replaced; NULL if unknown. */
static __always_inline struct process_value *parent_of(struct process_value *process)
{
	return find_process(process->parent_pid);
}
