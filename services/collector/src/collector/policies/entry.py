"""A policy as the manager and its backend know it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from collector.policies.statistics import PolicyCounters
from collector.policies.table import LoadedPolicy
from tracingpolicy.values import Mode

if TYPE_CHECKING:
    from collector.policies.plan import HookStatus
    from tracingpolicy.model import Hook, Policy

STATIC = "static"  # the domain of files


class State(Enum):
    """tetragon.TracingPolicyState."""

    UNKNOWN = 0
    ENABLED = 1
    DISABLED = 2
    LOAD_ERROR = 3
    ERROR = 4
    LOADING = 5
    UNLOADING = 6
    SKIPPED = 7
    PARTIALLY_ENABLED = 8


class Identity(NamedTuple):
    """Two documents with equal keys are revisions of one policy."""

    name: str
    namespace: str = ""
    domain: str = STATIC

    def __str__(self) -> str:
        scoped = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.domain}:{scoped}"


class Installation(Protocol):
    """A revision in the kernel: attached, and off until `switch`."""

    loaded: LoadedPolicy
    statuses: tuple[HookStatus, ...]

    def switch(self, mode: Mode | None) -> None:
        """Set the mode of all its hooks with one store; None is off."""

    def counters(self) -> PolicyCounters:
        """Return what its programs counted since they were loaded."""

    def lost(self) -> Counter[str]:
        """Return its lost records by reason: the part of `counters` that costs little."""

    async def remove(self) -> None:
        """Detach and free everything; takes up to 0.1 s a hook, elsewhere."""


class Backend(Protocol):
    """Plans, translates, compiles and loads."""

    async def prepare(self, policies: Sequence[Policy]) -> None:
        """Compile policies that are not cached, together; `install` reports failures."""

    async def settle(self) -> None:
        """Return when every run of a program that began before the call has ended."""

    async def install(self, policy: Policy, number: int, revision: int) -> Installation:
        """Load and attach; raise `PolicyErrors` or `ServiceError`, then nothing of it is left."""


@dataclass(frozen=True, slots=True)
class Revision:
    """The desired state of one policy: ``policy`` is None if its document is malformed."""

    number: int
    policy: Policy | None
    error: str = ""
    enabled: bool = True
    mode: Mode | None = None  # None: that of the document
    off: State = State.DISABLED  # where it is not enabled


class Wanted(NamedTuple):
    """A policy of the fleet on this node: the active revision, and a loaded one that waits."""

    identity: Identity
    active: Revision | None = None
    prepared: Revision | None = None
    change: str = ""  # the write of the bucket that wants it


class Prepared(NamedTuple):
    """A revision that waits to be switched on; no installation where the active one serves it."""

    number: int
    policy: Policy | None
    installation: Installation | None
    error: str = ""

    def is_of(self, revision: Revision) -> bool:
        """Return whether this was made from ``revision``."""
        return self.number == revision.number and self.policy == revision.policy


@dataclass(slots=True)
class Entry:
    """A policy as the manager knows it; ``error`` is the last one, also of a refused revision."""

    identity: Identity
    number: int
    policy: Policy | None  # as wanted
    state: State = State.LOADING
    error: str = ""
    mode: Mode = Mode.ENFORCE
    installation: Installation | None = None
    installed: Policy | None = None  # what the installation was made from
    file: str = ""
    before: PolicyCounters = field(default_factory=PolicyCounters)  # counts of earlier revisions
    # What the installation had counted when the active revision began, which may share it.
    at_start: PolicyCounters = field(default_factory=PolicyCounters)
    # Of the fleet: the number of the active revision, and the last that was tried.
    active: int = 0
    wanted: Revision | None = None
    prepared: Prepared | None = None
    change: str = ""  # the last `Wanted.change` that was carried out, or has failed

    def hooks(self) -> list[Hook]:
        """Return the hooks that counters number: of the variant that is loaded, if it has some."""
        policy = self.installed or self.policy
        if policy is None:
            return []
        if policy.variants and self.installation is not None:
            return [status.hook for status in self.installation.statuses]
        return list(policy.hooks())

    def counters(self) -> PolicyCounters:
        """Return the totals of all revisions."""
        if self.installation is None:
            return self.before
        return self.before + self.installation.counters()

    def lost(self) -> Counter[str]:
        """Return the lost records of all revisions by reason."""
        return self.before.lost + (self.installation.lost() if self.installation else Counter())


def mechanisms(statuses: Iterable[HookStatus]) -> list[str]:
    """Return how the hooks are attached, each way once."""
    return sorted({one.value for status in statuses for one in status.mechanisms})
