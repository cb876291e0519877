/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing to the ring. The collector reads it at intervals, up to a quarter of a second on a busy
 * host, and records do not wake it meanwhile (collector/bpf/reader.py). It is woken when the ring
 * becomes a quarter full.
 */
#pragma once

/* kernel/bpf/ringbuf.c, bpf_ringbuf_query() and ringbuf_map_poll(); include/uapi/linux/bpf.h */
#define RING_UNREAD 0 /* BPF_RB_AVAIL_DATA */
#define RING_SIZE 1 /* BPF_RB_RING_SIZE */
#define RING_WAKE 2 /* BPF_RB_FORCE_WAKEUP */

#define RING_SMALLEST 65536 /* settings.py: ring_size_bytes */

/*
 * Wakes the reader between a quarter and a half only: the reader is awake beyond that, and each
 * wake-up costs an interrupt.
 */
static __always_inline u64 ring_flags(u64 size)
{
	u64 unread = bpf_ringbuf_query(MAP(MAP_EVENTS), RING_UNREAD), quarter;

	if (unread + size < RING_SMALLEST / 4)
		return 0;
	quarter = bpf_ringbuf_query(MAP(MAP_EVENTS), RING_SIZE) / 4;
	return unread + size >= quarter && unread <= 2 * quarter ? RING_WAKE : 0;
}

static __always_inline long ring_output(void *data, u64 size)
{
	return bpf_ringbuf_output(MAP(MAP_EVENTS), data, size, ring_flags(size));
}
