/* SPDX-License-Identifier: Apache-2.0 */
/* A module that is being loaded: struct load_info of kernel/module/internal.h. */
#pragma once

#include "modules.h"

static __always_inline void write_load_info(struct scratch *s, u32 position, u64 info)
{
	struct item *item = item_at_end(s);

	if (!item)
		return;
	struct module_item *payload = item_payload(item);
	u64 module = KERNEL(u64, info + OFFSET_load_info_mod);

	__builtin_memset(payload, 0, sizeof(*payload));
	if (bpf_probe_read_kernel_str(payload->name, MODULE_NAME_SIZE,
				      (void *)KERNEL(u64, info + OFFSET_load_info_name)) < 0) {
		write_error(s, ITEM_LOAD_INFO, position, ERROR_VALUE, 0);
		return;
	}
	if (module)
		payload->taints = KERNEL(u64, module + OFFSET_module_taints);
	payload->signature_ok = KERNEL(u8, info + OFFSET_load_info_sig_ok) ? 1 : 0;
	item_finish(s, item, ITEM_LOAD_INFO, position, 0, sizeof(*payload));
}
