"""``lists``, ``enforcers`` and ``options``."""

from __future__ import annotations

from typing import TypeVar

from tracingpolicy.model import Enforcer, Options, SymbolList
from tracingpolicy.reading.document import Node
from tracingpolicy.reading.fields import Fields
from tracingpolicy.reading.hooks import SYSCALL_PREFIXES
from tracingpolicy.reading.report import Report, nearest, quoted, suggestion
from tracingpolicy.values import ListType, Mode, OverrideMethod

E = TypeVar("E")

ABIS = ("x64", "i386", "arm64", "arm32")
# prefix of a symbol -> ABIs whose calls it serves
_PREFIX_ABIS = {
    "__x64_sys_": ("x64",),
    "__ia32_sys_": ("i386",),
    "__ia32_compat_sys_": ("i386",),
    "__arm64_sys_": ("arm64",),
    "__arm64_compat_sys_": ("arm32",),
}
_SYSCALL_FORM = "sys_openat, __x64_sys_openat, or ABI/sys_openat with x64, i386, arm64, arm32"
_ENFORCED = (*SYSCALL_PREFIXES, "security_")
_BOOLS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
OPTIONS = (
    "disable-kprobe-multi",
    "disable-uprobe-multi",
    "override-method",
    "policy-mode",
    "sleepable-preload-size",
)
_MISTYPED = 0.8  # of `nearest`: two letters of ten differ


def read_list(report: Report, node: Node, path: str) -> SymbolList | None:
    """Return an element of lists."""
    keys = ("name", "type", "values", "pattern", "validated")
    fields = Fields(report, node, path, keys, required=("name",))
    fields.flag("validated")  # a marker of Tetragon's agent, without a meaning here
    name = fields.text("name")
    fields.not_empty("name")
    kind = fields.member("type", ListType, ListType.FUNCTIONS, "a type of lists")
    values = fields.texts("values")
    pattern = fields.text("pattern")
    generated = kind in (ListType.GENERATED_SYSCALLS, ListType.GENERATED_FTRACE)
    if generated and values:
        fields.fail(f"a list of type {kind.value} is generated: it has no values", "values")
    if kind is ListType.GENERATED_FTRACE and not pattern and not fields.failed("pattern"):
        # Whether it is a regular expression is for the collector, which applies it.
        fields.fail("pattern is missing", "pattern" if fields.has("pattern") else "")
    if kind is ListType.SYSCALLS:
        for text, value in values:
            problem = syscall_problem(text)
            if problem:
                report.add(value.position, f"{path}.values: {problem}", _SYSCALL_FORM)
    elif kind is ListType.FUNCTIONS:
        for text, value in values:
            if not text:
                report.add(value.position, f"{path}.values: the text is empty", "a function")
    if not name:
        return None
    return SymbolList(
        name=name,
        type=kind,
        values=tuple(text for text, _ in values),
        pattern=pattern,
        place=fields.place(),
    )


def split_syscall(text: str) -> tuple[str, str, str]:
    """Return ABI, prefix and name of a system call in a list; ABI "" where none is written."""
    abi, slash, symbol = text.rpartition("/")
    prefix = next((one for one in SYSCALL_PREFIXES if symbol.startswith(one)), "")
    if not slash and prefix in _PREFIX_ABIS:
        abi = _PREFIX_ABIS[prefix][0]
    return abi, prefix, symbol.removeprefix(prefix)


def syscall_problem(text: str) -> str:
    """Return what is wrong with a system call in a list, or ""."""
    abi, prefix, name = split_syscall(text)
    if "/" in text and abi not in ABIS:
        return f"{quoted(abi)} is not an ABI{suggestion(abi, ABIS)}"
    if not prefix or not name:
        return f"{quoted(text)} is not a system call"
    if abi and prefix in _PREFIX_ABIS and abi not in _PREFIX_ABIS[prefix]:
        return f"ABI {abi} contradicts prefix {prefix}"
    return ""


def read_enforcer(report: Report, node: Node, path: str, lists: frozenset[str]) -> Enforcer:
    """Return an element of enforcers."""
    fields = Fields(report, node, path, ("calls",), required=("calls",))
    calls = fields.texts("calls")
    if fields.given("calls") and not calls:
        fields.fail("the list is empty", "calls")
    for text, value in calls:
        problem = ""
        if text.startswith("list:"):
            if text.removeprefix("list:") not in lists:
                problem = f"list {quoted(text.removeprefix('list:'))} is not in spec.lists"
        elif not text.startswith(_ENFORCED):
            problem = f"{quoted(text)} is neither a system call nor a security_ function"
        if problem:
            report.add(value.position, f"{path}.calls: {problem}")
    return Enforcer(calls=tuple(text for text, _ in calls), place=fields.place())


def read_options(spec: Fields) -> Options:
    """Return spec.options; of two options of one name the last counts.

    A name that no option has is ignored, as Tetragon does it, unless it is nearly that of one:
    a mistyped policy-mode would enforce.
    """
    values: dict[str, object] = {}
    ignored: list[str] = []
    for path, node in spec.items("options"):
        fields = Fields(spec.report, node, path, ("name", "value"), required=("name",))
        name, text = fields.text("name"), fields.text("value")
        if not fields.given("name") or fields.failed("value"):
            continue
        if name not in OPTIONS and not nearest(name, OPTIONS, least=_MISTYPED):
            ignored.append(name)
            continue
        if name not in OPTIONS:
            message = f"{quoted(name)} is not an option{suggestion(name, OPTIONS)}"
            fields.fail(message, "name", ", ".join(OPTIONS))
            continue
        values[name] = _option(fields, name, text)
    return Options(
        disable_kprobe_multi=values.get("disable-kprobe-multi") is True,
        disable_uprobe_multi=values.get("disable-uprobe-multi") is True,
        override_method=_one_of(OverrideMethod, values.get("override-method")),
        mode=_one_of(Mode, values.get("policy-mode")),
        sleepable_preload_size=_size(values.get("sleepable-preload-size")),
        ignored=tuple(ignored),
    )


def _one_of(kind: type[E], value: object) -> E | None:
    return value if isinstance(value, kind) else None


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _option(fields: Fields, name: str, text: str) -> object:
    choices: dict[str, object]
    if name.startswith("disable-"):
        choices = dict(_BOOLS)
    elif name == "override-method":
        choices = {one.value: one for one in OverrideMethod}
    elif name == "policy-mode":
        choices = {one.value: one for one in Mode}
    else:
        if text.isascii() and text.isdecimal() and 0 < int(text[:12]) <= 0x7FFF_FFFF:
            return int(text)
        fields.fail(
            f"{quoted(text)} is not a size",
            "value" if fields.has("value") else "",
            "a decimal number above 0",
        )
        return None
    if text not in choices:
        fields.fail(
            f"{quoted(text)} is not a value of {name}",
            "value" if fields.has("value") else "",
            ", ".join(choices),
        )
        return None
    return choices[text]
