"""Policies on system calls: whole records of real calls, by the dispatcher."""

import ctypes
import os
import textwrap
from contextlib import suppress
from dataclasses import replace

import pytest

from collector.policies.install import ModeWord
from collector.records.values import TracingRecord
from support.calls import NUMBERS
from support.policies import POLICY, REVISION, arg, in_child, match, plan_of, syscall_plan
from tracingpolicy.operators import Operator
from tracingpolicy.selectors import Selector
from tracingpolicy.types import ArgumentType as T

pytestmark = pytest.mark.kernel

AT_FDCWD = -100
OPENAT = NUMBERS["openat"]
ARGS = (arg(0, T.INT), arg(1, T.STRING), arg(2, T.INT))
PASSWD = Selector(args=(match(1, Operator.PREFIX, b"/etc/pass"),))


def open_all(*paths: str) -> None:
    for path in paths:
        with suppress(OSError):
            os.close(os.open(path, os.O_RDONLY))


def test_matching_call_makes_one_complete_record(policies):
    with policies.loaded(syscall_plan("openat", OPENAT, ARGS, (PASSWD,))) as loaded:
        pid = in_child(lambda: open_all("/etc/passwd", "/etc/group", "/etc/passwords"))
        first, second = loaded.until(2, pid)
    assert (first.args, second.args) == (
        (AT_FDCWD, b"/etc/passwd", os.O_CLOEXEC),
        (AT_FDCWD, b"/etc/passwords", os.O_CLOEXEC),
    )
    assert first == TracingRecord(
        policy=POLICY, revision=REVISION, hook=0, ktime_ns=first.ktime_ns, image_ktime_ns=0,
        pid=pid, tid=pid, action=1, args=first.args, start_boottime_ns=first.start_boottime_ns,
    )  # fmt: skip
    assert 0 < first.start_boottime_ns < first.ktime_ns < second.ktime_ns
    assert loaded.lost == dict.fromkeys(loaded.lost, 0)


def test_policy_that_is_off_reports_nothing(policies):
    with policies.loaded(syscall_plan("openat", OPENAT, ARGS, (PASSWD,))) as loaded:
        loaded.shared.set_mode(loaded.slot, ModeWord.OFF)
        quiet = in_child(lambda: open_all("/etc/passwd"))
        loaded.shared.set_mode(loaded.slot, ModeWord.MONITOR)
        pid = in_child(lambda: open_all("/etc/passwd"))
        loaded.until(1, pid)
        assert loaded.of(quiet) == []


def test_each_of_several_policies_on_one_call_reports_it(policies):
    plan = syscall_plan("openat", OPENAT, ARGS, (PASSWD,))
    others = [replace(plan, policy=replace(plan.policy, name=f"other-{n}")) for n in range(3)]
    with (
        policies.loaded(plan) as first,
        policies.loaded(others[0]) as second,
        policies.loaded(others[1]) as third,
    ):
        second.shared.set_mode(second.slot, ModeWord.OFF)
        second.installed.close()  # leaves an empty slot among the tail calls
        pid = in_child(lambda: open_all("/etc/passwd"))
        first.until(2, pid)
        assert len(first.of(pid)) == 2
        # Other processes of this machine may open the file too.
        assert min(first.counts().posted, third.counts().posted) >= 1


GETPRIORITY = NUMBERS["getpriority"]
ODD = (-1, 600, 0x40000000 | GETPRIORITY)  # no calls, and x32's, which a kernel may have


def call_odd_numbers() -> None:
    libc = ctypes.CDLL(None)
    for number in (GETPRIORITY, *ODD):
        libc.syscall(ctypes.c_long(number), 0, 0)


def test_every_call_is_seen_beside_a_policy_on_one(policies):
    """Numbers that no call has too; and the program of the one call does not see x32's."""
    values = ", ".join(f'"{one}"' for one in (GETPRIORITY, *ODD))
    every = plan_of(
        textwrap.dedent(f"""
        apiVersion: cilium.io/v1alpha1
        kind: TracingPolicy
        metadata:
          name: every-call
        spec:
          tracepoints:
          - subsystem: raw_syscalls
            event: sys_enter
            args: [{{index: 4, type: int64}}]
            selectors:
            - matchArgs: [{{index: 4, operator: Equal, values: [{values}]}}]
        """)
    )
    one = syscall_plan("getpriority", GETPRIORITY, (arg(0, T.INT), arg(1, T.INT)))
    with policies.loaded(every) as everywhere, policies.loaded(one) as single:
        pid = in_child(call_odd_numbers)
        everywhere.until(5, pid)
        seen = [record.args for record in everywhere.of(pid)]
        assert sorted(seen, key=len) == [(n,) for n in (GETPRIORITY, *ODD)] + [(0, 0)]
        everywhere.shared.set_mode(everywhere.slot, ModeWord.OFF)
        everywhere.installed.close()
        again = in_child(call_odd_numbers)
        assert [record.args for record in single.until(1, again)] == [(0, 0)]
        assert single.of(again) == single.until(1, again)
