/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of a packet's payload, behind its UDP header, that lies in the packet's linear part.
 * Small packets, such as DNS queries, lie there completely, unless they were sent in pieces
 * (MSG_MORE): these lie in pages, from the second on.
 */
#pragma once

#include "sockets.h"

#define PAYLOAD_MAX 512 /* the longest message of DNS over UDP (RFC 1035, 2.3.4) */
#define UDP_HEADER 8

struct payload_item {
	u64 original_size;
}; /* the bytes follow */

static __always_inline void write_skb_payload(struct scratch *s, u32 position, u64 skb)
{
	struct item *item = item_at_end(s);

	if (!item)
		return;
	struct payload_item *head = item_payload(item);
	u64 linear = KERNEL(u64, skb + OFFSET_skb_head);
	u32 transport = KERNEL(u16, skb + OFFSET_skb_transport_header);
	u32 tail = KERNEL(u32, skb + OFFSET_skb_tail); /* an offset on 64 bits: sk_buff_data_t */
	u32 begin = transport + UDP_HEADER;
	u32 len = tail > begin ? tail - begin : 0;
	u16 sent = swapped(KERNEL(u16, linear + transport + 4)); /* struct udphdr.len */

	head->original_size = sent > len + UDP_HEADER ? sent - UDP_HEADER : len;
	FORGET(len);
	if (len > PAYLOAD_MAX)
		len = PAYLOAD_MAX;
	FORGET(len);
	len &= 2 * PAYLOAD_MAX - 1;
	if (bpf_probe_read_kernel(head + 1, len, (void *)(linear + begin)) && len) {
		write_error(s, ITEM_SKB_PAYLOAD, position, ERROR_BUFFER, 2);
		return;
	}
	item_finish(s, item, ITEM_SKB_PAYLOAD, position,
		    head->original_size > len ? ITEM_TRUNCATED : 0, sizeof(*head) + len);
}
