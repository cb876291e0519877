/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process got a new image: raw tracepoint sched_process_exec.
 *
 * Why here (fs/exec.c):
 *
 *   execve / execveat
 *     bprm_execve
 *       exec_binprm
 *         search_binary_handler      for a script once for it, then for its interpreter
 *           load_elf_binary
 *             begin_new_exec         the point of no return: sched_prepare_exec (since v6.10),
 *                                    other threads die, the caller becomes the leader, then
 *                                    security_bprm_committing_creds and the new credentials
 *             ... the new stack with arguments and environment, mm->arg_start .. env_end
 *         trace_sched_process_exec   <- here
 *
 * It fires once for each successful exec and never for a failed one. What the new process will
 * see is in place: its memory map, credentials, leader. The program has not run yet, so it cannot
 * have changed anything. For the same reason every page of the arguments is present: the kernel has
 * just written them.
 */
#include "events.h"
#include "maps.h"
#include "path.h"
#include "task.h"

static __always_inline void count_lost(int kind)
{
	u32 key = kind;
	u64 *count = map_lookup(LOST, &key);

	if (count)
		(*count)++;
}

/*
 * The nearest known ancestor: real_parent's process, or up to four levels above, when a
 * parent was never seen. Sets its pid; returns its image, NULL where none is known.
 */
static __always_inline struct process_value *find_parent(struct task_struct *task, u32 *parent_pid)
{
	struct process_value *value;

	*parent_pid = 0;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		task = KREAD(struct task_struct *, task->real_parent);
		u32 tgid = KREAD(u32, task->tgid);

		if (i == 0)
			*parent_pid = tgid;
		value = map_lookup(PROCESSES, &tgid);
		if (value) {
			*parent_pid = tgid;
			return value;
		}
	}
	return NULL;
}

#include "withhold.h" /* uses both */

#ifdef ENABLE_CRED
/*
 * How an exec changes privileges is visible only before the new credentials are committed: the
 * old ones are current's, the new ones bprm's. Kept for the exec record, which follows on the same
 * thread. If the process dies after the point of no return, there is no exec record: then on_exit()
 * of exit.bpf.c deletes the entry. Otherwise the next process with this pid would be reported as
 * having changed privileges.
 */
VALUES(PRIVILEGES, u32);

static __always_inline int on_prepare(struct linux_binprm *bprm)
{
	/* Personality bits are cleared for privileged execs only; secureexec is a bit field. */
	if (!KREAD(u32, bprm->per_clear))
		return 0;

	struct task_struct *task = (void *)bpf_get_current_task();
	const struct cred *old = KREAD(const struct cred *, task->cred);
	const struct cred *new = KREAD(const struct cred *, bprm->cred);
	u32 uid = KREAD(u32, old->uid), gid = KREAD(u32, old->gid);
	u32 euid = KREAD(u32, new->euid), egid = KREAD(u32, new->egid);
	u32 how = 0;

	if (euid != uid) {
		how |= SECURE_SETUID;
		if (euid == 0 && KREAD(u32, new->uid) != 0)
			how |= SECURE_SETUID_ROOT;
	}
	if (egid != gid) {
		how |= SECURE_SETGID;
		if (egid == 0 && KREAD(u32, new->gid) != 0)
			how |= SECURE_SETGID_ROOT;
	}
	/* Ambient capabilities and those of a file exclude each other. */
	u64 permitted = 0, new_permitted = 0, ambient = 0;

	bpf_probe_read_kernel(&permitted, 8, &old->cap_permitted);
	bpf_probe_read_kernel(&new_permitted, 8, &new->cap_permitted);
	bpf_probe_read_kernel(&ambient, 8, &new->cap_ambient);
	/* Other uids: what a set-id exec gains is in the bits above. */
	if (!ambient && (new_permitted & ~permitted) && euid == uid)
		how |= SECURE_FILE_CAPS;
	if (how) {
		u64 id = bpf_get_current_pid_tgid() >> 32;

		map_update(PRIVILEGES, &id, &how);
	}
	return 0;
}

/*
 * Raw tracepoint sched_prepare_exec(task, bprm): "tracing: Add sched_prepare_exec tracepoint", v6.10.
 * Older kernels: fentry, or where there is none a kprobe, on the security modules' hook
 * security_bprm_committing_creds(bprm), called a little later. BPRM_ARGUMENT is where bprm is in ctx.
 */
int on_prepare_exec(u64 *ctx)
{
	return on_prepare((struct linux_binprm *)ctx[BPRM_ARGUMENT]);
}
#endif

/* Copy user memory behind the record; what is longer than INLINE_MAX is left for send_pieces(). */
static __always_inline void read_user_range(struct exec_scratch *s, u32 *off,
					    struct user_range *range, unsigned long from,
					    unsigned long to, u32 error_flag)
{
	u32 at = *off, size = to - from;

	range->from = from;
	range->len = from && to > from ? size : 0;
	range->sent = 0;
	if (range->len == 0 || range->len > INLINE_MAX)
		return;
	FORGET(at);
	at &= DATA_MASK;
	FORGET(size);
	size &= 2 * INLINE_MAX - 1;
	if (size > INLINE_MAX || bpf_probe_read_user(s->data + at, size, (void *)from) < 0) {
		s->record.flags |= error_flag;
		range->len = 0;
		return;
	}
	*off = at + size;
}

/* Send up to PIECES_PER_CALL pieces of a long range. */
static __always_inline void send_pieces(void *ctx, struct exec_scratch *s, struct user_range *range,
					u32 field, u32 error_flag)
{
	u32 zero = 0, until = range->sent + PIECES_PER_CALL * PIECE_MAX;
	struct data_scratch *piece = map_lookup(DATA_SCRATCH, &zero);

	if (!piece)
		return;
	piece->record.kind = RECORD_DATA;
	piece->record.field = field;
	piece->record.ktime_ns = s->record.ktime_ns;
	piece->record.pid = s->record.pid;
	if (until > range->len)
		until = range->len;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < PIECES_PER_CALL; i += STEP_KNOWN) {
		u32 sent = *(volatile u32 *)&range->sent, size = until - sent;

		if (MAY_LEAVE() || sent >= until)
			break;
		if (size > PIECE_MAX)
			size = PIECE_MAX;
		FORGET(size);
		size &= 2 * PIECE_MAX - 1;
		if (size > PIECE_MAX)
			break;
		if (bpf_probe_read_user(piece->data, size, (void *)(range->from + sent)) < 0) {
			s->record.flags |= error_flag;
			range->len = sent;
			break;
		}
		piece->record.offset = sent;
		piece->record.len = size;
		/*
		 * Wakes the reader, like every record before which the ring is empty. Otherwise the records
		 * behind would not wake it either, since they find this one unread.
		 */
		if (ring_output(piece, sizeof(piece->record) + size)) {
			count_lost(LOST_DATA);
			s->record.flags |= FLAG_TRUNC_ARGS;
			range->len = sent;
			break;
		}
		*(volatile u32 *)&range->sent = sent + size;
	}
}

static __always_inline bool has_pieces(struct user_range *range)
{
	return range->len > INLINE_MAX && range->sent < range->len;
}

/* Append the working directory to the record and put it into the ring. */
static __always_inline void send_exec(void *ctx, struct exec_scratch *s)
{
	struct exec_record *record = &s->record;
	u32 start = s->walk.start, off = s->data_len, size = PATH_LEN_MAX - start;

	if (size == 0 && !(record->flags & FLAG_ERROR_CWD))
		record->flags |= FLAG_ROOT_CWD;
	else if (!s->walk.resolved && !(record->flags & FLAG_ERROR_CWD))
		record->flags |= FLAG_ERROR_PATH_RESOLUTION_CWD;
	FORGET(start);
	start &= PATH_LEN_MAX - 1;
	FORGET(size);
	size &= 2 * PATH_LEN_MAX - 1;
	FORGET(off);
	off &= DATA_MASK;
	if (size > PATH_LEN_MAX)
		return;
	bpf_probe_read_kernel(s->data + off, size, s->path + start);
	record->cwd_len = size;
	record->args_len = s->args.len;
	record->envs_len = s->envs.len;
	size += sizeof(*record) + off;
	FORGET(size);
	size &= 2 * DATA_MAX - 1;
	if (size > sizeof(*record) + sizeof(s->data))
		return;
	if (ring_output(record, size))
		count_lost(LOST_EXEC);
}

/* The last step of every exec, in any of the programs. The kernel allows 33 tail calls. */
static __always_inline void walk_and_send(u64 *ctx, struct exec_scratch *s)
{
	if (!s->walk.resolved && !s->walk.full)
		walk_up(&s->walk, s->path);
	if (!s->walk.resolved && !s->walk.full)
		continue_in(ctx, STAGE_WALK);
	send_exec(ctx, s);
}

int on_exec(u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct linux_binprm *bprm = (struct linux_binprm *)ctx[2];
	u32 zero = 0, off = 0;
	struct exec_scratch *s = map_lookup(EXEC_SCRATCH, &zero);
	struct process_value *known, *parent;
	long len;

	if (!s)
		return 0;
#ifdef ENABLE_THROTTLE
	if (withhold_exec(task))
		return 0;
#endif

	struct exec_record *record = &s->record;

	__builtin_memset(record, 0, sizeof(*record));
	__builtin_memset(&s->args, 0, sizeof(s->args));
	__builtin_memset(&s->envs, 0, sizeof(s->envs));
	record->kind = RECORD_EXEC;
	record->flags = FLAG_EXECVE;
	record->ktime_ns = bpf_ktime_get_boot_ns();
	record->pid = KREAD(u32, task->tgid);
	record->nspid = task_nspid(task);
	read_login(task, record);
	read_credentials(task, record);
	read_namespaces(task, record);

	/* The file executed: of a script its interpreter. No links left: memfd, or deleted. */
	struct file *file = KREAD(struct file *, bprm->file);
	struct inode *inode = KREAD(struct inode *, file->f_inode);

	record->nlink = KREAD(u32, inode->i_nlink);
	record->inode = KREAD(u64, inode->i_ino);

	/* Name: as the caller gave it. */
	len = bpf_probe_read_kernel_str(s->data, FILENAME_MAX, KREAD(const char *, bprm->filename));
	if (len < 1 || len > FILENAME_MAX) {
		record->flags |= FLAG_ERROR_FILENAME;
		len = 1;
	}
	off = len - 1;
	record->filename_len = off;

	/* Cgroup. */
	struct cgroup *cgroup = task_cgroup(task);

	if (cgroup) {
		struct kernfs_node *node = KREAD(struct kernfs_node *, cgroup->kn);

		record->cgroup_id = KREAD(u64, node->id);
		FORGET(off);
		off &= DATA_MASK;
		len = read_cgroup_name(cgroup, s->data + off);
		if (len < 0 || len >= CGROUP_NAME_MAX) {
			record->flags |= FLAG_ERROR_CGROUP_NAME;
			len = 0;
		}
		record->cgroup_len = len;
		off += len;
	} else {
		record->flags |= FLAG_ERROR_CGROUP_SUBSYS_CGRP;
	}

	/* Arguments, and the environment where it was asked for. */
	struct mm_struct *mm = KREAD(struct mm_struct *, task->mm);

	if (mm) {
		struct mm_ranges ranges;

		read_mm_ranges(mm, &ranges);
		record->arg_start = ranges.arg_start;
		read_user_range(s, &off, &s->args, ranges.arg_start, ranges.arg_end,
				FLAG_ERROR_ARGS);
#ifdef ENABLE_ENVS
		read_user_range(s, &off, &s->envs, ranges.env_start, ranges.env_end,
				FLAG_ERROR_ENVS);
#endif
	}

#ifdef ENABLE_CRED
	u64 id = record->pid;
	u32 *how = map_lookup(PRIVILEGES, &id);

	if (how) {
		record->secureexec = *how;
		map_delete(PRIVILEGES, &id);
	}
#endif

	/* Who is the parent, and what did this pid run before? */
	struct process_value value = {};
	u32 pid = record->pid;

	parent = find_parent(task, &record->parent_pid);
	if (parent)
		record->parent_ktime_ns = parent->ktime_ns;
	known = map_lookup(PROCESSES, &pid);
	if (known) {
		u64 replaced_ktime_ns = known->ktime_ns;
		bool first = known->flags & FLAG_CLONE;

#ifdef ENABLE_THROTTLE
		if (known->flags & FLAG_WITHHELD) {
			struct withheld_value mark = {};

			take_mark(pid, known, &mark);
			replaced_ktime_ns = mark.known_ktime_ns;
			first = !replaced_ktime_ns || mark.is_clone;
		}
#endif
		record->replaced_ktime_ns = replaced_ktime_ns;
		value.flags = known->flags & FLAG_IN_INIT_TREE;
		if (first) {
			record->flags |= FLAG_CLONE;
		} else { /* exec after exec: the parent is this pid's previous image */
			record->parent_pid = pid;
			record->parent_ktime_ns = replaced_ktime_ns;
		}
		if (record->nspid == 1)
			value.flags |= FLAG_IN_INIT_TREE;
	}
	record->flags |= value.flags & FLAG_IN_INIT_TREE;
	value.ktime_ns = record->ktime_ns;
	value.parent_pid = record->parent_pid;
	value.parent_ktime_ns = record->parent_ktime_ns;
	value.start_boottime = record->start_boottime = KREAD(u64, task->start_boottime);
	if (map_update(PROCESSES, &pid, &value))
		count_lost(LOST_PROCESS);

	/* Working directory, last: its walk may have to continue in another program. */
	struct fs_struct *fs = KREAD(struct fs_struct *, task->fs);

	s->data_len = off;
	if (!fs) {
		record->flags |= FLAG_ERROR_CWD;
		s->walk.start = PATH_LEN_MAX;
		s->walk.full = true;
	} else {
		walk_begin(&s->walk, (void *)fs + __builtin_offsetof(struct fs_struct, pwd),
			   (void *)fs + __builtin_offsetof(struct fs_struct, root), s->path);
	}
	if (has_pieces(&s->args) || has_pieces(&s->envs))
		continue_in(ctx, STAGE_PIECES);
	walk_and_send(ctx, s);
	return 0;
}

/* Sends long arguments and environment, then the record. */
int on_exec_pieces(u64 *ctx)
{
	u32 zero = 0;
	struct exec_scratch *s = map_lookup(EXEC_SCRATCH, &zero);

	if (!s)
		return 0;
	if (has_pieces(&s->args))
		send_pieces(ctx, s, &s->args, DATA_ARGS, FLAG_ERROR_ARGS);
	else
		send_pieces(ctx, s, &s->envs, DATA_ENVS, FLAG_ERROR_ENVS);
	if (has_pieces(&s->args) || has_pieces(&s->envs))
		continue_in(ctx, STAGE_PIECES);
	continue_in(ctx, STAGE_WALK);
	count_lost(LOST_EXEC); /* only if a call fails: the longest arguments need 26 of 33 */
	return 0;
}

/* Continues with a path of more than WALK_STEPS components. */
int on_exec_walk(u64 *ctx)
{
	u32 zero = 0;
	struct exec_scratch *s = map_lookup(EXEC_SCRATCH, &zero);

	if (!s)
		return 0;
	walk_and_send(ctx, s);
	return 0;
}
