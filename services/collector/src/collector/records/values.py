"""What a tracing record holds: one type per form in which the kernel side delivers an argument.

Values are facts of the kernel in its own numbers; names (`AF_INET`, `CAP_KILL`, `-rw-r--r--`) are
added where an event is encoded. The type of the argument in the policy selects the form:

| argument types | value |
|---|---|
| int*, uint*, sint*, long, ulong, size_t, capability, bpf_cmd | `int`, sign-extended if signed |
| sock_age, sock_used | `int`, nanoseconds |
| sock_sent, sock_received, udp_size | `int`, bytes |
| kernel_cap_t, cap_inheritable, cap_permitted, cap_effective | `int`, a mask of 64 bits |
| string, filename, data_loc, net_device | `bytes` up to the NUL, without it |
| char_buf, char_iovec, iov_iter, skb_payload | `bytes`, `TruncatedBytes` or `BufferFault` |
| file, fd, kiocb, path, dentry, linux_binprm | `Path`; `None` if nothing could be walked |
| sock, socket, fd_sock; skb; sockaddr; sockaddr_un | `Sock`; `Skb`; `Sockaddr`; `SockaddrUn` |
| cred; user_namespace | `Cred`; `UserNamespace` |
| bpf_attr, bpf_prog; bpf_map; perf_event | `BpfProgram`; `BpfMap`; `PerfEvent` |
| module, load_info | `Module` |
| syscall64 | `Syscall` |
| const_buf | tuple of `int`, one per element |
| nop | `Absent` |

Any of them may be an `Unreadable` instead, or `Absent` if the record had no room for it.
"""

from __future__ import annotations

from typing import NamedTuple

BAD_ADDRESS = -1  # Unreadable.depth: the argument itself, not a step of `resolve`

# BufferFault.code: what kept the kernel side from a buffer.
FAULT_NO_MEMORY, FAULT_PAGE, FAULT_TOO_LARGE, FAULT_UNKNOWN = 1, 2, 3, 0

UNRESOLVED_COMPONENTS = 0x1  # Path.flags: the walk ended at its limit; the text is a tail


class Unreadable(NamedTuple):
    """An argument whose memory could not be read; the other arguments are not affected."""

    depth: int = BAD_ADDRESS  # from 0: the step of `resolve` that failed


class Absent(NamedTuple):
    """A position without an item: type nop, or the record had no room left."""


class TruncatedBytes(NamedTuple):
    """The beginning of a buffer that is longer than what an event carries."""

    data: bytes
    original_size: int


class BufferFault(NamedTuple):
    """A buffer that could not be copied."""

    code: int


class Path(NamedTuple):
    """A path from the task's root, or from its mount for a dentry.

    Empty for a file without a name (pipe, socket, anonymous inode) and for the root itself.
    """

    text: bytes  # includes " (deleted)" of an unlinked file
    flags: int = 0
    mode: int = 0  # inode.i_mode, type and permissions


class Sock(NamedTuple):
    """struct sock. Addresses have 4 bytes (IPv4), 16 (IPv6) or none (other families)."""

    family: int
    type: int
    protocol: int
    state: int
    mark: int
    priority: int
    saddr: bytes
    daddr: bytes
    sport: int  # host order, the local port
    dport: int
    cookie: int  # address of the sock


class Skb(NamedTuple):
    """struct sk_buff: the headers of IPv4 and IPv6, ports of TCP and UDP."""

    hash: int
    len: int
    priority: int
    mark: int
    saddr: bytes
    daddr: bytes
    sport: int
    dport: int
    protocol: int  # of the IP header
    family: int
    sec_path_len: int
    sec_path_olen: int


class Sockaddr(NamedTuple):
    """struct sockaddr of AF_INET or AF_INET6; for other families only the family is known."""

    family: int
    addr: bytes
    port: int  # host order


class SockaddrUn(NamedTuple):
    """struct sockaddr_un: the bytes of sun_path, an abstract name with its leading NUL."""

    family: int
    path: bytes


class UserNamespace(NamedTuple):
    """struct user_namespace."""

    level: int  # 0: the host's
    uid: int
    gid: int
    inum: int


class Cred(NamedTuple):
    """struct cred."""

    uid: int
    gid: int
    euid: int
    egid: int
    suid: int
    sgid: int
    fsuid: int
    fsgid: int
    securebits: int
    permitted: int
    effective: int
    inheritable: int
    user_ns: UserNamespace


class BpfProgram(NamedTuple):
    """union bpf_attr of a program load, or struct bpf_prog."""

    type: int
    instructions: int
    name: bytes


class BpfMap(NamedTuple):
    """struct bpf_map."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    name: bytes


class PerfEvent(NamedTuple):
    """struct perf_event: its attributes."""

    kprobe_func: bytes
    type: int
    config: int
    probe_offset: int


class Module(NamedTuple):
    """struct module or struct load_info."""

    name: bytes
    taints: int  # bit mask of struct module.taints
    signature_ok: bool | None = None  # None for struct module, which does not say


class Syscall(NamedTuple):
    """A system call's number and whether the caller used the machine's 32-bit interface."""

    id: int
    compat: bool = False


Value = (
    int
    | bytes
    | Unreadable
    | Absent
    | TruncatedBytes
    | BufferFault
    | Path
    | Sock
    | Skb
    | Sockaddr
    | SockaddrUn
    | UserNamespace
    | Cred
    | BpfProgram
    | BpfMap
    | PerfEvent
    | Module
    | Syscall
    | tuple[int, ...]
    | None
)


class BuildIdFrame(NamedTuple):
    """A user frame that the kernel side named by its file: valid after the process has ended."""

    build_id: bytes
    offset: int  # in the file
    address: int = 0


class TracingRecord(NamedTuple):
    """One call of a hook that a policy reports: makes exactly one event."""

    policy: int  # number of the policy, and its revision: keys of the policy table
    revision: int
    hook: int  # index into the hooks of that revision (a list of calls has a hook per function)
    ktime_ns: int  # boot clock, at entry
    image_ktime_ns: int  # start of the image that called, with pid its name; 0: not known
    pid: int  # of the owner where the sock is tracked
    tid: int
    action: int  # tetragon.KprobeAction: the last one executed at entry
    args: tuple[Value, ...]  # in the order of the policy; those behind the last one are absent
    data: tuple[Value, ...] = ()
    returned: tuple[Value, ...] = ()  # one value if the policy asks for it
    return_action: int = 1  # tetragon.KprobeAction: POST without a return part
    kernel_stack: tuple[int, ...] = ()  # addresses, innermost first
    user_stack: tuple[int | BuildIdFrame, ...] = ()
    ima_hash: tuple[int, bytes] | None = None  # enum hash_algo and digest, when available
    start_boottime_ns: int = 0  # task's start; for a process that the table does not know
    selector: int = 0  # of the hook: the first that matched
    fell_back: int = 0  # not 0: with this call the policy reached its limit of signals


class LoaderRecord(NamedTuple):
    """A file was mapped with execute permission; ``build_id`` is empty where it has none."""

    policy: int
    revision: int
    ktime_ns: int
    image_ktime_ns: int
    pid: int
    tid: int
    path: bytes
    build_id: bytes
    start_boottime_ns: int = 0

    @classmethod
    def of(cls, record: TracingRecord) -> LoaderRecord:
        """Return the mapping that a record of a loader hook is; raise ValueError for another.

        Its arguments: path, room for a build id, and how much of that is in use.
        """
        path, build_id, size = record.args[:3]
        if not (isinstance(path, bytes) and isinstance(build_id, bytes) and isinstance(size, int)):
            raise ValueError(f"loader record: {record.args[:3]}")
        return cls(
            record.policy, record.revision, record.ktime_ns, record.image_ktime_ns, record.pid,
            record.tid, path, build_id[:size], record.start_boottime_ns,
        )  # fmt: skip
