"""Hooks that a program at the system call's return serves alone.

A program at entry that keeps a record for the return of each call costs a few hundred ns: it finds
the process, reads a clock and writes a hash. Numbers are in the saved registers at return too: the
kernel changes only the one that has the result. So where every filter needs the file or socket
that the call returns, nothing is done at entry.
"""

from __future__ import annotations

from collections.abc import Sequence

from collector.policies.plan import PlannedArgument, SyscallArgument, Target
from tracingpolicy.model import Kprobe
from tracingpolicy.selectors import Selector
from tracingpolicy.types import TYPES, ArgumentType, Family

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

    A descriptor has to match for every selector, so that a call that was refused before its entry
    was seen is not reported: it returns no file. Data of the task and actions belong to the entry.
    """
    return (
        returned is not None
        and returned.type in _DESCRIPTORS
        and bool(hook.selectors)
        and all(one.return_args for one in hook.selectors)
        and not any(map(_does_more, hook.selectors))
        and not data
        and all(map(_is_register, args))
        and all(
            one.syscall is not None and one.syscall.name not in _OTHER_RETURNS and one.args is None
            for one in targets
        )
    )


def _does_more(one: Selector) -> bool:
    return bool(
        one.actions or one.return_actions or one.namespace_changes or one.capability_changes
    )


def _is_register(one: PlannedArgument) -> bool:
    return (
        isinstance(one.source, SyscallArgument)
        and TYPES[one.type].family is Family.NUMBER
        and one.type is not ArgumentType.SOCK_AGE
        and one.resolved is None
        and one.length is None
        and not one.argument.return_copy
    )
