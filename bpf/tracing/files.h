/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths, walked from a dentry up to the task's root with probe reads only, so that every kind of
 * hook can report them: bpf_d_path() is allowed in a few functions only (btf_allowlist_d_path in
 * kernel/trace/bpf_trace.c). The walk is that of prepend_path() in fs/d_path.c.
 */
#pragma once

#include "context.h"
#include "text.h"

#ifndef WALK_STEPS
#define WALK_STEPS 128 /* components and mounts; the verifier follows every step */
#endif

enum path_flags {
	PATH_UNRESOLVED = 1, /* more than WALK_STEPS: the text is the end of the path */
};

struct file_item {
	u32 flags; /* enum path_flags */
	u16 mode;  /* inode.i_mode; 0: no inode */
	u16 pad;
}; /* the path follows */

/* The piece of struct dentry from d_parent on: parent, then struct qstr with hash and length. */
struct dentry_name {
	u64 parent;
	u32 hash, len;
	u64 name;
};

static __always_inline void read_dentry(struct dentry_name *to, u64 dentry)
{
#ifdef CAST_FUNCTION
	void *memory = kernel_memory(dentry + OFFSET_dentry_parent);

	to->parent = LOAD(u64, memory, 0);
	to->len = LOAD(u32, memory, 12);
	to->name = LOAD(u64, memory, 16);
#else
	bpf_probe_read_kernel(to, sizeof(*to), (void *)(dentry + OFFSET_dentry_parent));
#endif
}

/* A struct path: mount and dentry. */
static __always_inline void read_pair(u64 *pair, u64 path)
{
#ifdef CAST_FUNCTION
	void *memory = kernel_memory(path);

	pair[0] = LOAD(u64, memory, 0);
	pair[1] = LOAD(u64, memory, 8);
#else
	bpf_probe_read_kernel(pair, 2 * sizeof(*pair), (void *)path);
#endif
}

/*
 * Writes eight bytes of a name in front of the text so far, beginning with the last eight. For a
 * short name this also copies the bytes before it, which the next component overwrites.
 */
#ifdef CAST_FUNCTION
#define NAME_WORDS 4
static __always_inline void copy_word(struct scratch *s, u32 end, u64 name_end, u32 bytes)
{
	u32 at = end - bytes;

	FORGET(at);
	at &= TEXT_MAX - 1;
	*(u64 *)(s->text + at) = KERNEL(u64, name_end - bytes);
}
#else
#define NAME_WORDS 0
#endif

/* Writes the name of a component in front of `end`; `end` is larger than its length. */
static __always_inline void copy_name(struct scratch *s, u32 end, u64 name, u32 len)
{
#ifdef CAST_FUNCTION
	if (len <= 8 * NAME_WORDS && end >= 8 * NAME_WORDS) {
#pragma unroll
		for (u32 bytes = 8; bytes <= 8 * NAME_WORDS; bytes += 8)
			if (len > bytes - 8)
				copy_word(s, end, name + len, bytes);
		return;
	}
#endif
	u32 start = end - len;

	FORGET(start);
	start &= TEXT_MAX - 1;
	bpf_probe_read_kernel(s->text + start, len, (void *)name);
}

/* Walk from (mount, dentry) to the root; the text is s->text[s->text_start..TEXT_MAX). Flags. */
static __always_inline u32 walk_up(struct scratch *s, u64 vfsmount, u64 dentry, bool in_mount)
{
	u64 root[2] = {}; /* struct path: mnt, dentry */
	u64 fs = KERNEL(u64, current_task() + OFFSET_task_fs);
	u64 mount_root = vfsmount ? KERNEL(u64, vfsmount + OFFSET_vfsmount_root) : 0;
	struct dentry_name first = {};
	u32 flags = PATH_UNRESOLVED;

	if (!in_mount && fs)
		read_pair(root, fs + OFFSET_fs_root);
	s->text_start = TEXT_MAX;
	read_dentry(&first, dentry);
	/* d_unlinked(): no longer in the hash, and not a root, which never is. */
	if (first.parent != dentry && !KERNEL(u64, dentry + OFFSET_dentry_hash_pprev)) {
		s->text_start = TEXT_MAX - (sizeof(" (deleted)") - 1);
		__builtin_memcpy(s->text + TEXT_MAX - 10, " (deleted)", 10);
	}
	/*
	 * The position is in memory, not in a register: the verifier then does not track its value,
	 * considers all steps equal, and follows one of them in place of every combination. A step has one
	 * path through a component; a name without room is cut after the loop.
	 */
	struct dentry_name d;
	u32 start, len;
	bool full = false;

	*(volatile u32 *)&s->steps = 0;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < WALK_STEPS; i += STEP_KNOWN) {
		u64 differs = (dentry ^ root[1]) | (vfsmount ^ root[0]);

		if (MAY_LEAVE() || ++*(volatile u32 *)&s->steps > WALK_STEPS)
			break;
		FORGET(differs); /* one branch; clang would make two */
		if (!differs) {
			flags = 0;
			break;
		}
		read_dentry(&d, dentry);
		if (dentry == mount_root || dentry == d.parent) {
			u64 mount = vfsmount - OFFSET_mount_mnt, above = mount;

			if (vfsmount)
				above = KERNEL(u64, mount + OFFSET_mount_parent);
			if (above == mount) { /* the root of all mounts */
				flags = 0;
				break;
			}
			dentry = KERNEL(u64, mount + OFFSET_mount_mountpoint);
			vfsmount = above + OFFSET_mount_mnt;
			mount_root = KERNEL(u64, vfsmount + OFFSET_vfsmount_root);
			continue;
		}
		start = *(volatile u32 *)&s->text_start;
		len = d.len & 0xff; /* NAME_MAX is 255 */
		if (len >= start) {
			full = true;
			break;
		}
		copy_name(s, start, d.name, len);
		start -= len + 1;
		FORGET(start);
		start &= TEXT_MAX - 1;
		s->text[start] = '/';
		*(volatile u32 *)&s->text_start = start;
		dentry = d.parent;
	}
	if (full) { /* keep the end of the name */
		FORGET(start);
		start &= 0xff;
		bpf_probe_read_kernel(s->text, start, (void *)(d.name + len - start));
		s->text_start = 0;
		flags = 0;
	}
	return flags;
}

/*
 * A path becomes an item: struct file_item and text. The length of the text, -1 if there is
 * nothing to walk; *text points to the text.
 */
static __always_inline s32 write_walk(struct scratch *s, u32 type, u32 position, u64 vfsmount,
				      u64 dentry, char **text, u16 *mode)
{
	struct item *item = item_at_end(s);

	*text = NULL;
	*mode = 0;
	if (!item)
		return -1;
	if (!dentry) { /* no such file: an item without payload */
		item_finish(s, item, type, position, 0, 0);
		return -1;
	}
	struct file_item *file = item_payload(item);
	u64 inode = KERNEL(u64, dentry + OFFSET_dentry_inode);

	file->mode = inode ? KERNEL(u16, inode + OFFSET_inode_mode) : 0;
	file->pad = 0;
	file->flags = walk_up(s, vfsmount, dentry, !vfsmount);
	u32 start = s->text_start, len = TEXT_MAX - start;

	FORGET(start);
	start &= TEXT_MAX - 1;
	FORGET(len);
	len &= 2 * TEXT_MAX - 1;
	if (len > TEXT_MAX)
		return -1;
	/* A path of exactly TEXT_MAX bytes has no room for its length below the mask of tail(). */
	if (len == TEXT_MAX)
		len = TEXT_MAX - 1;
	*text = (char *)(file + 1);
	bpf_probe_read_kernel(*text, len, s->text + start);
	*mode = file->mode;
	item_finish(s, item, type, position, 0, sizeof(*file) + len);
	return len;
}

static __always_inline s32 write_path(struct scratch *s, u32 type, u32 position, u64 path,
				      char **text, u16 *mode)
{
	u64 pair[2] = {}; /* struct path: mnt, dentry */

	if (path)
		read_pair(pair, path);
	return write_walk(s, type, position, pair[0], pair[1], text, mode);
}

static __always_inline s32 write_file(struct scratch *s, u32 type, u32 position, u64 file,
				      char **text, u16 *mode)
{
	return write_path(s, type, position, file ? file + OFFSET_file_path : 0, text, mode);
}

#if defined(HAVE_D_PATH) && !defined(CAST_FUNCTION) && defined(__x86_64__) /* tried there */
#define TYPED_FILE /* pointers have types, beginning with the hook's argument */
#endif

/*
 * A file that is being opened, where bpf_d_path() may be called: where kernel memory is read by helpers
 * it takes a third of the time of walk_up(), whose path it is. Files without a directory (pipes,
 * memfd) have names of their own there, and a path without room has none: these are walked.
 */
static __always_inline s32 write_opened_file(struct scratch *s, u32 type, u32 position, u64 file,
					     char **text, u16 *mode)
{
#ifdef TYPED_FILE
	u64 dentry = CONTEXT_WORD(file, OFFSET_file_path + 8); /* struct path: mnt, dentry */
	u64 inode = CONTEXT_WORD(dentry, OFFSET_dentry_inode);
	struct item *item = item_at_end(s);

	if (item && dentry != CONTEXT_WORD(dentry, OFFSET_dentry_parent)) {
		struct file_item *to = item_payload(item);
		char *path = (char *)(to + 1);
		long size = bpf_d_path((void *)(file + OFFSET_file_path), path, TEXT_MAX);

		if (size > 1) { /* with the NUL */
			u32 len = size - 1;

			FORGET(len);
			len &= TEXT_MAX - 1;
			to->flags = 0;
			to->mode = LOAD(u16, inode, OFFSET_inode_mode);
			to->pad = 0;
			*text = path;
			*mode = to->mode;
			item_finish(s, item, type, position, 0, sizeof(*to) + len);
			return len;
		}
	}
#endif
	return write_file(s, type, position, file, text, mode);
}

/* What a few reads show of a file: it filters most opens, whose paths are not walked then. */
struct file_sight {
	u32 name_len; /* of the path's last component; 0: not known, as the file is a mount */
	u16 mode;     /* 0: no inode */
};

static __always_inline void look_at_file(struct file_sight *sight, u64 file)
{
	u64 pair[2] = {}; /* struct path: mnt, dentry */

	if (!file)
		return;
	read_pair(pair, file + OFFSET_file_path);
	u64 inode = KERNEL(u64, pair[1] + OFFSET_dentry_inode);

	sight->mode = inode ? KERNEL(u16, inode + OFFSET_inode_mode) : 0;
	if (KERNEL(u64, pair[0] + OFFSET_vfsmount_root) != pair[1])
		sight->name_len = KERNEL(u32, pair[1] + OFFSET_dentry_name_len);
}

/* The same of a file that is being opened. */
static __always_inline void look_at_opened_file(struct file_sight *sight, u64 file)
{
#ifdef TYPED_FILE
	u64 mount = CONTEXT_WORD(file, OFFSET_file_path);
	u64 dentry = CONTEXT_WORD(file, OFFSET_file_path + 8);
	u64 inode = CONTEXT_WORD(dentry, OFFSET_dentry_inode);

	sight->mode = LOAD(u16, inode, OFFSET_inode_mode);
	if (CONTEXT_WORD(mount, OFFSET_vfsmount_root) != dentry)
		sight->name_len = LOAD(u32, dentry, OFFSET_dentry_name_len);
#else
	look_at_file(sight, file);
#endif
}

/* The struct file behind a descriptor of the current task; 0 if it is not open. */
static __always_inline u64 file_of_fd(u32 fd)
{
	u64 files = KERNEL(u64, current_task() + OFFSET_task_files);
	u64 table = KERNEL(u64, files + OFFSET_files_fdt);

	if (!files || fd >= KERNEL(u32, table + OFFSET_fdtable_max_fds))
		return 0;
	return KERNEL(u64, KERNEL(u64, table + OFFSET_fdtable_fd) + 8 * (u64)fd);
}
