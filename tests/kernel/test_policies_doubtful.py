"""Documents that Tetragon accepts although they are doubtful: what they report."""

import ctypes
import os

import pytest

from support.calls import ABI, NUMBERS, PREFIX
from support.policies import in_child
from tetragon.tetragon_pb2 import (
    KprobeArgument,
    ProcessKprobe,
    ProcessTracepoint,
    SyscallId,
)

pytestmark = pytest.mark.kernel

_libc = ctypes.CDLL(None)
MARK = 0x5A17


def without_process(event):
    body = event.process_kprobe
    body.ClearField("process")
    return body


def kprobe(name, *args, **more):
    return ProcessKprobe(
        function_name=PREFIX + name,
        args=args,
        **{
            "action": "KPROBE_ACTION_POST",
            "return_action": "KPROBE_ACTION_POST",
            "policy_name": "test",
            **more,
        },
    )


async def test_registers_that_the_system_call_does_not_use(node):
    await node.load(f"""\
  kprobes:
  - call: sys_close
    args: [{{index: 1, type: int}}, {{index: 2, type: uint64}}, {{index: 5, type: int64}}]
    selectors: [{{matchArgs: [{{index: 1, operator: Equal, values: ["{MARK}"]}}]}}]
""")
    long = ctypes.c_long
    call = [NUMBERS["close"], long(-1), long(MARK), long(7), long(0), long(0), long(-9)]
    (event,) = node.events(in_child(lambda: _libc.syscall(*call)))
    wanted = (
        KprobeArgument(int_arg=MARK), KprobeArgument(size_arg=7), KprobeArgument(long_arg=-9),
    )  # fmt: skip
    assert without_process(event) == kprobe("close", *wanted)


async def test_a_register_of_a_system_call_without_parameters(node):
    await node.load(f"""\
  kprobes:
  - call: sys_getppid
    args: [{{index: 0, type: int}}]
    selectors: [{{matchArgs: [{{index: 0, operator: Equal, values: ["{MARK}"]}}]}}]
""")
    number = {"x86_64": 110, "aarch64": 173}[os.uname().machine]
    (event,) = node.events(in_child(lambda: _libc.syscall(number, ctypes.c_long(MARK))))
    assert without_process(event) == kprobe("getppid", KprobeArgument(int_arg=MARK))


async def test_a_buffer_without_length_and_a_signal_without_number(node, opened):
    await node.load(f"""\
  kprobes:
  - call: sys_openat
    args: [{{index: 1, type: char_buf}}, {{index: 1, type: string}}]
    selectors:
    - matchBinaries: [{{operator: In, values: []}}]
      matchArgs: [{{args: [1], operator: Equal, values: ["{opened}"]}}]
      matchActions: [{{action: Signal}}]
""")

    def call():
        os.open(opened, os.O_RDONLY)
        done.write_text("not ended by a signal")

    done = opened.with_suffix(".done")
    (event,) = node.events(in_child(call))
    assert done.exists()
    assert without_process(event) == kprobe(
        "openat",
        KprobeArgument(bytes_arg=b""),
        KprobeArgument(string_arg=str(opened)),
        action="KPROBE_ACTION_SIGNAL",
    )


async def test_an_override_at_a_tracepoint(node):
    await node.load(f"""\
  tracepoints:
  - subsystem: raw_syscalls
    event: sys_enter
    args: [{{index: 4, type: syscall64}}, {{index: 5}}]
    selectors:
    - matchArgs: [{{index: 4, operator: Equal, values: ["{NUMBERS["close"]}"]}}]
      matchBinaries: [{{operator: NotIn, values: [/none]}}]
      matchActions: [{{action: Override, argError: -1}}]
""")
    call = [NUMBERS["close"], ctypes.c_long(-1), ctypes.c_long(MARK)]
    events = node.events(in_child(lambda: _libc.syscall(*call)))
    (body,) = (
        one.process_tracepoint for one in events if one.process_tracepoint.args[2].size_arg == MARK
    )
    body.ClearField("process")
    del body.args[1:]
    assert body == ProcessTracepoint(
        subsys="raw_syscalls",
        event="sys_enter",
        args=[KprobeArgument(syscall_id=SyscallId(id=NUMBERS["close"], abi=ABI))],
        action="KPROBE_ACTION_OVERRIDE",
        policy_name="test",
    )
