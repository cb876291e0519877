/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file's digest from the integrity subsystem, in sleepable LSM programs: bpf_ima_file_hash()
 * (v5.18) measures the file if necessary, bpf_ima_inode_hash() (v5.11) only reports a digest that
 * IMA already has. The context's first word is the file, or the struct linux_binprm, as the
 * verifier knows it.
 */
#pragma once

#include "record.h"

#define IMA_DIGEST_MAX 64

struct ima_item {
	u64 algorithm; /* enum hash_algo */
	u8 digest[IMA_DIGEST_MAX];
};

static __always_inline void write_ima_hash(struct scratch *s, void *file)
{
	struct item *item = item_at_end(s);
	long algorithm;

	if (!item)
		return;
	struct ima_item *payload = item_payload(item);

	__builtin_memset(payload, 0, sizeof(*payload));
#ifdef HAVE_IMA_FILE_HASH
	algorithm = bpf_ima_file_hash(file, payload->digest, IMA_DIGEST_MAX);
#else
	algorithm = bpf_ima_inode_hash(*(void **)(file + OFFSET_file_inode), payload->digest,
				       IMA_DIGEST_MAX);
#endif
	if (algorithm < 0)
		return;
	payload->algorithm = algorithm;
	item_finish(s, item, ITEM_IMA_HASH, POSITION_IMA_HASH, 0, sizeof(*payload));
}

static __always_inline void write_ima_hash_of_file(struct scratch *s, u64 *ctx)
{
	write_ima_hash(s, (void *)ctx[0]);
}

static __always_inline void write_ima_hash_of_binprm(struct scratch *s, u64 *ctx)
{
	write_ima_hash(s, *(void **)((void *)ctx[0] + OFFSET_binprm_file));
}
