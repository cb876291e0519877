/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First: whether a number (a system call, a capability) is new for an executable, by the name that it
 * was executed by, in its container.
 *
 * A process remembers its own numbers in a slot of one array, found by its id: a repeat costs no
 * lookup. What is new for the process is looked up by its executable, name and mount namespace, which
 * is what a container is on every version of cgroups.
 */
#pragma once

#include "maps.h"

#define FACT_WORDS 8 /* numbers below 512: those of system calls and capabilities */
#define COMPAT_BIT 0x80000000u

/*
 * A slot belongs to the last process that needed it. Two processes that share a slot and use it at
 * the same moment can mistake each other's bits for their own; this is harmless for processes of
 * one executable, which have the same bits.
 */
#define FACT_SLOTS 8192

struct fact_slot {
	u64 mm; /* differs after exec, and for another process with the same id */
	u32 tgid, hook;
	u32 name, unused; /* of struct fact_key; 0: not read yet */
	u64 bits[FACT_WORDS];
};
_Static_assert(sizeof(struct fact_slot) == 88, "FACT_SLOT of policies/maps.py");

/*
 * An inode's address can be reused for another file; its number alone can belong to another file
 * too, in another file system or after the file was removed. So both are compared.
 */
struct fact_key {
	u64 inode; /* address of the executable's inode; 0: a kernel thread */
	u64 number;
	u32 generation;
	u32 mount_namespace;
	u32 hook; /* with COMPAT_BIT for 32-bit calls */
	u32 name; /* hash: scripts have one interpreter, the commands of busybox one executable */
};
_Static_assert(sizeof(struct fact_key) == 32, "the map of policies/maps.py");

struct fact_bits {
	u64 bits[FACT_WORDS];
};

#define NAME_PART 64 /* bytes of the name that are read at once, of two parts */

/*
 * A hash of the name that the process was executed by. The kernel writes it onto the new stack
 * before the environment (fs/exec.c, copy_string_kernel(bprm->filename)), so it begins where the
 * environment ends. 0: not there yet, or its page is not. A process that overwrites it gets facts
 * of its own.
 */
static __always_inline u32 name_of_image(u64 mm)
{
	u64 address = KERNEL(u64, mm + OFFSET_mm_env_end), hash = 0;

	if (!address)
		return 0;
#pragma unroll
	for (int part = 0; part < 2; part++) {
		u64 words[NAME_PART / 8] = {};

		if (bpf_probe_read_user_str(words, sizeof(words), (void *)address) < 0)
			break;
#pragma unroll
		for (int i = 0; i < NAME_PART / 8; i++)
			hash = ((hash << 5 | hash >> 59) ^ words[i]) * 0x9e3779b97f4a7c15ull;
		if (!(words[NAME_PART / 8 - 1] >> 48)) /* little endian: the last but one byte */
			break;
		address += NAME_PART - 1;
	}
	return hash >> 32;
}

static __always_inline void fact_key_of_current(struct fact_key *key, u64 mm)
{
	u64 file = mm ? KERNEL(u64, mm + OFFSET_mm_exe_file) : 0;
	u64 proxy = KERNEL(u64, current_task() + OFFSET_task_nsproxy);

	key->inode = file ? KERNEL(u64, file + OFFSET_file_inode) : 0;
	if (key->inode) {
		key->number = KERNEL(u64, key->inode + OFFSET_inode_number);
		key->generation = KERNEL(u32, key->inode + OFFSET_inode_generation);
	}
	key->mount_namespace =
		KERNEL(u32, KERNEL(u64, proxy + OFFSET_nsproxy_mnt) + OFFSET_mnt_namespace_inum);
}

/*
 * Not atomic: two threads that use the same new number at once can both be the first, which is
 * reported twice; no bits are lost, since each sets only its own word.
 */
static __always_inline bool first_use(u32 hook, u64 value)
{
	__auto_type task = TASK_TO_COMPARE();
	u64 mm = OF_TASK(u64, task, OFFSET_task_mm), bit = 1ull << (value & 63);
	u32 tgid = OF_TASK(u32, task, OFFSET_task_tgid), at = tgid;
	u32 word = value >> 6 & (FACT_WORDS - 1);
	struct fact_slot *slots = MAP_VALUE(MAP_FACT_SLOTS);

	if ((value & ~(u64)COMPAT_BIT) >= FACT_WORDS * 64)
		return false;
	hook |= value & COMPAT_BIT;
	FORGET(at);
	struct fact_slot *slot = &slots[at & (FACT_SLOTS - 1)];

	if (slot->mm == mm && slot->tgid == tgid && slot->hook == hook) {
		if (slot->bits[word] & bit)
			return false;
		mm = KERNEL(u64, current_task() + OFFSET_task_mm); /* a number, to calculate with */
	} else {
		mm = KERNEL(u64, current_task() + OFFSET_task_mm);
		__builtin_memset(slot->bits, 0, sizeof(slot->bits));
		slot->mm = mm;
		slot->tgid = tgid;
		slot->hook = hook;
		slot->name = 0;
	}
	slot->bits[word] |= bit;
	struct fact_key key = { .hook = hook };

	fact_key_of_current(&key, mm);
	if (!slot->name && mm)
		slot->name = name_of_image(mm);
	key.name = slot->name;
	struct fact_bits *known = bpf_map_lookup_elem(MAP(MAP_FACTS), &key);

	if (known) {
		if (known->bits[word] & bit)
			return false;
		known->bits[word] |= bit;
		return true;
	}
	struct fact_bits first = {};

	first.bits[word] = bit;
	bpf_map_update_elem(MAP(MAP_FACTS), &key, &first, 0);
	return true;
}
