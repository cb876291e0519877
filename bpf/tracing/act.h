/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Actions that change something on the host. Each function returns the counter of its outcome:
 * carried out, omitted in mode monitor, omitted because the process is spared, or refused by the
 * kernel. The mode is read once a call, so all actions of a call see the same one.
 */
#pragma once

#include "context.h"
#include "record.h"

#define NS_PER_TICK 10000000 /* USER_HZ of Linux is 100: the unit of starttime in /proc/PID/stat */
#define SIGNAL_WINDOW_NS 60000000000ull

/*
 * MAP_SPARED_PROGRAMS: programs of the stack and the users that they run as. They are compared
 * here, when an action is due, so that a service is spared from its first instruction, and also
 * while no collector runs. 31 characters of a name are compared; policies/enforcement.py adds no
 * longer ones.
 */
struct spared_program {
	char name[32];
	u32 uid;
};
_Static_assert(sizeof(struct spared_program) == 36, "the map of policies/maps.py");

/*
 * The name of the current process's executable, for a script of Python that of the process:
 * execve() sets it to the script's name; a process can change it (PR_SET_NAME). False: not known.
 */
static __always_inline bool read_program_name(struct spared_program *program)
{
	u64 mm = KERNEL(u64, current_task() + OFFSET_task_mm);
	u64 file = mm ? KERNEL(u64, mm + OFFSET_mm_exe_file) : 0;
	u64 dentry = file ? KERNEL(u64, file + OFFSET_file_dentry) : 0;
	u64 name = dentry ? KERNEL(u64, dentry + OFFSET_dentry_name) : 0;

	if (!name || bpf_probe_read_kernel_str(program->name, sizeof(program->name), (void *)name) < 0)
		return false;
	if (*(u32 *)program->name != *(u32 *)"pyth" || *(u16 *)&program->name[4] != *(u16 *)"on")
		return true;
	__builtin_memset(program->name, 0, sizeof(program->name));
	name = KERNEL(u64, current_task() + OFFSET_task_group_leader) + OFFSET_task_comm;
	return bpf_probe_read_kernel_str(program->name, 16, (void *)name) > 0;
}

static __always_inline bool runs_the_stack(void)
{
	u64 cred = KERNEL(u64, current_task() + OFFSET_task_cred);
	struct spared_program program = {};
	u32 ids[8]; /* uid, gid, suid, sgid, euid, egid, fsuid, fsgid (include/linux/cred.h) */

	if (bpf_probe_read_kernel(ids, sizeof(ids), (void *)(cred + OFFSET_cred_uid)))
		return false;
	if (ids[0] != ids[2] || ids[0] != ids[4] || ids[0] != ids[6])
		return false;
	program.uid = ids[0];
	return read_program_name(&program) &&
	       bpf_map_lookup_elem(MAP(MAP_SPARED_PROGRAMS), &program);
}

/*
 * MAP_SPARED: processes that no policy may act on, by tgid. The value is when the process started,
 * as /proc shows it: a process that reuses the number of one that has ended is not spared.
 */
static __always_inline bool is_spared(void)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u64 *ticks = bpf_map_lookup_elem(MAP(MAP_SPARED), &tgid), leader;

	if (ticks) {
		leader = KERNEL(u64, current_task() + OFFSET_task_group_leader);
		if (KERNEL(u64, leader + OFFSET_task_start_boottime) / NS_PER_TICK == *ticks)
			return true;
	}
	return runs_the_stack();
}

/* MAP_SIGNALS: what each loaded policy sent in the current minute. */
struct signal_window {
	u64 start_ns, sent;
};

/*
 * Whether the policy has sent as many signals as it may; then it is switched to mode monitor here,
 * so the next call sees that. Programs on other CPUs can each send one more signal.
 */
static __always_inline bool over_limit(void)
{
	u64 most = NUMBER(NUMBER_SIGNALS_MAX), now = bpf_ktime_get_boot_ns();
	u32 slot = NUMBER(NUMBER_SLOT);
	volatile u32 *modes = MAP_VALUE(MAP_MODES);
	struct signal_window *window;

	if (!most)
		return false;
	window = bpf_map_lookup_elem(MAP(MAP_SIGNALS), &slot);
	if (!window)
		return false;
	if (now - window->start_ns >= SIGNAL_WINDOW_NS) {
		window->start_ns = now;
		window->sent = 0;
	}
	__sync_fetch_and_add(&window->sent, 1);
	if (*(volatile u64 *)&window->sent <= most)
		return false;
	modes[NUMBER(NUMBER_SLOT)] = MODE_MONITOR;
	return true;
}

/* A signal to the current process: delivered, at the latest, before it returns to user mode. */
static __always_inline u32 send_signal(u32 mode, u32 signal)
{
	if (mode != MODE_ENFORCE)
		return COUNTER_MONITOR_SIGNAL;
	if (is_spared())
		return COUNTER_SPARED;
	if (over_limit())
		return COUNTER_MONITOR_SIGNAL;
	return bpf_send_signal(signal) ? COUNTER_FAILED : COUNTER_SIGNAL;
}

/* Whether the policy reached its limit while this call was handled. */
static __always_inline bool fell_back(u32 mode)
{
	return NUMBER(NUMBER_SIGNALS_MAX) && mode == MODE_ENFORCE && policy_mode() == MODE_MONITOR;
}
