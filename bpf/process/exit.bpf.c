/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process ended: raw tracepoint sched_process_exit, when the last thread exits.
 *
 * Why here (kernel/exit.c):
 *
 *   do_exit                          every thread passes here, whatever ended it
 *     group_dead = atomic_dec_and_test(&tsk->signal->live)
 *     tsk->exit_code = code
 *     trace_sched_process_exit       <- here
 *     ...
 *     exit_notify                    the parent may reap it; then the pid is free for reuse
 *
 * Only the thread that took signal->live to zero is the last: the tracepoint has it since v6.16
 * (group_dead, "exit: move and extend sched_process_exit() tracepoint"). On older kernels only the
 * counter is visible, and two threads that exit together can both find it zero. Deleting the
 * process's map entry succeeds for one of them only; that one reports.
 *
 * The exit code is the last thread's: with exit_group() and with signals all threads have
 * the group's.
 */
int on_exit(u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct exit_record record = {};
	struct process_value *value;
	u32 pid;

#ifdef HAVE_GROUP_DEAD
	if (!(ctx[1] & 0xff)) /* a bool: the other bytes may hold anything */
		return 0;
#else
	struct signal_struct *signal = KREAD(struct signal_struct *, task->signal);

	if (KREAD(int, signal->live.counter))
		return 0;
#endif
	pid = KREAD(u32, task->tgid);
#ifdef ENABLE_CRED
	u64 id = pid;

	map_delete(PRIVILEGES, &id);
#endif
	value = map_lookup(PROCESSES, &pid);
	if (!value)
		return 0;
	record.image_ktime_ns = value->ktime_ns;
#ifdef ENABLE_THROTTLE
	struct process_value ended = *value;
#endif
	if (map_delete(PROCESSES, &pid))
		return 0;
	record.kind = RECORD_EXIT;
	record.exit_code = KREAD(u32, task->exit_code);
	record.ktime_ns = bpf_ktime_get_boot_ns();
	record.pid = pid;
	record.tid = KREAD(u32, task->pid);
#ifdef ENABLE_THROTTLE
	if (!settle_exit(&ended, &record))
		return 0;
#endif
	if (ring_output(&record, sizeof(record))) /* no event is lost with RECORD_RETIRE */
		count_lost(record.kind == RECORD_EXIT ? LOST_EXIT : LOST_FORK);
	return 0;
}
