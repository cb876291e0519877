/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The path of a directory, walked from its dentry up to the task's root, as d_path() of
 * fs/d_path.c does it: up by d_parent inside a file system, by mnt_mountpoint across mounts.
 */
#pragma once

#include "loop.h"
#include "task.h"

/*
 * A path of PATH_LEN_MAX bytes has at most half as many components; mounts cost a step too. Before
 * Linux 6.9 the verifier follows every step of a loop, so the walk can be interrupted and resumed: its
 * state is in the scratch space, not on the stack.
 */
#define PATH_LEN_MAX 4096
#define WALK_STEPS 128

struct walk {
	struct dentry *root_dentry;
	struct vfsmount *root_mnt;
	struct dentry *dentry;
	struct vfsmount *vfsmnt;
	u32 start;     /* the path so far is buf[start..PATH_LEN_MAX) */
	u32 steps;     /* of this program's part of the walk */
	bool resolved; /* the walk ended at a root: the path is complete */
	bool full;     /* the buffer is full: it holds the end of the path */
};

static __always_inline bool dentry_is_unlinked(struct dentry *dentry)
{
	/* d_unlinked(): not in the hash any more, and not a root, which never is. */
	return !KREAD(void *, dentry->d_hash.pprev) &&
	       KREAD(struct dentry *, dentry->d_parent) != dentry;
}

/* Prepare to walk from `path` up to `root`, writing to buf[0..PATH_LEN_MAX) from its end. */
static __always_inline void walk_begin(struct walk *walk, struct path *path, struct path *root,
				       char *buf)
{
	READ(walk->root_dentry, root->dentry);
	READ(walk->root_mnt, root->mnt);
	READ(walk->dentry, path->dentry);
	READ(walk->vfsmnt, path->mnt);
	walk->start = PATH_LEN_MAX;
	walk->resolved = false;
	walk->full = false;
	if (dentry_is_unlinked(walk->dentry)) {
		walk->start -= sizeof(" (deleted)") - 1;
		__builtin_memcpy(buf + PATH_LEN_MAX - 10, " (deleted)", 10);
	}
}

/* Walk at most WALK_STEPS up. The walk is complete when resolved or full is set. */
static __always_inline void walk_up(struct walk *walk, char *buf)
{
	struct dentry *dentry = walk->dentry, *parent;
	struct vfsmount *vfsmnt = walk->vfsmnt;
	struct qstr name = {};
	u32 start, len;
	bool full = false;

	*(volatile u32 *)&walk->steps = 0;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < WALK_STEPS; i += STEP_KNOWN) {
		u64 differs = ((u64)dentry ^ (u64)walk->root_dentry) |
			      ((u64)vfsmnt ^ (u64)walk->root_mnt);

		if (MAY_LEAVE() || ++*(volatile u32 *)&walk->steps > WALK_STEPS)
			break;
		FORGET(differs); /* one branch, where clang would make two */
		if (!differs) {
			walk->resolved = true;
			break;
		}
		parent = KREAD(struct dentry *, dentry->d_parent);
		if (dentry == KREAD(struct dentry *, vfsmnt->mnt_root) || dentry == parent) {
			struct mount *mnt = (void *)vfsmnt - __builtin_offsetof(struct mount, mnt);
			struct mount *above = KREAD(struct mount *, mnt->mnt_parent);

			if (above == mnt) { /* the root of all mounts */
				walk->resolved = true;
				break;
			}
			dentry = KREAD(struct dentry *, mnt->mnt_mountpoint);
			vfsmnt = (void *)above + __builtin_offsetof(struct mount, mnt);
			continue;
		}
		READ(name, dentry->d_name);
		start = *(volatile u32 *)&walk->start;
		len = name.len & 0xff; /* NAME_MAX is 255 */
		if (len >= start) {
			full = true;
			break;
		}
		start -= len + 1;
		FORGET(start);
		start &= PATH_LEN_MAX - 1;
		buf[start] = '/';
		bpf_probe_read_kernel(buf + start + 1, len, name.name);
		*(volatile u32 *)&walk->start = start;
		dentry = parent;
	}
	if (full) { /* no room: keep the end of the name */
		FORGET(start);
		start &= 0xff;
		bpf_probe_read_kernel(buf, start, name.name + len - start);
		walk->start = 0;
		walk->full = true;
	}
	walk->dentry = dentry;
	walk->vfsmnt = vfsmnt;
}
