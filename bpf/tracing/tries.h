/* SPDX-License-Identifier: Apache-2.0 */
/* Prefixes and suffixes in longest-prefix tries, used when there are too many to compare in
 * code. */
#pragma once

#include "text.h"

static __always_inline bool begins_in_trie(struct scratch *s, void *trie, const char *text,
					   u32 len, u32 key_size)
{
	struct trie_key *key = &s->trie_key;
	u32 size = len > key_size ? key_size : len;

	FORGET(size);
	size &= 2 * TRIE_KEY_MAX - 1;
	if (size > key_size)
		return false;
	key->bits = 8 * size;
	bpf_probe_read_kernel(key->text, size, text);
	return bpf_map_lookup_elem(trie, key) != NULL;
}

/* Keys are written backwards. */
static __always_inline bool ends_in_trie(struct scratch *s, void *trie, const char *text, u32 len,
					 u32 key_size)
{
	struct trie_key *key = &s->trie_key;
	u32 size = len > key_size ? key_size : len;

	key->bits = 8 * size;
#pragma clang loop unroll(disable)
	/* All words, for every size: a lookup reads only key->bits bits. */
	for (u32 i = 0; i < key_size; i++)
		key->text[i & (TRIE_KEY_MAX - 1)] = *tail(text, len, i + 1);
	return bpf_map_lookup_elem(trie, key) != NULL;
}
