"""What documents can use here: each hook kind, type, operator, filter and action in a document of
its own, planned on the small kernel. It is supported, or refused with the words of the mistake.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from collector.policies.check import Host
from collector.policies.plan_policy import check_document
from support import policy_kernel
from support.elf_builder import write_program
from tracingpolicy import PolicyErrors
from tracingpolicy.actions import OWN_ACTIONS, ActionKind
from tracingpolicy.model import OWN_API
from tracingpolicy.operators import OPERATORS, Operands, Operator, operators_of
from tracingpolicy.types import OF_OBJECTS, TYPES, ArgumentType, Family
from tracingpolicy.values import Namespace

T = ArgumentType
SUPPORTED = "supported"
_SAMPLES: dict[Operands, str] = {
    Operands.NUMBERS: "1",
    Operands.RANGES: "1:5",
    Operands.MAP: "1",
    Operands.TEXTS: "/etc/x",
    Operands.FILE_TYPES: "reg",
    Operands.ADDRESSES: "10.0.0.0/8",
    Operands.PORTS: "443",
    Operands.PROTOCOLS: "IPPROTO_TCP",
    Operands.FAMILIES: "AF_INET",
    Operands.STATES: "TCP_LISTEN",
    Operands.EXPRESSION: "true",
    Operands.NONE: "",
}


@dataclass(frozen=True)
class Row:
    """One thing that a document can use."""

    group: str
    name: str
    result: str


def rows() -> list[Row]:
    """Return every row of the coverage table."""
    hooks = {**_HOOKS, "usdts": _usdt()}
    found = [Row("hook", name, _result(spec)) for name, spec in hooks.items()]
    found += [Row("type", kind.value, _result(_of_type(kind))) for kind in ArgumentType]
    found += [
        Row("operator", op.value, _result(_of_operator(op)))
        for op in Operator
        if OPERATORS[op].operands is not Operands.LISTED
    ]
    found += [Row("filter", name, _result(_of_filter(name))) for name in _FILTERS]
    found += [Row("action", kind.value, _result(_of_action(kind))) for kind in ActionKind]
    found += [Row("argument key", name, _result(spec)) for name, spec in _ARGUMENT_KEYS.items()]
    found += [Row("policy key", name, _result(spec)) for name, spec in _POLICY_KEYS.items()]
    return found


@cache
def _kernel() -> Host:
    folder = Path(tempfile.mkdtemp(prefix="tracefs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return policy_kernel.host(policy_kernel.write_tracefs(folder))


@cache
def _usdt() -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="program-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = write_program(folder / "program", "shop", "sale", "-4@%edi")
    args = [{"index": 0, "type": "int32"}]
    return {"usdts": [{"path": str(path), "provider": "shop", "name": "sale", "args": args}]}


def _result(spec: dict[str, Any]) -> str:
    """Return "supported", or the words of the first mistake without their place."""
    document = {
        "apiVersion": OWN_API,
        "kind": "TracingPolicy",
        "metadata": {"name": "p"},
        "spec": spec,
    }
    try:
        check_document(json.dumps(document), "p", _kernel())
    except PolicyErrors as error:
        found = [one.message.rpartition(": ")[2] for one in error.mistakes]
        named = [message for message in found if "not supported yet" in message]
        return f"refused: {(named or found)[0]}"
    return SUPPORTED


def _kprobe(call: str = "tcp_connect", **keys: Any) -> dict[str, Any]:
    return {"kprobes": [{"call": call, "syscall": call.startswith("sys_"), **keys}]}


def _field(index: int, kind: str, **keys: Any) -> dict[str, Any]:
    args = [{"index": index, "type": kind}]
    return {
        "tracepoints": [{"subsystem": "raw_syscalls", "event": "sys_enter", "args": args, **keys}]
    }


def _of_type(kind: ArgumentType, **keys: Any) -> dict[str, Any]:
    """Return a spec with an argument of the type."""
    if kind in (T.SYSCALL64, T.AUTO, T.CONST_BUF):
        shown = "auto" if kind is T.CONST_BUF else kind.value
        return _field(5 if kind is T.CONST_BUF else 4, shown, **keys)
    if kind is T.DATA_LOC:
        args = [{"index": 7, "type": "data_loc"}]
        return {
            "tracepoints": [{"subsystem": "sched", "event": "sched_switch", "args": args, **keys}]
        }
    argument: dict[str, Any] = {"index": 0, "type": kind.value}
    if kind in (T.CHAR_BUF, T.CHAR_IOVEC):
        argument["sizeArgIndex"] = 2
    if kind is T.UDP_SIZE:
        call = "take_skb"
    elif kind in OF_OBJECTS:
        call = "take_sock"
    elif TYPES[kind].family in (Family.NUMBER, Family.NONE) or kind in (T.FD, T.FD_SOCK):
        call = "take_number"
    elif TYPES[kind].family is Family.CAPABILITIES:
        call = "take_capabilities"
    else:
        call = f"take_{kind.value}"
    return _kprobe(call, args=[argument], **keys)


def _of_operator(operator: Operator) -> dict[str, Any]:
    """Return a spec with the operator on the first type that it compares."""
    kind = next(one for one in ArgumentType if operator in operators_of(one))
    if operator is Operator.CAPABILITIES_GAINED:
        args = [{"index": i, "type": "cap_effective"} for i in (0, 1)]
        match = {"args": [0, 1], "operator": operator.value}
        return _kprobe("take_capabilities", args=args, selectors=[{"matchArgs": [match]}])
    sample = _SAMPLES[OPERATORS[operator].operands]
    match = {"args": [0], "operator": operator.value, "values": [sample] if sample else []}
    return _of_type(kind, selectors=[{"matchArgs": [match]}])


_FILTERS: dict[str, list[dict[str, Any]]] = {
    "matchPIDs": [{"operator": "In", "values": [1], "followForks": True}],
    "matchBinaries": [{"operator": "In", "values": ["/bin/sh"]}],
    "matchBinaries followChildren": [
        {"operator": "In", "values": ["/bin/sh"], "followChildren": True}
    ],
    "matchParentBinaries": [{"operator": "In", "values": ["/bin/sh"]}],
    "matchNamespaces": [
        {"namespace": one.value, "operator": "NotIn", "values": ["host_ns"]} for one in Namespace
    ],
    "matchNamespaceChanges": [{"operator": "In", "values": ["Net"]}],
    "matchCapabilities": [{"operator": "In", "values": ["CAP_CHOWN"]}],
    "matchCapabilityChanges": [{"operator": "In", "values": ["CAP_CHOWN"]}],
    "matchWorkloads": [{"hostSelector": {}}],
    "matchUsers": [{"type": "euid", "operator": "In", "values": ["0"]}],
    "matchContainers": [{"field": "name", "operator": "In", "values": ["web"]}],
    "matchArgs": [{"index": 0, "operator": "DPort", "values": ["1"]}],
    "matchData": [{"index": 0, "operator": "Equal", "values": ["a"]}],
    "matchReturnArgs": [{"index": 0, "operator": "Equal", "values": ["1"]}],
    "macros": [],
}


def _of_filter(name: str) -> dict[str, Any]:
    hook: dict[str, Any] = {
        "args": [{"index": 0, "type": "sock"}],
        "data": [{"type": "string", "source": "current_task", "resolve": "comm"}],
        "return": True,
        "returnArg": {"index": 0, "type": "int"},
    }
    if name == "macros":
        macros = {"m": {"matchPIDs": _FILTERS["matchPIDs"]}}
        return {"selectorsMacros": macros, **_kprobe(selectors=[{"macros": ["m"]}])}
    return _kprobe(selectors=[{name.partition(" ")[0]: _FILTERS[name]}], **hook)


def _of_action(kind: ActionKind) -> dict[str, Any]:
    more: dict[ActionKind, dict[str, Any]] = {
        ActionKind.SIGNAL: {"argSig": 9},
        ActionKind.OVERRIDE: {"argError": -1},
        ActionKind.GET_URL: {"argUrl": "http://x"},
        ActionKind.DNS_LOOKUP: {"argFqdn": "x"},
        ActionKind.TRACK_SOCK: {"argSock": 0},
        ActionKind.UNTRACK_SOCK: {"argSock": 0},
        ActionKind.COUNT_SENT: {"argSock": 0, "argIndex": 1},
        ActionKind.COUNT_RECEIVED: {"argSock": 0, "argIndex": 1},
    }
    action = {"action": kind.value, **more.get(kind, {})}
    selectors = [{"matchActions": [action]}]
    if kind is ActionKind.SET:
        place = {"path": "/proc/self/exe", "offsets": [64], "selectors": selectors}
        return {"uprobes": [place | {"args": [{"index": 0, "type": "int32"}]}]}
    if kind in OWN_ACTIONS:
        args = [{"index": 0, "type": "sock"}, {"index": 1, "type": "uint64"}]
        return _kprobe("take_sock", args=args, selectors=selectors)
    spec = _kprobe(
        "sys_read" if kind is ActionKind.OVERRIDE else "tcp_connect",
        args=[] if kind is ActionKind.OVERRIDE else [{"index": 0, "type": "sock"}],
        selectors=selectors,
    )
    if kind is ActionKind.NOTIFY_ENFORCER:
        spec["enforcers"] = [{"calls": ["sys_read"]}]
    return spec


_LIST = {"kprobes": [{"call": "list:l"}]}
_HOOKS: dict[str, dict[str, Any]] = {
    "kprobes: function": _kprobe(),
    "kprobes: system call": _kprobe("sys_read"),
    "kprobes: 32-bit system call": {"kprobes": [{"call": "__ia32_sys_dup"}]},
    "kprobes: return": _kprobe(**{"return": True, "returnArg": {"index": 0, "type": "int"}}),
    "kprobes: list": {"lists": [{"name": "l", "values": ["tcp_connect"]}], **_LIST},
    "kprobes: list of syscalls": {
        "lists": [{"name": "l", "type": "syscalls", "values": ["sys_read"]}], **_LIST
    },
    "kprobes: generated_syscalls": {
        "lists": [{"name": "l", "type": "generated_syscalls"}], **_LIST
    },
    "kprobes: generated_ftrace": {
        "lists": [{"name": "l", "type": "generated_ftrace", "pattern": "^security_"}], **_LIST
    },
    "fentries": {"fentries": _kprobe()["kprobes"]},
    "tracepoints": _field(4, "auto"),
    "tracepoints: raw": {
        "tracepoints": [{"subsystem": "sched", "event": "sched_process_exec", "raw": True}]
    },
    "uprobes": {"uprobes": [{"path": "/proc/self/exe", "offsets": [64]}]},
    "uprobes: return": {
        "uprobes": [
            {"path": "/proc/self/exe", "offsets": [64], "return": True,
             "returnArg": {"index": 0, "type": "int"}}
        ]
    },
    "lsmhooks": {"lsmhooks": [{"hook": "file_open"}]},
    "loader": {"loader": True},
}  # fmt: skip
_FILE = "security_file_open"
_ARGUMENT_KEYS: dict[str, dict[str, Any]] = {
    "label": _kprobe(args=[{"index": 0, "type": "sock", "label": "which"}]),
    "sizeArgIndex": _of_type(T.CHAR_BUF),
    "returnCopy": _kprobe("sys_read", args=[{"index": 1, "type": "char_buf", "returnCopy": True}]),
    "maxData": _kprobe(
        "sys_write",
        args=[{"index": 1, "type": "char_buf", "sizeArgIndex": 3, "maxData": True}],
    ),
    "resolve": _kprobe(_FILE, args=[{"index": 0, "type": "uint32", "resolve": "f_mode"}]),
    "btfType": _kprobe(
        _FILE, args=[{"index": 0, "type": "uint32", "resolve": "f_mode", "btfType": "file"}]
    ),
    "data: current_task": _kprobe(
        data=[{"type": "string", "source": "current_task", "resolve": "comm"}]
    ),
    "data: pt_regs": _kprobe(data=[{"type": "uint64", "source": "pt_regs", "resolve": "rax"}]),
}
_POLICY_KEYS: dict[str, dict[str, Any]] = {
    "several kinds of hooks": {**_kprobe(), **_HOOKS["lsmhooks"]},
    "podSelector": {"podSelector": {}},
    "containerSelector": {"containerSelector": {}},
    "hostSelector": {"hostSelector": {}},
    "nodeSelector": {"nodeSelector": {}},
    "enforcers": {"enforcers": [{"calls": ["sys_read"]}]},
    "options": {"options": [{"name": "policy-mode", "value": "monitor"}]},
}
