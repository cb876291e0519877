/* SPDX-License-Identifier: Apache-2.0 */
/* Memory with a length: char_buf, char_iovec, iov_iter, and fields that are arrays. */
#pragma once

#include "text.h"

#define BUFFER_MAX (TEXT_MAX - 1)
#define IOVEC_MAX 7
#define ENTRY_MAX (TEXT_MAX - 2)

struct buffer_item {
	u64 original_size;
}; /* the bytes follow */

#define NO_LIMIT (~0ull)

struct iovec_entry {
	u64 base, len;
};

/*
 * At most BUFFER_MAX bytes at an address become an item; the length that was read, or -1.
 *
 * A size that is negative in 32 bits, such as that of a returnCopy after a call that failed, is an
 * error code in Tetragon: its events have the name of the error in place of the bytes.
 */
enum buffer_fault {
	FAULT_UNKNOWN,
	FAULT_NO_MEMORY, /* -1 */
	FAULT_PAGE,	 /* -2 */
	FAULT_TOO_LARGE, /* -3 */
};
#define NOTHING_TO_READ (-4)

static __always_inline s32 write_buffer(struct scratch *s, u32 type, u32 position, u64 address,
					u64 size, bool user, char **text)
{
	struct item *item = item_at_end(s);
	u32 len = size > BUFFER_MAX ? BUFFER_MAX : size;
	long failed;

	*text = NULL;
	if (!item)
		return -1;
	struct buffer_item *head = item_payload(item);

	head->original_size = size;
	*text = (char *)(head + 1);
	FORGET(len);
	len &= TEXT_MAX - 1;
	if (user)
		failed = bpf_probe_read_user(*text, len, (void *)address);
	else
		failed = bpf_probe_read_kernel(*text, len, (void *)address);
	if (failed && len) {
		write_error(s, type, position, ERROR_BUFFER, FAULT_PAGE);
		return -1;
	}
	s32 code = size;

	if (code == NOTHING_TO_READ) {
		head->original_size = 0;
		item_finish(s, item, type, position, 0, sizeof(*head));
		return 0;
	}
	if (code < 0) {
		u32 fault = code >= -3 ? -code : FAULT_UNKNOWN;

		write_error(s, type, position, ERROR_BUFFER, fault);
		return -1;
	}
	item_finish(s, item, type, position, size > len ? ITEM_TRUNCATED : 0, sizeof(*head) + len);
	return len;
}

/*
 * The entries of an array of struct iovec, joined: at most IOVEC_MAX, `limit` bytes of them, and
 * BUFFER_MAX bytes in the item.
 */
static __always_inline s32 write_iovec(struct scratch *s, u32 type, u32 position, u64 entries,
				       u64 count, bool user, u64 limit, char **text)
{
	struct item *item = item_at_end(s);
	u64 total = 0;
	u32 used = 0;

	*text = NULL;
	if (!item)
		return -1;
	struct buffer_item *head = item_payload(item);

	*text = (char *)(head + 1);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < IOVEC_MAX; i++) {
		struct iovec_entry entry = {};
		u64 address = entries + i * sizeof(entry);
		long failed;

		if (i >= count || total >= limit)
			break;
		failed = user ? bpf_probe_read_user(&entry, sizeof(entry), (void *)address)
			      : bpf_probe_read_kernel(&entry, sizeof(entry), (void *)address);
		if (failed) {
			write_error(s, type, position, ERROR_BUFFER, FAULT_PAGE);
			return -1;
		}
		if (entry.len > limit - total)
			entry.len = limit - total;
		if (entry.len > ENTRY_MAX) {
			write_error(s, type, position, ERROR_BUFFER, FAULT_TOO_LARGE);
			return -1;
		}
		total += entry.len;
		u32 len = entry.len, at = used;

		if (at + len > BUFFER_MAX)
			len = BUFFER_MAX - at;
		FORGET(len);
		len &= TEXT_MAX - 1;
		FORGET(at);
		at &= TEXT_MAX - 1;
		if (at + len > BUFFER_MAX)
			break;
		/* Entries point into the memory of the program, not into the copied array. */
		if (len && bpf_probe_read_user(*text + at, len, (void *)entry.base)) {
			write_error(s, type, position, ERROR_BUFFER, FAULT_PAGE);
			return -1;
		}
		used = at + len;
	}
	head->original_size = total;
	item_finish(s, item, type, position, total > used ? ITEM_TRUNCATED : 0,
		    sizeof(*head) + used);
	return used;
}

/*
 * struct iov_iter: the segment that it stands at, for kinds that lie in user memory. The kinds
 * are enum iter_type; their numbers and the members' places come from BTF.
 */
static __always_inline s32 write_iov_iter(struct scratch *s, u32 position, u64 iter, char **text)
{
	u8 kind = KERNEL(u8, iter + OFFSET_iov_iter_type);
	u64 base = 0, len = 0;

#if ITER_IOVEC != 0
	kind &= ~3; /* until v5.13 bit 0 is the direction, and bit 1 a flag of pages */
#endif
#ifdef ITER_UBUF
	if (kind == ITER_UBUF) {
		base = KERNEL(u64, iter + OFFSET_iov_iter_ubuf);
		len = KERNEL(u64, iter + OFFSET_iov_iter_count);
	}
#endif
	if (kind == ITER_IOVEC) {
		struct iovec_entry entry = {};

		bpf_probe_read_kernel(&entry, sizeof(entry),
				      (void *)KERNEL(u64, iter + OFFSET_iov_iter_iov));
		base = entry.base;
		len = entry.len;
	}
	return write_buffer(s, ITEM_IOV_ITER, position, base, base ? len : 0, true, text);
}

/* An array in the record of a tracepoint: `size` bytes, at most TEXT_MAX. */
#define write_array(s, position, address, size)                                                \
	({                                                                                     \
		struct item *_item = item_at_end(s);                                           \
		if (_item) {                                                                   \
			bpf_probe_read_kernel(item_payload(_item), size, (void *)(address));   \
			item_finish(s, _item, ITEM_CONST_BUF, position, 0, size);              \
		}                                                                              \
	})
