/* SPDX-License-Identifier: Apache-2.0 */
/* Strings: read into the record, compared there by words of eight bytes. */
#pragma once

#include "record.h"

/*
 * The eight bytes of a text from a byte offset, as a number: "/etc/pas" is 0x7361702f6374652f.
 * Bytes behind the text's end are undefined: they are masked, or excluded by a compare of lengths.
 */
static __always_inline u64 word(const char *text, u32 offset)
{
	return *(const u64 *)(text + offset);
}

/* Where the last `size` bytes of a text begin. */
static __always_inline const char *tail(const char *text, u32 len, u32 size)
{
	u32 from = len - size;

	FORGET(from);
	from &= TEXT_MAX - 1;
	return text + from;
}

/* Bytes that were read, with the NUL, or a negative error. */
static __always_inline long read_string(void *to, u32 size, u64 address, bool user)
{
	return user ? bpf_probe_read_user_str(to, size, (void *)address)
		    : bpf_probe_read_kernel_str(to, size, (void *)address);
}

/*
 * The NUL-terminated string at an address becomes an item. Its length, or -1 with an error item
 * in its place; *text points to its bytes.
 */
static __always_inline s32 write_string(struct scratch *s, u32 type, u32 position, u64 address,
					bool user, char **text)
{
	struct item *item = item_at_end(s);
	long len;

	*text = NULL;
	if (!item)
		return -1;
	*text = item_payload(item);
	len = read_string(*text, TEXT_MAX, address, user);
	if (len < 0) {
		write_error(s, type, position, ERROR_VALUE, 0);
		return -1;
	}
	/* An empty string counts 0 instead of 1 until "maccess: fix strncpy_from_user_nofault()
	 * empty string handling", v6.2. */
	if (len > 0)
		len -= 1;
	item_finish(s, item, type, position, 0, len);
	return len;
}

/*
 * SubString: a deterministic automaton (Aho-Corasick) over classes of bytes, in a map of its own:
 * u8 classes[256], then u16 next[states][classes]. The last state accepts and is never left, so
 * the cost does not depend on how many texts are looked for. `len` is below TEXT_MAX.
 */
#define SUBSTRING_CHUNK 8

static __always_inline bool contains(char *text, u32 len, const u8 *automaton, u32 classes,
				     u32 mask, u32 accepting)
{
	const u16 *next = (const u16 *)(automaton + 256);
	u32 state = 0;

	/* The last chunk may extend past the end: bytes there must not match. */
	FORGET(len);
	len &= TEXT_MAX - 1;
	*(u64 *)(text + len) = 0;
#pragma clang loop unroll(disable)
	for (u32 at = 0; at < TEXT_MAX; at += SUBSTRING_CHUNK) {
		if (at >= len)
			break;
#pragma unroll
		for (u32 i = 0; i < SUBSTRING_CHUNK; i++) {
			u8 byte = text[at + i];
			u32 index = state * classes + automaton[byte];

			FORGET(index);
			state = next[index & mask];
		}
	}
	return state == accepting;
}
