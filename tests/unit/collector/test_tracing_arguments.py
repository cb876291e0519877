"""Every argument type, against the message built field by field and read by protobuf's parser."""

import socket
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.goquote import escaped_bytes
from collector.events import kernel_names, tracing_arguments
from collector.records import values as v
from tetragon.capabilities_pb2 import CapabilitiesType, SecureBitsType
from tetragon.tetragon_pb2 import (
    Capabilities,
    KernelModule,
    KprobeArgument,
    KprobeBpfAttr,
    KprobeBpfMap,
    KprobeBpfProg,
    KprobeCapability,
    KprobeError,
    KprobeFile,
    KprobeLinuxBinprm,
    KprobePath,
    KprobePerfEvent,
    KprobeSkb,
    KprobeSock,
    KprobeSockaddr,
    KprobeSockaddrUn,
    KprobeTruncatedBytes,
    Namespace,
    ProcessCredentials,
    ProcessKprobe,
    ProcessTracepoint,
    SyscallId,
    TaintedBitsType,
    UserNamespace,
)
from tracingpolicy.types import ArgumentType

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
S32, S64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
TAG = b"\x22"  # args of ProcessKprobe
SYSCALL = tracing_arguments.syscall_with("x64", "i386")

V4, V6 = bytes([10, 0, 0, 1]), IPv6Address("2001:db8::1").packed
FULL_CAPS = list(range(41))


def encoded(kind, value, label=""):
    wire = tracing_arguments.encoder(TAG, kind, label)(value)
    (argument,) = ProcessKprobe.FromString(wire).args
    return argument


def of_tracepoint(kind, value):
    wire = tracing_arguments.tracepoint_encoder(b"\x32", kind, SYSCALL)(value)
    return list(ProcessTracepoint.FromString(wire).args)


@pytest.mark.parametrize(
    ("kind", "member", "low", "high"),
    [
        ("int", "int_arg", -(2**31), 2**31 - 1),
        ("int32", "int_arg", -(2**31), 2**31 - 1),
        ("int16", "int_arg", -(2**15), 2**15 - 1),
        ("int8", "int_arg", -(2**7), 2**7 - 1),
        ("uint32", "uint_arg", 0, 2**32 - 1),
        ("uint16", "uint_arg", 0, 2**16 - 1),
        ("uint8", "uint_arg", 0, 2**8 - 1),
        ("int64", "long_arg", -(2**63), 2**63 - 1),
        ("uint64", "size_arg", 0, 2**64 - 1),
        ("size_t", "size_arg", 0, 2**64 - 1),
        ("syscall64", "long_arg", 0, 2**63 - 1),
    ],
)
@pytest.mark.parametrize("label", ["", "count"])
def test_numbers(kind, member, low, high, label):
    for value in (low, -1 if low else 1, 0, 1, 127, high):
        argument = encoded(kind, value, label)
        assert argument == KprobeArgument(**{member: value}, label=label)
        assert argument.WhichOneof("arg") == member  # present also as 0


@pytest.mark.parametrize("kind", ["string", "filename", "data_loc", "net_device"])
@given(ASCII)
def test_texts(kind, text):
    argument = encoded(kind, text.encode(), "name")
    assert argument == KprobeArgument(string_arg=text, label="name")
    assert argument.WhichOneof("arg") == "string_arg"


def test_text_that_is_not_utf8_is_repaired():
    assert encoded("string", b"a\xff\xfeb\xc3\xa9").string_arg == "a\ufffdb\u00e9"
    assert encoded("file", v.Path(b"/tmp/\xff")).file_arg.path == "/tmp/\ufffd"


@pytest.mark.parametrize("kind", ["char_buf", "char_iovec", "iov_iter"])
def test_buffers(kind):
    assert encoded(kind, b"\0\xff", "b") == KprobeArgument(bytes_arg=b"\0\xff", label="b")
    assert encoded(kind, b"").WhichOneof("arg") == "bytes_arg"
    cut = KprobeTruncatedBytes(bytes_arg=b"ab", orig_size=5000)
    assert encoded(kind, v.TruncatedBytes(b"ab", 5000)) == KprobeArgument(truncated_bytes_arg=cut)
    for code, text in (
        (v.FAULT_NO_MEMORY, b"CharBufErrorENOMEM"),
        (v.FAULT_PAGE, b"CharBufErrorPageFault"),
        (v.FAULT_TOO_LARGE, b"CharBufErrorBufTooLarge"),
        (v.FAULT_UNKNOWN, b"CharBufErrorUnknown"),
    ):
        assert encoded(kind, v.BufferFault(code)) == KprobeArgument(bytes_arg=text)


@pytest.mark.parametrize(
    ("kind", "member", "message"),
    [
        ("file", "file_arg", KprobeFile),
        ("fd", "file_arg", KprobeFile),
        ("kiocb", "file_arg", KprobeFile),
        ("path", "path_arg", KprobePath),
        ("dentry", "path_arg", KprobePath),
        ("linux_binprm", "linux_binprm_arg", KprobeLinuxBinprm),
    ],
)
def test_paths(kind, member, message):
    wanted = message(path="/etc/passwd", permission="-rw-r--r--")
    assert encoded(kind, v.Path(b"/etc/passwd", 0, 0o100644), "f") == KprobeArgument(
        **{member: wanted}, label="f"
    )
    tail = v.Path(b"/tail", v.UNRESOLVED_COMPONENTS, 0o040755)
    wanted = message(path="/tail", flags="unresolvedPathComponents", permission="drwxr-xr-x")
    assert encoded(kind, tail) == KprobeArgument(**{member: wanted})
    nameless = encoded(kind, v.Path(b"", 0, 0o010600))
    assert nameless == KprobeArgument(**{member: message(permission="prw-------")})
    nothing = encoded(kind, None)
    assert nothing == KprobeArgument(**{member: message(path="/", permission="---------")})


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (0o100644, "-rw-r--r--"),
        (0o104755, "-rwsr-xr-x"),
        (0o102644, "-rw-r-Sr--"),
        (0o041777, "drwxrwxrwt"),
        (0o041776, "drwxrwxrwT"),
        (0o120777, "lrwxrwxrwx"),
        (0o140755, "srwxr-xr-x"),
        (0o060660, "brw-rw----"),
        (0o020620, "crw--w----"),
        (0o010600, "prw-------"),
        (0, "---------"),
    ],
)
def test_permission_is_that_of_ls(mode, text):
    assert kernel_names.permission(mode) == text


@given(st.binary(min_size=16, max_size=16))
def test_ipv6_addresses_are_written_as_go_does(raw):
    text = kernel_names.address(raw)
    assert socket.inet_pton(socket.AF_INET6, text) == raw
    assert ("." in text) == (raw[:12] == bytes(10) + b"\xff\xff")


def test_addresses():
    assert kernel_names.address(V4) == "10.0.0.1"
    assert kernel_names.address(V6) == "2001:db8::1"
    assert kernel_names.address(bytes(12) + V4) == "::a00:1"
    assert kernel_names.address(bytes(10) + b"\xff\xff" + V4) == "::ffff:10.0.0.1"
    assert kernel_names.address(bytes(15) + b"\1") == "::1"
    assert kernel_names.address(b"") == "invalid IP"


SOCK = v.Sock(2, 1, 6, 1, 7, 8, V4, bytes([1, 1, 1, 1]), 40000, 443, 2**64 - 8)
SOCK_ARG = KprobeSock(
    family="AF_INET", type="SOCK_STREAM", protocol="IPPROTO_TCP", state="TCP_ESTABLISHED",
    mark=7, priority=8, saddr="10.0.0.1", daddr="1.1.1.1", sport=40000, dport=443,
    cookie=2**64 - 8,
)  # fmt: skip


@pytest.mark.parametrize("kind", ["sock", "socket"])
def test_socks(kind):
    assert encoded(kind, SOCK, "s") == KprobeArgument(sock_arg=SOCK_ARG, label="s")
    netlink = v.Sock(16, 10, 58, 0, 0, 0, b"", b"", 0, 0, 1)
    wanted = KprobeSock(
        family="AF_NETLINK", type="10", protocol="58", state="0",
        saddr="invalid IP", daddr="invalid IP", cookie=1,
    )  # fmt: skip
    assert encoded(kind, netlink) == KprobeArgument(sock_arg=wanted)
    assert encoded(kind, netlink._replace(family=22)).sock_arg.family == "22"


SKB = v.Skb(1, 60, 2, 3, V6, V6, 53, 40000, 17, 10, 4, 5)
SKB_ARG = KprobeSkb(
    hash=1, len=60, priority=2, mark=3, saddr="2001:db8::1", daddr="2001:db8::1", sport=53,
    dport=40000, proto=17, protocol="IPPROTO_UDP", family="AF_INET6", sec_path_len=4,
    sec_path_olen=5,
)  # fmt: skip


def test_skbs():
    assert encoded("skb", SKB, "s") == KprobeArgument(skb_arg=SKB_ARG, label="s")


def test_socket_addresses_have_no_label():
    wanted = KprobeSockaddr(family="AF_INET", addr="10.0.0.1", port=80)
    assert encoded("sockaddr", v.Sockaddr(2, V4, 80), "a") == KprobeArgument(sockaddr_arg=wanted)
    wanted = KprobeSockaddr(addr="invalid IP")
    assert encoded("sockaddr", v.Sockaddr(16, b"", 0)) == KprobeArgument(sockaddr_arg=wanted)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/run/x.sock", "/run/x.sock"),
        (b"/run/x.sock\0rest", "/run/x.sock"),
        (b"\0bus", "@bus"),
        (b"\0b\0us\0\0", "@bus"),
        (b"", ""),
    ],
)
def test_unix_socket_addresses(raw, path):
    argument = encoded("sockaddr_un", v.SockaddrUn(1, raw), "label")
    assert argument == KprobeArgument(sockaddrun_arg=KprobeSockaddrUn(family="AF_UNIX", path=path))


def user_ns(level, uid, gid, inum):
    namespace = Namespace(inum=inum, is_host=level == 0)
    message = UserNamespace(ns=namespace)
    message.level.value, message.uid.value, message.gid.value = level, uid, gid
    return message


def test_user_namespaces():
    for level in (0, 2):
        argument = encoded("user_namespace", v.UserNamespace(level, 0, 5, 4026531837), "n")
        assert argument == KprobeArgument(user_ns_arg=user_ns(level, 0, 5, 4026531837), label="n")


@given(st.tuples(*[U32] * 8), U8, *[st.integers(0, 2**41 - 1)] * 3)
def test_credentials(ids, securebits, permitted, effective, inheritable):
    namespace = v.UserNamespace(0, 0, 0, 7)
    cred = v.Cred._make((*ids, securebits, permitted, effective, inheritable, namespace))
    wanted = ProcessCredentials(user_ns=user_ns(0, 0, 0, 7), caps=Capabilities())
    names = ("uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid")
    for name, value in zip(names, ids, strict=True):
        getattr(wanted, name).value = value
    wanted.securebits.extend(bit for bit in SecureBitsType.values() if bit & securebits)
    for name, mask in (
        ("permitted", permitted),
        ("effective", effective),
        ("inheritable", inheritable),
    ):
        getattr(wanted.caps, name).extend(cap for cap in FULL_CAPS if mask >> cap & 1)
    assert encoded("cred", cred, "c") == KprobeArgument(process_credentials_arg=wanted, label="c")


def test_capabilities():
    for value, name in ((21, "CAP_SYS_ADMIN"), (0, "CAP_CHOWN"), (1, "DAC_OVERRIDE"), (63, "")):
        wanted = KprobeCapability(name=name)
        wanted.value.value = value
        assert encoded("capability", value, "c") == KprobeArgument(capability_arg=wanted, label="c")
    assert CapabilitiesType.Name(1) == "DAC_OVERRIDE"


@pytest.mark.parametrize(
    "kind", ["kernel_cap_t", "cap_inheritable", "cap_permitted", "cap_effective"]
)
def test_capability_sets(kind):
    argument = encoded(kind, 0x1FF, "set")
    assert argument == KprobeArgument(**{f"{kind}_arg": "00000000000001ff"}, label="set")
    assert getattr(encoded(kind, 2**64 - 1), f"{kind}_arg") == "f" * 16


def test_bpf_objects():
    program = v.BpfProgram(17, 12, b"tetra")
    fields = {"ProgType": "BPF_PROG_TYPE_RAW_TRACEPOINT", "InsnCnt": 12, "ProgName": "tetra"}
    assert encoded("bpf_attr", program, "p") == KprobeArgument(
        bpf_attr_arg=KprobeBpfAttr(**fields), label="p"
    )
    assert encoded("bpf_prog", program) == KprobeArgument(bpf_prog_arg=KprobeBpfProg(**fields))
    assert encoded("bpf_prog", v.BpfProgram(200, 0, b"")).bpf_prog_arg.ProgType == "200"
    wanted = KprobeBpfMap(
        MapType="BPF_MAP_TYPE_RINGBUF", KeySize=1, ValueSize=2, MaxEntries=3, MapName="m"
    )
    assert encoded("bpf_map", v.BpfMap(27, 1, 2, 3, b"m")) == KprobeArgument(bpf_map_arg=wanted)
    assert encoded("bpf_map", v.BpfMap(99, 0, 0, 0, b"")).bpf_map_arg.MapType == "99"
    assert encoded("bpf_cmd", 5).bpf_cmd_arg == 5
    assert encoded("bpf_cmd", 0).WhichOneof("arg") == "bpf_cmd_arg"


def test_perf_events():
    wanted = KprobePerfEvent(
        KprobeFunc="do_open", Type="PERF_TYPE_TRACEPOINT", Config=9, ProbeOffset=16
    )
    event = v.PerfEvent(b"do_open", 2, 9, 16)
    assert encoded("perf_event", event) == KprobeArgument(perf_event_arg=wanted)
    assert encoded("perf_event", event._replace(type=8)).perf_event_arg.Type == "8"


def test_modules():
    taints = TaintedBitsType.TAINT_OUT_OF_TREE_MODULE | TaintedBitsType.TAINT_UNSIGNED_MODULE
    listed = [4096, 8192]
    plain = KernelModule(name="veth", tainted=listed)
    assert encoded("module", v.Module(b"veth", taints)) == KprobeArgument(module_arg=plain)
    for signature_ok in (False, True):
        wanted = KernelModule(name="veth")
        wanted.signature_ok.value = signature_ok
        argument = encoded("load_info", v.Module(b"veth", 0, signature_ok))
        assert argument == KprobeArgument(module_arg=wanted)


@pytest.mark.parametrize("kind", sorted(tracing_arguments.TYPES))
def test_memory_that_cannot_be_read_is_an_error_of_its_argument(kind):
    if kind != "const_buf":
        wanted = KprobeError(Message="Bad address for basic type")
        assert encoded(kind, v.Unreadable()) == KprobeArgument(error_arg=wanted)
    wanted = KprobeError(Message="Bad address encountered during resolve dereference at depth 2")
    (argument,) = of_tracepoint(kind, v.Unreadable(2))
    assert argument == KprobeArgument(error_arg=wanted)


def test_tracepoints_name_few_families_and_hide_cuts():
    assert of_tracepoint("char_buf", v.TruncatedBytes(b"ab", 9)) == [
        KprobeArgument(bytes_arg=b"ab")
    ]
    for family, name in ((1, "AF_UNIX"), (2, "AF_INET"), (10, "AF_INET6"), (16, "")):
        (sock,) = of_tracepoint("sock", SOCK._replace(family=family))
        (skb,) = of_tracepoint("skb", SKB._replace(family=family))
        assert (sock.sock_arg.family, skb.skb_arg.family) == (name, name)


def test_tracepoint_arrays_are_one_argument_per_element():
    assert of_tracepoint("const_buf", (1, 2**64 - 1)) == [
        KprobeArgument(size_arg=1),
        KprobeArgument(size_arg=2**64 - 1),
    ]


def test_syscalls_have_their_interface():
    assert of_tracepoint("syscall64", v.Syscall(59)) == [
        KprobeArgument(syscall_id=SyscallId(id=59, abi="x64"))
    ]
    assert of_tracepoint("syscall64", v.Syscall(11, True)) == [
        KprobeArgument(syscall_id=SyscallId(id=11, abi="i386"))
    ]


@pytest.mark.parametrize("kind", sorted(tracing_arguments.TYPES | {"nop"}))
def test_argument_without_an_item_is_absent(kind):
    if kind != "const_buf":
        assert tracing_arguments.encoder(TAG, kind, "label")(v.Absent()) == b""
    assert of_tracepoint(kind, v.Absent()) == []


def test_every_type_of_a_document_can_be_encoded():
    assert {kind.value for kind in ArgumentType} - {"nop", "auto"} == tracing_arguments.TYPES


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain text", "plain text"),
        (b'a "b" \\ c', r"a \"b\" \\ c"),
        (b"\a\b\f\n\r\t\v", r"\a\b\f\n\r\t\v"),
        (b"\x00\x1f\x7f", r"\x00\x1f\x7f"),
        ("é ✓".encode(), "é ✓"),
        ("\u00a0\u200b\U000e0001".encode(), r"\u00a0\u200b\U000e0001"),
        ("é".encode()[:1] + b"x\xff", r"\xc3x\xff"),
    ],
)
def test_messages_are_escaped_as_in_go(raw, text):
    assert escaped_bytes(raw) == text
