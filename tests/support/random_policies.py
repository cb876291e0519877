"""Random documents of policies: valid ones that plan on every kernel, and broken ones.

A document is made as plain data and written as JSON, which is YAML; `mutated` breaks one.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tracingpolicy.operators import OPERATORS, Operands, Operator, operators_of
from tracingpolicy.tables import ADDRESS_FAMILIES, CAPABILITIES, FILE_TYPES, PROTOCOLS, TCP_STATES
from tracingpolicy.types import TYPES, ArgumentType, Family

T = ArgumentType
_INT, _UINT, _LONG = ("int", "int32"), ("uint32", "int"), ("uint64", "int64", "size_t", "long")
# Function, types that each of its arguments can be read as; prototypes of 5.10 to now.
FUNCTIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "security_file_permission": (("file",), _INT),
    "fd_install": (_UINT, ("file",)),
    "tcp_connect": (("sock",),),
    "security_bprm_check": (("linux_binprm",),),
    "commit_creds": (("cred",),),
    "security_socket_connect": (("socket",), ("sockaddr",), _INT),
}
SYSCALLS: dict[str, tuple[tuple[str, ...], ...]] = {
    "sys_openat": (_INT, ("string",), _INT, ("uint16", "uint32")),
    "sys_write": (("fd", *_UINT), ("char_buf",), _LONG),
    "sys_linkat": (_INT, ("string",), _INT, ("string",), _INT),
    "sys_lseek": (_UINT, _LONG, _UINT),
}
RAW: dict[str, tuple[tuple[str, ...], ...]] = {
    "sched_process_exec": (("nop",), ("int", "int32"), ("linux_binprm",)),
}
LSM: dict[str, tuple[tuple[str, ...], ...]] = {
    "file_open": (("file",),),
    "bprm_check_security": (("linux_binprm",),),
}
_RESOLVED = [
    ("security_bprm_check", "string", "mm.owner.comm"),
    ("fd_install", "uint32", "f_flags"),
]
_TEXT = st.text(
    st.characters(max_codepoint=0x2FF, exclude_categories=("Cc",)), min_size=1, max_size=40
)
_PATH = st.lists(
    st.text("abcdefgh.-_0123456789", min_size=1, max_size=9), min_size=1, max_size=4
).map(lambda parts: "/" + "/".join(parts))


def _number(kind: ArgumentType) -> st.SearchStrategy[int]:
    bits, signed = TYPES[kind].bits, TYPES[kind].signed
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return st.integers(low, high) | st.integers(max(low, -8), min(high, 300))


def _written(number: int) -> st.SearchStrategy[str]:
    if number < 0:
        return st.just(str(number))
    return st.sampled_from([str(number), hex(number), f"0o{number:o}"])


def _span(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return number.map(str) | st.tuples(number, number).map(lambda ends: f"{ends[0]}:{ends[1]}")


_NETWORK = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)
_NETWORK |= st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(lambda x: f"{x[0]}/{x[1]}")
_NETWORK |= st.tuples(st.ip_addresses(v=6), st.integers(0, 128)).map(lambda x: f"{x[0]}/{x[1]}")


def _value(operator: Operator, kind: ArgumentType) -> st.SearchStrategy[str]:
    """Return one value that the operator accepts on the type."""
    family, form = TYPES[kind].family, OPERATORS[operator].operands
    if form is Operands.NUMBERS and family in (Family.TEXT, Family.PATH, Family.UNIX_ADDRESS):
        form = Operands.TEXTS
    if form is Operands.NUMBERS:
        if family is Family.CAPABILITIES:
            return st.sets(st.sampled_from(list(CAPABILITIES)), min_size=1, max_size=4).map(
                ",".join
            )
        return _number(kind).flatmap(_written)
    if form is Operands.RANGES:
        ends = st.tuples(_number(kind), _number(kind))
        return ends.map(lambda pair: f"{min(pair)}:{max(pair)}")
    if form is Operands.MAP:
        number = _number(kind)
        return number.map(str) | st.tuples(number, number).map(lambda x: f"{x[0]}:{x[1]}")
    if form is Operands.TEXTS:
        return _PATH if family is Family.PATH else _TEXT | _PATH
    return {
        Operands.FILE_TYPES: st.sampled_from(list(FILE_TYPES)),
        Operands.ADDRESSES: _NETWORK,
        Operands.PORTS: _span(0, 65535),
        Operands.PROTOCOLS: st.sampled_from(list(PROTOCOLS)) | _span(0, 255),
        Operands.FAMILIES: st.sampled_from(list(ADDRESS_FAMILIES)) | _span(0, 45),
        Operands.STATES: st.sampled_from(list(TCP_STATES)) | _span(0, 12),
        Operands.EXPRESSION: st.just("true"),
        Operands.NONE: st.just("ignored"),
    }[form]


@st.composite
def filters(draw: Any, args: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return matchArgs for some of a hook's arguments."""
    made = []
    for position, argument in enumerate(args):
        fitting = operators_of(T(argument["type"])) if argument["type"] in list(T) else ()
        fitting = tuple(one for one in fitting if one is not Operator.CAPABILITIES_GAINED)
        if not fitting or not draw(st.booleans()):
            continue
        operator = draw(st.sampled_from(fitting))
        kind = T(argument["type"])
        count = 1 if operator is Operator.CEL else draw(st.integers(1, 4))
        texts = [draw(_value(operator, kind)) for _ in range(count)]
        if operator is Operator.CEL:
            texts = [draw(st.sampled_from(["true", f"!(arg{position} == arg{position})"]))]
        made.append({"args": [position], "operator": operator.value, "values": texts})
    return made


_IN = st.sampled_from(["In", "NotIn"])
_PROCESS = st.fixed_dictionaries(
    {},
    optional={
        "matchPIDs": st.fixed_dictionaries(
            {"operator": _IN, "values": st.lists(st.integers(0, 70000), min_size=1, max_size=6)},
            optional={"isNamespacePID": st.booleans(), "followForks": st.booleans()},
        ).map(lambda one: [one]),
        "matchBinaries": st.fixed_dictionaries(
            {"operator": _IN, "values": st.lists(_PATH, min_size=1, max_size=4)},
            optional={"followChildren": st.booleans()},
        ).map(lambda one: [one]),
        "matchNamespaces": st.fixed_dictionaries(
            {
                "namespace": st.sampled_from(["Pid", "Mnt", "Net", "Uts", "Ipc", "User", "Cgroup"]),
                "operator": _IN,
                "values": st.lists(
                    st.just("host_ns") | st.integers(0, 2**32 - 1).map(str), min_size=1, max_size=3
                ),
            }
        ).map(lambda one: [one]),
        "matchCapabilities": st.fixed_dictionaries(
            {
                "operator": _IN,
                "values": st.lists(st.sampled_from(list(CAPABILITIES)), min_size=1, max_size=3),
            },
            optional={
                "type": st.sampled_from(["Effective", "Permitted", "Inheritable"]),
                "isNamespaceCapability": st.booleans(),
            },
        ).map(lambda one: [one]),
    },
)
_POST = st.fixed_dictionaries(
    {"action": st.just("Post")},
    optional={
        "rateLimit": st.sampled_from(["0", "5", "1m", "2H"]),
        "rateLimitScope": st.sampled_from(["thread", "process", "global"]),
    },
)
_ACTIONS = st.lists(_POST | st.just({"action": "NoPost"}), min_size=1, max_size=2)


@st.composite
def arguments(draw: Any, parameters: tuple[tuple[str, ...], ...]) -> list[dict[str, Any]]:
    """Return ``args`` in any order, some left out."""
    made = []
    for index in draw(st.permutations(range(len(parameters)))):
        if draw(st.booleans()):
            argument: dict[str, Any] = {
                "index": index,
                "type": draw(st.sampled_from(parameters[index])),
            }
            if argument["type"] == "char_buf":
                argument["sizeArgIndex"] = len(parameters)
            made.append(argument)
    return made


@st.composite
def selectors(
    draw: Any, args: list[dict[str, Any]], data: list[dict[str, Any]], returned: bool
) -> list[dict[str, Any]]:
    """Return up to three selectors; ``returned``: whether the hook returns a number."""
    made = []
    for _ in range(draw(st.integers(0, 3))):
        selector = dict(draw(_PROCESS))
        if found := draw(filters(args)):
            selector["matchArgs"] = found
        if found := draw(filters(data)):
            selector["matchData"] = found
        if returned and (found := draw(filters([{"type": "int"}]))):
            selector["matchReturnArgs"] = found
        if draw(st.booleans()):
            selector["matchActions"] = draw(_ACTIONS)
        made.append(selector)
    return made


def _with_selectors(draw: Any, hook: dict[str, Any]) -> dict[str, Any]:
    if draw(st.booleans()):
        found = selectors(hook["args"], hook.get("data", []), hook.get("return", False))
        hook["selectors"] = draw(found)
    if draw(st.booleans()):
        hook["message"] = draw(_TEXT.filter(lambda text: len(text.encode()) > 1))
    return hook


@st.composite
def kprobes(draw: Any) -> dict[str, Any]:
    """Return an element of kprobes."""
    syscall = draw(st.booleans())
    table = SYSCALLS if syscall else FUNCTIONS
    call = draw(st.sampled_from(list(table)))
    hook = {"call": call, "syscall": syscall, "args": draw(arguments(table[call]))}
    if draw(st.booleans()):
        void = call == "fd_install"
        if not void:
            hook |= {"return": True, "returnArg": {"index": 0, "type": "int"}}
    for name, kind, path in _RESOLVED:
        if call == name and draw(st.booleans()):
            index = 1 if name == "fd_install" else 0
            hook["args"].append({"index": index, "type": kind, "resolve": path})
    if draw(st.booleans()):
        comm = {"index": 0, "type": "string", "source": "current_task", "resolve": "comm"}
        user = {**comm, "type": "uint32", "resolve": "cred.uid.val"}
        hook["data"] = [comm, user]
    return _with_selectors(draw, hook)


@st.composite
def raw_tracepoints(draw: Any) -> dict[str, Any]:
    """Return an element of tracepoints that needs no tracefs."""
    event = draw(st.sampled_from(list(RAW)))
    args = draw(arguments(RAW[event]))
    return _with_selectors(draw, {"subsystem": "sched", "event": event, "raw": True, "args": args})


@st.composite
def lsmhooks(draw: Any) -> dict[str, Any]:
    """Return an element of lsmhooks."""
    hook = draw(st.sampled_from(list(LSM)))
    return _with_selectors(draw, {"hook": hook, "args": draw(arguments(LSM[hook]))})


@st.composite
def documents(draw: Any, *, programs: bool = True) -> dict[str, Any]:
    """Return a valid document as data."""
    spec: dict[str, Any] = {}
    sections = {"kprobes": kprobes(), "tracepoints": raw_tracepoints(), "lsmhooks": lsmhooks()}
    for name, made in sections.items():
        if found := draw(st.lists(made, max_size=2)):
            spec[name] = found
    if programs and draw(st.booleans()):
        spec["uprobes"] = [{"path": "/proc/self/exe", "offsets": [64], "args": []}]
    if draw(st.booleans()):
        spec["options"] = [
            {"name": "policy-mode", "value": draw(st.sampled_from(["enforce", "monitor"]))}
        ]
    return {
        "apiVersion": draw(st.sampled_from(["cilium.io/v1alpha1", "tetra.io/v1"])),
        "kind": "TracingPolicy",
        "metadata": {
            "name": draw(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True))
        },
        "spec": spec,
    }


def text_of(document: Any) -> str:
    """Return a document as text."""
    return json.dumps(document, ensure_ascii=False, indent=1)


_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
    | st.text(max_size=12) | st.sampled_from(["list:x", "Equal", "sys_read", "auto", "1:2", "a["])
)  # fmt: skip
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def _places(node: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    if isinstance(node, dict):
        for key in node:
            found.append((node, key))
            _places(node[key], found)
    elif isinstance(node, list):
        for position in range(len(node)):
            found.append((node, position))
            _places(node[position], found)
    return found


@st.composite
def mutated(draw: Any) -> str:
    """Return the text of a document with some values, keys or characters changed."""
    document = json.loads(json.dumps(draw(documents())))
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(_places(document, [])))
        if key not in (holder if isinstance(holder, dict) else range(len(holder))):
            continue
        change = draw(st.integers(0, 3))
        if change == 0:
            holder[key] = draw(_ANYTHING)
        elif change == 1 and isinstance(holder, dict):
            holder[draw(st.text(max_size=8))] = holder.pop(key)
        elif change == 2 and isinstance(holder, list):
            holder.append(draw(_ANYTHING))
        else:
            del holder[key]
    text = text_of(document)
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.text(max_size=4)) + text[at + draw(st.integers(0, 6)) :]
    return text
