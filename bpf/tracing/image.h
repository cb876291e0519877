/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What filters of policies need of a process beyond the process map: the lists of binaries that
 * its executable is in, those of its ancestors, its id in its own pid namespace, and namespaces
 * and capabilities as they were at exec. images.h keeps it while a policy needs it.
 */
#pragma once

#include "process.h"

enum image_namespace {
	IMAGE_UTS,
	IMAGE_IPC,
	IMAGE_MNT,
	IMAGE_PID,
	IMAGE_PID_FOR_CHILDREN,
	IMAGE_NET,
	IMAGE_TIME,
	IMAGE_TIME_FOR_CHILDREN,
	IMAGE_CGROUP,
	IMAGE_USER,
	IMAGE_NAMESPACES,
};

enum image_flags {
	IMAGE_PARENT_KNOWN = 1,
	IMAGE_STATE_KNOWN = 2, /* namespaces and capabilities are those at exec */
	IMAGE_PATH_KNOWN = 4,  /* the executable's path could be read */
};

/* Of a living process, by tgid; policies/images.py writes it for those that ran before. */
struct image {
	u64 binaries;	     /* a bit for each list that the executable is in */
	u64 lineage;	     /* the same, and of all ancestors since their exec */
	u64 parent_binaries; /* of the parent when this process was forked */
	u64 parent_lineage;
	u64 capabilities[3]; /* effective, inheritable, permitted */
	u32 namespaces[IMAGE_NAMESPACES];
	u32 parent_pid;
	u32 nspid; /* 0 in the host's pid namespace */
	u32 flags;
	/* Incremented at each write, so that user space changes only the image that it has read. */
	u32 execs;
};
_Static_assert(sizeof(struct image) == 112, "image has a hole");

static __always_inline struct image *find_image(u32 tgid)
{
	return bpf_map_lookup_elem(MAP(MAP_IMAGES), &tgid);
}

/*
 * The lists that matchBinaries compares, by process: a lookup in MAP_IMAGES calls into the kernel
 * and costs several times as much as these loads. One value of an array, which programs address
 * directly; a process has one cell for each field of its image, and shares it with others.
 *
 * Cells have no lock. The check of a cell covers key and lists, so a cell that two programs wrote
 * in parts matches no process. A process's cells are emptied whenever its image is written. When
 * on_image_mark writes it on another CPU, the generation changes, which is part of each key.
 */
#define LISTS_CELLS 1024

enum lists_field {
	LISTS_BINARIES,
	LISTS_LINEAGE,
	LISTS_FIELDS,
};

struct lists_cell {
	u64 check; /* 0: empty */
	u64 lists;
};

struct process_lists {
	u32 generation, pad;
	struct lists_cell cells[LISTS_FIELDS][LISTS_CELLS];
};
_Static_assert(sizeof(struct process_lists) == 32776, "process_lists has a hole");

static __always_inline volatile struct lists_cell *cell_of(u32 field, u32 tgid)
{
	struct process_lists *all = MAP_VALUE(MAP_PROCESS_LISTS);

	FORGET(tgid);
	return &all->cells[field][tgid & (LISTS_CELLS - 1)];
}

/* Not 0, and far from the key of any other process: an odd multiple of what is never 0. */
static __always_inline u64 lists_key(u32 generation, u32 tgid)
{
	return (1ull << 63 | (u64)generation << 32 | tgid) * 0x9e3779b97f4a7c15ull;
}

static __always_inline void empty_cells(u32 tgid)
{
#pragma unroll
	for (u32 field = 0; field < LISTS_FIELDS; field++) {
		volatile struct lists_cell *cell = cell_of(field, tgid);

		cell->check = 0;
		cell->lists = 0;
	}
}

/* Of the current process, whose executable has a known path; false where it has none. */
static __always_inline bool lists_of_process(u32 field, u64 *lists)
{
	volatile struct process_lists *all = MAP_VALUE(MAP_PROCESS_LISTS);
	u32 tgid = current_tgid();
	u64 key = lists_key(all->generation, tgid);
	volatile struct lists_cell *cell = cell_of(field, tgid);
	struct image *image;

	*lists = cell->lists;
	if ((cell->check ^ *lists) == key)
		return true;
	image = find_image(tgid);
	if (!image || !(image->flags & IMAGE_PATH_KNOWN))
		return false;
	*lists = field == LISTS_BINARIES ? image->binaries : image->lineage;
#ifdef __x86_64__ /* other CPUs may load an old generation, and the lists that belong to it */
	cell->lists = *lists;
	cell->check = key ^ *lists;
#endif
	return true;
}

static __always_inline void read_image_state(struct image *image)
{
	u64 cred = current_cred();

	image->capabilities[0] = KERNEL(u64, cred + OFFSET_cred_effective);
	image->capabilities[1] = KERNEL(u64, cred + OFFSET_cred_inheritable);
	image->capabilities[2] = KERNEL(u64, cred + OFFSET_cred_permitted);
	image->namespaces[IMAGE_UTS] = namespace_of(OFFSET_nsproxy_uts, OFFSET_uts_namespace_inum);
	image->namespaces[IMAGE_IPC] = namespace_of(OFFSET_nsproxy_ipc, OFFSET_ipc_namespace_inum);
	image->namespaces[IMAGE_MNT] = namespace_of(OFFSET_nsproxy_mnt, OFFSET_mnt_namespace_inum);
	image->namespaces[IMAGE_PID] = pid_namespace();
	image->namespaces[IMAGE_PID_FOR_CHILDREN] =
		namespace_of(OFFSET_nsproxy_pid_for_children, OFFSET_pid_namespace_inum);
	image->namespaces[IMAGE_NET] = namespace_of(OFFSET_nsproxy_net, OFFSET_net_inum);
#ifdef HAVE_nsproxy_time
	image->namespaces[IMAGE_TIME] =
		namespace_of(OFFSET_nsproxy_time, OFFSET_time_namespace_inum);
	image->namespaces[IMAGE_TIME_FOR_CHILDREN] =
		namespace_of(OFFSET_nsproxy_time_for_children, OFFSET_time_namespace_inum);
#endif
	image->namespaces[IMAGE_CGROUP] =
		namespace_of(OFFSET_nsproxy_cgroup, OFFSET_cgroup_namespace_inum);
	image->namespaces[IMAGE_USER] = user_namespace();
}

/*
 * matchNamespaceChanges, matchCapabilityChanges: how the task differs from what was recorded. A
 * filter that matches updates the record, so that one change is reported once.
 */
static __always_inline u32 changed_namespaces(struct image *image)
{
	struct image now = {};
	u32 changed = 0;

	if (!image || !(image->flags & IMAGE_STATE_KNOWN))
		return 0;
	read_image_state(&now);
#pragma unroll
	for (int i = 0; i < IMAGE_NAMESPACES; i++)
		if (now.namespaces[i] != image->namespaces[i])
			changed |= 1 << i;
	return changed;
}

static __always_inline bool record_namespaces(struct image *image)
{
	struct image now = {};

	read_image_state(&now);
	__builtin_memcpy(image->namespaces, now.namespaces, sizeof(now.namespaces));
	return true;
}

/* Capabilities of a set (0 effective, 1 inheritable, 2 permitted) that were gained or dropped. */
static __always_inline u64 changed_capabilities(struct image *image, u32 set, u64 now)
{
	if (!image || !(image->flags & IMAGE_STATE_KNOWN))
		return 0;
	return image->capabilities[set] ^ now;
}

static __always_inline bool record_capabilities(struct image *image, u32 set, u64 now)
{
	image->capabilities[set] = now;
	return true;
}

/* followForks: an ancestor, at most ANCESTORS_MAX generations up, by pid. */
static __always_inline struct image *parent_image(struct image *image)
{
	return image ? find_image(image->parent_pid) : NULL;
}
