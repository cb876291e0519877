/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets, packets and socket addresses: a view for filters, which is also the item's payload. */
#pragma once

#include "record.h"

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58

struct sock_view {
	u64 cookie; /* address of the sock */
	u32 mark, priority;
	u16 family, type, protocol, state;
	u16 sport, dport; /* host order */
	u32 pad;
	u8 saddr[16], daddr[16]; /* the first four bytes for IPv4 */
};

struct skb_view {
	u32 hash, len, mark, priority;
	u16 family, protocol; /* protocol: of the IP header */
	u16 sport, dport;
	u32 sec_path_len, sec_path_olen;
	u8 saddr[16], daddr[16];
};

/* rates.h knows where addresses and ports are. */
_Static_assert(__builtin_offsetof(struct sock_view, sport) == 24, "rated_part()");
_Static_assert(__builtin_offsetof(struct skb_view, family) == 16, "rated_part()");

struct sockaddr_view {
	u16 family, sport; /* the port, under the name that filters use */
	u32 pad;
	u8 saddr[16];
};

static __always_inline u16 swapped(u16 value)
{
	return value << 8 | value >> 8;
}

/* Fill the view of a struct sock; whether there is one. */
static __always_inline bool view_sock(struct sock_view *view, u64 sock)
{
	u64 common = sock + OFFSET_sock_common;

	if (!sock || bpf_probe_read_kernel(&view->family, 2, (void *)(common + OFFSET_common_family)))
		return false;
	view->cookie = sock;
	view->type = KERNEL(u16, sock + OFFSET_sock_type);
#ifdef SOCK_PROTOCOL_IS_BYTE
	view->protocol = KERNEL(u8, sock + OFFSET_sock_protocol);
#else
	view->protocol = KERNEL(u16, sock + OFFSET_sock_protocol);
#endif
	view->state = KERNEL(u8, common + OFFSET_common_state);
	view->mark = KERNEL(u32, sock + OFFSET_sock_mark);
	view->priority = KERNEL(u32, sock + OFFSET_sock_priority);
	view->sport = KERNEL(u16, common + OFFSET_common_num);
	view->dport = swapped(KERNEL(u16, common + OFFSET_common_dport));
#ifdef OWN_API /* Tetragon reports port 0 in this case */
	/* tcp_set_state() of net/ipv4/tcp.c frees the port before it reports TCP_CLOSE. */
	if (!view->sport && (view->family == AF_INET || view->family == AF_INET6))
		view->sport = swapped(KERNEL(u16, sock + OFFSET_inet_sport));
#endif
	if (view->family == AF_INET) {
		bpf_probe_read_kernel(view->saddr, 4, (void *)(common + OFFSET_common_rcv_saddr));
		bpf_probe_read_kernel(view->daddr, 4, (void *)(common + OFFSET_common_daddr));
	} else if (view->family == AF_INET6) {
		bpf_probe_read_kernel(view->saddr, 16,
				      (void *)(common + OFFSET_common_v6_rcv_saddr));
		bpf_probe_read_kernel(view->daddr, 16, (void *)(common + OFFSET_common_v6_daddr));
	}
	return true;
}

static __always_inline u64 sock_of_socket(u64 socket)
{
	return socket ? KERNEL(u64, socket + OFFSET_socket_sk) : 0;
}

/* Ports of TCP and UDP are the first four bytes of the transport header. */
static __always_inline void view_ports(struct skb_view *view, u64 transport)
{
	u16 ports[2] = {};

	if (view->protocol != IPPROTO_TCP && view->protocol != IPPROTO_UDP)
		return;
	bpf_probe_read_kernel(ports, sizeof(ports), (void *)transport);
	view->sport = swapped(ports[0]);
	view->dport = swapped(ports[1]);
}

/*
 * Behind the IPv6 header at `ip` (struct ipv6hdr): the address of the first header that is no
 * extension, whose protocol *protocol becomes; 0 behind more extensions than a packet may have
 * (RFC 8200, 4.1), or where one cannot be read.
 */
#define IP6_EXTENSIONS_MAX 7
#define IP6_HOP_BY_HOP 0
#define IP6_ROUTING 43
#define IP6_FRAGMENT 44
#define IP6_AUTHENTICATION 51
#define IP6_DESTINATION 60

static __always_inline u64 skip_ip6_extensions(u64 ip, u16 *protocol)
{
	u8 next = KERNEL(u8, ip + 6), head[2]; /* of an extension: next header, length */
	u64 at = ip + 40;

#pragma unroll
	for (int i = 0; i < IP6_EXTENSIONS_MAX; i++) {
		bool eights = next == IP6_HOP_BY_HOP || next == IP6_ROUTING || next == IP6_DESTINATION;

		if (!eights && next != IP6_FRAGMENT && next != IP6_AUTHENTICATION) {
			*protocol = next;
			return at;
		}
		if (bpf_probe_read_kernel(head, sizeof(head), (void *)at))
			break;
		at += eights ? 8 * head[1] + 8 : next == IP6_FRAGMENT ? 8 : 4 * head[1] + 8;
		next = head[0];
	}
	*protocol = 0;
	return at;
}

/*
 * Fill the view of a struct sk_buff from the headers at the offsets that it gives. A packet that
 * is no IP leaves family, addresses and ports 0.
 */
static __always_inline bool view_skb(struct skb_view *view, u64 skb)
{
	u64 head = 0;

	if (!skb || bpf_probe_read_kernel(&head, sizeof(head), (void *)(skb + OFFSET_skb_head)))
		return false;
	u16 network = KERNEL(u16, skb + OFFSET_skb_network_header);
	u16 transport = KERNEL(u16, skb + OFFSET_skb_transport_header);
	u64 ip = head + network;
	u8 version = KERNEL(u8, ip) >> 4;

	view->hash = KERNEL(u32, skb + OFFSET_skb_hash);
	view->len = KERNEL(u32, skb + OFFSET_skb_len);
	view->mark = KERNEL(u32, skb + OFFSET_skb_mark);
	view->priority = KERNEL(u32, skb + OFFSET_skb_priority);
	if (version == 4) {
		u8 header = (KERNEL(u8, ip) & 15) * 4;

		view->family = AF_INET;
		view->protocol = KERNEL(u8, ip + 9); /* struct iphdr */
		bpf_probe_read_kernel(view->saddr, 4, (void *)(ip + 12));
		bpf_probe_read_kernel(view->daddr, 4, (void *)(ip + 16));
		/* 0xffff: not set (skb_transport_header_was_set) */
		view_ports(view, transport == 0xffff ? ip + header : head + transport);
	} else if (version == 6) {
		view->family = AF_INET6;
		u64 behind = skip_ip6_extensions(ip, &view->protocol);

		bpf_probe_read_kernel(view->saddr, 16, (void *)(ip + 8));
		bpf_probe_read_kernel(view->daddr, 16, (void *)(ip + 24));
		view_ports(view, behind);
	}
#ifdef HAVE_sec_path_len
	/* Extension 1 of 0 is SKB_EXT_SEC_PATH where both are configured: see skb_ext_find(). */
	if (KERNEL(u8, skb + OFFSET_skb_active_extensions) & 1 << SKB_EXT_SEC_PATH) {
		u64 extensions = KERNEL(u64, skb + OFFSET_skb_extensions);
		u64 path = extensions +
			   8 * (u64)KERNEL(u8, extensions + OFFSET_skb_ext_offset + SKB_EXT_SEC_PATH);

		view->sec_path_len = KERNEL(u32, path + OFFSET_sec_path_len);
		view->sec_path_olen = KERNEL(u32, path + OFFSET_sec_path_olen);
	}
#endif
	return true;
}

static __always_inline bool view_sockaddr(struct sockaddr_view *view, u64 address, bool user)
{
	u8 raw[28] = {}; /* struct sockaddr_in6 */
	long failed;

	if (user)
		failed = bpf_probe_read_user(raw, 2, (void *)address);
	else
		failed = bpf_probe_read_kernel(raw, 2, (void *)address);
	if (failed)
		return false;
	view->family = raw[0] | raw[1] << 8;
	u32 size = view->family == AF_INET6 ? 24 : view->family == AF_INET ? 8 : 0;

	if (!size)
		return true;
	/* Constant sizes, which the verifier of 5.10 requires. */
	if (view->family == AF_INET6) {
		failed = user ? bpf_probe_read_user(raw, 28, (void *)address)
			      : bpf_probe_read_kernel(raw, 28, (void *)address);
		__builtin_memcpy(view->saddr, raw + 8, 16);
	} else {
		failed = user ? bpf_probe_read_user(raw, 8, (void *)address)
			      : bpf_probe_read_kernel(raw, 8, (void *)address);
		__builtin_memcpy(view->saddr, raw + 4, 4);
	}
	view->sport = raw[2] << 8 | raw[3];
	return !failed;
}

/* Append a view as an item. */
#define write_view(s, type, position, view)                                                    \
	({                                                                                     \
		struct item *_item = item_at_end(s);                                           \
		if (_item) {                                                                   \
			__builtin_memcpy(item_payload(_item), (view), sizeof(*(view)));        \
			item_finish(s, _item, type, position, 0, sizeof(*(view)));             \
		}                                                                              \
	})

/*
 * struct sockaddr_un: u16 family, then the path: up to 108 bytes. A path name ends at its NUL. An
 * abstract name begins with a NUL and ends with the address, whose length `address_len` says; if it
 * is unknown (~0), the name ends at the next NUL, since the bytes behind are undefined.
 */
#define SUN_PATH_MAX 108

struct sockaddr_un_item {
	u16 family;
	u16 pad[3];
}; /* the path follows */

static __always_inline s32 write_sockaddr_un(struct scratch *s, u32 position, u64 address,
					     u32 address_len, bool user, char **text, u16 *family)
{
	struct item *item = item_at_end(s);
	long failed;

	*text = NULL;
	*family = 0;
	if (!item)
		return -1;
	struct sockaddr_un_item *head = item_payload(item);
	char *path = (char *)(head + 1);

	__builtin_memset(head, 0, sizeof(*head));
	if (user)
		failed = bpf_probe_read_user(&head->family, 2, (void *)address);
	else
		failed = bpf_probe_read_kernel(&head->family, 2, (void *)address);
	if (failed) {
		write_error(s, ITEM_SOCKADDR_UN, position, ERROR_VALUE, 0);
		return -1;
	}
	*family = head->family;
	*text = path;
	if (head->family != AF_UNIX || address_len == sizeof(u16)) { /* unnamed */
		item_finish(s, item, ITEM_SOCKADDR_UN, position, 0, sizeof(*head));
		return 0;
	}
	if (user)
		failed = bpf_probe_read_user(path, SUN_PATH_MAX, (void *)address + 2);
	else
		failed = bpf_probe_read_kernel(path, SUN_PATH_MAX, (void *)address + 2);
	if (failed) {
		write_error(s, ITEM_SOCKADDR_UN, position, ERROR_VALUE, 0);
		return -1;
	}
	bool abstract = path[0] == 0;

	if (abstract)
		path[0] = '@'; /* as in events; the item's flag marks an abstract name */
	path[SUN_PATH_MAX] = 0;
	long len = bpf_probe_read_kernel_str(s->text, SUN_PATH_MAX + 1, path);

	if (len < 1)
		return -1;
	len -= 1;
	if (abstract && address_len <= SUN_PATH_MAX + sizeof(u16))
		len = address_len - sizeof(u16);
	item_finish(s, item, ITEM_SOCKADDR_UN, position, abstract ? ITEM_ABSTRACT : 0,
		    sizeof(*head) + len);
	return len;
}

/* Longest-prefix tries of networks: the length in bits, then the address. */
struct network_key4 {
	u32 bits;
	u8 address[4];
};
struct network_key6 {
	u32 bits;
	u8 address[16];
};

static __always_inline bool in_networks4(void *trie, const u8 *address)
{
	struct network_key4 key = { .bits = 32 };

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return bpf_map_lookup_elem(trie, &key) != NULL;
}

static __always_inline bool in_networks6(void *trie, const u8 *address)
{
	struct network_key6 key = { .bits = 128 };

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return bpf_map_lookup_elem(trie, &key) != NULL;
}

/* The address as numbers, in the byte order of the wire. */
static __always_inline u32 address4(const u8 *address)
{
	return *(const u32 *)address;
}
static __always_inline u64 address6(const u8 *address, u32 half)
{
	return *(const u64 *)(address + 8 * half);
}
