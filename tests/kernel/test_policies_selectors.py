"""Selectors in their order, and the actions of observation."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

import pytest

from collector.records.tracing import decode_extras, decode_tracing
from kernel.test_policies_arguments import document, records
from support.calls import ABI, NUMBERS
from support.policies import in_child, plan_of

pytestmark = pytest.mark.kernel

_libc = ctypes.CDLL(None)


def getpriority(which: int, who: int = 0) -> None:
    """A call without effect that takes any number."""
    _libc.syscall(NUMBERS["getpriority"], which, who)


def getpriorities(*pairs: tuple[int, int]) -> None:
    """One such call for each pair."""
    for pair in pairs:
        getpriority(*pair)


def priorities(selectors: str) -> str:
    return document(
        "kprobes:\n- call: sys_getpriority\n  syscall: true\n"
        "  args: [{index: 0, type: int}, {index: 1, type: int}]\n"
        "  selectors:\n" + "\n".join("  " + line for line in selectors.strip().splitlines())
    )


def test_first_selector_that_matches_wins(policies):
    text = priorities("""
- matchArgs: [{index: 0, operator: Equal, values: ["7"]}]
  matchActions: [{action: NoPost}]
- matchArgs: [{index: 0, operator: GT, values: ["5"]}, {index: 1, operator: Equal, values: ["1"]}]
  matchActions: [{action: Post}]
- matchArgs: [{index: 0, operator: LT, values: ["3"]}]
""")

    def call() -> None:
        for which in (7, 8, 4, 1, 7, 9):
            getpriority(which, 1 if which != 9 else 2)

    with policies.loaded(plan_of(text)) as loaded:
        pid = in_child(call)
        found = loaded.until(2, pid)
        assert [record.args for record in found] == [(8, 1), (1, 1)]
        assert loaded.counts(0).not_posted >= 2
        assert (loaded.counts(1).posted >= 1, loaded.counts(2).posted >= 1) == (True, True)


def test_filters_of_a_selector_are_a_conjunction(policies):
    text = priorities("""
- matchArgs:
  - {index: 0, operator: Equal, values: ["7", "8"]}
  - {index: 1, operator: NotEqual, values: ["3", "4"]}
""")

    def call() -> None:
        for which, who in ((7, 3), (7, 5), (8, 4), (8, 5), (9, 5)):
            getpriority(which, who)

    found = records(policies, text, call, 2)
    assert [record.args for record in found] == [(7, 5), (8, 5)]


def test_hook_without_selectors_reports_every_call(policies):
    text = document("""
kprobes:
- call: sys_getpriority
  syscall: true
""")
    found = records(policies, text, lambda: getpriorities(*[(1, 0)] * 23), 23)
    assert all(record.args == () for record in found)


@pytest.mark.parametrize(("scope", "expected"), [("thread", 3), ("process", 3), ("global", 3)])
def test_rate_limit(policies, scope, expected):
    """Of calls with the same arguments one is reported, of each kind of arguments."""
    text = priorities(f"""
- matchArgs: [{{index: 0, operator: Equal, values: ["7"]}}]
  matchActions: [{{action: Post, rateLimit: "1h", rateLimitScope: {scope}}}]
""")
    with policies.loaded(plan_of(text)) as loaded:
        pid = in_child(lambda: getpriorities(*[(7, n % 3) for n in range(30)]))
        found = loaded.until(expected, pid)
        assert [record.args for record in found] == [(7, 0), (7, 1), (7, 2)]
        assert loaded.counts().rate_limited >= 27
        other = in_child(lambda: getpriority(7, 0))
        assert len(loaded.of(other)) == (0 if scope == "global" else 1)


def test_rate_limit_ends(policies):
    text = priorities("""
- matchArgs: [{index: 0, operator: Equal, values: ["7"]}]
  matchActions: [{action: Post, rateLimit: "1s"}]
""")

    def call() -> None:
        import time

        end = time.monotonic() + 1.3
        while time.monotonic() < end:
            getpriority(7)

    with policies.loaded(plan_of(text)) as loaded:
        assert len(loaded.of(in_child(call))) == 2


def test_rate_limit_looks_at_texts(policies, tmp_path):
    text = document(f"""
kprobes:
- call: sys_openat
  syscall: true
  args: [{{index: 1, type: string}}]
  selectors:
  - matchArgs: [{{index: 1, operator: Prefix, values: ["{tmp_path}"]}}]
    matchActions: [{{action: Post, rateLimit: "1h"}}]
""")

    def call() -> None:
        for name in "abab":
            with suppress(OSError):
                os.open(str(tmp_path) + name, os.O_RDONLY)

    with policies.loaded(plan_of(text)) as loaded:
        found = loaded.of(in_child(call))
    # 32 bytes of a text take part, and its length: the names differ only behind that.
    assert len(found) == (1 if len(str(tmp_path)) >= 32 else 2)


def test_stack_traces(policies):
    text = priorities("""
- matchArgs: [{index: 0, operator: Equal, values: ["7"]}]
  matchActions: [{action: Post, kernelStackTrace: true, userStackTrace: true}]
""")
    (record,) = records(policies, text, lambda: getpriority(7))
    assert record.kernel_stack
    assert all(address >> 63 for address in record.kernel_stack)
    spans = [
        line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()
    ]
    assert record.user_stack
    # The child was forked from this process: its mappings are the same.
    assert any(int(a, 16) <= record.user_stack[0] < int(b, 16) for a, b in spans)


def test_action_that_the_record_names(policies):
    text = priorities("""
- matchArgs: [{index: 0, operator: Equal, values: ["7"]}]
  matchActions: [{action: Post}]
""")
    (record,) = records(policies, text, lambda: getpriority(7))
    assert (record.action, record.return_action) == (1, 1)


def test_data_is_filtered(policies):
    text = document("""
kprobes:
- call: sys_getpriority
  syscall: true
  args: [{index: 0, type: int}]
  data:
  - {index: 0, type: string, source: current_task, resolve: comm}
  selectors:
  - matchData:
    - {index: 0, operator: Equal, values: ["chosen"]}
""")

    def call() -> None:
        getpriority(1)
        Path("/proc/self/comm").write_text("chosen")
        getpriority(2)

    (record,) = records(policies, text, call)
    assert (record.args, record.data) == ((2,), (b"chosen",))


def test_expression_over_data(policies):
    """arg0 and arg1 are the elements of data there, not those of args."""
    text = document("""
kprobes:
- call: sys_getpriority
  syscall: true
  args: [{index: 0, type: int}, {index: 1, type: int}]
  data:
  - {index: 0, type: int, source: current_task, resolve: exit_signal}
  - {index: 0, type: int, source: current_task, resolve: tgid}
  selectors:
  - matchData:
    - {args: [0, 1], operator: CelExpr, values: ["arg0 == int32(17) && arg1 > int32(1)"]}
    matchArgs: [{index: 0, operator: Equal, values: ["5"]}]
""")
    (record,) = records(policies, text, lambda: getpriorities((4, 0), (5, 0)))
    assert (record.args, record.data) == ((5, 0), (17, record.pid))


def test_expression_over_the_returned_value(policies):
    text = document("""
kprobes:
- call: sys_getpriority
  syscall: true
  return: true
  args: [{index: 0, type: int}]
  returnArg: {index: 0, type: int}
  selectors:
  - matchReturnArgs: [{index: 0, operator: CelExpr, values: ["arg0 < int32(0)"]}]
""")
    (record,) = records(policies, text, lambda: getpriorities((0, 0), (1234, 0)))
    assert (record.args, record.returned) == ((1234,), (-22,))


@pytest.mark.parametrize(("expression", "count"), [("1 == 1", 1), ("1 == 2", 0), ("false", 0)])
def test_expression_without_arguments(policies, expression, count):
    text = priorities(f"""
- matchArgs:
  - {{index: 0, operator: Equal, values: ["3"]}}
  - {{operator: CelExpr, values: ["{expression}"]}}
""")
    assert len(records(policies, text, lambda: getpriority(3), count)) == count


@pytest.mark.parametrize("expression", ["arg0 == uint32(0u)", "!(arg0 == uint32(0u))"])
def test_expression_over_a_value_that_cannot_be_read(policies, expression):
    """It is false, negated or not: nobody waits for a child that was forked."""
    text = document(f"""
kprobes:
- call: sys_getpriority
  syscall: true
  data: [{{index: 0, type: uint32, source: current_task, resolve: vfork_done.done}}]
  selectors:
  - matchData: [{{index: 0, operator: CelExpr, values: ["{expression}"]}}]
""")
    assert records(policies, text, lambda: getpriority(6), count=0) == []


def test_registers_of_a_system_call(policies):
    second, fourth = {"x64": ("rsi", "r10d"), "arm64": ("x1", "w3")}[ABI]
    text = document(f"""
kprobes:
- call: sys_getpriority
  syscall: true
  args: [{{index: 0, type: int}}]
  data:
  - {{index: 0, type: uint64, source: pt_regs, resolve: {second}}}
  - {{index: 1, type: uint32, source: pt_regs, resolve: {fourth}}}
""")
    (record,) = records(policies, text, lambda: _libc.syscall(NUMBERS["getpriority"], 1, 77, 0, 99))
    assert record.data == (77, 99)


def test_values_of_many_kinds_in_one_policy(policies):
    """Five selectors on four arguments: each call meets the one meant for it."""
    text = document("""
kprobes:
- call: sys_openat
  syscall: true
  args:
  - {index: 0, type: int}
  - {index: 1, type: string}
  - {index: 2, type: int}
  - {index: 3, type: uint32}
  selectors:
  - matchArgs: [{index: 1, operator: Prefix, values: ["/none/prefix"]}]
  - matchArgs: [{index: 1, operator: Postfix, values: [".none"]}]
  - matchArgs: [{index: 1, operator: SubString, values: ["-none-"]}]
  - matchArgs: [{index: 2, operator: Mask, values: ["0x200000"]}]
  - matchArgs: [{index: 3, operator: InMap, values: ["1:3", "77"]}]
""")
    calls = [
        (b"/none/prefix/a", 0, 0),
        (b"/no/file.none", 0, 0),
        (b"/a-none-b", 0, 0),
        (b"/x", 0x200000, 0),
        (b"/x", 0, 2),
        (b"/x", 0, 4),
    ]
    with policies.loaded(plan_of(text)) as loaded:
        pid = in_child(lambda: [_libc.syscall(NUMBERS["openat"], -1, *call) for call in calls])
        raw = [one for one in loaded.ring.drain() if decode_tracing(one).pid == pid]
    assert [decode_extras(one).selector for one in raw] == [0, 1, 2, 3, 4]
