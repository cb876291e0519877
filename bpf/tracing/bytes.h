/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CountSent, CountReceived: bytes of a socket that the kernel does not count itself, as those of
 * UDP. UntrackSock forgets them.
 */
#pragma once

#include "record.h"

#define NO_EXIST 1 /* BPF_NOEXIST of include/uapi/linux/bpf.h */

struct sock_bytes {
	u64 since_ns; /* boot clock, of the first count */
	u64 sent, received;
};
_Static_assert(sizeof(struct sock_bytes) == 24, "MapNumbers.sock_bytes() of policies/maps.py");

static __always_inline void count_bytes(u64 sock, u64 sent, u64 received)
{
	struct sock_bytes *known = bpf_map_lookup_elem(MAP(MAP_SOCK_BYTES), &sock);

	if (!known) {
		struct sock_bytes first = { .since_ns = bpf_ktime_get_boot_ns() };

		if (!sock)
			return;
		/* Another CPU can be first too: then both add to its counts. */
		bpf_map_update_elem(MAP(MAP_SOCK_BYTES), &sock, &first, NO_EXIST);
		known = bpf_map_lookup_elem(MAP(MAP_SOCK_BYTES), &sock);
		if (!known)
			return;
	}
	if (sent)
		__sync_fetch_and_add(&known->sent, sent);
	if (received)
		__sync_fetch_and_add(&known->received, received);
}

static __always_inline void forget_bytes(u64 sock)
{
	bpf_map_delete_elem(MAP(MAP_SOCK_BYTES), &sock);
}

static __always_inline u64 sock_sent(u64 sock)
{
	struct sock_bytes *known = bpf_map_lookup_elem(MAP(MAP_SOCK_BYTES), &sock);

	return known ? known->sent : 0;
}

static __always_inline u64 sock_received(u64 sock)
{
	struct sock_bytes *known = bpf_map_lookup_elem(MAP(MAP_SOCK_BYTES), &sock);

	return known ? known->received : 0;
}

/* Since the first byte was counted; 0: none was. */
static __always_inline u64 sock_used(u64 sock)
{
	struct sock_bytes *known = bpf_map_lookup_elem(MAP(MAP_SOCK_BYTES), &sock);

	return known ? bpf_ktime_get_boot_ns() - known->since_ns : 0;
}

/* Of a packet whose UDP header is written: the length of its data. */
static __always_inline u64 udp_size(u64 skb)
{
	u64 head = KERNEL(u64, skb + OFFSET_skb_head);
	u16 length = KERNEL(u16, head + KERNEL(u16, skb + OFFSET_skb_transport_header) + 4);

	length = length << 8 | length >> 8;
	return length > 8 ? length - 8 : 0;
}
