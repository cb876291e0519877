/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes of a throttled cgroup: which records are withheld, and what the process map holds
 * meanwhile.
 *
 * The process map stays exact: a withheld exec or fork is entered as any other, with FLAG_WITHHELD.
 * The map `withheld` holds the images among them that user space does not know. User space deletes
 * an entry when it reports the image later (collector/throttle.py). The side that deletes the entry
 * decides about the exit: on_exit() withholds and counts the exit of an image that it still finds
 * there.
 *
 * A process whose exec was reported also has its exit reported: if its last image was withheld but
 * an earlier one was reported, the exit is reported for the earlier one.
 */
#pragma once

#include "maps.h"
#include "task.h"

#ifdef ENABLE_THROTTLE
#include "throttle.h"

VALUES(THROTTLES, struct throttle_value);
VALUES(WITHHELD, struct withheld_value);
VALUES(WITHHELD_TOTALS, u64);

static __always_inline void count_withheld(struct throttle_value *value, u32 kind)
{
	u32 key = kind;
	u64 *total = map_lookup(WITHHELD_TOTALS, &key);

	if (total)
		(*total)++;
	if (value)
		__sync_fetch_and_add(&value->withheld[kind], 1);
}

/* The rate of the task's cgroup; NULL where it has none or the map is full. */
static __always_inline struct throttle_value *cgroup_rate(struct task_struct *task,
							  struct throttle_key *key,
							  struct kernfs_node **node)
{
	struct cgroup *cgroup = task_cgroup(task);

	if (!cgroup)
		return NULL;
	*node = KREAD(struct kernfs_node *, cgroup->kn);
	key->cgroup_id = KREAD(u64, (*node)->id);
	return THROTTLE_VALUE(MAP(MAP_THROTTLES), key);
}

/* Count an exec or a fork of the task; its cgroup's value where it is to be withheld, else NULL. */
static __always_inline struct throttle_value *throttled(struct task_struct *task, u64 now,
							u64 *cgroup_id)
{
	struct throttle_key key = {};
	struct kernfs_node *node;
	struct throttle_value *value = cgroup_rate(task, &key, &node);
	u32 verdict;

	if (!value)
		return NULL;
	verdict = throttle_judge(value, now, THROTTLE_EVENTS, THROTTLE_INTERVAL_NS);
	if (verdict == THROTTLE_PASS)
		return NULL;
	if (verdict == THROTTLE_BEGIN)
		throttle_report(now, key.cgroup_id, 0, KREAD(const char *, node->name));
	*cgroup_id = key.cgroup_id;
	return value;
}

static __always_inline bool is_withheld(u32 pid, struct process_value *value)
{
	struct withheld_key key = { .ktime_ns = value->ktime_ns, .pid = pid };

	return (value->flags & FLAG_WITHHELD) && map_lookup(WITHHELD, &key);
}

/*
 * The image `value` of a pid is replaced. Sets *mark to the last image that user space knows. That
 * is `value` itself, unless it is withheld and user space has not reported it.
 */
static __always_inline void take_mark(u32 pid, struct process_value *value,
				      struct withheld_value *mark)
{
	struct withheld_key key = { .ktime_ns = value->ktime_ns, .pid = pid };
	struct withheld_value *held;

	mark->known_ktime_ns = value->ktime_ns;
	mark->is_clone = !!(value->flags & FLAG_CLONE);
	if (!(value->flags & FLAG_WITHHELD))
		return;
	held = map_lookup(WITHHELD, &key);
	if (!held)
		return;
	struct withheld_value before = *held;

	if (map_delete(WITHHELD, &key))
		return;
	mark->known_ktime_ns = before.known_ktime_ns;
	mark->is_clone = before.is_clone;
}

/* Enter an image that is withheld into both maps; false if there is no room: then it is not
 * withheld. */
static __always_inline bool enter_withheld(u32 pid, struct process_value *value,
					   struct withheld_value *mark)
{
	struct withheld_key key = { .ktime_ns = value->ktime_ns, .pid = pid };

	if (map_update(WITHHELD, &key, mark))
		return false;
	value->flags |= FLAG_WITHHELD;
	if (map_update(PROCESSES, &pid, value))
		count_lost(LOST_PROCESS);
	return true;
}

/* Whether the exec is withheld; if so, it is in both maps and is counted. */
static __always_inline bool withhold_exec(struct task_struct *task)
{
	struct process_value value = {}, *known, *parent;
	struct withheld_value mark = {};
	u32 pid = KREAD(u32, task->tgid);
	struct throttle_value *rate;

	value.ktime_ns = bpf_ktime_get_boot_ns();
	rate = throttled(task, value.ktime_ns, &mark.cgroup_id);
	if (!rate)
		return false;
	parent = find_parent(task, &value.parent_pid);
	if (parent)
		value.parent_ktime_ns = parent->ktime_ns;
	known = map_lookup(PROCESSES, &pid);
	if (known) {
		value.flags = known->flags & FLAG_IN_INIT_TREE;
		if (!(known->flags & FLAG_CLONE)) {
			value.parent_pid = pid;
			value.parent_ktime_ns = known->ktime_ns;
		}
		take_mark(pid, known, &mark);
		if (task_nspid(task) == 1)
			value.flags |= FLAG_IN_INIT_TREE;
	}
	value.start_boottime = KREAD(u64, task->start_boottime);
	if (!enter_withheld(pid, &value, &mark))
		return false;
#ifdef ENABLE_CRED
	u64 id = pid;

	map_delete(PRIVILEGES, &id);
#endif
	count_withheld(rate, WITHHELD_EXEC);
	return true;
}

/*
 * Whether the fork is withheld; if so, it is in both maps and is counted. Every fork of a parent
 * that user space does not know is withheld too, since user space could not name the child's image.
 */
static __always_inline bool withhold_fork(struct task_struct *child, u32 pid,
					  struct process_value *value, u32 parent_pid,
					  struct process_value *parent)
{
	struct withheld_value mark = {};
	struct throttle_value *rate = throttled(child, value->ktime_ns, &mark.cgroup_id);

	if (!rate && !(parent && is_withheld(parent_pid, parent)))
		return false;
	if (!enter_withheld(pid, value, &mark))
		return false;
	count_withheld(rate, WITHHELD_FORK);
	return true;
}

/*
 * The image `value` of a pid has ended. Returns whether a record has to follow; then sets the image
 * that the record names, and its kind.
 */
static __always_inline bool settle_exit(struct process_value *value, struct exit_record *record)
{
	struct withheld_key key = { .ktime_ns = value->ktime_ns, .pid = record->pid };
	struct throttle_key rate_key = {};
	struct withheld_value *held, mark;

	if (!(value->flags & FLAG_WITHHELD))
		return true;
	held = map_lookup(WITHHELD, &key);
	if (!held)
		return true;
	mark = *held;
	if (map_delete(WITHHELD, &key)) /* user space has deleted it meanwhile, and reports it */
		return true;
	record->image_ktime_ns = mark.known_ktime_ns;
	if (mark.known_ktime_ns && !mark.is_clone)
		return true;
	rate_key.cgroup_id = mark.cgroup_id;
	count_withheld(map_lookup(THROTTLES, &rate_key), WITHHELD_EXIT);
	record->kind = RECORD_RETIRE;
	return mark.known_ktime_ns != 0;
}
#endif
