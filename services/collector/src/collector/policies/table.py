"""The policy table: the common facts of a hook's events, by policy number and revision.

A record in the ring or in the journal says only (policy, revision, hook); the rest of its event is
here. The table is saved with the process table, so a replay after a crash finds the same facts even
if the policy has been replaced or removed since.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

Key = tuple[int, int]  # (policy number, revision)

# Revisions that are kept after they were replaced or removed: their records may still be in the
# ring, or in the journal until the next save of the table.
KEPT = 256


class EventKind(Enum):
    """The message that a hook's events are, whichever mechanism serves the hook."""

    KPROBE = "process_kprobe"
    TRACEPOINT = "process_tracepoint"
    UPROBE = "process_uprobe"
    USDT = "process_usdt"
    LSM = "process_lsm"
    LOADER = "process_loader"


class Argument(NamedTuple):
    """An argument in the order of the policy; `type` is the name of a `tracingpolicy` type."""

    type: str
    label: str = ""


class RequestKind(Enum):
    """A request that an event causes."""

    URL = "GetUrl"
    DNS = "DnsLookup"


class Request(NamedTuple):
    """The URL, or the name."""

    kind: RequestKind
    target: str


@dataclass(frozen=True, slots=True)
class Hook:
    """One function, tracepoint, place in a program or LSM hook of a loaded policy."""

    kind: EventKind
    function: str = ""  # kprobe: the symbol as attached; lsm: the hook's name
    subsystem: str = ""  # tracepoint
    event: str = ""
    path: str = ""  # uprobe, usdt
    symbol: str = ""  # uprobe, as written in the policy
    offset: int = 0
    ref_ctr_offset: int = 0
    provider: str = ""  # usdt
    name: str = ""
    message: str = ""  # with the escapes of an event
    tags: tuple[str, ...] = ()
    args: tuple[Argument, ...] = ()
    data: tuple[Argument, ...] = ()
    returned: Argument | None = None
    requests: tuple[tuple[Request, ...], ...] = ()  # by selector; not saved: replays cause none

    @property
    def label(self) -> str:
        """The hook in metrics, as Tetragon names it."""
        match self.kind:
            case EventKind.KPROBE:
                return f"kprobe:{self.function}"
            case EventKind.TRACEPOINT:
                return f"tracepoint:{self.subsystem}/{self.event}"
            case EventKind.UPROBE:
                return f"uprobe:{self.path}/{self.symbol}"
            case EventKind.USDT:
                return f"usdt:{self.provider}/{self.name}"
            case EventKind.LSM:
                return f"lsm:{self.function}"
            case EventKind.LOADER:
                return "loader"


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """One revision of a policy."""

    number: int
    revision: int
    name: str
    namespace: str = ""
    domain: str = "static"
    hooks: tuple[Hook, ...] = ()

    @property
    def key(self) -> Key:
        """The number that a record has."""
        return self.number, self.revision


@dataclass(slots=True)
class PolicyTable:
    """Every revision whose records may still come."""

    # Seconds in which a policy was off because no collector ran, by name and namespace.
    inactive_s: dict[tuple[str, str], float] = field(default_factory=dict)
    _policies: dict[Key, LoadedPolicy] = field(default_factory=dict)
    _retired: deque[Key] = field(default_factory=deque)
    _off_since_s: dict[tuple[str, str], float] = field(default_factory=dict)

    def __iter__(self) -> Iterator[LoadedPolicy]:
        return iter(self._policies.values())

    def __len__(self) -> int:
        return len(self._policies)

    def get(self, number: int, revision: int) -> LoadedPolicy | None:
        """Return the revision, or None if it was never loaded or has been dropped."""
        return self._policies.get((number, revision))

    def name_of(self, number: int) -> str:
        """Return the name of a policy by the number of any of its revisions; empty: unknown."""
        return next((one.name for one in self._policies.values() if one.number == number), "")

    def add(self, policy: LoadedPolicy) -> None:
        """Enter a revision, before its programs are switched on."""
        self._policies[policy.key] = policy

    def retire(self, key: Key) -> None:
        """Note that a revision is off; the oldest of these are dropped when there are many."""
        self._retired.append(key)
        while len(self._retired) > KEPT:
            self._policies.pop(self._retired.popleft(), None)

    def restore(self, saved: Iterable[LoadedPolicy]) -> None:
        """Enter the table of an earlier collector, whose policies are off."""
        for policy in saved:
            self.add(policy)
            self.retire(policy.key)

    def all_off_since(self, ended_s: float) -> None:
        """Note when the collector ended that had the policies; calendar clock."""
        self._off_since_s = {_name(policy): ended_s for policy in self}

    def resumed(self, policy: LoadedPolicy, now_s: float) -> float:
        """Count and return the seconds since an earlier collector's policy of this name was on."""
        since_s = self._off_since_s.pop(_name(policy), now_s)
        seconds = max(0.0, now_s - since_s)
        if seconds:
            key = _name(policy)
            self.inactive_s[key] = self.inactive_s.get(key, 0.0) + seconds
        return seconds

    def next_revision(self, number: int) -> int:
        """Return a revision that no record of this number has had."""
        return 1 + max((r for n, r in self._policies if n == number), default=0)


def _name(policy: LoadedPolicy) -> tuple[str, str]:
    return policy.name, policy.namespace
