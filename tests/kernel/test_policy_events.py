"""Documents to whole events in the running kernel: calls, returns, stacks, probes of programs."""

import ctypes
import os
from pathlib import Path

import pytest

from collector.policies.elf import Elf
from collector.policies.entry import State
from collector.policies.files import Document
from support.policies import in_child
from support.policy_node import HEAD
from tetragon.tetragon_pb2 import (
    KprobeArgument,
    ProcessKprobe,
    ProcessLoader,
    ProcessTracepoint,
    ProcessUprobe,
)

pytestmark = pytest.mark.kernel

LIBC = next(
    Path(line.split()[-1])
    for line in Path("/proc/self/maps").read_text().splitlines()
    if "/libc.so" in line
)
TRUE = os.path.realpath("/bin/true")
LOADER = {"x86_64": "ld-linux-x86-64", "aarch64": "ld-linux-aarch64"}[os.uname().machine]


def reap(pid):
    os.waitpid(pid, 0)


def without_process(body):
    assert body.process.flags == "unknown"  # these tests load no base programs
    body.ClearField("process")
    return body


async def test_a_call_with_its_result(node, tmp_path):
    await node.load(f"""\
  kprobes:
  - call: sys_openat
    return: true
    message: "why \\"this\\""
    tags: [one, two words]
    args:
    - index: 1
      type: string
      label: path
    - index: 0
      type: nop
    - index: 2
      type: int
    returnArg: {{index: 0, type: int}}
    selectors:
    - matchArgs:
      - {{index: 1, operator: Prefix, values: ["{tmp_path}"]}}
""")
    missing = f"{tmp_path}/missing"

    def action():
        try:
            os.open(missing, os.O_RDONLY)
        except FileNotFoundError:
            os._exit(0)

    (event,) = node.events(in_child(action))
    wanted = ProcessKprobe(
        function_name="__x64_sys_openat"
        if os.uname().machine == "x86_64"
        else "__arm64_sys_openat",
        args=[
            KprobeArgument(string_arg=missing, label="path"),
            KprobeArgument(int_arg=os.O_CLOEXEC),
        ],
        action="KPROBE_ACTION_POST",
        return_action="KPROBE_ACTION_POST",
        policy_name="test",
        message=r"why \"this\"",
        tags=["one", "two words"],
    )
    getattr(wanted, "return").int_arg = -2
    assert without_process(event.process_kprobe) == wanted


async def test_stacks_have_symbols(node):
    await node.load("""\
  kprobes:
  - call: sys_getppid
    selectors:
    - matchActions:
      - action: Post
        kernelStackTrace: true
        userStackTrace: true
""")
    libc = ctypes.CDLL(None)
    go_ahead, wait = os.pipe()

    def action():
        libc.getppid()
        os.close(wait)
        os.read(go_ahead, 1)  # alive while its stack is resolved

    pid = os.fork()
    if not pid:
        action()
        os._exit(0)
    os.close(go_ahead)
    event = node.events(pid)[0]
    os.close(wait)
    reap(pid)
    body = event.process_kprobe
    assert any(frame.module == str(LIBC) for frame in body.user_stack_trace)
    (frame,) = [one for one in body.user_stack_trace if one.symbol in ("getppid", "__getppid")][:1]
    assert frame.module == str(LIBC)
    assert frame.offset > 0
    assert frame.address == 0
    assert len(frame.build_id) == 20
    names = {one.symbol for one in body.kernel_stack_trace}
    assert names & {"do_syscall_64", "entry_SYSCALL_64_after_hwframe", "el0_svc", "invoke_syscall"}


async def test_a_raw_tracepoint(node):
    await node.load("""\
  tracepoints:
  - subsystem: sched
    event: sched_process_exec
    raw: true
    args:
    - {index: 2, type: linux_binprm}
""")
    pid = in_child(lambda: os.execv(TRUE, ["true"]))
    (event,) = node.events(pid)
    body = without_process(event.process_tracepoint)
    assert body.args[0].linux_binprm_arg.path == TRUE
    assert body.args[0].linux_binprm_arg.permission == "-rwxr-xr-x"
    del body.args[:]
    assert body == ProcessTracepoint(
        subsys="sched", event="sched_process_exec", action="KPROBE_ACTION_POST", policy_name="test"
    )


async def test_a_function_of_a_library(node):
    await node.load(f"""\
  uprobes:
  - path: {LIBC}
    symbols: [labs]
    args:
    - {{index: 0, type: int64, label: dropped}}
""")
    pid = in_child(lambda: ctypes.CDLL(None).labs(ctypes.c_long(-77)))
    (event,) = node.events(pid)
    assert without_process(event.process_uprobe) == ProcessUprobe(
        path=str(LIBC),
        symbol="labs",
        args=[KprobeArgument(long_arg=-77)],
        action="KPROBE_ACTION_POST",
        policy_name="test",
    )


async def test_every_mistake_is_the_policys_error(node):
    document = HEAD + "  kprobes:\n  - call: no_such_function\n    syscall: false\n"
    await node.manager.set_documents([Document(Path("/p/test.yaml"), document)])
    (entry,) = node.manager.entries
    assert entry.state is State.LOAD_ERROR
    assert entry.error.startswith("/p/test.yaml:7:11: ")
    assert "no_such_function" in entry.error


async def test_files_that_are_mapped_to_be_executed(node):
    try:
        await node.load("  loader: true\n")
    except AssertionError as error:
        refused = ("no mappings with build ids", "loader cannot be hooked here")
        if not any(one in str(error) for one in refused):
            raise
        pytest.skip(str(error))
    pid = in_child(lambda: os.execv(TRUE, ["true"]))
    events = node.events(pid, 3)
    found = {}
    for event in events:
        body = without_process(event.process_loader)
        found[Path(body.path)] = body.buildid
        body.ClearField("path")
        body.ClearField("buildid")
        assert body == ProcessLoader()  # no policy's name, as in Tetragon
    assert len(events) == 3
    assert {path.name.partition(".")[0] for path in found} == {"true", "libc", LOADER}
    for path, build_id in found.items():
        elf = Elf.open(str(path))
        assert build_id == elf.build_id() != b""
        elf.close()


async def test_two_policies_report_a_mapping_once_each(node):
    """Both share the perf events; each has its own program."""
    one = HEAD.replace("name: test", "name: one") + "  loader: true\n"
    two = HEAD.replace("name: test", "name: two") + "  loader: true\n"
    documents = [Document(Path("/p/one.yaml"), one), Document(Path("/p/two.yaml"), two)]
    await node.manager.set_documents(documents)
    if any(entry.state is not State.ENABLED for entry in node.manager.entries):
        pytest.skip(node.manager.entries[0].error)
    pid = in_child(lambda: os.execv(TRUE, ["true"]))
    assert len(node.events(pid, 6)) == 6
