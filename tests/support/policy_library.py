"""Policies as users write them, each with a workload and the events that it makes.

The forms of values are those of Tetragon's events; `tests/kernel/test_policy_library.py` loads
each policy and compares whole messages.
"""

from __future__ import annotations

import base64
import ctypes
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collector.policies.entry import State
from support.calls import i386_call

LIBC = ctypes.CDLL(None, use_errno=True)
PORT = 4713  # nothing listens here unless a workload does
Json = dict[str, Any]


class Any64:
    """A number of 64 bits that differs from run to run: an address, a size, a time."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other.isdecimal() and other != "0"

    __hash__ = None

    def __repr__(self) -> str:
        return "<a number>"


class AnyNumber(int):
    """Any number above 0."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and other > 0

    __hash__ = int.__hash__


ABI = {"x86_64": "x64", "aarch64": "arm64"}[os.uname().machine]
SYNCS = {"x64": (75, 74), "arm64": (83, 82)}[ABI]


class AnyText(str):
    """Any text."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)

    __hash__ = str.__hash__


ANY64, ANY, ANY_TEXT = Any64(), AnyNumber(), AnyText()
HOST_USER_NAMESPACE = {
    "level": 0,
    "uid": 0,
    "gid": 0,
    "ns": {"inum": os.stat("/proc/self/ns/user").st_ino, "is_host": True},
}
CAPABILITIES_LEFT: Json = {}  # none is permitted to a user who is not root


@dataclass(frozen=True)
class Case:
    """One policy, what makes its calls, and what clients get of them."""

    name: str
    spec: str
    workload: Callable[[Path], Any]  # in a child; the folder is the test's own
    events: Callable[[Path], list[Json]]
    functions: bool = True  # hooks functions of the kernel, which needs fentry or kprobes
    ordered: bool = True  # events come in the order of the hooks' calls
    # Whether the process may do more of the same: gRPC makes threads in a forked child.
    repeated: bool = False
    state: State = State.ENABLED


def kprobe(function: str, *args: Json, **more: Any) -> Json:
    """Return a process_kprobe without its process."""
    body: Json = {"function_name": function}
    if args:
        body["args"] = list(args)
    if "returned" in more:
        body["return"] = more.pop("returned")
    return body | {"action": "KPROBE_ACTION_POST", "return_action": "KPROBE_ACTION_POST"} | more


def syscall(name: str, *args: Json, **more: Any) -> Json:
    """Return the same of a system call."""
    prefix = {"x86_64": "__x64_", "aarch64": "__arm64_"}[os.uname().machine]
    return kprobe(f"{prefix}{name}", *args, **more)


def tracepoint(name: str, *args: Json) -> Json:
    """Return a process_tracepoint without its process."""
    subsystem, event = name.split("/")
    body: Json = {"subsys": subsystem, "event": event}
    if args:
        body["args"] = list(args)
    return body | {"action": "KPROBE_ACTION_POST"}


def lsm(hook: str, *args: Json) -> Json:
    """Return a process_lsm without its process."""
    return {"function_name": hook, "args": list(args), "action": "KPROBE_ACTION_POST"}


def file(path: Path | str, permission: str = "-rw-r--r--") -> Json:
    return {"file_arg": {"path": str(path), "permission": permission}}


def number(value: int) -> Json:
    return {"int_arg": value}


def size(value: int) -> Json:
    return {"size_arg": str(value)}


def text(value: Path | str) -> Json:
    return {"string_arg": str(value)}


def octets(value: bytes) -> Json:
    return {"bytes_arg": base64.b64encode(value).decode()}


def sock(state: str, daddr: str = "127.0.0.1", dport: Any = PORT, **more: Any) -> Json:
    """Return the sock_arg of a TCP socket."""
    body = {
        "family": "AF_INET",
        "type": "SOCK_STREAM",
        "protocol": "IPPROTO_TCP",
        "saddr": "127.0.0.1",
        "daddr": daddr,
        "sport": ANY,
        "dport": dport,
        "cookie": ANY64,
        "state": state,
    }
    return {"sock_arg": body | more}


# --- files


def prepare(folder: Path) -> None:
    """Make the files that workloads use, before a policy sees it."""
    for name in ("file", "other", ".bashrc", "module.ko"):
        (folder / name).write_bytes(b"content\n")
        (folder / name).chmod(0o644)
    (folder / "link").symlink_to(folder / "file")


def read_and_write(folder: Path) -> None:
    for name in ("file", "other"):
        with (folder / name).open("rb", buffering=0) as one:
            one.read(3)
    with (folder / "file").open("ab", buffering=0) as one:
        one.write(b"more")


def map_file(folder: Path) -> None:
    path = folder / "file"
    path.chmod(0o600)
    with path.open("r+b") as one:
        for protection in (1, 3):  # PROT_READ; and PROT_WRITE
            LIBC.mmap.restype = ctypes.c_void_p
            LIBC.mmap(None, ctypes.c_size_t(4096), protection, 1, one.fileno(), ctypes.c_long(0))


def truncate(folder: Path) -> None:
    os.truncate(folder / ".bashrc", 2)
    os.truncate(folder / "other", 2)


def read_write_close(folder: Path) -> None:
    fd = os.open(folder / "file", os.O_RDWR | os.O_TRUNC)
    os.dup2(fd, 77)
    os.write(77, b"written\0bytes")
    os.lseek(77, 0, os.SEEK_SET)
    os.read(77, 100)
    os.close(77)


def open_for_writing(folder: Path) -> None:
    path = folder / "file"
    os.open(path, os.O_RDONLY)
    os.open(path, os.O_WRONLY | os.O_APPEND)
    with suppress(OSError):
        os.open(folder / "none", os.O_WRONLY)


def link_files(folder: Path) -> None:
    path = folder / "file"
    os.link(path, folder / "hard")
    fd = os.open(folder, os.O_PATH)
    os.link(path, folder / "hard2", src_dir_fd=fd, dst_dir_fd=fd)
    os.symlink(path, folder / "soft", dir_fd=fd)


def pipes(folder: Path) -> None:
    _, wr = os.pipe()
    with suppress(OSError):
        os.write(wr, b"x")


def follow_link(folder: Path) -> None:
    os.stat(folder / "link")


FILES = (
    Case(
        "file access",
        """\
  kprobes:
  - call: "security_file_permission"
    syscall: false
    return: true
    args:
    - index: 0
      type: "file"
      label: target
    - index: 1
      type: "int"
    returnArg:
      index: 0
      type: "int"
    returnArgAction: "Post"
    message: "file of the test"
    tags: ["observability.files"]
    selectors:
    - matchArgs:
      - index: 0
        operator: "Equal"
        values:
        - "FOLDER/file"
        - "/etc/shadow"
""".replace('    returnArgAction: "Post"\n', ""),
        read_and_write,
        lambda folder: [
            kprobe(
                "security_file_permission",
                file(folder / "file") | {"label": "target"},
                number(mask),
                returned=number(0),
                message="file of the test",
                tags=["observability.files"],
            )
            for mask in (4, 2)  # MAY_READ, MAY_WRITE
        ],
    ),
    Case(
        "writable mappings",
        """\
  kprobes:
  - call: "security_mmap_file"
    syscall: false
    return: true
    args:
    - index: 0
      type: "file"
    - index: 1
      type: "uint32"
    - index: 2
      type: "nop"
    returnArg:
      index: 0
      type: "int"
    selectors:
    - matchArgs:
      - index: 0
        operator: "Prefix"
        values: ["FOLDER/"]
      - index: 1
        operator: "Mask"
        values: ["2"]
""",
        map_file,
        lambda folder: [
            kprobe(
                "security_mmap_file",
                file(folder / "file", "-rw-------"),
                {"uint_arg": 3},
                returned=number(0),
            )
        ],
    ),
    Case(
        "truncated files",
        """\
  kprobes:
  - call: "security_path_truncate"
    syscall: false
    return: true
    args:
    - index: 0
      type: "path"
    returnArg:
      index: 0
      type: "int"
    selectors:
    - matchArgs:
      - index: 0
        operator: "Postfix"
        values: [".bashrc", ".bash_profile"]
""",
        truncate,
        lambda folder: [
            kprobe(
                "security_path_truncate",
                {"path_arg": {"path": f"{folder}/.bashrc", "permission": "-rw-r--r--"}},
                returned=number(0),
            )
        ],
    ),
    Case(
        "descriptors",
        """\
  kprobes:
  - call: "fd_install"
    syscall: false
    args:
    - index: 0
      type: int
    - index: 1
      type: "file"
    selectors:
    - matchArgs:
      - index: 1
        operator: "Equal"
        values: ["FOLDER/file", "/none"]
  - call: "sys_write"
    syscall: true
    args:
    - index: 0
      type: "fd"
    - index: 1
      type: "char_buf"
      sizeArgIndex: 3
    - index: 2
      type: "size_t"
    selectors:
    - matchArgs:
      - index: 0
        operator: "Equal"
        values: ["FOLDER/file"]
  - call: "sys_read"
    syscall: true
    args:
    - index: 0
      type: "fd"
    - index: 1
      type: "char_buf"
      returnCopy: true
    - index: 2
      type: "size_t"
    selectors:
    - matchArgs:
      - index: 0
        operator: "Prefix"
        values: ["FOLDER"]
  - call: "sys_close"
    syscall: true
    args:
    - index: 0
      type: "int"
    selectors:
    - matchArgs:
      - index: 0
        operator: "Equal"
        values: ["77"]
""",
        read_write_close,
        lambda folder: [
            kprobe("fd_install", number(ANY), file(folder / "file")),
            syscall("sys_write", file(folder / "file"), octets(b"written\0bytes"), size(13)),
            syscall("sys_read", file(folder / "file"), octets(b"written\0bytes"), size(100)),
            syscall("sys_close", number(77)),
        ],
    ),
    Case(
        "files without a name",
        """\
  kprobes:
  - call: "sys_write"
    args:
    - {index: 0, type: fd}
    selectors:
    - matchBinaries:
      - {operator: NotIn, values: ["/none"]}
      matchArgs:
      - {index: 0, operator: FileType, values: ["fifo"]}
""",
        pipes,
        lambda _: [syscall("sys_write", {"file_arg": {"permission": "prw-------"}})],
    ),
    Case(
        "opened for writing",
        """\
  kprobes:
  - call: "sys_openat"
    return: true
    syscall: true
    args:
    - index: 0
      type: int
    - index: 1
      type: "string"
    - index: 2
      type: "int"
    returnArg:
      index: 0
      type: int
    selectors:
    - matchArgs:
      - index: 2
        operator: Mask
        values: ["1", "2"]
      - index: 1
        operator: Prefix
        values: ["FOLDER"]
      matchReturnArgs:
      - index: 0
        operator: GT
        values: ["0"]
""",
        open_for_writing,
        lambda folder: [
            syscall(
                "sys_openat",
                number(-100),
                text(folder / "file"),
                number(os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC),
                returned=number(ANY),
            )
        ],
    ),
    Case(
        "links",
        """\
  kprobes:
  - call: "sys_linkat"
    syscall: true
    args:
    - {index: 0, type: int}
    - {index: 1, type: string}
    - {index: 2, type: int}
    - {index: 3, type: string}
    - {index: 4, type: int}
    selectors:
    - matchArgs:
      - {index: 3, operator: Equal, values: ["FOLDER/hard2"]}
  - call: "sys_symlinkat"
    syscall: true
    args:
    - {index: 0, type: string}
    - {index: 1, type: int}
    - {index: 2, type: string}
    selectors:
    - matchArgs:
      - {index: 0, operator: Equal, values: ["FOLDER/file"]}
""",
        link_files,
        lambda folder: [
            syscall(
                "sys_linkat",
                number(ANY),
                text(folder / "file"),
                number(ANY),
                text(folder / "hard2"),
                number(0x400),  # AT_SYMLINK_FOLLOW
            ),
            syscall("sys_symlinkat", text(folder / "file"), number(ANY), text(folder / "soft")),
        ],
    ),
    Case(
        "followed links",
        """\
  kprobes:
  - call: "security_inode_follow_link"
    syscall: false
    args:
    - index: 0
      type: "dentry"
    selectors:
    - matchArgs:
      - {index: 0, operator: Postfix, values: ["/link"]}
""",
        follow_link,
        # from the root of the mount, not of the process
        lambda folder: [
            kprobe(
                "security_inode_follow_link",
                {"path_arg": {"path": in_mount(folder / "link"), "permission": "lrwxrwxrwx"}},
            )
        ],
    ),
)


def in_mount(path: Path) -> str:
    """Return a path from the root of its mount."""
    mount = path
    while not mount.is_mount():
        mount = mount.parent
    return "/" + str(path.relative_to(mount))


# --- network


def connect_and_send(folder: Path) -> None:
    with socket.socket() as server, socket.socket() as one:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", PORT))
        server.listen()
        one.connect(("127.0.0.1", PORT))
        one.send(b"12345")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def refused(folder: Path) -> None:
    for address in ("127.0.0.1", "127.1.2.3"):
        with suppress(OSError), socket.socket() as one:
            one.connect((address, PORT))


def bind_unix(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        one.bind(str(folder / "socket"))
        two.bind("\0abstract")


def listen(folder: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", PORT))
        server.listen(5)


def send_datagram(folder: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", PORT + 1))
        for size in (10, 20):  # the second is the same for a rate limit
            one.sendto(b"x" * size, ("127.0.0.1", PORT))
        one.sendto(b"x" * 10, ("127.0.0.1", PORT + 2))


NETWORK = (
    Case(
        "connections",
        """\
  kprobes:
  - call: "tcp_connect"
    syscall: false
    args:
    - index: 0
      type: "sock"
    selectors:
    - matchArgs:
      - {index: 0, operator: DPort, values: ["4713"]}
  - call: "tcp_sendmsg"
    syscall: false
    args:
    - index: 0
      type: "sock"
    - index: 2
      type: int
    selectors:
    - matchArgs:
      - {index: 0, operator: DAddr, values: ["127.0.0.0/8"]}
      - {index: 0, operator: DPort, values: ["4000:5000"]}
  - call: "tcp_close"
    syscall: false
    args:
    - index: 0
      type: "sock"
    selectors:
    - matchArgs:
      - {index: 0, operator: DPort, values: ["4713"]}
      - {index: 0, operator: Family, values: ["AF_INET"]}
""",
        connect_and_send,
        lambda _: [
            kprobe("tcp_connect", sock("TCP_SYN_SENT")),
            kprobe("tcp_sendmsg", sock("TCP_ESTABLISHED"), number(5)),
            kprobe("tcp_close", sock("TCP_ESTABLISHED")),
        ],
    ),
    Case(
        "connections elsewhere",
        """\
  kprobes:
  - call: "tcp_connect"
    syscall: false
    args:
    - index: 0
      type: "sock"
    selectors:
    - matchArgs:
      - index: 0
        operator: "NotDAddr"
        values:
        - 127.0.0.1
        - "::1"
        - 10.0.0.0/8
""",
        refused,
        lambda _: [kprobe("tcp_connect", sock("TCP_SYN_SENT", "127.1.2.3", saddr="127.0.0.1"))],
    ),
    Case(
        "connect by the security hook",
        """\
  kprobes:
  - call: "security_socket_connect"
    syscall: false
    return: true
    args:
    - index: 0
      type: "socket"
    - index: 1
      type: "sockaddr"
    - index: 2
      type: "int"
    - index: 1
      type: "uint16"
      resolve: "sa_family"
      label: family
    returnArg:
      index: 0
      type: int
    selectors:
    - matchArgs:
      - index: 1
        operator: "SAddr"
        values: ["127.1.2.3"]
      - index: 1
        operator: "Family"
        values: ["AF_INET"]
      - index: 0
        operator: "Protocol"
        values: ["IPPROTO_TCP"]
""",
        refused,
        lambda _: [
            kprobe(
                "security_socket_connect",
                {
                    "sock_arg": {
                        "family": "AF_INET",
                        "type": "SOCK_STREAM",
                        "protocol": "IPPROTO_TCP",
                        "saddr": "0.0.0.0",
                        "daddr": "0.0.0.0",
                        "cookie": ANY64,
                        "state": "TCP_CLOSE",
                    }
                },
                {"sockaddr_arg": {"family": "AF_INET", "addr": "127.1.2.3", "port": PORT}},
                number(16),
                {"uint_arg": 2, "label": "family"},
                returned=number(0),
            )
        ],
    ),
    Case(
        "unix sockets",
        """\
  kprobes:
  - call: "security_socket_bind"
    syscall: false
    args:
    - index: 1
      type: "sockaddr_un"
    - index: 2
      type: "int"
    selectors:
    - matchArgs:
      - {index: 1, operator: Family, values: ["AF_UNIX"]}
""",
        bind_unix,
        lambda folder: [
            kprobe(
                "security_socket_bind",
                {"sockaddrun_arg": {"family": "AF_UNIX", "path": f"{folder}/socket"}},
                number(len(str(folder / "socket")) + 3),
            ),
            kprobe(
                "security_socket_bind",
                {"sockaddrun_arg": {"family": "AF_UNIX", "path": "@abstract"}},
                number(11),
            ),
        ],
    ),
    Case(
        "listening sockets and their owners",
        """\
  kprobes:
  - call: "sk_alloc"
    syscall: false
    return: true
    args:
    - index: 1
      type: int
      label: "family"
    returnArg:
      index: 0
      type: sock
    returnArgAction: TrackSock
    selectors:
    - matchArgs:
      - index: 1
        operator: Equal
        values: ["2"]
      matchActions:
      - action: NoPost
  - call: "__sk_free"
    syscall: false
    args:
    - index: 0
      type: sock
    selectors:
    - matchActions:
      - action: UntrackSock
        argSock: 0
      - action: NoPost
  - call: "inet_csk_listen_start"
    syscall: false
    args:
    - index: 0
      type: sock
    selectors:
    - matchArgs:
      - index: 0
        operator: SPort
        values: ["4713"]
""",
        listen,
        lambda _: [
            kprobe(
                "inet_csk_listen_start",
                {
                    "sock_arg": {
                        "family": "AF_INET",
                        "type": "SOCK_STREAM",
                        "protocol": "IPPROTO_TCP",
                        "saddr": "127.0.0.1",
                        "daddr": "0.0.0.0",
                        "sport": PORT,
                        "cookie": ANY64,
                        "state": "TCP_CLOSE",
                    }
                },
            )
        ],
    ),
    Case(
        "datagrams",
        """\
  kprobes:
  - call: "ip_output"
    syscall: false
    args:
    - index: 2
      type: "skb"
    selectors:
    - matchArgs:
      - {index: 2, operator: Protocol, values: ["IPPROTO_UDP"]}
      - {index: 2, operator: DAddr, values: ["127.0.0.1"]}
      - {index: 2, operator: DPort, values: ["4713"]}
      matchActions:
      - action: Post
        rateLimit: "1m"
        rateLimitScope: process
""",
        send_datagram,
        lambda _: [
            kprobe(
                "ip_output",
                {
                    "skb_arg": {
                        "len": 38,
                        "saddr": "127.0.0.1",
                        "daddr": "127.0.0.1",
                        "sport": PORT + 1,
                        "dport": PORT,
                        "proto": 17,
                        "protocol": "IPPROTO_UDP",
                        "family": "AF_INET",
                    }
                },
            )
        ],
    ),
)


# --- credentials, namespaces, capabilities


def change_user(folder: Path) -> None:
    os.setgid(7)
    os.setuid(8)
    with suppress(OSError):
        os.setuid(0)


def no_right(folder: Path) -> None:
    os.setuid(8)
    with suppress(OSError):
        os.chroot("/")


def user_namespace(folder: Path) -> None:
    if os.fork() == 0:
        LIBC.unshare(0x10000000)  # CLONE_NEWUSER, with CAP_SYS_ADMIN
        os._exit(0)
    os.setresuid(65534, 65534, 65534)
    LIBC.unshare(0x10000000)


def unshare_and_open(folder: Path) -> None:
    path = folder / "file"
    os.dup2(os.open(path, os.O_RDONLY), 90)
    LIBC.unshare(0x04000000)  # CLONE_NEWUTS
    os.dup2(os.open(path, os.O_RDONLY), 91)
    os.dup2(os.open(path, os.O_RDONLY), 92)


def namespaces(folder: Path) -> None:
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    os.dup2(fd, 80)
    LIBC.setns(80, 0x04000000)
    LIBC.unshare(0x04000000)


def mount(folder: Path) -> None:
    LIBC.unshare(0x00020000)  # CLONE_NEWNS
    LIBC.mount(b"none", os.fsencode(folder), b"tmpfs", 0, None)


def trace(folder: Path) -> None:
    LIBC.ptrace(0, 0, None, None)  # PTRACE_TRACEME
    LIBC.ptrace(16, -1, None, None)  # PTRACE_ATTACH


CREDENTIALS = (
    Case(
        "user ids by system calls",
        """\
  kprobes:
  - call: "sys_setuid"
    syscall: true
    args:
    - index: 0
      type: "int"
    selectors:
    - matchNamespaces:
      - namespace: Pid
        operator: In
        values: ["host_ns"]
  - call: "sys_setgid"
    syscall: true
    args:
    - index: 0
      type: "int"
    selectors:
    - matchArgs:
      - {index: 0, operator: Equal, values: ["0"]}
""",
        change_user,
        lambda _: [syscall("sys_setuid", number(8)), syscall("sys_setuid", number(0))],
    ),
    Case(
        "user ids by functions",
        """\
  kprobes:
  - call: "__sys_setuid"
    syscall: false
    return: true
    args:
    - index: 0
      type: "int"
    returnArg:
      index: 0
      type: "int"
    selectors:
    - matchActions:
      - action: Post
        rateLimit: "1m"
""",
        change_user,
        lambda _: [
            kprobe("__sys_setuid", number(8), returned=number(0)),
            kprobe("__sys_setuid", number(0), returned=number(-1)),
        ],
    ),
    Case(
        "committed credentials",
        """\
  kprobes:
  - call: "commit_creds"
    syscall: false
    args:
    - index: 0
      type: "cred"
    - index: 0
      type: "user_namespace"
      resolve: "user_ns"
    - index: 0
      type: "uint32"
      resolve: "euid.val"
      label: euid
    selectors:
    - matchNamespaces:
      - namespace: Net
        operator: In
        values: ["host_ns"]
      matchArgs:
      - {args: [2], operator: Equal, values: ["8"]}
""",
        change_user,
        lambda _: [
            kprobe(
                "commit_creds",
                {
                    "process_credentials_arg": {
                        "uid": 8,
                        "gid": 7,
                        "euid": 8,
                        "egid": 7,
                        "suid": 8,
                        "sgid": 7,
                        "fsuid": 8,
                        "fsgid": 7,
                        "caps": CAPABILITIES_LEFT,
                        "user_ns": HOST_USER_NAMESPACE,
                    }
                },
                {"user_ns_arg": HOST_USER_NAMESPACE},
                {"uint_arg": 8, "label": "euid"},
            )
        ],
    ),
    Case(
        "missing capabilities",
        """\
  kprobes:
  - call: "cap_capable"
    syscall: false
    return: true
    args:
    - index: 0
      type: "nop"
    - index: 1
      type: "user_namespace"
    - index: 2
      type: "capability"
    returnArg:
      index: 0
      type: "int"
    selectors:
    - matchArgs:
      - {index: 2, operator: Equal, values: ["18"]}
      matchReturnArgs:
      - {index: 0, operator: Equal, values: ["-1"]}
      matchActions:
      - action: Post
        rateLimit: "1m"
""",
        no_right,
        lambda _: [
            kprobe(
                "cap_capable",
                {"user_ns_arg": HOST_USER_NAMESPACE},
                {"capability_arg": {"value": 18, "name": "CAP_SYS_CHROOT"}},
                returned=number(-1),
            )
        ],
    ),
    Case(
        "user namespaces without rights",
        """\
  kprobes:
  - call: "create_user_ns"
    syscall: false
    message: "unprivileged user namespace"
    args:
    - index: 0
      type: "nop"
    selectors:
    - matchCapabilities:
      - type: Effective
        operator: NotIn
        values: ["CAP_SYS_ADMIN"]
""",
        user_namespace,
        lambda _: [kprobe("create_user_ns", message="unprivileged user namespace")],
    ),
    Case(
        "namespaces that changed",
        """\
  kprobes:
  - call: "fd_install"
    syscall: false
    args:
    - {index: 0, type: int}
    - {index: 1, type: file}
    selectors:
    - matchNamespaceChanges:
      - operator: In
        values: ["Uts", "Net"]
      matchArgs:
      - {index: 1, operator: Postfix, values: ["FOLDER/file"]}
""",
        unshare_and_open,
        lambda folder: [kprobe("fd_install", number(ANY), file(folder / "file"))],
    ),
    Case(
        "entered and left namespaces",
        """\
  kprobes:
  - call: "sys_setns"
    syscall: true
    args:
    - {index: 0, type: int}
    - {index: 1, type: int}
  - call: "sys_unshare"
    syscall: true
    args:
    - {index: 0, type: int}
""",
        namespaces,
        lambda _: [
            syscall("sys_setns", number(80), number(0x04000000)),
            syscall("sys_unshare", number(0x04000000)),
        ],
    ),
    Case(
        "mounts",
        """\
  kprobes:
  - call: "sys_mount"
    syscall: true
    args:
    - {index: 0, type: string}
    - {index: 1, type: string}
    - {index: 2, type: string}
    - {index: 3, type: uint64}
    - {index: 4, type: string}
""",
        mount,
        lambda folder: [
            syscall(
                "sys_mount",
                text("none"),
                text(folder),
                text("tmpfs"),
                size(0),
                {"error_arg": {"Message": "Bad address for basic type"}},
            )
        ],
    ),
    Case(
        "traced processes",
        """\
  kprobes:
  - call: "sys_ptrace"
    syscall: true
    args:
    - {index: 0, type: int}
    - {index: 1, type: int32}
    - {index: 2, type: uint64}
    - {index: 3, type: int64}
""",
        trace,
        lambda _: [
            syscall("sys_ptrace", number(0), number(0), size(0), {"long_arg": "0"}),
            syscall("sys_ptrace", number(16), number(-1), size(0), {"long_arg": "0"}),
        ],
    ),
)

# --- programs, modules, BPF


def run_true(folder: Path) -> None:
    os.execv("/bin/true", ["true", "one"])


def load_garbage(folder: Path) -> None:
    path = folder / "module.ko"
    with path.open("rb") as one:
        LIBC.syscall({"x86_64": 313, "aarch64": 273}[os.uname().machine], one.fileno(), b"", 0)


def request_module(folder: Path) -> None:
    with suppress(OSError):
        socket.socket(40, socket.SOCK_STREAM)  # AF_VSOCK or another that is not there


def open_perf_event(folder: Path) -> None:
    attr = bytearray(128)
    attr[0:4] = (1).to_bytes(4, "little")  # PERF_TYPE_SOFTWARE
    attr[4:8] = (128).to_bytes(4, "little")
    attr[8:16] = (2).to_bytes(8, "little")  # PERF_COUNT_SW_PAGE_FAULTS
    number = {"x86_64": 298, "aarch64": 241}[os.uname().machine]
    LIBC.syscall(number, bytes(attr), 0, -1, -1, 0)


TRUE = os.path.realpath("/bin/true")
PROGRAMS = (
    Case(
        "programs by the security hook",
        """\
  kprobes:
  - call: "security_bprm_check"
    syscall: false
    return: true
    args:
    - index: 0
      type: "linux_binprm"
    returnArg:
      index: 0
      type: "int"
    selectors:
    - matchArgs:
      - {index: 0, operator: Equal, values: ["TRUE"]}
""",
        run_true,
        lambda _: [
            kprobe(
                "security_bprm_check",
                {"linux_binprm_arg": {"path": TRUE, "permission": "-rwxr-xr-x"}},
                returned=number(0),
            )
        ],
    ),
    Case(
        "programs by LSM hooks",
        """\
  lsmhooks:
  - hook: "bprm_check_security"
    args:
    - index: 0
      type: "linux_binprm"
    - index: 0
      type: "string"
      resolve: "mm.owner.comm"
    selectors:
    - matchArgs:
      - {index: 0, operator: Postfix, values: ["bin/true"]}
  - hook: "file_open"
    args:
    - index: 0
      type: "file"
    selectors:
    - matchArgs:
      - {index: 0, operator: Equal, values: ["TRUE"]}
""",
        run_true,
        lambda _: [
            lsm("file_open", file(TRUE, "-rwxr-xr-x")),
            lsm(
                "bprm_check_security",
                {"linux_binprm_arg": {"path": TRUE, "permission": "-rwxr-xr-x"}},
                text(own_name()),
            ),
        ],
    ),
    Case(
        "files that are loaded as modules",
        """\
  kprobes:
  - call: "security_kernel_read_file"
    syscall: false
    return: true
    message: "kernel module"
    args:
    - index: 0
      type: "file"
    - index: 1
      type: "int"
    returnArg:
      index: 0
      type: "int"
    selectors:
    - matchArgs:
      - index: 1
        operator: "Equal"
        values: ["2"]
""",
        load_garbage,
        lambda folder: [
            kprobe(
                "security_kernel_read_file",
                file(folder / "module.ko"),
                number(2),
                returned=number(0),
                message="kernel module",
            )
        ],
    ),
    Case(
        "requested modules",
        """\
  kprobes:
  - call: "security_kernel_module_request"
    syscall: false
    return: true
    args:
    - index: 0
      type: "string"
    returnArg:
      index: 0
      type: "int"
""",
        request_module,
        lambda _: [kprobe("security_kernel_module_request", text("net-pf-40"), returned=number(0))],
    ),
    Case(
        "perf events",
        """\
  kprobes:
  - call: "security_perf_event_alloc"
    syscall: false
    args:
    - index: 0
      type: "perf_event"
""",
        open_perf_event,
        lambda _: [
            kprobe(
                "security_perf_event_alloc",
                {"perf_event_arg": {"Type": "PERF_TYPE_SOFTWARE", "Config": "2"}},
            )
        ],
    ),
    Case(
        "started programs by the tracepoint",
        """\
  tracepoints:
  - subsystem: "sched"
    event: "sched_process_exec"
    args:
    - {index: 4, type: data_loc}
    - {index: 5, type: int32}
    selectors:
    - matchArgs:
      - {index: 4, operator: Postfix, values: ["/true"]}
""",
        run_true,
        lambda _: [tracepoint("sched/sched_process_exec", text("/bin/true"), number(ANY))],
        functions=False,
    ),
    Case(
        "started programs by the raw tracepoint",
        """\
  tracepoints:
  - subsystem: "sched"
    event: "sched_process_exec"
    raw: true
    args:
    - {index: 0, type: int, resolve: "real_parent.tgid"}
    - {index: 2, type: linux_binprm}
    selectors:
    - matchArgs:
      - {index: 2, operator: Prefix, values: ["TRUE"]}
""",
        run_true,
        lambda _: [
            tracepoint(
                "sched/sched_process_exec",
                number(os.getpid()),
                {"linux_binprm_arg": {"path": TRUE, "permission": "-rwxr-xr-x"}},
            )
        ],
        functions=False,
    ),
)


# --- raw system calls, expressions, macros, lists, data


def calls(folder: Path) -> None:
    LIBC.lseek(-1, ctypes.c_long(5555), 0)
    LIBC.lseek(-1, ctypes.c_long(5556), 0)


def sync(folder: Path) -> None:
    fd = os.open(folder / "file", os.O_RDWR)
    os.dup2(fd, 60)
    os.fdatasync(60)
    os.fsync(60)


def old_calls(folder: Path) -> None:
    i386_call(132)  # getpgid
    i386_call(147)  # getsid
    with suppress(OSError):
        os.getpgid(-7)


SYSCALLS = (
    Case(
        "system calls of a list",
        """\
  lists:
  - name: "syncs"
    type: "syscalls"
    values: ["sys_fdatasync", "sys_fsync"]
  tracepoints:
  - subsystem: "raw_syscalls"
    event: "sys_enter"
    args:
    - {index: 4, type: "syscall64"}
    - {index: 5}
    selectors:
    - matchArgs:
      - {index: 0, operator: "InMap", values: ["list:syncs"]}
""",
        sync,
        lambda _: [
            tracepoint(
                "raw_syscalls/sys_enter",
                {"syscall_id": {"id": number, "abi": ABI}},
                size(60),
                *[{"size_arg": ANY_TEXT}] * 5,
            )
            for number in SYNCS
        ],
        functions=False,
    ),
    Case(
        "system calls of a list as functions",
        """\
  lists:
  - name: "syncs"
    type: "syscalls"
    values: ["sys_fdatasync", "sys_fsync"]
  kprobes:
  - call: "list:syncs"
    args:
    - {index: 0, type: "int"}
    return: true
    returnArg: {index: 0, type: int}
""",
        sync,
        lambda _: [
            syscall("sys_fdatasync", number(60), returned=number(0)),
            syscall("sys_fsync", number(60), returned=number(0)),
        ],
        functions=False,
    ),
    Case(
        "expressions, macros and data",
        """\
  selectorsMacros:
    seek:
      matchArgs:
      - operator: CelExpr
        args: [0, 1]
        values: ["arg0 == int32(-1) && arg1 == 5555"]
  kprobes:
  - call: "sys_lseek"
    syscall: true
    args:
    - {index: 0, type: int}
    - {index: 1, type: long, label: offset}
    data:
    - {index: 0, type: string, source: current_task, resolve: comm}
    - {index: 0, type: uint32, source: current_task, resolve: cred.uid.val}
    selectors:
    - macros: [seek]
      matchData:
      - {index: 1, operator: Equal, values: ["0"]}
      matchActions:
      - {action: Post}
""",
        calls,
        lambda _: [
            syscall(
                "sys_lseek",
                number(-1),
                {"long_arg": "5555", "label": "offset"},
                data=[text(own_name()), {"uint_arg": 0}],
            )
        ],
        functions=False,
    ),
    Case(
        "functions by fentries",
        """\
  fentries:
  - call: "security_file_permission"
    syscall: false
    args:
    - {index: 0, type: file}
    - {index: 0, type: "uint64", resolve: "f_inode.i_ino"}
    - {index: 1, type: int}
    selectors:
    - matchArgs:
      - {index: 0, operator: NotPostfix, values: ["/other"]}
      - {index: 0, operator: Prefix, values: ["FOLDER"]}
      - {index: 1, operator: NotEqual, values: ["2"]}
""",
        read_and_write,
        lambda folder: [
            kprobe(
                "security_file_permission", file(folder / "file"), {"size_arg": ANY64}, number(4)
            )
        ],
    ),
)
I386 = Case(
    "32-bit system calls",
    """\
  lists:
  - name: "sessions"
    type: "syscalls"
    values: ["i386/sys_getsid", "__ia32_sys_getpgid"]
  tracepoints:
  - subsystem: "raw_syscalls"
    event: "sys_enter"
    args:
    - {index: 4, type: "syscall64"}
    selectors:
    - matchArgs:
      - {index: 4, operator: "InMap", values: ["list:sessions"]}
  kprobes:
  - call: "__ia32_sys_getpgid"
    return: true
    args:
    - {index: 0, type: "int"}
    returnArg: {index: 0, type: "int"}
  - call: "sys_getpgid"
    return: true
    args:
    - {index: 0, type: "int"}
    returnArg: {index: 0, type: "int"}
""",
    old_calls,
    lambda _: [
        tracepoint("raw_syscalls/sys_enter", {"syscall_id": {"id": 132, "abi": "i386"}}),
        kprobe("__ia32_sys_getpgid", number(0), returned=number(os.getpgid(0))),
        tracepoint("raw_syscalls/sys_enter", {"syscall_id": {"id": 147, "abi": "i386"}}),
        kprobe("__x64_sys_getpgid", number(-7), returned=number(-3)),
    ],
    functions=False,
)


def own_name() -> str:
    return Path("/proc/self/comm").read_text().strip()


# --- more of each: several selectors, returns, other ways to a value


def move_and_change(folder: Path) -> None:
    os.rename(folder / "other", folder / "renamed")
    os.chmod(folder / "file", 0o4711)
    os.unlink(folder / "renamed")


def kill_nobody(folder: Path) -> None:
    os.kill(os.getpid(), 0)


def accept_one(folder: Path) -> None:
    with socket.socket() as server, socket.socket() as one:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", PORT))
        server.listen()
        one.connect(("127.0.0.1", PORT))
        server.accept()[0].close()


def write_to_a_terminal(folder: Path) -> None:
    leader, follower = os.openpty()
    os.write(follower, b"to the terminal")
    os.close(leader)


def read_some(folder: Path) -> None:
    fd = os.open(folder / "file", os.O_RDONLY)
    for size in (3, 1, 200, 50):
        os.read(fd, size)


def write_and_exclude(folder: Path) -> None:
    for name in ("other", "file"):
        fd = os.open(folder / name, os.O_WRONLY)
        os.write(fd, b"written")


def fork_one(folder: Path) -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def use_bpf(folder: Path) -> None:
    attr = bytearray(72)  # BPF_MAP_TYPE_ARRAY, key 4, value 8, 2 entries
    for at, value in ((0, 2), (4, 4), (8, 8), (12, 2)):
        attr[at : at + 4] = value.to_bytes(4, "little")
    attr[28:33] = b"seen\0"  # map_name
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    LIBC.syscall(number, 0, bytes(attr), len(attr))


def run_twice(folder: Path) -> None:
    if os.fork() == 0:
        os.execv("/bin/cat", ["cat", str(folder / "file")])
    os.wait()
    os.execv("/bin/cat", ["cat", str(folder / "file")])


CAT = os.path.realpath("/bin/cat")
MORE = (
    Case(
        "changed directories and modes",
        """\
  kprobes:
  - call: "security_inode_rename"
    syscall: false
    args:
    - {index: 1, type: dentry, label: from}
    - {index: 3, type: dentry, label: to}
    - {index: 4, type: uint32}
    selectors:
    - matchArgs:
      - {index: 1, operator: Postfix, values: ["/other"]}
  - call: "security_path_chmod"
    syscall: false
    args:
    - {index: 0, type: path}
    - {index: 1, type: uint16}
    selectors:
    - matchArgs:
      - {index: 0, operator: Prefix, values: ["FOLDER/"]}
  - call: "security_inode_unlink"
    syscall: false
    return: true
    args:
    - {index: 1, type: dentry}
    returnArg: {index: 0, type: int}
    selectors:
    - matchArgs:
      - {index: 1, operator: SubString, values: ["renamed"]}
""",
        move_and_change,
        lambda folder: [
            kprobe(
                "security_inode_rename",
                in_path(in_mount(folder / "other"), "-rw-r--r--", label="from"),
                in_path(in_mount(folder / "renamed"), "---------", label="to"),
                {"uint_arg": 0},
            ),
            kprobe(
                "security_path_chmod",
                in_path(folder / "file", "-rw-r--r--"),
                {"uint_arg": 0o4711},
            ),
            kprobe(
                "security_inode_unlink",
                in_path(in_mount(folder / "renamed"), "-rw-r--r--"),
                returned=number(0),
            ),
        ],
    ),
    Case(
        "signals and their targets",
        """\
  kprobes:
  - call: "security_task_kill"
    syscall: false
    args:
    - {index: 0, type: int, resolve: tgid, label: target}
    - {index: 0, type: string, resolve: comm}
    - {index: 0, type: string, resolve: "real_parent.comm"}
    - {index: 2, type: int32}
    selectors:
    - matchArgs:
      - {args: [3], operator: Equal, values: ["0"]}
""",
        kill_nobody,
        lambda _: [
            kprobe(
                "security_task_kill",
                {"int_arg": ANY, "label": "target"},
                text(own_name()),
                text(own_name()),
                number(0),
            )
        ],
    ),
    Case(
        "accepted connections",
        """\
  kprobes:
  - call: "inet_csk_accept"
    syscall: false
    return: true
    args:
    - {index: 0, type: sock}
    returnArg: {index: 0, type: sock}
    selectors:
    - matchArgs:
      - {index: 0, operator: State, values: ["TCP_LISTEN"]}
      - {index: 0, operator: SPort, values: ["4713"]}
""",
        accept_one,
        lambda _: [
            kprobe(
                "inet_csk_accept",
                listening("TCP_LISTEN"),
                returned=sock("TCP_ESTABLISHED", dport=ANY, sport=PORT),
            ),
        ],
    ),
    Case(
        "what is written to terminals",
        """\
  kprobes:
  - call: "tty_write"
    syscall: false
    args:
    - index: 0
      type: "kiocb"
    - index: 1
      type: "iov_iter"
    selectors:
    - matchArgs:
      - {index: 0, operator: Prefix, values: ["/"]}
      - {index: 0, operator: FileType, values: ["chr"]}
""",
        write_to_a_terminal,
        lambda _: [
            kprobe(
                "tty_write",
                {"file_arg": {"path": ANY_TEXT, "permission": ANY_TEXT}},
                octets(b"to the terminal"),
            )
        ],
    ),
    Case(
        "returns by selector",
        """\
  kprobes:
  - call: "sys_read"
    return: true
    args:
    - {index: 0, type: fd}
    - {index: 1, type: char_buf, returnCopy: true}
    - {index: 2, type: size_t}
    returnArg: {index: 0, type: int64}
    selectors:
    - matchArgs:
      - {index: 0, operator: Equal, values: ["FOLDER/file"]}
      - {index: 2, operator: LT, values: ["10"]}
      matchReturnArgs:
      - {index: 0, operator: NotEqual, values: ["1"]}
    - matchArgs:
      - {index: 0, operator: Equal, values: ["FOLDER/file"]}
      - {index: 2, operator: Equal, values: ["50"]}
      matchActions:
      - {action: NoPost}
    - matchArgs:
      - {index: 0, operator: Equal, values: ["FOLDER/file"]}
""",
        read_some,
        lambda folder: [
            syscall(
                "sys_read",
                file(folder / "file"),
                octets(b"con"),
                size(3),
                returned={"long_arg": "3"},
            ),
            syscall(
                "sys_read",
                file(folder / "file"),
                octets(b"ent\n"),
                size(200),
                returned={"long_arg": "4"},
            ),
        ],
    ),
    Case(
        "copies behind an argument that is not reported",
        """\
  kprobes:
  - call: "sys_read"
    return: true
    args:
    - {index: 0, type: nop}
    - {index: 1, type: char_buf, returnCopy: true, label: content}
    - {index: 2, type: size_t}
    returnArg: {index: 0, type: int}
    selectors:
    - matchArgs:
      - {index: 2, operator: Equal, values: ["200"]}
""",
        read_some,
        lambda _: [
            syscall(
                "sys_read",
                octets(b"ent\n") | {"label": "content"},
                size(200),
                returned=number(4),
            )
        ],
        functions=False,
    ),
    Case(
        "exclusions before a rule",
        """\
  kprobes:
  - call: "security_file_permission"
    syscall: false
    args:
    - {index: 0, type: file}
    - {index: 1, type: int}
    selectors:
    - matchArgs:
      - {index: 0, operator: Postfix, values: ["/other"]}
      matchActions:
      - {action: NoPost}
    - label: writes
      matchArgs:
      - {index: 0, operator: Prefix, values: ["FOLDER"]}
      - {index: 1, operator: Mask, values: ["0x2"]}
      matchActions:
      - {action: Post, rateLimit: "10", rateLimitScope: "global"}
""",
        write_and_exclude,
        lambda folder: [kprobe("security_file_permission", file(folder / "file"), number(2))],
    ),
    Case(
        "forks by the tracepoint",
        """\
  tracepoints:
  - subsystem: "sched"
    event: "sched_process_fork"
    args:
    - {index: 5, type: int32}
    - {index: 7, type: int32}
    - {index: 5, type: uint32}
  - subsystem: "sched"
    event: "sched_process_fork"
    raw: true
    args:
    - {index: 1, type: int32, resolve: "real_parent.tgid"}
    - {index: 1, type: uint32, resolve: "flags", label: never}
""",
        fork_one,
        lambda _: [
            tracepoint("sched/sched_process_fork", number(ANY), {"uint_arg": ANY}),
            tracepoint("sched/sched_process_fork", number(ANY), number(ANY), {"uint_arg": ANY}),
        ],
        functions=False,
        ordered=False,
        repeated=True,
    ),
    Case(
        "uses of BPF",
        """\
  kprobes:
  - call: "security_bpf"
    syscall: false
    args:
    - {index: 0, type: bpf_cmd}
    - {index: 1, type: nop}
    - {index: 2, type: uint32}
    selectors:
    - matchArgs:
      - {index: 0, operator: Equal, values: ["0"]}
  - call: "sys_bpf"
    syscall: true
    return: true
    args:
    - {index: 0, type: int}
    - {index: 2, type: uint32}
    returnArg: {index: 0, type: int}
  - call: "security_bpf_map_alloc"
    syscall: false
    ignore: {callNotFound: true}
    args:
    - {index: 0, type: bpf_map}
  - call: "security_bpf_map_create"
    syscall: false
    ignore: {callNotFound: true}
    args:
    - {index: 0, type: bpf_map}
""",
        use_bpf,
        lambda _: [
            kprobe("security_bpf", {"bpf_cmd_arg": "BPF_MAP_CREATE"}, {"uint_arg": 72}),
            kprobe(
                ANY_TEXT,
                {
                    "bpf_map_arg": {
                        "MapType": "BPF_MAP_TYPE_ARRAY",
                        "KeySize": 4,
                        "ValueSize": 8,
                        "MaxEntries": 2,
                        "MapName": "seen",
                    }
                },
            ),
            syscall("sys_bpf", number(0), {"uint_arg": 72}, returned=number(ANY)),
        ],
        state=State.PARTIALLY_ENABLED,
    ),
    Case(
        "binaries and their children",
        """\
  kprobes:
  - call: "security_file_open"
    syscall: false
    args:
    - {index: 0, type: file}
    - {index: 0, type: int64, resolve: "f_inode.i_size"}
    - {index: 0, type: string, resolve: "f_inode.i_sb.s_type.name"}
    selectors:
    - matchBinaries:
      - {operator: In, values: ["CAT"]}
      matchParentBinaries:
      - {operator: NotIn, values: ["/usr/bin/true"]}
      matchArgs:
      - {index: 0, operator: Equal, values: ["FOLDER/file"]}
""",
        run_twice,
        lambda folder: [
            kprobe(
                "security_file_open",
                file(folder / "file"),
                {"long_arg": "8"},
                {"string_arg": ANY_TEXT},
            )
        ],
    ),
    Case(
        "functions of lists",
        """\
  lists:
  - name: "ids"
    values: ["__sys_setuid", "__sys_setgid"]
  - name: "traced"
    type: "generated_ftrace"
    pattern: "^ksys_(sync|read)$"
  kprobes:
  - call: "list:ids"
    syscall: false
    args:
    - {index: 0, type: uint32}
  - call: "list:traced"
    syscall: false
    selectors:
    - matchBinaries:
      - {operator: In, values: ["/none"]}
""",
        change_user,
        lambda _: [
            kprobe("__sys_setgid", {"uint_arg": 7}),
            kprobe("__sys_setuid", {"uint_arg": 8}),
            kprobe("__sys_setuid", {"uint_arg": 0}),
        ],
    ),
    Case(
        "pointers of programs in functions",
        """\
  kprobes:
  - call: "do_sys_openat2"
    syscall: false
    args:
    - {index: 0, type: int}
    - {index: 1, type: string}
    selectors:
    - matchArgs:
      - {index: 1, operator: Equal, values: ["FOLDER/file"]}
  - call: "vfs_write"
    syscall: false
    args:
    - {index: 0, type: file}
    - {index: 1, type: char_buf, sizeArgIndex: 3}
    - {index: 2, type: size_t}
    selectors:
    - matchArgs:
      - {index: 1, operator: Prefix, values: ["writ"]}
  - call: "vfs_read"
    syscall: false
    return: true
    args:
    - {index: 0, type: file}
    - {index: 1, type: char_buf, returnCopy: true}
    returnArg: {index: 0, type: int64}
    selectors:
    - matchArgs:
      - {index: 0, operator: Equal, values: ["FOLDER/file"]}
""",
        read_write_close,
        lambda folder: [
            kprobe("do_sys_openat2", number(-100), text(folder / "file")),
            kprobe("vfs_write", file(folder / "file"), octets(b"written\0bytes"), size(13)),
            kprobe(
                "vfs_read",
                file(folder / "file"),
                octets(b"written\0bytes"),
                returned={"long_arg": "13"},
            ),
        ],
    ),
    Case(
        "functions of many arguments",
        """\
  kprobes:
  - call: "do_mmap"
    syscall: false
    args:
    - {index: 0, type: file}
    - {index: 2, type: uint64}
    - {index: 3, type: uint64}
    selectors:
    - matchArgs:
      - {index: 0, operator: Equal, values: ["FOLDER/file"]}
      - {index: 3, operator: Equal, values: ["3"]}
""",
        map_file,
        lambda folder: [
            kprobe("do_mmap", file(folder / "file", "-rw-------"), size(4096), size(3))
        ],
    ),
    Case(
        "registers and the task",
        """\
  kprobes:
  - call: "sys_lseek"
    syscall: true
    args:
    - {index: 0, type: int}
    data:
    - {index: 0, type: int64, source: pt_regs, resolve: "REGISTER"}
    - {index: 0, type: int32, source: current_task, resolve: "tgid"}
    - {index: 0, type: string, source: current_task, resolve: "mm.owner.comm"}
    selectors:
    - matchData:
      - {index: 0, operator: Equal, values: ["5556"]}
      matchArgs:
      - {index: 0, operator: InMap, values: ["-1", "7:9"]}
""",
        calls,
        lambda _: [
            syscall(
                "sys_lseek",
                number(-1),
                data=[{"long_arg": "5556"}, number(ANY), text(own_name())],
            )
        ],
        functions=False,
    ),
)


def in_path(path: Path | str, permission: str, **more: Any) -> Json:
    return {"path_arg": {"path": str(path), "permission": permission}} | more


def listening(state: str) -> Json:
    return {
        "sock_arg": {
            "family": "AF_INET",
            "type": "SOCK_STREAM",
            "protocol": "IPPROTO_TCP",
            "saddr": "127.0.0.1",
            "daddr": "0.0.0.0",
            "sport": PORT,
            "cookie": ANY64,
            "state": state,
        }
    }


CASES = [*FILES, *NETWORK, *CREDENTIALS, *PROGRAMS, *SYSCALLS, *MORE]
if ABI == "x64":
    CASES.append(I386)
