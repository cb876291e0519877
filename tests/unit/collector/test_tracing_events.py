"""Whole events of policies, against messages that protobuf built field by field."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from collector.events.encoder import Encoder
from collector.events.stacks import Frame
from collector.events.tracing import HEADS_MAX, TracingEncoder, form
from collector.policies.table import KEPT, Argument, EventKind, Hook, LoadedPolicy, PolicyTable
from collector.processes.table import Image, Process
from collector.records.values import (
    BuildIdFrame,
    LoaderRecord,
    Path,
    Syscall,
    TracingRecord,
)
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import (
    KprobeAction,
    KprobeArgument,
    KprobeFile,
    ProcessKprobe,
    ProcessLoader,
    ProcessLsm,
    ProcessTracepoint,
    ProcessUprobe,
    ProcessUsdt,
    StackTraceEntry,
    SyscallId,
)
from tetragon.tetragon_pb2 import Process as Shown
from unit.collector.test_events import HOST, PROCESSES, naive

OFFSET_NS = 1_700_000_000_000_000_000
FRAMES = [Frame(0, 16, b"do_sys_open"), Frame(0, 32, b"", b"/lib/libc.so.6", b"\1\2")]
ENTRIES = [
    StackTraceEntry(offset=16, symbol="do_sys_open"),
    StackTraceEntry(offset=32, module="/lib/libc.so.6", build_id=b"\1\2"),
]
ARGS = (Path(b"/etc/passwd", 0, 0o100644), -1)
ARG_TYPES = (Argument("file", "target"), Argument("int"))
SHOWN_ARGS = [
    KprobeArgument(
        file_arg=KprobeFile(path="/etc/passwd", permission="-rw-r--r--"), label="target"
    ),
    KprobeArgument(int_arg=-1),
]
COMMON = {"policy_name": "files", "message": "why", "tags": ["a", "b c"]}


class FixedStacks:
    """Resolves every stack to the same frames."""

    def kernel(self, addresses):
        return FRAMES[:1] * bool(addresses)

    def user(self, pid, ktime_ns, stack):
        return FRAMES[1:] * bool(stack)


def hook(kind, **facts):
    return Hook(kind, message="why", tags=("a", "b c"), **facts)


def record(**facts):
    return TracingRecord(
        **({"policy": 3, "revision": 1, "hook": 0, "ktime_ns": 1000, "image_ktime_ns": 5} | facts)
    )


def event(one_hook, one_record, process=None, parent=None, ancestors=()):
    policy = LoadedPolicy(3, 1, "files", hooks=(one_hook,))
    encoder = TracingEncoder(Encoder("n", "cluster", HOST), FixedStacks())
    wire = encoder.event(form(policy, one_hook), one_record, OFFSET_NS, process, parent, ancestors)
    return GetEventsResponse.FromString(wire)


def response(**fields):
    wanted = GetEventsResponse(node_name="n", cluster_name="cluster", **fields)
    wanted.time.FromNanoseconds(OFFSET_NS + 1000)
    return wanted


def shown(process, tid):
    message = naive(process)
    message.tid.value, message.refcnt = tid, process.references
    return message


@settings(max_examples=20, deadline=None)
@given(PROCESSES, PROCESSES, st.lists(PROCESSES, max_size=2), st.integers(0, 2**32 - 1))
def test_kprobe_event_is_complete(process, parent, ancestors, tid):
    # To the encoder processes with one key are one.
    assume(len({one.key for one in (process, parent, *ancestors)}) == 2 + len(ancestors))
    kprobe = hook(
        EventKind.KPROBE,
        function="__x64_sys_openat",
        args=ARG_TYPES,
        data=(Argument("string", "comm"),),
        returned=Argument("int", "ignored"),
    )
    call = record(
        pid=process.pid,
        tid=tid,
        action=KprobeAction.KPROBE_ACTION_SIGKILL,
        args=ARGS,
        data=(b"cat",),
        returned=(-13,),
        return_action=KprobeAction.KPROBE_ACTION_NOPOST,
        kernel_stack=(0xFFFFFFFF81000000,),
        user_stack=(0x7F0000000000, BuildIdFrame(b"\1\2", 32)),
    )
    wanted = ProcessKprobe(
        process=shown(process, tid),
        parent=naive(parent),
        ancestors=map(naive, ancestors),
        function_name="__x64_sys_openat",
        args=SHOWN_ARGS,
        data=[KprobeArgument(string_arg="cat", label="comm")],
        action="KPROBE_ACTION_SIGKILL",
        return_action="KPROBE_ACTION_NOPOST",
        kernel_stack_trace=ENTRIES[:1],
        user_stack_trace=ENTRIES[1:],
        **COMMON,
    )
    getattr(wanted, "return").int_arg = -13
    assert event(kprobe, call, process, parent, ancestors) == response(process_kprobe=wanted)


def test_the_head_of_an_event_follows_its_process_its_parent_and_its_hook():
    hooks = [hook(EventKind.KPROBE, function=name, args=(Argument("int"),)) for name in ("f", "g")]
    policy = LoadedPolicy(3, 1, "files", hooks=tuple(hooks))
    forms = [form(policy, one) for one in hooks]
    parent = Process(1, 1, (0, 1), 0, OFFSET_NS, True, Image("/sbin/init"))
    process = Process(9, 5, parent.key, 0, OFFSET_NS, True, Image("/bin/one"))
    encoder = Encoder("n", "cluster", HOST)
    kept = TracingEncoder(encoder, FixedStacks())

    def same_as_anew(tid=9, number=0, parent=parent):
        call = record(pid=9, tid=tid, action=1, args=(-13,))
        made = kept.event(forms[number], call, OFFSET_NS, process, parent)
        wanted = event(hooks[number], call, process, parent)
        return GetEventsResponse.FromString(made) == wanted

    assert same_as_anew()
    assert same_as_anew()
    assert same_as_anew(tid=10)
    assert same_as_anew(number=1)
    assert same_as_anew(parent=None)
    assert same_as_anew()  # kept with its parent again, so that only the references change
    process.references = 7
    assert same_as_anew()
    for changed in (process, parent):
        changed.image = Image("/bin/other")
        encoder.forget(changed.key)
        assert same_as_anew()
        assert same_as_anew(number=1)


def test_heads_of_many_threads_are_not_kept_forever():
    encoder = TracingEncoder(Encoder("n", "cluster", HOST), FixedStacks())
    one = hook(EventKind.KPROBE, function="f")
    one_form = form(LoadedPolicy(3, 1, "files", hooks=(one,)), one)
    process = Process(9, 5, (0, 1), 0, OFFSET_NS, True, Image("/bin/one"))
    for tid in range(5000):
        made = encoder.event(
            one_form, record(pid=9, tid=tid, action=1, args=()), OFFSET_NS, process, None
        )
        assert GetEventsResponse.FromString(made).process_kprobe.process.tid.value == tid
    assert len(encoder._heads) <= HEADS_MAX


@given(PROCESSES, st.integers(0, 2**32 - 1))
def test_the_thread_is_named_on_a_copy(process, tid):
    encoder = Encoder("n", "", HOST)
    before = encoder.process(process)
    copy = encoder.thread_copy(process, tid)
    assert Shown.FromString(copy) == shown(process, tid)
    assert encoder.process(process) == before
    # Each field stands once, so readers that take the first and the last agree.
    grown = shown(process, tid).ByteSize() - naive(process).ByteSize()
    assert len(copy) == len(before) + grown


@settings(max_examples=10, deadline=None)
@given(PROCESSES)
def test_a_tracepoint_event_is_complete(process):
    tracepoint = hook(
        EventKind.TRACEPOINT,
        subsystem="raw_syscalls",
        event="sys_enter",
        args=(Argument("syscall64", "dropped"), Argument("const_buf")),
    )
    call = record(pid=process.pid, tid=7, action=1, args=(Syscall(59), (1, 2)))
    wanted = ProcessTracepoint(
        process=shown(process, 7),
        subsys="raw_syscalls",
        event="sys_enter",
        args=[
            KprobeArgument(syscall_id=SyscallId(id=59, abi="x64")),
            KprobeArgument(size_arg=1),
            KprobeArgument(size_arg=2),
        ],
        action="KPROBE_ACTION_POST",
        **COMMON,
    )
    assert event(tracepoint, call, process) == response(process_tracepoint=wanted)


@settings(max_examples=10, deadline=None)
@given(PROCESSES)
def test_an_uprobe_event_has_the_return_value_after_its_arguments(process):
    uprobe = hook(
        EventKind.UPROBE,
        path="/bin/bash",
        symbol="readline+4",
        offset=64,
        ref_ctr_offset=8,
        args=(Argument("bpf_cmd", "dropped"), Argument("int")),
        data=(Argument("uint64"),),
        returned=Argument("string"),
    )
    call = record(pid=process.pid, tid=7, action=1, args=(5, 2), data=(9,), returned=(b"ls",))
    wanted = ProcessUprobe(
        process=shown(process, 7),
        path="/bin/bash",
        symbol="readline+4",
        offset=64,
        ref_ctr_offset=8,
        args=[
            KprobeArgument(int_arg=5),
            KprobeArgument(int_arg=2),
            KprobeArgument(string_arg="ls"),
        ],
        data=[KprobeArgument(size_arg=9)],
        action="KPROBE_ACTION_POST",
        **COMMON,
    )
    assert event(uprobe, call, process) == response(process_uprobe=wanted)


@settings(max_examples=10, deadline=None)
@given(PROCESSES)
def test_a_usdt_event_is_complete(process):
    usdt = hook(
        EventKind.USDT, path="/bin/x", provider="p", name="probe", args=(Argument("int32", "l"),)
    )
    wanted = ProcessUsdt(
        process=shown(process, 7),
        path="/bin/x",
        provider="p",
        name="probe",
        args=[KprobeArgument(int_arg=3, label="l")],
        action="KPROBE_ACTION_POST",
        **COMMON,
    )
    call = record(pid=process.pid, tid=7, action=1, args=(3,))
    assert event(usdt, call, process) == response(process_usdt=wanted)


@pytest.mark.parametrize(
    ("ima_hash", "text"),
    [
        ((4, bytes(range(64))), "sha256:" + bytes(range(32)).hex()),
        ((1, bytes(range(64))), "md5:" + bytes(range(16)).hex()),
        ((2, bytes(range(20))), "sha1:" + bytes(range(20)).hex()),
        ((6, bytes(range(64))), "sha512:" + bytes(range(64)).hex()),
        ((3, bytes(64)), ""),
        (None, ""),
    ],
)
def test_an_lsm_event_is_complete(ima_hash, text):
    lsm = hook(EventKind.LSM, function="file_open", args=ARG_TYPES)
    call = record(pid=9, tid=9, action=1, args=ARGS, ima_hash=ima_hash)
    wanted = ProcessLsm(
        function_name="file_open",
        args=SHOWN_ARGS,
        action="KPROBE_ACTION_POST",
        ima_hash=text,
        **COMMON,
    )
    wanted.process.pid.value = 9
    wanted.process.start_time.FromNanoseconds(OFFSET_NS + 5)
    assert event(lsm, call) == response(process_lsm=wanted)


@settings(max_examples=10, deadline=None)
@given(PROCESSES, PROCESSES)
def test_loader_event_is_complete(process, parent):
    assume(process.key != parent.key)
    loader = Hook(EventKind.LOADER)
    policy = LoadedPolicy(3, 1, "files", hooks=(loader,))
    call = LoaderRecord(3, 1, 1000, 5, process.pid, 8, b"/lib/x.so", b"\1\2\3")
    encoder = TracingEncoder(Encoder("n", "cluster", HOST), FixedStacks())
    wire = encoder.loader_event(form(policy, loader), call, OFFSET_NS, process, parent)
    wanted = ProcessLoader(
        process=naive(process), parent=naive(parent), path="/lib/x.so", buildid=b"\1\2\3"
    )
    assert GetEventsResponse.FromString(wire) == response(process_loader=wanted)


@pytest.mark.parametrize(("image_ktime_ns", "flags"), [(0, "unknown"), (5, "")])
def test_an_unknown_process_is_marked(image_ktime_ns, flags):
    kprobe = hook(EventKind.KPROBE, function="f")
    call = record(
        pid=9, tid=10, action=1, args=(), image_ktime_ns=image_ktime_ns, start_boottime_ns=77
    )
    wanted = Shown(flags=flags)
    wanted.pid.value = 9
    wanted.start_time.FromNanoseconds(OFFSET_NS + (image_ktime_ns or 77))
    reported = event(kprobe, call)
    assert reported.process_kprobe.process == wanted
    assert not reported.process_kprobe.HasField("parent")


def test_actions_are_present_without_a_return_part():
    reported = event(hook(EventKind.KPROBE, function="f"), record(pid=1, tid=1, action=1, args=()))
    assert reported.process_kprobe.action == KprobeAction.KPROBE_ACTION_POST
    assert reported.process_kprobe.return_action == KprobeAction.KPROBE_ACTION_POST
    assert not reported.process_kprobe.HasField("return")


def test_revisions_that_are_off_are_kept_for_a_while():
    table = PolicyTable()
    table.add(LoadedPolicy(2, 1, "on"))
    for revision in range(1, KEPT + 3):
        assert table.next_revision(3) == revision
        table.add(LoadedPolicy(3, revision, f"r{revision}"))
        table.retire((3, revision))
    assert table.get(3, KEPT + 2).name == f"r{KEPT + 2}"
    assert table.get(3, 3).name == "r3"
    assert table.get(3, 2) is None
    assert table.get(2, 1).name == "on"
    restored = PolicyTable()
    restored.restore(table)
    assert list(restored) == list(table)[1:]  # the oldest of 257


@pytest.mark.parametrize(
    ("one_hook", "label"),
    [
        (Hook(EventKind.KPROBE, function="fd_install"), "kprobe:fd_install"),
        (Hook(EventKind.TRACEPOINT, subsystem="s", event="e"), "tracepoint:s/e"),
        (Hook(EventKind.UPROBE, path="/bin/x", symbol="main"), "uprobe:/bin/x/main"),
        (Hook(EventKind.USDT, provider="p", name="n"), "usdt:p/n"),
        (Hook(EventKind.LSM, function="file_open"), "lsm:file_open"),
        (Hook(EventKind.LOADER), "loader"),
    ],
)
def test_hooks_in_metrics_have_tetragons_names(one_hook, label):
    assert one_hook.label == label
