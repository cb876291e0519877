/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that keep struct image of every process: raw tracepoints of fork, exec and exit, as the
 * base programs use them (bpf/process), and a program that user space runs to change an image in
 * place. Part of the text of each policy that needs images; the first of these policies loads them.
 */
#pragma once

#include "files.h"
#include "image.h"

/* The lists of an executable, by its path: whole, by prefix, by suffix (backwards). */
#define BINARY_PATH_MAX 255
#define BINARY_SUFFIX_MAX 127
#define PREFIX_KEY 256
#define SUFFIX_KEY 128

_Static_assert(__builtin_offsetof(struct scratch, text) % 8 == 0, "words of it are read");

static __always_inline u64 lists_of(struct scratch *s, u64 file, bool *known)
{
	u64 pair[2] = {}, lists = 0, *found;
	u32 start, len;

	*known = false;
	bpf_probe_read_kernel(pair, sizeof(pair), (void *)(file + OFFSET_file_path));
	if (!pair[1])
		return 0;
	walk_up(s, pair[0], pair[1], false);
	start = s->text_start;
	len = TEXT_MAX - start;
	*known = len > 0;

	/* From the beginning: for exact names padded with 0, for prefixes with its length. */
	struct trie_key *key = &s->trie_key;

	__builtin_memset(key, 0, sizeof(*key));
	FORGET(start);
	start &= TEXT_MAX - 1;
	FORGET(len);
	len &= 2 * TEXT_MAX - 1;
	u32 head = len > BINARY_PATH_MAX ? BINARY_PATH_MAX : len;

	FORGET(head);
	head &= BINARY_PATH_MAX;
	bpf_probe_read_kernel(key->text, head, s->text + start);
	found = bpf_map_lookup_elem(MAP(MAP_BINARIES), key->text);
	if (found)
		lists |= *found;
	key->bits = 8 * head;
	found = bpf_map_lookup_elem(MAP(MAP_BINARY_PREFIXES), key);
	if (found)
		lists |= *found;

	/* From the end, backwards. */
	u32 size = len > BINARY_SUFFIX_MAX ? BINARY_SUFFIX_MAX : len;

	__builtin_memset(key, 0, sizeof(*key));
	key->bits = 8 * size;
	/* All words, for every size: a lookup reads only key->bits bits. */
	u32 *to = __builtin_assume_aligned(key->text, 4);
	u64 *from = __builtin_assume_aligned(s->text + TEXT_MAX, 8);

#pragma unroll
	for (u32 i = 0; i < SUFFIX_KEY / 8; i++) {
		u64 turned = __builtin_bswap64(*--from);

		*to++ = turned;
		*to++ = turned >> 32;
	}
	found = bpf_map_lookup_elem(MAP(MAP_BINARY_SUFFIXES), key);
	if (found)
		lists |= *found;
	return lists;
}

int on_image_fork(u64 *ctx)
{
	u64 child = ctx[1];
	u32 pid = KERNEL(u32, child + OFFSET_task_tgid), parent_pid;
	struct image image = {}, *parent;
	struct upid_view upid = {};

	if (KERNEL(u32, child + OFFSET_task_pid) != pid)
		return 0; /* a thread */
	/* Not `current`: with CLONE_PARENT the parent is the caller's own. */
	parent_pid = KERNEL(u32, KERNEL(u64, child + OFFSET_task_real_parent) + OFFSET_task_tgid);
	parent = find_image(parent_pid);
	if (parent) {
		image = *parent;
		image.parent_binaries = parent->binaries;
		image.parent_lineage = parent->lineage;
		image.flags |= IMAGE_PARENT_KNOWN;
	}
	image.parent_pid = parent_pid;
	image.nspid = own_upid(child, &upid) ? upid.number : 0;
	bpf_map_update_elem(MAP(MAP_IMAGES), &pid, &image, 0);
	empty_cells(pid);
	return 0;
}

int on_image_exec(u64 *ctx)
{
	u64 task = ctx[0], file = KERNEL(u64, ctx[2] + OFFSET_binprm_file);
	u32 pid = KERNEL(u32, task + OFFSET_task_tgid);
	struct image *known = find_image(pid), image = {};
	struct scratch *s;
	struct upid_view upid = {};
	bool path_known = false;

	if (known)
		image = *known;
	s = take_scratch();
	if (s) {
		image.binaries = lists_of(s, file, &path_known);
		release_scratch(s);
	}
	image.lineage |= image.binaries;
	image.execs++;
	image.flags |= IMAGE_STATE_KNOWN;
	image.flags &= ~IMAGE_PATH_KNOWN;
	if (path_known)
		image.flags |= IMAGE_PATH_KNOWN;
	image.parent_pid =
		KERNEL(u32, KERNEL(u64, task + OFFSET_task_real_parent) + OFFSET_task_tgid);
	image.nspid = own_upid(task, &upid) ? upid.number : 0;
	read_image_state(&image);
	bpf_map_update_elem(MAP(MAP_IMAGES), &pid, &image, 0);
	empty_cells(pid);
	return 0;
}

int on_image_exit(u64 *ctx)
{
	u64 task = ctx[0], signal = KERNEL(u64, task + OFFSET_task_signal);
	u32 pid = KERNEL(u32, task + OFFSET_task_tgid);

	/* The last thread; two threads that exit together both see 0, and the second finds no image. */
	if (!KERNEL(u32, signal + OFFSET_signal_live)) {
		bpf_map_delete_elem(MAP(MAP_IMAGES), &pid);
		empty_cells(pid);
	}
	return 0;
}

/*
 * Run by user space, with numbers in place of arguments: set and clear bits in the image of a
 * process that was already running, unless the image has changed since user space read it.
 */
int on_image_mark(u64 *ctx)
{
	u32 pid = ctx[0], execs = ctx[1];
	struct image *image = find_image(pid);
	struct process_lists *all = MAP_VALUE(MAP_PROCESS_LISTS);

	if (!image || image->execs != execs)
		return 1;
	image->binaries = (image->binaries & ~ctx[2]) | ctx[3];
	image->lineage = (image->lineage & ~ctx[2]) | ctx[4];
	image->parent_binaries = (image->parent_binaries & ~ctx[2]) | ctx[5];
	image->parent_lineage = (image->parent_lineage & ~ctx[2]) | ctx[6];
	/* After the stores above: cells with older lists then have an older generation. */
	__sync_fetch_and_add(&all->generation, 1);
	return 0;
}
