"""For random values a filter in the kernel and the same filter in Python agree."""

import ctypes
import os
import random
import re
import struct
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from collector.records.values import Sockaddr
from support.calls import NUMBERS
from support.filter_model import (
    address_matches,
    as_number,
    cel_matches,
    number_matches,
    text_matches,
)
from support.policies import Loaded, arg, in_child, match, plan_of, syscall_plan
from tracingpolicy.operators import Operator, operators_of
from tracingpolicy.selectors import Selector
from tracingpolicy.types import TYPES
from tracingpolicy.types import ArgumentType as T
from tracingpolicy.values import Range

pytestmark = pytest.mark.kernel

GETPRIORITY, OPENAT, CONNECT, SYNC_FILE_RANGE = (
    NUMBERS[name] for name in ("getpriority", "openat", "connect", "sync_file_range")
)
CALLS = 60
_syscall = ctypes.CDLL(None).syscall


def agree(policies, number, name, kind, filters, values, call, model):
    """Load a policy with one hook for each filter; compare which of them report which value."""
    args = (arg(MARK[name], T.UINT64), arg(1 if name == "openat" else 0, kind))
    plans = [
        syscall_plan(name, number, args, (Selector(args=(replace(one, operands=(1,)),)),))
        for one in filters
    ]
    plan = replace(plans[0], hooks=tuple(hook for one in plans for hook in one.hooks))
    with policies.loaded(plan) as loaded:
        pid = in_child(lambda: [call(value, n) for n, value in enumerate(values)])
        found = {(record.hook, record.args[0]) for record in loaded.of(pid)}
    for hook, one in enumerate(filters):
        for n, value in enumerate(values):
            assert ((hook, n) in found) == model(one, value), (one, value)


# Which argument carries the number of the value.
MARK = {"getpriority": 2, "openat": 3, "connect": 4}


NUMBERS = [
    kind for kind in T if TYPES[kind].bits and kind.value.lstrip("u").startswith(("int", "size"))
]


@pytest.mark.parametrize("kind", NUMBERS, ids=lambda kind: kind.value)
def test_numbers(policies, kind):
    rng = random.Random(kind.value)
    info = TYPES[kind]
    low = -(1 << info.bits - 1) if info.signed else 0
    high = (1 << info.bits - info.signed) - 1

    def value() -> int:
        near = rng.choice((0, 0, 1, low, high, rng.randint(low, high)))
        return min(high, max(low, near + rng.randint(-3, 3)))

    filters = []
    operands: tuple[Any, ...]
    for operator in operators_of(kind):
        if operator in (Operator.CEL, Operator.FIRST):
            continue
        if operator in (Operator.IN_RANGE, Operator.NOT_IN_RANGE):
            pairs = (sorted((value(), value())) for _ in range(2))
            operands = tuple(Range(*pair) for pair in pairs)
        elif operator in (Operator.IN_MAP, Operator.NOT_IN_MAP):
            operands = (*(value() for _ in range(20)), Range(*sorted((value(), value()))))
        elif operator is Operator.MASK:
            operands = (1 << rng.randrange(info.bits), abs(value()))
        else:
            operands = tuple(value() for _ in range(3))
        filters.append(match(0, operator, *operands))
    seen = [v for one in filters for v in one.values if isinstance(v, int)]
    registers = [
        (rng.choice((value(), rng.choice(seen))) & (1 << info.bits) - 1)
        | rng.getrandbits(64) << info.bits & (1 << 64) - 1  # anything above a narrow argument
        for _ in range(CALLS)
    ]
    agree(
        policies, GETPRIORITY, "getpriority", kind, filters, registers,
        lambda register, n: _syscall(GETPRIORITY, ctypes.c_ulong(register), 1, n),
        lambda one, register: number_matches(one, as_number(kind, register), info.bits),
    )  # fmt: skip


def _texts(rng: random.Random, longest: int) -> bytes:
    size = rng.choice((0, 1, 2, 7, 8, 9, 15, 16, 17, rng.randint(0, longest)))
    return bytes(rng.choice(b"aAb/") for _ in range(min(size, longest)))


@pytest.mark.parametrize("count", [1, 12, 100])
@pytest.mark.parametrize("longest", [12, 120])
def test_texts(policies, count, longest):
    """Few values are compared one by one, more by a switch, many prefixes by a trie."""
    rng = random.Random(count * longest)
    filters = []
    for operator in operators_of(T.STRING):
        # A document's values of Below have no slash at their end.
        values = {_texts(rng, min(longest, 99)).rstrip(b"/") or b"a" for _ in range(count)}
        filters.append(match(1, operator, *sorted(values)))
    texts = [_texts(rng, longest) for _ in range(CALLS)]
    for one in filters[:]:
        value: Any = rng.choice(one.values)
        texts += [value, value[:-1], value + b"a", b"b" + value, value.swapcase()]
    texts += [b"x" * 5000, b"a" * 4094 + b"b"]
    agree(
        policies, OPENAT, "openat", T.STRING, filters, texts,
        lambda text, n: _syscall(OPENAT, -1, text, os.O_RDONLY, n), text_matches,
    )  # fmt: skip


def verified(loaded: Loaded) -> list[int]:
    """Return how many instructions the verifier checked in each program; none before Linux 5.16."""
    infos = [Path(f"/proc/self/fdinfo/{one.fd}").read_text() for one in loaded.installed.programs]
    return [int(n) for info in infos for n in re.findall(r"verified_insns:\s+(\d+)", info)]


_POSITIVE = ("Equal", "Prefix", "Postfix", "Below", "SubString")


@pytest.mark.parametrize("operator", list(map(Operator, _POSITIVE)), ids=_POSITIVE)
def test_verifying_many_texts_takes_no_million_instructions(policies, operator):
    """Linux 6.12 refuses more than a million in a program, which can have several filters."""
    rng = random.Random(operator.value)
    values = {_texts(rng, 99).rstrip(b"/") or b"a" for _ in range(100)}
    args = (arg(1, T.STRING),)
    selector = Selector(args=(match(0, operator, *sorted(values)),))
    with policies.loaded(syscall_plan("openat", OPENAT, args, (selector,))) as loaded:
        found = verified(loaded)
    assert max(found, default=0) < 100_000, found


def test_verifying_many_selectors_takes_no_million_instructions(policies):
    """Which of five selectors may still match must not multiply what the verifier checks."""
    capabilities = "CAP_CHOWN, CAP_BPF"
    selectors = "\n".join(
        f"""
    - matchPIDs: [{{operator: NotIn, values: [{n}, 5, 6, 7]}}]
      matchNamespaces:
      - {{namespace: Net, operator: In, values: [host_ns, "{n}"]}}
      - {{namespace: Pid, operator: NotIn, values: ["{n}"]}}
      matchCapabilities:
      - {{type: Effective, operator: In, values: [{capabilities}], isNamespaceCapability: true}}
      matchArgs:
      - {{index: 0, operator: Equal, values: ["{n}", "7"]}}
      - {{index: 1, operator: SubString, values: [one{n}, two]}}
      - {{index: 1, operator: NotPostfix, values: [.so, .py]}}
      matchData:
      - {{index: 0, operator: SubStringIgnCase, values: [bash{n}, zsh]}}
      - {{index: 1, operator: InRange, values: ["0:{n}"]}}
      - {{index: 2, operator: Equal, values: [{capabilities}]}}
      matchActions:
      - {{action: Post, rateLimit: 1m, kernelStackTrace: true, userStackTrace: true}}"""
        for n in range(1, 6)
    )
    plan = plan_of(
        f"""\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {{name: wide}}
spec:
  kprobes:
  - call: sys_openat
    return: true
    returnArg: {{index: 0, type: int}}
    args: [{{index: 0, type: int}}, {{index: 1, type: string}}]
    data:
    - {{index: 0, type: string, source: current_task, resolve: real_parent.comm}}
    - {{index: 0, type: uint32, source: current_task, resolve: cred.uid.val}}
    - {{index: 0, type: cap_effective, source: current_task, resolve: cred.cap_effective}}
    selectors:{selectors}
"""
    )
    with policies.loaded(plan) as loaded:
        found = verified(loaded)
    assert max(found, default=0) < 900_000, found


@pytest.mark.parametrize("networks", [3, 40])
def test_addresses(policies, networks):
    """Few networks are compared in code, many are looked up in a trie."""
    rng = random.Random(networks)

    def address(family: int) -> bytes:
        return bytes(
            rng.choice((10, 127, 0, rng.randrange(256))) for _ in range(4 if family == 2 else 16)
        )

    def network():
        family = rng.choice((2, 10))
        raw = address(family)
        bits = rng.randint(0 if networks < 10 else 4, 8 * len(raw))
        return ip_network((raw, bits), strict=False)

    def port() -> int:
        return rng.choice((0, 80, 1023, 1024, 65535))

    filters = [
        match(0, operator, *(network() for _ in range(networks)))
        for operator in (Operator.SADDR, Operator.NOT_SADDR)
    ]
    filters += [
        match(0, operator, port(), Range(*sorted((port(), port()))))
        for operator in (Operator.SPORT, Operator.NOT_SPORT)
    ]
    filters += [match(0, Operator.SPORT_PRIVILEGED), match(0, Operator.NOT_SPORT_PRIVILEGED)]
    filters += [match(0, Operator.FAMILY, 2, 17)]
    addresses = []
    for _ in range(CALLS):
        family = rng.choice((2, 2, 10, 10, 1, 17))
        known = family in (2, 10)
        addresses.append(
            Sockaddr(family, address(family) if known else b"", port() if known else 0)
        )

    def connect(one: Sockaddr, n: int) -> None:
        raw = struct.pack("<H", one.family) + struct.pack(">H", one.port)
        raw += one.addr if one.family == 2 else bytes(4) + one.addr
        _syscall(CONNECT, raw.ljust(28, b"\0"), -1, 28, 0, n)  # the address is no descriptor

    agree(
        policies, CONNECT, "connect", T.SOCKADDR, filters, addresses, connect, address_matches
    )  # fmt: skip


EXPRESSIONS = (
    "arg1 == int32(5)",
    "arg1 + int32(1) > int32(5) && arg2 < 100",
    "or(arg1 == int32(-1), xor(arg2 > 10, arg1 < int32(0)))",
    "!(arg2 - 5 >= 0) || not(arg1 != int32(7))",
    "uint32(arg1) > uint32(4000000000u)",
    "and(arg3 > 5u, arg3 != 18446744073709551615u)",
)


def test_expressions(policies):
    rng = random.Random(7)
    hooks = "\n".join(
        f"""  - call: sys_sync_file_range
    args:
    - {{index: 3, type: uint32}}
    - {{index: 0, type: int}}
    - {{index: 1, type: int64}}
    - {{index: 2, type: uint64}}
    selectors:
    - matchArgs:
      - {{args: [1, 2, 3], operator: CelExpr, values: ["{text}"]}}"""
        for text in EXPRESSIONS
    )
    plan = plan_of(
        "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: cel}\n"
        f"spec:\n  options:\n  - {{name: disable-kprobe-multi, value: 'true'}}\n  kprobes:\n{hooks}"
    )
    interesting = (
        0,
        1,
        4,
        5,
        6,
        7,
        10,
        11,
        99,
        100,
        -1,
        -2,
        1 << 31,
        (1 << 31) - 1,
        1 << 63,
        4100000000,
    )
    rows = [[n << 8, *(rng.choice(interesting) for _ in range(3))] for n in range(CALLS)]
    with policies.loaded(plan) as loaded:
        pid = in_child(
            lambda: [
                # Flags that do not exist: the call fails whatever the descriptor is.
                _syscall(SYNC_FILE_RANGE, *map(ctypes.c_long, (*row[1:], row[0])))
                for row in rows
            ]
        )
        found = {(record.hook, record.args[0]) for record in loaded.of(pid)}
    for hook, planned in enumerate(plan.hooks):
        (expression,) = planned.hook.selectors[0].args[0].values
        for row in rows:
            assert ((hook, row[0]) in found) == cel_matches(expression, row), (expression, row)
