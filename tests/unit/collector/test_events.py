"""Spliced bytes are what protobuf would have written: any process, read back and compared."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from collector.events.process import Encoder, binary_properties
from collector.processes.cache import ContainerInfo, Image, Process
from collector.records.process import NAMESPACES, ExitRecord
from tetragon.capabilities_pb2 import (
    CapabilitiesType,
    ProcessPrivilegesChanged,
    SecureBitsType,
)
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import BinaryProperties
from tetragon.tetragon_pb2 import Process as Told

HOST = tuple(range(100, 110))
TEXT = st.text(max_size=30)
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
CAPABILITIES = st.integers(0, 2**41 - 1)
TIME_NS = st.integers(0, 4_000_000_000_000_000_000)

IMAGES = st.builds(
    Image,
    binary=TEXT,
    arguments=TEXT | st.just("x" * 40_000),
    cwd=TEXT,
    uid=U32,
    auid=U32,
    docker=TEXT,
    container=st.none() | st.builds(ContainerInfo, TEXT, TEXT, TEXT, TEXT),
    user=TEXT,
    show_user=st.booleans(),
    argv=st.lists(st.binary(max_size=20), max_size=3).map(tuple),
    environment=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    namespaces=st.just(()) | st.tuples(*[st.integers(0, 200)] * 10),
    credentials=st.just(()) | st.tuples(*[U32] * 8, st.integers(0, 255), *[CAPABILITIES] * 3),
)  # fmt: skip
PROCESSES = st.builds(
    Process,
    pid=U32,
    ktime_ns=U64,
    parent=st.tuples(U32, U64),
    flags=st.sampled_from([0, 1, 0x4001, 0x2004001, 0x1005]),
    start_time_ns=TIME_NS,
    in_init_tree=st.booleans(),
    image=IMAGES,
    is_clone=st.booleans(),
    references=st.integers(0, 5),
)


def naive(process: Process) -> Told:
    """Build the message field by field."""
    image = process.image
    told = Told(
        exec_id=base64.b64encode(b"n:%d:%d" % (process.ktime_ns, process.pid)).decode(),
        parent_exec_id=base64.b64encode(b"n:%d:%d" % process.parent[::-1]).decode(),
        cwd=image.cwd, binary=image.binary, arguments=image.arguments, docker=image.docker,
        refcnt=1 if process.is_clone else 0, user_name=image.user, argv=image.argv,
    )  # fmt: skip
    told.flags = {
        0: "", 1: "execve", 0x4001: "execve clone", 0x2004001: "execve clone inInitTree",
        0x1005: "execve procFS rootcwd",
    }[process.flags]  # fmt: skip
    told.pid.value = told.tid.value = process.pid
    told.uid.value, told.auid.value = image.uid, image.auid
    told.start_time.FromNanoseconds(process.start_time_ns)
    told.in_init_tree.value = process.in_init_tree
    if image.container:
        for name, value in zip(("id", "name", "image", "runtime"), image.container, strict=True):
            setattr(told.container_info, name, value)
        told.container_info.SetInParent()
    if image.show_user:
        told.user.name = image.user
        told.user.SetInParent()
    for key, value in image.environment:
        told.environment_variables.add(Key=key, Value=value)
    if image.namespaces:
        for at, (name, inode) in enumerate(zip(NAMESPACES, image.namespaces, strict=True)):
            if inode or not name.startswith("time"):
                one = getattr(told.ns, name)
                one.inum, one.is_host = inode, inode == HOST[at]
                one.SetInParent()
    if image.credentials:
        ids = ("uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid")
        *numbers, bits, permitted, effective, inheritable = image.credentials
        for name, value in zip(ids, numbers, strict=True):
            getattr(told.process_credentials, name).value = value
        told.process_credentials.securebits.extend(
            b for b in SecureBitsType.values() if b and bits & b
        )
        told.cap.SetInParent()
        for name, mask in (
            ("permitted", permitted), ("effective", effective), ("inheritable", inheritable),
        ):  # fmt: skip
            getattr(told.cap, name).extend(c for c in CapabilitiesType.values() if mask >> c & 1)
    return told


@given(PROCESSES, st.none() | PROCESSES, st.lists(PROCESSES, max_size=2))
def test_an_exec_is_what_protobuf_would_write(process, parent, ancestors):
    encoder = Encoder("n", "cluster", HOST)
    wanted = GetEventsResponse(node_name="n", cluster_name="cluster")
    wanted.process_exec.process.CopyFrom(naive(process))
    if parent is not None:
        wanted.process_exec.parent.CopyFrom(naive(parent))
    wanted.process_exec.ancestors.extend(map(naive, ancestors))
    wanted.time.FromNanoseconds(process.start_time_ns)
    for _ in range(2):  # the second time from what is kept
        event = encoder.exec_event(process, parent, ancestors)
        assert GetEventsResponse.FromString(event) == wanted


@given(PROCESSES, st.integers(0, 0xFFFF), TIME_NS)
def test_an_exit_is_what_protobuf_would_write(process, code, time_ns):
    record = ExitRecord(code, 1, process.ktime_ns, process.pid, process.pid)
    told = GetEventsResponse.FromString(
        Encoder("n", "", HOST).exit_event(record, time_ns, process, process)
    )
    wanted = GetEventsResponse(node_name="n")
    wanted.process_exit.process.CopyFrom(naive(process))
    wanted.process_exit.parent.CopyFrom(naive(process))
    wanted.process_exit.status = code >> 8
    wanted.process_exit.signal = told.process_exit.signal  # test_text.py has the names
    wanted.process_exit.time.FromNanoseconds(time_ns)
    wanted.time.FromNanoseconds(time_ns)
    assert told == wanted
    assert bool(told.process_exit.signal) == (0 < code & 0x7F < 32)


@given(U32, TIME_NS)
def test_an_unknown_process_has_a_pid_and_a_time(pid, time_ns):
    record = ExitRecord(0, 1, 1, pid, pid)
    event = Encoder("n").exit_event(record, 5, None, None, start_time_ns=time_ns)
    wanted = Told()
    wanted.pid.value = pid
    wanted.start_time.FromNanoseconds(time_ns)
    assert GetEventsResponse.FromString(event).process_exit.process == wanted


@given(PROCESSES, st.integers(0, 31), U32, U32, st.none() | U64)
def test_properties_of_a_binary_come_on_a_copy(process, how, euid, egid, inode):
    raw = binary_properties(how, euid, egid, inode)
    wanted = BinaryProperties()
    if how & 1:
        wanted.setuid.value = euid
    if how & 2:
        wanted.setgid.value = egid
    for bit, reason in zip((4, 8, 16), ProcessPrivilegesChanged.values()[1:], strict=True):
        if how & bit:
            wanted.privileges_changed.append(reason)
    if inode is not None:
        wanted.file.inode.number = inode
        wanted.file.inode.links.value = 0
    assert BinaryProperties.FromString(raw) == wanted
    encoder = Encoder("n", "", HOST)
    told = GetEventsResponse.FromString(encoder.exec_event(process, None, (), raw))
    copy = naive(process)
    if raw:
        copy.binary_properties.CopyFrom(wanted)
        copy.refcnt = process.references
    assert told.process_exec.process == copy
    assert Told.FromString(encoder.process(process)) == naive(process)  # not kept
