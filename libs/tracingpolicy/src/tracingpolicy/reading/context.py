"""What the readers of selectors must know about the hook that they stand in."""

from __future__ import annotations

from dataclasses import dataclass, field

from tracingpolicy.model import Argument, HookKind
from tracingpolicy.reading.document import Node
from tracingpolicy.types import ArgumentType


@dataclass(slots=True)
class PolicyContext:
    """What all hooks of a document share."""

    own_api: bool
    namespaced: bool = False
    has_enforcers: bool = False
    macros: dict[str, Node] | None = None  # None: the document has no selectorsMacros
    lists: frozenset[str] = frozenset()
    used_macros: set[str] = field(default_factory=set)


@dataclass(slots=True)
class HookContext:
    """A hook whose arguments are read; the place of a refused argument is None."""

    policy: PolicyContext
    kind: HookKind
    raw: bool = False
    syscall: bool = False
    overridable: bool = False  # a system call, a security_ function, or a list of unknown ones
    args: tuple[Argument | None, ...] = ()
    data: tuple[Argument | None, ...] = ()
    returned: Argument | None = None
    returns: bool = False


def kind_of(argument: Argument | None) -> ArgumentType | None:
    """Return the type that filters may rely on; None where it is not known yet."""
    if argument is None or argument.type is ArgumentType.AUTO:
        return None
    return argument.type
