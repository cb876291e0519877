/* SPDX-License-Identifier: Apache-2.0 */
/* Credentials and user namespaces. */
#pragma once

#include "record.h"

struct user_namespace_item {
	s32 level; /* 0: the host's */
	u32 uid, gid; /* of its owner */
	u32 inum;
};

struct cred_item {
	u32 uid, gid, suid, sgid, euid, egid, fsuid, fsgid; /* as struct cred has them */
	u32 securebits, pad;
	u64 permitted, effective, inheritable;
	struct user_namespace_item user_ns;
};

static __always_inline bool read_user_namespace(struct user_namespace_item *item, u64 user_ns)
{
	if (!user_ns ||
	    bpf_probe_read_kernel(&item->level, 4, (void *)(user_ns + OFFSET_user_ns_level)))
		return false;
	item->uid = KERNEL(u32, user_ns + OFFSET_user_ns_owner);
	item->gid = KERNEL(u32, user_ns + OFFSET_user_ns_group);
	item->inum = KERNEL(u32, user_ns + OFFSET_user_ns_inum);
	return true;
}

static __always_inline void write_user_namespace(struct scratch *s, u32 position, u64 user_ns)
{
	struct item *item = item_at_end(s);

	if (!item)
		return;
	if (!read_user_namespace(item_payload(item), user_ns)) {
		write_error(s, ITEM_USER_NAMESPACE, position, ERROR_VALUE, 0);
		return;
	}
	item_finish(s, item, ITEM_USER_NAMESPACE, position, 0, sizeof(struct user_namespace_item));
}

static __always_inline void write_cred(struct scratch *s, u32 position, u64 cred)
{
	struct item *item = item_at_end(s);

	if (!item)
		return;
	struct cred_item *payload = item_payload(item);

	/* uid to fsgid are eight numbers in a row since v2.6.29 (include/linux/cred.h). */
	if (!cred || bpf_probe_read_kernel(payload, 32, (void *)(cred + OFFSET_cred_uid))) {
		write_error(s, ITEM_CRED, position, ERROR_VALUE, 0);
		return;
	}
	payload->securebits = KERNEL(u32, cred + OFFSET_cred_securebits);
	payload->pad = 0;
	/* kernel_cap_t was u32[2] until v6.3, u64 since: on little endian the same eight bytes. */
	payload->permitted = KERNEL(u64, cred + OFFSET_cred_permitted);
	payload->effective = KERNEL(u64, cred + OFFSET_cred_effective);
	payload->inheritable = KERNEL(u64, cred + OFFSET_cred_inheritable);
	__builtin_memset(&payload->user_ns, 0, sizeof(payload->user_ns));
	read_user_namespace(&payload->user_ns, KERNEL(u64, cred + OFFSET_cred_user_ns));
	item_finish(s, item, ITEM_CRED, position, 0, sizeof(*payload));
}
