"""Hooks that a program at the system call's return serves alone.

A program at entry that keeps a record for the return of each call costs a few hundred ns: it finds
the process, reads a clock and writes a hash, and the return looks for it. Numbers are in the saved
registers at return too: the kernel changes only the one that has the result. So nothing is done at
entry where every filter needs the file or socket that the call returns, or the error with which it
failed.
"""

from __future__ import annotations

from collections.abc import Sequence

from collector.policies.plan import PlannedArgument, SyscallArgument, Target
from tracingpolicy.model import Kprobe
from tracingpolicy.operators import Operator
from tracingpolicy.selectors import Selector, ValueFilter
from tracingpolicy.types import OF_OBJECTS, TYPES, ArgumentType, Family

_DESCRIPTORS = (ArgumentType.FD, ArgumentType.FD_SOCK)
# Their return runs in a new process too, or with the registers of another program.
_OTHER_RETURNS = frozenset(
    {"clone", "clone3", "fork", "vfork", "execve", "execveat", "rt_sigreturn", "sigreturn"}
)


def known_at_return(
    hook: Kprobe,
    targets: Sequence[Target],
    args: Sequence[PlannedArgument],
    data: Sequence[PlannedArgument],
    returned: PlannedArgument | None,
) -> bool:
    """Return whether the return of the calls has all that the hook reads, compares and reports.

    Either a descriptor has to match for every selector, so that a call that was refused before its
    entry was seen is not reported: it returns no file. Or an error has to match: then such a call
    is reported too, and texts are those that the kernel has just read. Data of the task and actions
    belong to the entry.
    """
    if returned is None or data or not hook.selectors or any(map(_does_more, hook.selectors)):
        return False
    if not all(map(_returns_once, targets)) or not all(one.return_args for one in hook.selectors):
        return False
    if returned.type in _DESCRIPTORS:
        return all(map(_is_register, args))
    return reports_failures(hook, returned) and all(_is_register(x) or _is_text(x) for x in args)


def reports_failures(hook: Kprobe, returned: PlannedArgument) -> bool:
    """Return whether no selector matches a call that succeeded."""
    return TYPES[returned.type].signed and all(
        any(map(_wants_failure, one.return_args)) for one in hook.selectors
    )


def wanted_failures(hook: Kprobe) -> list[int]:
    """Return the errors of which each selector of a hook that reports failures needs one."""
    found = (next(filter(_wants_failure, one.return_args)) for one in hook.selectors)
    return sorted({value for one in found for value in one.values if isinstance(value, int)})


def _wants_failure(one: ValueFilter) -> bool:
    return one.operator in (Operator.EQUAL, Operator.IN_MAP) and all(
        isinstance(value, int) and value < 0 for value in one.values
    )


def _does_more(one: Selector) -> bool:
    return bool(
        one.actions or one.return_actions or one.namespace_changes or one.capability_changes
    )


def _returns_once(one: Target) -> bool:
    call = one.syscall
    return call is not None and call.name not in _OTHER_RETURNS and one.args is None


def _is_plain(one: PlannedArgument) -> bool:
    return (
        isinstance(one.source, SyscallArgument)
        and one.resolved is None
        and one.length is None
        and not one.argument.return_copy
    )


def _is_register(one: PlannedArgument) -> bool:
    kind = one.type
    is_number = TYPES[kind].family is Family.NUMBER and kind not in OF_OBJECTS
    return is_number and _is_plain(one)


def _is_text(one: PlannedArgument) -> bool:
    return one.type is ArgumentType.STRING and _is_plain(one)
