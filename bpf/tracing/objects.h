/* SPDX-License-Identifier: Apache-2.0 */
/* BPF programs and maps, perf events. */
#pragma once

#include "record.h"

#define BPF_NAME_SIZE 16    /* BPF_OBJ_NAME_LEN */
#define KSYM_NAME_SIZE 128  /* of the text that is reported */

struct bpf_program_item {
	u32 type, instructions;
	char name[BPF_NAME_SIZE];
};

struct bpf_map_item {
	u32 type, key_size, value_size, max_entries;
	char name[BPF_NAME_SIZE];
};

struct perf_event_item {
	u64 config, probe_offset;
	u32 type, pad;
	char kprobe_func[KSYM_NAME_SIZE];
};

/*
 * union bpf_attr of BPF_PROG_LOAD: the kernel's copy; at the system call and in functions of a
 * program, the user memory of the program.
 */
static __always_inline long read_bpf_attr(void *to, u32 size, u64 address)
{
	return is_user_address(address) ? bpf_probe_read_user(to, size, (void *)address)
					: bpf_probe_read_kernel(to, size, (void *)address);
}

static __always_inline void write_bpf_attr(struct scratch *s, u32 position, u64 attr)
{
	struct item *item = item_at_end(s);

	if (!item)
		return;
	struct bpf_program_item *payload = item_payload(item);

	__builtin_memset(payload, 0, sizeof(*payload));
	if (read_bpf_attr(&payload->type, 4, attr + OFFSET_bpf_attr_prog_type)) {
		write_error(s, ITEM_BPF_ATTR, position, ERROR_VALUE, 0);
		return;
	}
	read_bpf_attr(&payload->instructions, 4, attr + OFFSET_bpf_attr_insn_cnt);
	read_bpf_attr(payload->name, BPF_NAME_SIZE, attr + OFFSET_bpf_attr_prog_name);
	item_finish(s, item, ITEM_BPF_ATTR, position, 0, sizeof(*payload));
}

static __always_inline void write_bpf_prog(struct scratch *s, u32 position, u64 prog)
{
	struct item *item = item_at_end(s);

	if (!item)
		return;
	struct bpf_program_item *payload = item_payload(item);
	u64 aux = KERNEL(u64, prog + OFFSET_bpf_prog_aux);

	__builtin_memset(payload, 0, sizeof(*payload));
	if (bpf_probe_read_kernel(&payload->type, 4, (void *)(prog + OFFSET_bpf_prog_type))) {
		write_error(s, ITEM_BPF_PROG, position, ERROR_VALUE, 0);
		return;
	}
	payload->instructions = KERNEL(u32, prog + OFFSET_bpf_prog_len);
	bpf_probe_read_kernel(payload->name, BPF_NAME_SIZE, (void *)(aux + OFFSET_bpf_prog_aux_name));
	item_finish(s, item, ITEM_BPF_PROG, position, 0, sizeof(*payload));
}

static __always_inline void write_bpf_map(struct scratch *s, u32 position, u64 map)
{
	struct item *item = item_at_end(s);

	if (!item)
		return;
	struct bpf_map_item *payload = item_payload(item);

	__builtin_memset(payload, 0, sizeof(*payload));
	if (bpf_probe_read_kernel(&payload->type, 4, (void *)(map + OFFSET_bpf_map_type))) {
		write_error(s, ITEM_BPF_MAP, position, ERROR_VALUE, 0);
		return;
	}
	payload->key_size = KERNEL(u32, map + OFFSET_bpf_map_key_size);
	payload->value_size = KERNEL(u32, map + OFFSET_bpf_map_value_size);
	payload->max_entries = KERNEL(u32, map + OFFSET_bpf_map_max_entries);
	bpf_probe_read_kernel(payload->name, BPF_NAME_SIZE, (void *)(map + OFFSET_bpf_map_name));
	item_finish(s, item, ITEM_BPF_MAP, position, 0, sizeof(*payload));
}

static __always_inline void write_perf_event(struct scratch *s, u32 position, u64 event)
{
	struct item *item = item_at_end(s);

	if (!item)
		return;
	struct perf_event_item *payload = item_payload(item);
	u64 attr = event + OFFSET_perf_event_attr, function;

	__builtin_memset(payload, 0, sizeof(*payload));
	if (bpf_probe_read_kernel(&payload->type, 4, (void *)(attr + OFFSET_perf_attr_type))) {
		write_error(s, ITEM_PERF_EVENT, position, ERROR_VALUE, 0);
		return;
	}
	payload->config = KERNEL(u64, attr + OFFSET_perf_attr_config);
	payload->probe_offset = KERNEL(u64, attr + OFFSET_perf_attr_probe_offset);
	function = KERNEL(u64, attr + OFFSET_perf_attr_kprobe_func);
	/* A name in the memory of the program that opens the event; or in the kernel, if it has been
	 * copied there already. */
	if (function && bpf_probe_read_kernel_str(payload->kprobe_func, KSYM_NAME_SIZE,
						  (void *)function) < 0)
		bpf_probe_read_user_str(payload->kprobe_func, KSYM_NAME_SIZE, (void *)function);
	item_finish(s, item, ITEM_PERF_EVENT, position, 0, sizeof(*payload));
}
