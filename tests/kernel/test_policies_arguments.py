"""Every type of argument that system calls, tracepoints and programs can have, by real calls."""

import ctypes
import os
import socket
import struct
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from collector.bpf.links import TRACEFS
from collector.records import values
from collector.records.values import Path as PathValue
from support.calls import NUMBERS
from support.policies import in_child, plan_of
from support.workloads import built

pytestmark = pytest.mark.kernel

NEEDS_TRACEFS = pytest.mark.skipif(
    not any((folder / "events").is_dir() for folder in TRACEFS),
    reason="tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing",
)


def document(section: str) -> str:
    indented = "\n".join("  " + line for line in section.strip("\n").splitlines())
    return (
        "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata:\n  name: test\nspec:\n"
        + indented
    )


def syscall(call: str, args: str, more: str = "") -> str:
    """Return a policy on a system call; ``args`` is a list in flow style."""
    return document(f"kprobes:\n- call: {call}\n  syscall: true\n  args: {args}\n{more}")


def records(policies, text, action, count=1):
    """Return the records of a child that runs ``action``."""
    with policies.loaded(plan_of(text)) as loaded:
        pid = in_child(action)
        return loaded.until(count, pid)


# --- system calls


def test_char_buf_and_fd_of_write(policies, tmp_path):
    path = tmp_path / "written"
    text = syscall(
        "sys_write",
        "[{index: 0, type: fd}, {index: 1, type: char_buf, sizeArgIndex: 3},"
        " {index: 2, type: size_t}]",
    )

    def write() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o640)
        os.write(fd, b"a\0b")
        os.write(fd, b"x" * 5000)
        os.write(fd, b"")
        with suppress(OSError):
            os.write(77, b"closed")

    first, second, third, fourth = records(policies, text, write, 4)
    assert first.args == (PathValue(str(path).encode(), 0, 0o100640), b"a\0b", 3)
    assert second.args[1:] == (values.TruncatedBytes(b"x" * 4095, 5000), 5000)
    assert third.args[1:] == (b"", 0)
    assert fourth.args == (None, b"closed", 6)  # the fd is not open: the others stay right


def test_long_buffers_with_max_data(policies, tmp_path):
    text = syscall(
        "sys_write", "[{index: 1, type: char_buf, sizeArgIndex: 3, maxData: true}]",
        '  selectors:\n  - matchArgs:\n    - {index: 1, operator: Prefix, values: ["long"]}\n',
    )  # fmt: skip
    sizes = (10, 4095, 4096, 30000, 40000, 327360, 400000)
    fd = os.open(tmp_path / "written", os.O_WRONLY | os.O_CREAT)

    def written(size: int) -> bytes:
        return (b"long" + bytes(range(1, 250)) * 2000)[:size]

    with policies.loaded(plan_of(text)) as loaded:
        for size in sizes:
            pid = in_child(partial(os.write, fd, written(size)))
            (record,) = loaded.until(1, pid)
            (found,) = record.args
            if size <= 327360:
                assert found == written(size)
            else:
                assert found == values.TruncatedBytes(written(327360), size)


def test_texts_whose_address_is_an_unsigned_long(policies):
    """prctl(PR_SET_NAME) has its text in arg2: the prototype has a number there."""
    args = "[{index: 0, type: int}, {index: 1, type: string}]"
    only = "  selectors:\n  - matchArgs: [{index: 1, operator: Equal, values: [longname]}]\n"

    def rename() -> None:
        set_name = partial(ctypes.CDLL(None).prctl, 15)  # include/uapi/linux/prctl.h: PR_SET_NAME
        for name in (b"other", b"longname", None):
            set_name(name)

    (record,) = records(policies, syscall("sys_prctl", args, only), rename)
    assert record.args == (15, b"longname")


def test_char_iovec_of_writev(policies, tmp_path):
    text = syscall("sys_writev", "[{index: 1, type: char_iovec, sizeArgIndex: 3}]")
    fd = os.open(tmp_path / "written", os.O_WRONLY | os.O_CREAT)

    def write() -> None:
        os.writev(fd, [b"one", b"", b"three"])
        os.writev(fd, [b"y" * 4095])

    first, second = records(policies, text, write, 2)
    assert first.args == (b"onethree",)
    assert second.args == (values.BufferFault(values.FAULT_TOO_LARGE),)


def test_sockaddr_of_connect(policies):
    text = syscall("sys_connect", "[{index: 1, type: sockaddr}]")

    def connect() -> None:
        with suppress(OSError), socket.socket() as one:
            one.setblocking(False)
            one.connect(("127.1.2.3", 4711))
        with suppress(OSError), socket.socket(socket.AF_INET6) as one:
            one.setblocking(False)
            one.connect(("::1", 4712))

    first, second = records(policies, text, connect, 2)
    assert first.args == (values.Sockaddr(2, bytes([127, 1, 2, 3]), 4711),)
    assert second.args == (values.Sockaddr(10, bytes(15) + b"\1", 4712),)


def test_sockaddr_un_of_connect(policies, tmp_path):
    text = syscall(
        "sys_connect",
        "[{index: 1, type: sockaddr_un, sizeArgIndex: 3}]",
        "  selectors:\n  - matchArgs:\n    - index: 1\n      operator: Prefix\n"
        '      values: ["/tmp/", "@hidden"]\n',
    )

    def connect() -> None:
        for address in (b"/tmp/nobody", b"\0hidden\0name", b"/var/nobody"):
            with suppress(OSError), socket.socket(socket.AF_UNIX) as one:
                one.connect(address)

    first, second = records(policies, text, connect, 2)
    assert first.args == (values.SockaddrUn(1, b"/tmp/nobody"),)
    assert second.args == (values.SockaddrUn(1, b"\0hidden\0name"),)


def test_attributes_of_a_program_that_is_loaded(policies):
    text = syscall(
        "sys_bpf",
        "[{index: 0, type: bpf_cmd}, {index: 1, type: bpf_attr}]",
        '  selectors:\n  - matchArgs: [{index: 0, operator: Equal, values: ["5"]}]\n',
    )
    # prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags
    attr = struct.pack("IIQQIIQII16s", 1, 2, 0, 0, 0, 0, 0, 0, 0, b"a_program").ljust(120, b"\0")

    def load() -> None:
        ctypes.CDLL(None).syscall(NUMBERS["bpf"], 5, attr, len(attr))  # without instructions: fails

    (record,) = records(policies, text, load)
    assert record.args == (5, values.BpfProgram(1, 2, b"a_program"))


def test_narrow_types_drop_the_upper_bits_of_a_register(policies):
    kinds = "int8 uint8 int16 uint16 int32"
    args = ", ".join(f"{{index: 0, type: {kind}}}" for kind in kinds.split())
    text = syscall("sys_close", f"[{args}]")

    def close() -> None:
        ctypes.CDLL(None).syscall(
            NUMBERS["close"], ctypes.c_long(0x7FFF_FFFF_8001_80FE - (1 << 63))
        )

    wanted = (-2, 254, -32514, 33022, -2147385090)
    # The child closes descriptors of its own too.
    assert [one.args for one in records(policies, text, close)].count(wanted) == 1


def test_bad_address_fails_one_argument(policies):
    text = syscall("sys_openat", "[{index: 1, type: string}, {index: 2, type: int}]")

    def open_nothing() -> None:
        ctypes.CDLL(None).syscall(NUMBERS["openat"], -100, ctypes.c_void_p(8), 1234, 0)

    (record,) = records(policies, text, open_nothing)
    assert record.args == (values.Unreadable(), 1234)


# --- what hangs from the current task


DATA = """
  data:
  - {index: 0, type: string, source: current_task, resolve: comm}
  - {index: 1, type: cred, source: current_task, resolve: cred}
  - {index: 2, type: user_namespace, source: current_task, resolve: cred.user_ns}
  - {index: 3, type: kernel_cap_t, source: current_task, resolve: cred.cap_effective}
"""
FILES = """
  data:
  - {index: 0, type: file, source: current_task, resolve: mm.exe_file}
  - {index: 1, type: path, source: current_task, resolve: fs.pwd}
  - {index: 2, type: dentry, source: current_task, resolve: fs.pwd.dentry}
  - {index: 3, type: uint32, source: current_task, resolve: real_parent.tgid}
"""


def capabilities() -> tuple[int, int, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    permitted, effective, inheritable = (
        int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh")
    )
    return permitted, effective, inheritable


def test_credentials_of_the_current_task(policies):
    text = syscall("sys_getpriority", "[{index: 0, type: int}]", DATA)

    def call() -> None:
        os.setresgid(7, 8, 9)
        os.getpriority(os.PRIO_PROCESS, 0)

    (record,) = records(policies, text, call)
    permitted, effective, inheritable = capabilities()
    comm, cred, user_ns, effective_set = record.data
    assert comm == Path("/proc/self/comm").read_bytes().strip()
    inum = os.stat("/proc/self/ns/user").st_ino
    assert user_ns == values.UserNamespace(0, 0, 0, inum)
    assert cred == values.Cred(
        0, 7, 0, 8, 0, 9, 0, 8, cred.securebits, permitted, effective, inheritable, user_ns
    )
    assert effective_set == effective


def test_files_of_the_current_task(policies, tmp_path):
    text = syscall("sys_getpriority", "[{index: 0, type: int}]", FILES)

    def call() -> None:
        os.chdir(tmp_path)
        os.getpriority(os.PRIO_PROCESS, 0)

    (record,) = records(policies, text, call)
    exe, cwd, inside, parent = record.data
    assert exe.text == os.fsencode(os.readlink("/proc/self/exe"))
    assert exe.mode == os.stat("/proc/self/exe").st_mode
    assert cwd == PathValue(os.fsencode(tmp_path), 0, os.stat(tmp_path).st_mode)
    assert os.fsencode(tmp_path).endswith(inside.text)
    assert parent == os.getpid()


def test_deep_and_deleted_directories(policies, tmp_path):
    text = syscall(
        "sys_getpriority", "[{index: 0, type: int}]",
        "  data:\n  - {index: 0, type: path, source: current_task, resolve: fs.pwd}\n",
    )  # fmt: skip

    def call() -> None:
        os.chdir(tmp_path)
        for _ in range(80):
            os.mkdir("d")
            os.chdir("d")
        os.getpriority(os.PRIO_PROCESS, 0)
        os.rmdir("../d")
        os.getpriority(os.PRIO_PROCESS, 0)
        os.chdir("/")
        os.getpriority(os.PRIO_PROCESS, 0)

    deep, deleted, root = records(policies, text, call, 3)
    path = os.fsencode(tmp_path) + b"/d" * 80
    assert deep.data[0].text == path
    assert deleted.data[0].text == path + b" (deleted)"
    assert root.data[0].text == b""


@pytest.mark.parametrize("longest", [9, 40, 255])
def test_paths_with_names_of_every_length(policies, tmp_path, longest):
    text = syscall(
        "sys_getpriority", "[{index: 0, type: int}]",
        "  data:\n  - {index: 0, type: path, source: current_task, resolve: fs.pwd}\n",
    )  # fmt: skip
    names = [(f"{n}-" + "abcdefghijklmnop" * 16)[:n] for n in range(1, longest + 1)]

    def call() -> None:
        os.chdir(tmp_path)
        for name in names:
            os.mkdir(name)
            os.chdir(name)
            os.getpriority(os.PRIO_PROCESS, 0)
        for name in reversed(names):
            os.chdir("..")
            os.rmdir(name)

    found = records(policies, text, call, len(names))
    path = os.fsencode(tmp_path)
    for name, record in zip(names, found, strict=True):
        path += b"/" + name.encode()
        if record.data[0].flags:  # more than the kernel walks
            assert path.endswith(record.data[0].text)
        else:  # 4096 bytes of the end at most, the last of them cut off
            assert record.data[0].text == (path if len(path) < 4096 else path[-4096:][:4095])


def test_failed_resolve_names_its_depth(policies):
    """A kernel thread's mm is NULL: nothing hangs from it. Here: the mm of a task that ended."""
    text = syscall(
        "sys_getpriority", "[{index: 0, type: int}]",
        "  data:\n"
        "  - {index: 0, type: uint64, source: current_task, resolve: vfork_done.done}\n"
        "  - {index: 1, type: uint32, source: current_task, resolve: tgid}\n",
    )  # fmt: skip
    with policies.loaded(plan_of(text)) as loaded:
        pid = in_child(lambda: os.getpriority(os.PRIO_PROCESS, 0))
        (record,) = loaded.until(1, pid)
    assert record.data == (values.Unreadable(1), pid)


# --- tracepoints


@NEEDS_TRACEFS
def test_raw_syscalls_tracepoint(policies):
    getpriority = NUMBERS["getpriority"]
    text = document(f"""
tracepoints:
- subsystem: raw_syscalls
  event: sys_enter
  args:
  - {{index: 4, type: syscall64}}
  - {{index: 5}}
  selectors:
  - matchArgs:
    - {{index: 4, operator: InMap, values: ["{getpriority}"]}}
""")
    (record,) = records(policies, text, lambda: os.getpriority(os.PRIO_PGRP, 0))
    number, arguments = record.args
    assert number == values.Syscall(getpriority)
    assert arguments[:2] == (os.PRIO_PGRP, 0)
    assert len(arguments) == 6


def test_number_for_an_array_of_a_tracepoint_is_its_first_element(policies):
    text = document(f"""
tracepoints:
- subsystem: raw_syscalls
  event: sys_enter
  args:
  - {{index: 4, type: uint64}}
  - {{index: 5, type: uint64}}
  - {{index: 5, type: int32}}
  selectors:
  - matchArgs:
    - {{index: 4, operator: Equal, values: ["{NUMBERS["getpriority"]}"]}}
    - {{args: [2], operator: Equal, values: ["-7"]}}
""")
    call = [NUMBERS["getpriority"], ctypes.c_long(-7), 0]
    (record,) = records(policies, text, lambda: ctypes.CDLL(None).syscall(*call))
    assert record.args == (NUMBERS["getpriority"], 2**64 - 7, -7)


@NEEDS_TRACEFS
def test_fields_of_a_tracepoint(policies):
    text = document("""
tracepoints:
- subsystem: sched
  event: sched_process_exec
  args:
  - {index: 4, type: data_loc}
  - {index: 5, type: int}
""")
    with policies.loaded(plan_of(text)) as loaded:
        child = subprocess.Popen(["/bin/true"])
        child.wait()
        (record,) = loaded.until(1, child.pid)
    assert record.args == (b"/bin/true", child.pid)


def test_raw_tracepoint_with_a_program(policies):
    text = document("""
tracepoints:
- subsystem: sched
  event: sched_process_exec
  raw: true
  args:
  - {index: 1, type: int}
  - {index: 2, type: linux_binprm}
  - {index: 0, type: string, resolve: comm}
""")
    with policies.loaded(plan_of(text)) as loaded:
        child = subprocess.Popen(["/bin/true"])
        child.wait()
        (record,) = loaded.until(1, child.pid)
    old_pid, program, comm = record.args
    target = os.path.realpath("/bin/true")
    assert program == PathValue(os.fsencode(target), 0, os.stat(target).st_mode)
    assert comm == b"true"
    assert old_pid == child.pid


def test_sock_of_a_tracepoint(policies):
    text = document("""
tracepoints:
- subsystem: sock
  event: inet_sock_set_state
  raw: true
  args:
  - {index: 0, type: sock}
  - {index: 2, type: int}
  selectors:
  - matchArgs:
    - {index: 0, operator: DAddr, values: ["127.9.0.0/16"]}
    - {index: 0, operator: DPort, values: ["4713"]}
    - {index: 0, operator: Family, values: ["AF_INET"]}
    - {index: 0, operator: Protocol, values: ["IPPROTO_TCP"]}
    - {index: 2, operator: Equal, values: ["2"]}
""")
    ports = []

    def connect() -> None:
        for address in (("127.9.8.7", 4713), ("127.10.8.7", 4713), ("127.9.8.7", 4714)):
            with socket.socket() as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 3)
                one.setblocking(False)
                with suppress(OSError):
                    one.connect(address)

    (record,) = records(policies, text, connect)
    sock, new_state = record.args
    assert ports == []
    assert new_state == 2
    assert sock == values.Sock(
        family=2, type=1, protocol=6, state=sock.state, mark=0, priority=3,
        saddr=sock.saddr, daddr=bytes([127, 9, 8, 7]), sport=sock.sport, dport=4713,
        cookie=sock.cookie,
    )  # fmt: skip
    assert sock.cookie > 1 << 63


def test_skb_of_a_tracepoint(policies):
    text = document("""
tracepoints:
- subsystem: net
  event: net_dev_queue
  raw: true
  args:
  - {index: 0, type: skb}
  selectors:
  - matchArgs:
    - {index: 0, operator: DAddr, values: ["127.9.8.7"]}
    - {index: 0, operator: Protocol, values: ["IPPROTO_UDP"]}
    - {index: 0, operator: SPortPriv}
""")

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 5)
            one.bind(("127.0.0.1", 923))
            one.sendto(b"hello", ("127.9.8.7", 4715))
            one.sendto(b"hello", ("127.9.8.8", 4715))

    (record,) = records(policies, text, send)
    (skb,) = record.args
    assert skb == values.Skb(
        hash=skb.hash, len=skb.len, priority=5, mark=0, saddr=bytes([127, 0, 0, 1]),
        daddr=bytes([127, 9, 8, 7]), sport=923, dport=4715, protocol=17, family=2,
        sec_path_len=0, sec_path_olen=0,
    )  # fmt: skip
    assert skb.len in (33, 47)  # IP, UDP and 5 bytes, with or without Ethernet


def test_skb_with_extension_headers_of_ipv6(policies):
    text = document("""
tracepoints:
- subsystem: net
  event: net_dev_queue
  raw: true
  args:
  - {index: 0, type: skb}
  selectors:
  - matchArgs:
    - {index: 0, operator: DAddr, values: ["::1"]}
    - {index: 0, operator: Protocol, values: ["IPPROTO_UDP"]}
    - {index: 0, operator: DPort, values: ["4715"]}
""")
    hop_by_hop, destination = 54, 59  # IPV6_HOPOPTS, IPV6_DSTOPTS of linux/in6.h
    padding = bytes((0, 1, 1, 12, *bytes(12)))  # of 16 bytes: an option PadN

    def send() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
            one.bind(("::1", 923))
            one.sendto(b"plain", ("::1", 4715))
            one.setsockopt(socket.IPPROTO_IPV6, hop_by_hop, padding)
            one.setsockopt(socket.IPPROTO_IPV6, destination, padding)
            one.sendto(b"behind extensions", ("::1", 4715))

    plain, extended = (one.args[0] for one in records(policies, text, send, 2))
    assert extended == plain._replace(hash=extended.hash, len=plain.len + 12 + 32)
    assert (plain.sport, plain.dport, plain.protocol, plain.family) == (923, 4715, 17, 10)


@pytest.mark.parametrize("version", ["cilium.io/v1alpha1", "tetra.io/v1"])
def test_port_of_a_socket_that_has_given_it_back(policies, version):
    text = document("""
tracepoints:
- subsystem: sock
  event: inet_sock_set_state
  raw: true
  args:
  - {index: 0, type: sock}
  - {index: 2, type: int}
  selectors:
  - matchArgs:
    - {index: 0, operator: DPort, values: ["4713"]}
    - {index: 2, operator: Equal, values: ["7"]}
""").replace("cilium.io/v1alpha1", version)

    def refused() -> None:
        with suppress(OSError), socket.socket() as one:
            one.connect(("127.9.8.7", 4713))

    (record,) = records(policies, text, refused)
    assert (record.args[0].sport > 0) is (version == "tetra.io/v1")


def test_net_device_of_a_tracepoint(policies):
    text = document("""
tracepoints:
- subsystem: net
  event: net_dev_queue
  raw: true
  args:
  - {index: 0, type: net_device, resolve: dev}
  selectors:
  - matchArgs:
    - {index: 0, operator: Equal, values: ["lo"]}
""")

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(b"hello", ("127.0.0.1", 4715))

    record, *_ = records(policies, text, send)  # the answer that no port listens passes too
    assert record.args == (b"lo",)


# --- returns


def test_return_value_of_a_system_call(policies, tmp_path):
    path = tmp_path / "there"
    path.touch()
    more = """
  return: true
  returnArg: {index: 0, type: int}
  selectors:
  - matchArgs:
    - {index: 1, operator: Prefix, values: ["FOLDER"]}
    matchReturnArgs:
    - {index: 0, operator: GT, values: ["-1"]}
""".replace("FOLDER", str(tmp_path))
    text = syscall("sys_openat", "[{index: 1, type: string}]", more)

    def call() -> None:
        with suppress(OSError):
            os.open(tmp_path / "missing", os.O_RDONLY)
        os.dup2(os.open(path, os.O_RDONLY), 99)

    (record,) = records(policies, text, call)
    assert record.args == (os.fsencode(path),)
    assert record.returned[0] >= 0


def test_buffer_is_read_at_return(policies, tmp_path):
    path = tmp_path / "read"
    path.write_bytes(b"content")
    more = """
  return: true
  returnArg: {index: 0, type: size_t}
  selectors:
  - matchArgs:
    - {index: 2, operator: Equal, values: ["77"]}
"""
    text = syscall(
        "sys_read",
        "[{index: 0, type: int}, {index: 1, type: char_buf, returnCopy: true},"
        " {index: 2, type: size_t}]",
        more,
    )

    def call() -> None:
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 77)
        os.read(fd, 77)
        buffer = ctypes.create_string_buffer(8192)
        libc = ctypes.CDLL(None)
        libc.read(-1, buffer, 77)  # EBADF
        libc.read(os.open("/", os.O_RDONLY), buffer, 77)  # EISDIR

    first, second, third, fourth = records(policies, text, call, 4)
    assert first.args[1:] == (b"content", 77)
    assert first.returned == (7,)
    assert second.args[1:] == (b"", 77)
    # An error is a fault without a name to Tetragon.
    assert third.args[1:] == fourth.args[1:] == (values.BufferFault(values.FAULT_UNKNOWN), 77)


def test_entries_are_read_at_return(policies, tmp_path):
    path = tmp_path / "read"
    path.write_bytes(b"abcdefgh")
    text = syscall(
        "sys_readv",
        "[{index: 0, type: int}, {index: 1, type: char_iovec, returnCopy: true, sizeArgIndex: 3},"
        " {index: 2, type: int}]",
    )

    def call() -> None:
        fd = os.open(path, os.O_RDONLY)
        os.readv(fd, [bytearray(2), bytearray(3)])
        os.readv(fd, [bytearray(2), bytearray(3000)])  # fills one, and one byte of the other
        os.readv(fd, [bytearray(2)])

    all_, some, none = records(policies, text, call, 3)
    assert all_.args[1:] == (b"abcde", 2)
    assert some.args[1:] == (b"fgh", 2)
    assert none.args[1:] == (b"", 1)


# --- programs


@pytest.fixture(scope="session")
def calls(tmp_path_factory):
    """The workload, built."""
    return built("calls", tmp_path_factory.mktemp("workloads"))


def test_numbers_of_a_program(policies, calls):
    text = document(f"""
uprobes:
- path: {calls}
  symbols: [take_narrow]
  args:
  - {{index: 0, type: int8}}
  - {{index: 1, type: uint8}}
  - {{index: 2, type: int16}}
  - {{index: 3, type: uint16}}
  - {{index: 4, type: int32}}
- path: {calls}
  symbols: [take_wide]
  args:
  - {{index: 0, type: uint32}}
  - {{index: 1, type: int64}}
  - {{index: 2, type: uint64}}
  - {{index: 3, type: size_t}}
""")
    with policies.loaded(plan_of(text)) as loaded:
        child = subprocess.Popen([calls, "numbers"])
        child.wait()
        narrow, wide = loaded.until(2, child.pid)
    assert (narrow.hook, wide.hook) == (0, 1)
    assert narrow.args == (-2, 254, -30000, 60000, -100000)
    assert wide.args == (4000000000, -5000000000, 18000000000000000000, 7)


def test_strings_of_a_program(policies, calls):
    text = document(f"""
uprobes:
- path: {calls}
  symbols: [take_text]
  args:
  - {{index: 0, type: string}}
  - {{index: 0, type: char_buf, sizeArgIndex: 2}}
  selectors:
  - matchArgs:
    - {{index: 0, operator: SubString, values: ["need"]}}
""")
    with policies.loaded(plan_of(text)) as loaded:
        for word in ("haystack", "haynedle", "a needle"):
            child = subprocess.Popen([calls, "text", word])
            child.wait()
        (record,) = loaded.until(1, child.pid)
    assert record.args == (b"a needle", b"a needle")


FIRST, SECOND = {"x86_64": ("rdi", "rsi"), "aarch64": ("x0", "x1")}[os.uname().machine]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("{index: 1, type: int}, {index: 2, type: nop}", (8,)),
        ("{index: 1, type: uint8}, {index: 0, type: string}", (8, b"a needle")),
        ("{index: 0, type: char_buf, sizeArgIndex: 2}, {index: 1, type: int}", (b"a needle", 8)),
    ],
)
def test_registers_that_are_read_several_times(policies, calls, more, found):
    text = document(f"""
uprobes:
- path: {calls}
  symbols: [take_text]
  args: [{{index: 0, type: string}}, {{index: 1, type: size_t}}, {more}]
  data:
  - {{source: current_task, type: string, resolve: comm}}
  - {{source: pt_regs, type: uint64, resolve: {SECOND}}}
  - {{source: pt_regs, type: uint64, resolve: {FIRST}}}
  selectors:
  - matchArgs: [{{index: 0, operator: Prefix, values: ["a n"]}}]
""")
    with policies.loaded(plan_of(text)) as loaded:
        child = subprocess.Popen([calls, "text", "a needle"])
        child.wait()
        (record,) = loaded.until(1, child.pid)
    assert record.args == (b"a needle", 8, *found)
    assert record.data[:2] == (b"calls", 8)
    assert record.data[2] > 0


def test_return_value_of_a_program(policies, calls):
    text = document(f"""
uprobes:
- path: {calls}
  symbols: [take_sum]
  args:
  - {{index: 0, type: int64}}
  return: true
  returnArg: {{index: 0, type: int64}}
""")
    with policies.loaded(plan_of(text)) as loaded:
        child = subprocess.Popen([calls, "sum", "-7", "3"], stdout=subprocess.DEVNULL)
        child.wait()
        (record,) = loaded.until(1, child.pid)
    assert (record.args, record.returned) == ((-7,), (-4,))
