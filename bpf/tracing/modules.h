/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel modules. */
#pragma once

#include "record.h"

#define MODULE_NAME_SIZE 64 /* above MODULE_NAME_LEN, 56 */

struct module_item {
	u64 taints;
	u32 signature_ok; /* 0, 1; 2: unknown */
	u32 pad;
	char name[MODULE_NAME_SIZE];
};

static __always_inline void write_module(struct scratch *s, u32 position, u64 module)
{
	struct item *item = item_at_end(s);

	if (!item)
		return;
	struct module_item *payload = item_payload(item);

	__builtin_memset(payload, 0, sizeof(*payload));
	if (bpf_probe_read_kernel_str(payload->name, MODULE_NAME_SIZE,
				      (void *)(module + OFFSET_module_name)) < 0) {
		write_error(s, ITEM_MODULE, position, ERROR_VALUE, 0);
		return;
	}
	payload->taints = KERNEL(u64, module + OFFSET_module_taints);
	payload->signature_ok = 2;
	item_finish(s, item, ITEM_MODULE, position, 0, sizeof(*payload));
}
