/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads task_struct and the structs that it points to. Every kernel read is an explicit probe read:
 * BCC turns pointer chases into reads in the main file only, and the verifier refuses the rest.
 */
#pragma once

#include "events.h"

#define READ(dst, src) bpf_probe_read_kernel(&(dst), sizeof(dst), &(src))

/* The value of an expression of type T that lives in kernel memory. */
#define KREAD(T, src)                                               \
	({                                                          \
		T _value = 0;                                       \
		bpf_probe_read_kernel(&_value, sizeof(T), &(src)); \
		_value;                                             \
	})

static __always_inline struct pid *task_thread_pid(struct task_struct *task)
{
	return KREAD(struct pid *, task->thread_pid);
}

static __always_inline struct upid task_upid(struct task_struct *task)
{
	struct pid *pid = task_thread_pid(task);
	u32 level = KREAD(u32, pid->level);
	struct upid upid = {};

	/* MAX_PID_NS_LEVEL is 32 (include/linux/pid_namespace.h). */
	READ(upid, pid->numbers[level & 31]);
	return upid;
}

#define CGROUP_NAME_MAX 128 /* leaf name with NUL, as Tetragon reads it */

/* The process's pid in its own pid namespace. */
static __always_inline u32 task_nspid(struct task_struct *task)
{
	return task_upid(task).nr;
}

/* The uid that logged in, and the number of that login: children inherit both, sudo and su keep
 * them. */
static __always_inline void read_login(struct task_struct *task, struct exec_record *record)
{
#ifdef HAVE_LOGINUID
	READ(record->auid, task->loginuid);
	READ(record->sessionid, task->sessionid);
#else
	record->auid = record->sessionid = ~0u; /* CONFIG_AUDIT is off */
#endif
}

static __always_inline void read_credentials(struct task_struct *task, struct exec_record *record)
{
	const struct cred *cred = KREAD(const struct cred *, task->cred);

	READ(record->uid, cred->uid);
	READ(record->gid, cred->gid);
	READ(record->euid, cred->euid);
	READ(record->egid, cred->egid);
	READ(record->suid, cred->suid);
	READ(record->sgid, cred->sgid);
	READ(record->fsuid, cred->fsuid);
	READ(record->fsgid, cred->fsgid);
#ifdef ENABLE_CRED
	READ(record->securebits, cred->securebits);
	/* kernel_cap_t was u32[2] until v6.3, u64 since: on little endian the same eight bytes. */
	bpf_probe_read_kernel(&record->cap_permitted, 8, &cred->cap_permitted);
	bpf_probe_read_kernel(&record->cap_effective, 8, &cred->cap_effective);
	bpf_probe_read_kernel(&record->cap_inheritable, 8, &cred->cap_inheritable);
#endif
}

/* Where arguments and environment lie on the new stack: struct mm_struct. */
struct mm_ranges {
	unsigned long arg_start, arg_end, env_start, env_end;
};

static __always_inline void read_mm_ranges(struct mm_struct *mm, struct mm_ranges *ranges)
{
	READ(ranges->arg_start, mm->arg_start);
	READ(ranges->arg_end, mm->arg_end);
	READ(ranges->env_start, mm->env_start);
	READ(ranges->env_end, mm->env_end);
}

#define READ_NS(kind, type, field)                                                \
	({                                                                        \
		struct type *_ns = KREAD(struct type *, nsproxy->field);          \
		if (_ns)                                                          \
			READ(record->ns[kind], _ns->ns.inum);                     \
	})

/* Mount and user namespace decide whether the host's user names apply: always read. */
static __always_inline void read_namespaces(struct task_struct *task, struct exec_record *record)
{
	struct nsproxy *nsproxy = KREAD(struct nsproxy *, task->nsproxy);
	const struct cred *cred = KREAD(const struct cred *, task->cred);
	struct user_namespace *user = KREAD(struct user_namespace *, cred->user_ns);

	READ(record->ns[NS_USER], user->ns.inum);
	READ_NS(NS_MNT, mnt_namespace, mnt_ns);
#ifdef ENABLE_NS
	struct pid_namespace *pid_ns = task_upid(task).ns;

	READ(record->ns[NS_PID], pid_ns->ns.inum);
	READ_NS(NS_UTS, uts_namespace, uts_ns);
	READ_NS(NS_IPC, ipc_namespace, ipc_ns);
	READ_NS(NS_PID_FOR_CHILDREN, pid_namespace, pid_ns_for_children);
	READ_NS(NS_NET, net, net_ns);
#ifdef HAVE_TIME_NS
	READ_NS(NS_TIME, time_namespace, time_ns);
	READ_NS(NS_TIME_FOR_CHILDREN, time_namespace, time_ns_for_children);
#endif
	READ_NS(NS_CGROUP, cgroup_namespace, cgroup_ns);
#endif
}

/*
 * The process's cgroup in the hierarchy that container engines use: the unified one, or on
 * cgroup v1 the controller that CGROUP_SUBSYS names.
 */
static __always_inline struct cgroup *task_cgroup(struct task_struct *task)
{
	struct css_set *cgroups = KREAD(struct css_set *, task->cgroups);
#ifdef CGROUP_SUBSYS
	struct cgroup_subsys_state *css =
		KREAD(struct cgroup_subsys_state *, cgroups->subsys[CGROUP_SUBSYS]);

	return KREAD(struct cgroup *, css->cgroup);
#else
	return KREAD(struct cgroup *, cgroups->dfl_cgrp);
#endif
}

static __always_inline struct kernfs_node *kernfs_parent(struct kernfs_node *node)
{
#ifdef HAVE_KERNFS___PARENT
	return KREAD(struct kernfs_node *, node->__parent);
#else
	return KREAD(struct kernfs_node *, node->parent);
#endif
}

/* Leaf name of the cgroup into `name` (CGROUP_NAME_MAX bytes); its length without NUL, or < 0. */
static __always_inline long read_cgroup_name(struct cgroup *cgroup, char *name)
{
	struct kernfs_node *node = KREAD(struct kernfs_node *, cgroup->kn);
	long len = bpf_probe_read_kernel_str(name, CGROUP_NAME_MAX, KREAD(const char *, node->name));

	/* Podman puts the process one level below the scope that has its id, into "container". */
	if (len == sizeof("container") && name[0] == 'c' && name[1] == 'o' && name[8] == 'r') {
		node = kernfs_parent(node);
		len = bpf_probe_read_kernel_str(name, CGROUP_NAME_MAX,
						KREAD(const char *, node->name));
	}
	return len - 1;
}
