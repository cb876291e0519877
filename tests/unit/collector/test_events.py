"""Spliced bytes equal what protobuf writes: any process, parsed and compared."""

import base64

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from collector.events.encoder import Encoder
from collector.events.pod import is_probe
from collector.events.process import binary_properties, exec_event, exit_event, running_event
from collector.processes.pods import HostUnit, Pod, PodContainer
from collector.processes.table import ContainerInfo, Image, Process
from collector.records.layouts import Credentials, ExecRecord, ExitRecord, Namespaces
from tetragon.capabilities_pb2 import (
    CapabilitiesType,
    ProcessPrivilegesChanged,
    SecureBitsType,
)
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import BinaryProperties
from tetragon.tetragon_pb2 import Process as Message

HOST = Namespaces(*range(100, 110))
TEXT = st.text(max_size=30)


class Long(str):
    """A text that a failing test does not print."""

    def __repr__(self):
        return f"<{len(self)} characters>"


LONG = Long("x" * 40_000)
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
CAPABILITIES = st.integers(0, 2**41 - 1)
TIME_NS = st.integers(0, 4_000_000_000_000_000_000)

PAIRS = st.dictionaries(TEXT, TEXT, max_size=3).map(lambda found: tuple(found.items()))
PODS = st.builds(
    Pod, TEXT, TEXT, TEXT, PAIRS, PAIRS, TEXT, TEXT,
    st.none() | st.builds(PodContainer, TEXT, TEXT, TEXT, TIME_NS, st.booleans()),
)  # fmt: skip
IMAGES = st.builds(
    Image,
    binary=TEXT,
    arguments=TEXT | st.just(LONG),
    cwd=TEXT,
    uid=U32,
    auid=U32,
    docker=TEXT,
    container=st.none() | st.builds(ContainerInfo, TEXT, TEXT, TEXT, TEXT, st.none() | PODS),
    unit=st.none() | st.builds(HostUnit, TEXT, TEXT, TEXT, TEXT, TEXT),
    user=TEXT,
    show_user=st.booleans(),
    argv=st.lists(st.binary(max_size=20), max_size=3).map(tuple),
    environment=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    namespaces=st.none() | st.builds(Namespaces, *[st.integers(0, 200)] * 10),
    credentials=st.none()
    | st.builds(Credentials, *[U32] * 8, st.integers(0, 255), *[CAPABILITIES] * 3),
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
    nspid=U32,
    is_clone=st.booleans(),
    references=st.integers(0, 5),
)


def add_pod(message, image, pod, nspid):
    """Fill the field ``pod``."""
    message.SetInParent()
    for name in ("namespace", "name", "uid", "workload", "workload_kind"):
        setattr(message, name, getattr(pod, name))
    message.pod_labels.update(dict(pod.labels))
    message.pod_annotations.update(dict(pod.annotations))
    container = image.container
    if not container.name:
        return
    message.container.id = f"{container.runtime}://{container.id}"
    message.container.name = container.name
    message.container.image.SetInParent()
    message.container.image.name = container.image
    if nspid:
        message.container.pid.value = nspid
    if pod.container:
        message.container.image.name = pod.container.image or container.image
        message.container.image.id = pod.container.image_id
        if pod.container.started_at_ns:
            message.container.start_time.FromNanoseconds(pod.container.started_at_ns)
        message.container.security_context.privileged = pod.container.privileged
        message.container.security_context.SetInParent()
        message.container.maybe_exec_probe = any(
            is_probe(probe, image.binary, image.arguments) for probe in pod.container.probes
        )


@pytest.mark.parametrize(
    ("probe", "binary", "arguments", "found"),
    [
        (("/bin/check", "-q"), "/bin/check", "-q", True),
        (("/bin/check", "-q"), "/bin/check", "/bin/check -q", True),
        (("/bin/check", "a b"), "/bin/check", '"a b"', True),
        (("/bin/check", "-q"), "/bin/check", "-q -v", False),
        (("/bin/check",), "/usr/bin/check", "", False),
        (("check",), "/usr/bin/check", "", True),
        (("check",), "/usr/bin/cat", "", False),
        (("/bin/check",), "/bin/check", '"', False),
        ((), "/bin/check", "", False),
    ],
)
def test_exec_probe_is_recognized_by_its_command_line(probe, binary, arguments, found):
    assert is_probe(probe, binary, arguments) is found


def test_arguments_of_other_commands_are_not_split(monkeypatch):
    """Long ones would take the collector 10 ms and more at every exec in the pod."""
    monkeypatch.setattr("collector.events.pod.shlex.split", None)
    assert not is_probe(("/bin/check",), "/bin/sh", LONG)
    assert not is_probe(("check",), "/bin/sh", LONG)


def naive(process: Process) -> Message:
    """Build the message field by field."""
    image = process.image
    message = Message(
        exec_id=base64.b64encode(b"n:%d:%d" % (process.ktime_ns, process.pid)).decode(),
        parent_exec_id=base64.b64encode(b"n:%d:%d" % process.parent[::-1]).decode(),
        cwd=image.cwd, binary=image.binary, arguments=image.arguments, docker=image.docker,
        refcnt=1 if process.is_clone else 0, user_name=image.user, argv=image.argv,
    )  # fmt: skip
    message.flags = {
        0: "", 1: "execve", 0x4001: "execve clone", 0x2004001: "execve clone inInitTree",
        0x1005: "execve procFS rootcwd",
    }[process.flags]  # fmt: skip
    message.pid.value = message.tid.value = process.pid
    message.uid.value, message.auid.value = image.uid, image.auid
    message.start_time.FromNanoseconds(process.start_time_ns)
    message.in_init_tree.value = process.in_init_tree
    if image.container:
        for name in ("id", "name", "image", "runtime"):
            setattr(message.container_info, name, getattr(image.container, name))
        message.container_info.SetInParent()
        if image.container.pod is not None:
            add_pod(message.pod, image, image.container.pod, process.nspid)
    if image.unit:
        message.host_unit.SetInParent()
        for name, value in image.unit._asdict().items():
            setattr(message.host_unit, name, value)
    if image.show_user:
        message.user.name = image.user
        message.user.SetInParent()
    for key, value in image.environment:
        message.environment_variables.add(Key=key, Value=value)
    if image.namespaces:
        for name, inode in image.namespaces._asdict().items():
            if inode or not name.startswith("time"):
                one = getattr(message.ns, name)
                one.inum, one.is_host = inode, inode == getattr(HOST, name)
                one.SetInParent()
    if image.credentials:
        ids = ("uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid")
        *numbers, bits, permitted, effective, inheritable = image.credentials
        for name, value in zip(ids, numbers, strict=True):
            getattr(message.process_credentials, name).value = value
        message.process_credentials.securebits.extend(
            b for b in SecureBitsType.values() if b and bits & b
        )
        message.cap.SetInParent()
        for name, mask in (
            ("permitted", permitted), ("effective", effective), ("inheritable", inheritable),
        ):  # fmt: skip
            getattr(message.cap, name).extend(c for c in CapabilitiesType.values() if mask >> c & 1)
    return message


@given(PROCESSES, st.none() | PROCESSES, st.lists(PROCESSES, max_size=2))
def test_exec_event_equals_protobufs(process, parent, ancestors):
    encoder = Encoder("n", "cluster", HOST)
    wanted = GetEventsResponse(node_name="n", cluster_name="cluster")
    wanted.process_exec.process.CopyFrom(naive(process))
    named = {process.key: process}  # two processes with one key are one to the encoder
    if parent is not None:
        parent = named.setdefault(parent.key, parent)
        wanted.process_exec.parent.CopyFrom(naive(parent))
    ancestors = [named.setdefault(ancestor.key, ancestor) for ancestor in ancestors]
    wanted.process_exec.ancestors.extend(map(naive, ancestors))
    wanted.time.FromNanoseconds(process.start_time_ns)
    for _ in range(2):  # the second time from the cache
        event = exec_event(encoder, process, parent, ancestors)
        assert GetEventsResponse.FromString(event) == wanted


@given(PROCESSES, st.integers(0, 0xFFFF), TIME_NS)
def test_exit_event_equals_protobufs(process, code, time_ns):
    record = ExitRecord(3, code, 0, process.ktime_ns, process.pid, process.pid)
    event = exit_event(Encoder("n", "", HOST), record, time_ns, process, process)
    found = GetEventsResponse.FromString(event)
    wanted = GetEventsResponse(node_name="n")
    wanted.process_exit.process.CopyFrom(naive(process))
    wanted.process_exit.parent.CopyFrom(naive(process))
    wanted.process_exit.status = code >> 8
    wanted.process_exit.signal = found.process_exit.signal  # test_text.py has the names
    wanted.process_exit.time.FromNanoseconds(time_ns)
    wanted.time.FromNanoseconds(time_ns)
    assert found == wanted
    assert bool(found.process_exit.signal) == (0 < code & 0x7F < 32)


@given(U32, TIME_NS)
def test_exit_of_an_unknown_process_has_pid_and_start_time(pid, time_ns):
    record = ExitRecord(3, 0, 5, time_ns, pid, pid)
    event = exit_event(Encoder("n"), record, 0, None, None)
    wanted = Message()
    wanted.pid.value = pid
    wanted.start_time.FromNanoseconds(time_ns)
    assert GetEventsResponse.FromString(event).process_exit.process == wanted


def exec_of(how, euid, egid, inode, nlink):
    numbers = dict.fromkeys(ExecRecord._fields[:-5], 0)
    numbers |= {"secureexec": how, "euid": euid, "egid": egid, "inode": inode, "nlink": nlink}
    return ExecRecord(**numbers)


@given(PROCESSES, st.integers(0, 31), U32, U32, U64, st.integers(0, 1))
def test_binary_properties_are_in_one_event_only(process, how, euid, egid, inode, nlink):
    raw = binary_properties(exec_of(how, euid, egid, inode, nlink))
    wanted = BinaryProperties()
    if how & 1:
        wanted.setuid.value = euid
    if how & 2:
        wanted.setgid.value = egid
    for bit, reason in zip((4, 8, 16), ProcessPrivilegesChanged.values()[1:], strict=True):
        if how & bit:
            wanted.privileges_changed.append(reason)
    if nlink == 0:
        wanted.file.inode.number = inode
        wanted.file.inode.links.value = 0
    assert BinaryProperties.FromString(raw) == wanted
    encoder = Encoder("n", "", HOST)
    found = GetEventsResponse.FromString(exec_event(encoder, process, None, (), raw))
    copy = naive(process)
    if raw:
        copy.binary_properties.CopyFrom(wanted)
        copy.refcnt = process.references
    assert found.process_exec.process == copy
    assert Message.FromString(encoder.process(process)) == naive(process)  # not cached


@given(PROCESSES, PROCESSES)
def test_late_metadata_is_in_later_events(process, child):
    assume(process.key != child.key)
    encoder = Encoder("n", "", HOST)
    child.image, child.is_clone = process.image, True
    assert Message.FromString(encoder.process(process)) == naive(process)
    encoder.process(child)
    process.image.container = ContainerInfo("0" * 64, "web", "nginx", "docker")
    encoder.forget_image(process.image)
    for one in (process, child):
        encoder.forget(one.key)
        assert Message.FromString(encoder.process(one)) == naive(one)


@given(PROCESSES)
def test_running_event_does_not_change_what_is_cached(process):
    encoder = Encoder("n", "", HOST)
    process.flags = 1
    before = encoder.process(process)
    process.flags = 0x1005
    event = GetEventsResponse.FromString(running_event(encoder, process, None))
    assert event.process_exec.process.flags == "execve procFS rootcwd"
    assert encoder.process(process) == before
