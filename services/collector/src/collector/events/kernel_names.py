"""Numbers of the kernel under the names that events show; an unknown number is its decimal text.

The sets are Tetragon's: what it does not name (AF_SNA, IPPROTO_ICMPV6) stays a number here too.
"""

from __future__ import annotations

import socket
from functools import lru_cache

from tetragon.bpf_pb2 import BpfProgramType

# include/linux/socket.h
FAMILIES = {
    0: "AF_UNSPEC", 1: "AF_UNIX", 2: "AF_INET", 3: "AF_AX25", 4: "AF_IPX", 5: "AF_APPLETALK",
    6: "AF_NETROM", 7: "AF_BRIDGE", 8: "AF_ATMPVC", 9: "AF_X25", 10: "AF_INET6", 11: "AF_ROSE",
    12: "AF_DECnet", 13: "AF_NETBEUI", 14: "AF_SECURITY", 15: "AF_KEY", 16: "AF_NETLINK",
    17: "AF_PACKET", 18: "AF_ASH", 19: "AF_ECONET", 20: "AF_ATMSVC", 21: "AF_RDS", 23: "AF_IRDA",
    24: "AF_PPPOX", 25: "AF_WANPIPE", 26: "AF_LLC", 27: "AF_IB", 28: "AF_MPLS", 29: "AF_CAN",
    30: "AF_TIPC", 31: "AF_BLUETOOTH", 32: "AF_IUCV", 33: "AF_RXRPC", 34: "AF_ISDN",
    35: "AF_PHONET", 36: "AF_IEEE802154", 37: "AF_CAIF", 38: "AF_ALG", 39: "AF_NFC",
    40: "AF_VSOCK", 41: "AF_KCM", 42: "AF_QIPCRTR", 43: "AF_SMC", 44: "AF_XDP", 45: "AF_MCTP",
}  # fmt: skip
# SOCK_PACKET is 10 in the kernel; Tetragon names 7 so.
SOCKET_TYPES = {
    1: "SOCK_STREAM", 2: "SOCK_DGRAM", 3: "SOCK_RAW", 4: "SOCK_RDM", 5: "SOCK_SEQPACKET",
    6: "SOCK_DCCP", 7: "SOCK_PACKET",
}  # fmt: skip
# include/uapi/linux/in.h
PROTOCOLS = {
    0: "IPPROTO_IP", 1: "IPPROTO_ICMP", 2: "IPPROTO_IGMP", 4: "IPPROTO_IPIP", 6: "IPPROTO_TCP",
    8: "IPPROTO_EGP", 12: "IPPROTO_PUP", 17: "IPPROTO_UDP", 22: "IPPROTO_IDP", 29: "IPPROTO_TP",
    33: "IPPROTO_DCCP", 41: "IPPROTO_IPV6", 46: "IPPROTO_RSVP", 47: "IPPROTO_GRE",
    50: "IPPROTO_ESP", 51: "IPPROTO_AH", 92: "IPPROTO_MTP", 94: "IPPROTO_BEETPH",
    98: "IPPROTO_ENCAP", 103: "IPPROTO_PIM", 108: "IPPROTO_COMP", 132: "IPPROTO_SCTP",
    136: "IPPROTO_UDPLITE", 137: "IPPROTO_MPLS", 143: "IPPROTO_ETHERNET", 255: "IPPROTO_RAW",
    262: "IPPROTO_MPTCP",
}  # fmt: skip
# include/net/tcp_states.h
TCP_STATES = {
    1: "TCP_ESTABLISHED", 2: "TCP_SYN_SENT", 3: "TCP_SYN_RECV", 4: "TCP_FIN_WAIT1",
    5: "TCP_FIN_WAIT2", 6: "TCP_TIME_WAIT", 7: "TCP_CLOSE", 8: "TCP_CLOSE_WAIT",
    9: "TCP_LAST_ACK", 10: "TCP_LISTEN", 11: "TCP_CLOSING", 12: "TCP_NEW_SYN_RECV",
}  # fmt: skip
# include/uapi/linux/bpf.h, enum bpf_map_type
BPF_MAP_TYPES = (
    "BPF_MAP_TYPE_UNSPEC", "BPF_MAP_TYPE_HASH", "BPF_MAP_TYPE_ARRAY", "BPF_MAP_TYPE_PROG_ARRAY",
    "BPF_MAP_TYPE_PERF_EVENT_ARRAY", "BPF_MAP_TYPE_PERCPU_HASH", "BPF_MAP_TYPE_PERCPU_ARRAY",
    "BPF_MAP_TYPE_STACK_TRACE", "BPF_MAP_TYPE_CGROUP_ARRAY", "BPF_MAP_TYPE_LRU_HASH",
    "BPF_MAP_TYPE_LRU_PERCPU_HASH", "BPF_MAP_TYPE_LPM_TRIE", "BPF_MAP_TYPE_ARRAY_OF_MAPS",
    "BPF_MAP_TYPE_HASH_OF_MAPS", "BPF_MAP_TYPE_DEVMAP", "BPF_MAP_TYPE_SOCKMAP",
    "BPF_MAP_TYPE_CPUMAP", "BPF_MAP_TYPE_XSKMAP", "BPF_MAP_TYPE_SOCKHASH",
    "BPF_MAP_TYPE_CGROUP_STORAGE", "BPF_MAP_TYPE_REUSEPORT_SOCKARRAY",
    "BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE", "BPF_MAP_TYPE_QUEUE", "BPF_MAP_TYPE_STACK",
    "BPF_MAP_TYPE_SK_STORAGE", "BPF_MAP_TYPE_DEVMAP_HASH", "BPF_MAP_TYPE_STRUCT_OPS",
    "BPF_MAP_TYPE_RINGBUF", "BPF_MAP_TYPE_INODE_STORAGE", "BPF_MAP_TYPE_TASK_STORAGE",
    "BPF_MAP_TYPE_BLOOM_FILTER", "BPF_MAP_TYPE_USER_RINGBUF", "BPF_MAP_TYPE_CGRP_STORAGE",
    "BPF_MAP_TYPE_ARENA",
)  # fmt: skip
# include/uapi/linux/perf_event.h, enum perf_type_id
PERF_TYPES = (
    "PERF_TYPE_HARDWARE", "PERF_TYPE_SOFTWARE", "PERF_TYPE_TRACEPOINT", "PERF_TYPE_HW_CACHE",
    "PERF_TYPE_RAW", "PERF_TYPE_BREAKPOINT", "PERF_TYPE_MAX",
)  # fmt: skip
# include/uapi/linux/hash_info.h: name and digest size of what IMA can use.
IMA_HASHES = {
    1: ("md5", 16), 2: ("sha1", 20), 4: ("sha256", 32), 6: ("sha512", 64), 13: ("wp512", 64),
    17: ("sm3", 32),
}  # fmt: skip

_AF_INET, _AF_INET6 = 2, 10
_FILE_TYPES = {0o14: "s", 0o12: "l", 0o10: "-", 0o6: "b", 0o4: "d", 0o2: "c", 0o1: "p"}


def family(number: int) -> str:
    """Return the name of an address family."""
    return FAMILIES.get(number) or str(number)


def known_family(number: int) -> str:
    """Return the name where Tetragon has one in addresses and tracepoints, else nothing."""
    return FAMILIES[number] if number in (1, _AF_INET, _AF_INET6) else ""


def bpf_program_type(number: int) -> str:
    """Return the name of enum bpf_prog_type."""
    value = BpfProgramType.DESCRIPTOR.values_by_number.get(number)
    return value.name if value is not None else str(number)


def bpf_map_type(number: int) -> str:
    """Return the name of enum bpf_map_type."""
    return BPF_MAP_TYPES[number] if number < len(BPF_MAP_TYPES) else str(number)


def perf_type(number: int) -> str:
    """Return the name of enum perf_type_id; kprobes and uprobes have numbers of their own."""
    return PERF_TYPES[number] if number < len(PERF_TYPES) else str(number)


@lru_cache(8192)
def address(raw: bytes) -> str:
    """Return an address of 4 or 16 bytes as text; ``invalid IP`` for any other size."""
    if len(raw) == 4:
        return ".".join(map(str, raw))
    if len(raw) != 16:
        return "invalid IP"
    if not any(raw[:12]) and any(raw[12:14]):  # inet_ntop writes its end with dots
        return f"::{int.from_bytes(raw[12:14], 'big'):x}:{int.from_bytes(raw[14:], 'big'):x}"
    return socket.inet_ntop(socket.AF_INET6, raw)


@lru_cache(1024)
def permission(mode: int) -> str:
    """Return ``mode`` as ``ls -l`` writes it; nine characters where the file type is unknown."""
    text = _FILE_TYPES.get(mode >> 12, "")
    for shift, special, letter in ((6, 0o4000, "s"), (3, 0o2000, "s"), (0, 0o1000, "t")):
        bits = mode >> shift
        text += "r" if bits & 4 else "-"
        text += "w" if bits & 2 else "-"
        if mode & special:
            text += letter if bits & 1 else letter.upper()
        else:
            text += "x" if bits & 1 else "-"
    return text
