"""Names of numbers in filters: capabilities, address families, protocols, TCP states, file types.

Numbers are the kernel's (include/uapi/linux/capability.h, include/linux/socket.h,
include/uapi/linux/in.h, include/net/tcp_states.h, include/uapi/linux/stat.h).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tracingpolicy.values import FileType

_CAPABILITIES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
PERFMON BPF CHECKPOINT_RESTORE
"""

_FAMILIES = """
UNSPEC UNIX INET AX25 IPX APPLETALK NETROM BRIDGE ATMPVC X25 INET6 ROSE DECnet NETBEUI SECURITY KEY
NETLINK PACKET ASH ECONET ATMSVC RDS SNA IRDA PPPOX WANPIPE LLC IB MPLS CAN TIPC BLUETOOTH IUCV
RXRPC ISDN PHONET IEEE802154 CAIF ALG NFC VSOCK KCM QIPCRTR SMC XDP MCTP
"""

_PROTOCOLS = {
    "IP": 0, "ICMP": 1, "IGMP": 2, "IPIP": 4, "TCP": 6, "EGP": 8, "PUP": 12, "UDP": 17, "IDP": 22,
    "TP": 29, "DCCP": 33, "IPV6": 41, "RSVP": 46, "GRE": 47, "ESP": 50, "AH": 51, "ICMPV6": 58,
    "MTP": 92, "BEETPH": 94, "ENCAP": 98, "PIM": 103, "COMP": 108, "SCTP": 132, "UDPLITE": 136,
    "MPLS": 137, "ETHERNET": 143, "RAW": 255, "MPTCP": 262,
}  # fmt: skip

_STATES = """
ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN CLOSING
NEW_SYN_RECV
"""

CAPABILITIES: Mapping[str, int] = MappingProxyType(
    {f"CAP_{name}": number for number, name in enumerate(_CAPABILITIES.split())}
    | {"DAC_OVERRIDE": 1}  # as Tetragon's enumeration, and so its events, name it
)
ADDRESS_FAMILIES: Mapping[str, int] = MappingProxyType(
    {f"AF_{name}": number for number, name in enumerate(_FAMILIES.split())}
)
PROTOCOLS: Mapping[str, int] = MappingProxyType(
    {f"IPPROTO_{name}": number for name, number in _PROTOCOLS.items()}
)
TCP_STATES: Mapping[str, int] = MappingProxyType(
    {f"TCP_{name}": number for number, name in enumerate(_STATES.split(), start=1)}
)
FILE_TYPES: Mapping[str, FileType] = MappingProxyType(
    {
        "sock": FileType.SOCKET,
        "socket": FileType.SOCKET,
        "lnk": FileType.LINK,
        "link": FileType.LINK,
        "reg": FileType.REGULAR,
        "regular": FileType.REGULAR,
        "blk": FileType.BLOCK,
        "block": FileType.BLOCK,
        "dir": FileType.DIRECTORY,
        "chr": FileType.CHARACTER,
        "char": FileType.CHARACTER,
        "fifo": FileType.FIFO,
        "pipe": FileType.FIFO,
    }
)
