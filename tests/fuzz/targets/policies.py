"""Documents of policies, their parts joined by line breaks: read, checked on a kernel, planned.

A document gives a plan, or mistakes that each have a message and a place in the text. The plan is
the same a second time, and refers only to arguments that it has.
"""

from __future__ import annotations

import re
from random import Random

from collector.policies.plan import Plan
from collector.policies.plan_policy import check_document
from fuzz.inputs import flipped, join
from support import policy_kernel
from tracingpolicy import PolicyErrors, read
from tracingpolicy.actions import ActionKind
from tracingpolicy.operators import OPERATORS_BY_NAME
from tracingpolicy.types import TYPES_BY_NAME

# Options.
REFUSING = 1  # no mechanism works on the kernel

_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_KERNEL = policy_kernel.host()
_NOTHING = policy_kernel.refusing_host()


def check(options: int, parts: list[bytes]) -> None:
    """Read and plan the document."""
    data = b"\n".join(parts)
    _, mistakes = read(data, "p")
    kernel = _NOTHING if options & REFUSING else _KERNEL
    try:
        plan = check_document(data, "p", kernel)
    except PolicyErrors as error:
        found = error.mistakes
    else:
        assert not mistakes
        _check_plan(plan)
        assert check_document(data, "p", kernel) == plan
        return
    assert found
    assert set(mistakes) <= set(found)
    lines = _BREAK.split(data.decode(errors="replace"))
    for one in found:
        assert one.message
        assert 1 <= one.line <= len(lines) + 1
        line = lines[one.line - 1] if one.line <= len(lines) else ""
        assert 1 <= one.column <= len(line) + 2


def _check_plan(plan: Plan) -> None:
    for hook in plan.hooks:
        assert hook.targets
        assert len(hook.args) == len(hook.hook.args)
        assert len(hook.data) == len(hook.hook.data)
        for selector in hook.hook.selectors:
            for one in selector.args:
                assert all(position < len(hook.args) for position in one.operands)


_WORDS = [
    *TYPES_BY_NAME, *OPERATORS_BY_NAME, *(kind.value for kind in ActionKind), "true", "null", "~",
    "-1", "0x10", "4294967296", "1:5", "list:a", "[", "]", "{", "}", "&a", "*a", "<<", "!!int",
    '"', "'", "|", ">", "- ", ": ", "#", "\t", "---", "sys_read", "fd_install", "a.b[3].c",
]  # fmt: skip


def mutate(part: bytes, rng: Random) -> bytes:
    """Another word at the place of one, a line indented otherwise, or other bytes."""
    if rng.random() < 0.1:
        return flipped(part, rng)
    text = part.decode(errors="replace")
    words = list(re.finditer(r"[\w.:/-]+", text))
    if not words or rng.random() < 0.15:
        indent = rng.choice(("", " ", "  ", "- "))
        return f"{indent}{text}".encode()[:4096]
    old = rng.choice(words)
    new = rng.choice((*_WORDS, *(one[0] for one in words)))
    return f"{text[: old.start()]}{new}{text[old.end() :]}".encode()[:4096]


_HEAD = "apiVersion: tetra.io/v1\nkind: TracingPolicy\nmetadata: {name: p}\nspec:"
_SPECS = [
    """  kprobes:
  - call: fd_install
    syscall: false
    args: [{index: 0, type: int}, {index: 1, type: file, label: which}]
    selectors:
    - matchArgs: [{index: 1, operator: Prefix, values: [/etc]}]
      matchPIDs: [{operator: NotIn, values: [1], followForks: true}]
      matchActions: [{action: Post, rateLimit: 5m}]""",
    """  kprobes:
  - call: sys_openat
    return: true
    args: [{index: 1, type: string}, {index: 2, type: int}]
    data: [{type: string, source: current_task, resolve: real_parent.comm}]
    returnArg: {index: 0, type: int}
    selectors:
    - matchArgs: [{index: 2, operator: CelExpr, values: ["arg1 == int32(5) || !(arg1 > int32(7))"]}]
      matchReturnArgs: [{index: 0, operator: LT, values: ["0"]}]""",
    """  selectorsMacros:
    shells: {matchBinaries: [{operator: In, values: [/bin/sh], followChildren: true}]}
  lsmhooks:
  - hook: bprm_check_security
    args: [{index: 0, type: auto, resolve: cred.uid.val}]
    selectors:
    - {macros: [shells], matchArgs: [{index: 0, operator: InRange, values: ["0:5"]}]}""",
    """  lists:
  - {name: a, type: syscalls, values: [sys_dup, i386/sys_dup]}
  - {name: b, type: generated_ftrace, pattern: ^security_}
  kprobes: [{call: "list:a"}, {call: "list:b", syscall: false}]
  tracepoints:
  - subsystem: raw_syscalls
    event: sys_enter
    args: [{index: 4, type: syscall64}, {index: 5}]
    selectors: [{matchArgs: [{index: 4, operator: InMap, values: ["list:a"]}]}]""",
    """  tracepoints:
  - {subsystem: sched, event: sched_process_exec, raw: true, args: [{index: 2, type: linux_binprm}]}
  kprobes:
  - call: tcp_connect
    syscall: false
    args: [{index: 0, type: sock}]
    selectors:
    - matchArgs:
      - {index: 0, operator: NotDAddr, values: [10.0.0.0/8, "::1"]}
      - {index: 0, operator: Protocol, values: [IPPROTO_TCP]}
      matchUsers: [{type: auid, operator: In, values: ["1000:1999", unset]}]
      matchContainers: [{field: image, operator: Prefix, values: [nginx]}]""",
    """  uprobes:
  - &one {path: /proc/self/exe, offsets: [64], args: [{index: 0, type: string}]}
  - {<<: *one, offsets: [128]}
  podSelector: {matchLabels: {app: web}}
  options: [{name: policy-mode, value: monitor}]""",
]


def seeds() -> list[bytes]:
    """Return documents of every kind of hook, each line a part."""
    made = []
    for spec in _SPECS:
        lines = f"{_HEAD}\n{spec}".encode().split(b"\n")
        made += [join(0, lines), join(REFUSING, lines)]
    return made
