"""Lists of functions and system calls: the names that a ``list:`` stands for on this kernel."""

from __future__ import annotations

from dataclasses import dataclass

import re2

from collector.policies.check import Checker, Host
from collector.policies.plan import Syscall
from collector.policies.syscalls import Abi
from tracingpolicy.model import SymbolList
from tracingpolicy.reading.lists import split_syscall
from tracingpolicy.reading.report import quoted
from tracingpolicy.values import ListType


@dataclass(frozen=True, slots=True)
class Name:
    """A function to hook: a symbol, or a system call of an ABI by its function's bare name."""

    text: str
    abi: Abi | None = None  # None: a plain function


def expand(checker: Checker, one: SymbolList, path: str, syscall: bool) -> list[Name]:
    """Return the names in a list; mistakes are noted."""
    host = checker.host
    if one.type is ListType.GENERATED_SYSCALLS:
        return [Name(name, host.syscalls.native) for name in all_syscalls(host)]
    if one.type is ListType.GENERATED_FTRACE:
        return [Name(name) for name in _traced(checker, one, path)]
    names = []
    for position, text in enumerate(one.values):
        if one.type is ListType.SYSCALLS:
            found = _syscall(checker, one, path, position, text)
            names += [found] if found else []
        else:
            names.append(function_name(host, text, syscall))
    return names


def function_name(host: Host, text: str, syscall: bool) -> Name:
    """Return a name of ``call`` or of a plain list; system calls are known by their prefix."""
    split = host.syscalls.split(text) if host.syscalls.abis else None
    bare = text.startswith("sys_")
    if split is None or (bare and not syscall):
        return Name(text)
    abi, name = split
    return Name(name, abi)


def _syscall(checker: Checker, one: SymbolList, path: str, position: int, text: str) -> Name | None:
    table = checker.host.syscalls
    wanted, _, bare = split_syscall(text)
    abi = table.abi(wanted) if wanted else (table.native if table.abis else None)
    if abi is None:
        message = f"this machine has no system calls of ABI {wanted or 'sys_'}"
        has = ", ".join(known.name for known in table.abis)
        checker.fail(one.place, path, message, has, "values", position)
        return None
    return Name(bare, abi)


def all_syscalls(host: Host) -> list[str]:
    """Return the native system calls that BTF has a function for, by bare name."""
    if not host.syscalls.abis:
        return []
    prefix = host.syscalls.native.prefixes[0]
    names = {name.removeprefix(prefix) for name in host.functions if name.startswith(prefix)}
    return sorted(
        name for name in names if host.syscalls.find(host.syscalls.native, name).number >= 0
    )


def _traced(checker: Checker, one: SymbolList, path: str) -> list[str]:
    """Return the functions that ftrace can trace and the pattern finds, those in BTF only."""
    host = checker.host
    options = re2.Options()
    options.log_errors = False
    try:
        pattern = re2.compile(one.pattern, options)
    except re2.error as error:
        message = f"{quoted(one.pattern)} is not a regular expression: {_reason(error)}"
        checker.fail(one.place, path, message, "", "pattern")
        return []
    names = _available(host)
    if names is None:
        names = list(host.functions)
    found = sorted({name for name in names if pattern.search(name)})
    if not found:
        message = f"no function matches {quoted(one.pattern)}"
        checker.fail(one.place, path, message, "", "pattern")
    return found


def _reason(error: Exception) -> str:
    """Return RE2's message, which it gives as bytes."""
    reason = error.args[0] if error.args else ""
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)


def _available(host: Host) -> list[str] | None:
    """Return available_filter_functions of tracefs; None where it cannot be read."""
    if host.tracefs is None:
        return None
    try:
        text = (host.tracefs / "available_filter_functions").read_text()
    except OSError:
        return None
    names = [line.partition(" ")[0] for line in text.splitlines() if "[" not in line]
    return [name for name in names if name in host.functions]


def syscall_ids(checker: Checker, one: SymbolList, path: str) -> tuple[int, ...]:
    """Return the ids of a list's system calls, for InMap on syscall64; mistakes are noted."""
    host = checker.host
    if one.type not in (ListType.SYSCALLS, ListType.GENERATED_SYSCALLS):
        checker.fail(
            one.place,
            path,
            f"list {quoted(one.name)} is not of type syscalls",
            "syscalls, generated_syscalls",
            "type",
        )
        return ()
    if one.type is ListType.GENERATED_SYSCALLS:
        native = host.syscalls.native
        return tuple(host.syscalls.find(native, name).id for name in all_syscalls(host))
    ids = []
    for position, text in enumerate(one.values):
        name = _syscall(checker, one, path, position, text)
        if name is None or name.abi is None:
            continue
        call: Syscall = host.syscalls.find(name.abi, name.text)
        if call.number < 0:
            call = host.syscalls.by_call(name.abi, name.text)
        if call.number < 0:
            message = f"{name.abi.name} has no system call {name.text}"
            checker.fail(one.place, path, message, "", "values", position)
        else:
            ids.append(call.id)
    return tuple(dict.fromkeys(ids))
