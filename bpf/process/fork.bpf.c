/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A new process: raw tracepoint sched_process_fork.
 *
 * Why here (kernel/fork.c):
 *
 *   kernel_clone                     fork, vfork, clone, clone3, kernel threads, user mode helpers
 *     copy_process                   the child is complete: ids, parent, namespaces, cgroup
 *     trace_sched_process_fork       <- here, in the parent
 *     wake_up_new_task               only after this can the child run, exec or exit
 *
 * So the child's entry in the process map exists before the child runs, on any CPU.
 * A new thread also passes here: its pid differs from its tgid, and it is skipped.
 * A fork is not an event. Its record names the image of a process that exits without an exec.
 */
int on_fork(u64 *ctx)
{
	struct task_struct *child = (struct task_struct *)ctx[1];
	u32 pid = KREAD(u32, child->tgid);
	struct process_value value = {}, *parent;
	struct fork_record record = {};

	if (KREAD(u32, child->pid) != pid)
		return 0;
	/* Not `current`: with CLONE_PARENT the parent is the caller's own. */
	parent = find_parent(child, &record.parent_pid);
	value.ktime_ns = bpf_ktime_get_boot_ns();
	value.flags = FLAG_CLONE;
	value.start_boottime = KREAD(u64, child->start_boottime);
	if (parent) {
		record.parent_ktime_ns = parent->ktime_ns;
		value.flags |= parent->flags & FLAG_IN_INIT_TREE;
	}
	record.nspid = task_nspid(child);
	if (record.nspid == 1)
		value.flags |= FLAG_IN_INIT_TREE;
	value.parent_pid = record.parent_pid;
	value.parent_ktime_ns = record.parent_ktime_ns;
#ifdef ENABLE_THROTTLE
	if (withhold_fork(child, pid, &value, record.parent_pid, parent))
		return 0;
#endif
	if (map_update(PROCESSES, &pid, &value))
		count_lost(LOST_PROCESS);

	record.kind = RECORD_FORK;
	record.flags = value.flags;
	record.ktime_ns = value.ktime_ns;
	record.pid = pid;
	record.start_boottime = value.start_boottime;
	if (ring_output(&record, sizeof(record)))
		count_lost(LOST_FORK);
	return 0;
}
