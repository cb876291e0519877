"""Desired policies to loaded ones: what is wanted goes in, and stays loaded until it is not wanted.

One change at a time. A policy that replaces another is switched on before the old one is switched
off, so at no moment is neither active. Whatever fails for one policy is that policy's state: the
others, and a previous revision of the same one, are not touched.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

import structlog

from chassis.errors import ServiceError
from collector.policies.files import Document
from collector.policies.plan import HookState, HookStatus
from collector.policies.statistics import PolicyCounters
from collector.policies.table import LoadedPolicy, PolicyTable
from tracingpolicy.model import Hook, Policy
from tracingpolicy.position import PolicyErrors
from tracingpolicy.values import Mode

STATIC = "static"  # the domain of files
_FIRST_NUMBER = 2  # 0 and 1 are reserved, as in the original

log = structlog.get_logger()


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
    """What makes two documents revisions of one policy."""

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
        """Compile what is not cached, together; a policy that fails says so when installed."""

    async def settle(self) -> None:
        """Return when every run of a program that began before the call has ended."""

    async def install(self, policy: Policy, number: int, revision: int) -> Installation:
        """Load and attach; raise `PolicyErrors` or `ServiceError`, then nothing of it is left."""


@dataclass(slots=True)
class Entry:
    """A policy as the manager knows it; ``error`` is the last one, also of a refused revision."""

    identity: Identity
    number: int
    policy: Policy | None
    state: State = State.LOADING
    error: str = ""
    mode: Mode = Mode.ENFORCE
    installation: Installation | None = None
    file: str = ""
    before: PolicyCounters = field(default_factory=PolicyCounters)  # of earlier revisions

    def hooks(self) -> list[Hook]:
        """Return the hooks that counters number: of the variant that is loaded, if it has some."""
        if self.policy is None:
            return []
        if self.policy.variants and self.installation is not None:
            return [status.hook for status in self.installation.statuses]
        return list(self.policy.hooks())

    def counters(self) -> PolicyCounters:
        """Return the totals of all revisions."""
        if self.installation is None:
            return self.before
        return self.before + self.installation.counters()

    def lost(self) -> Counter[str]:
        """Return the lost records of all revisions by reason."""
        return self.before.lost + (self.installation.lost() if self.installation else Counter())


def _unrecorded(_policy: LoadedPolicy) -> None:
    """Record nothing."""


class PolicyManager:
    """The policies of this node."""

    def __init__(
        self,
        backend: Backend,
        table: PolicyTable,
        parse: Callable[[str, str], Policy],
        record: Callable[[LoadedPolicy], None] = _unrecorded,
    ) -> None:
        """``parse``: from text and file name. ``record`` keeps a revision before its events."""
        self._backend = backend
        self.table = table
        self._parse = parse
        self._record = record
        self._entries: dict[Identity, Entry] = {}
        self._documents = _Documents(parse)
        self._numbers = max([_FIRST_NUMBER - 1, *(p.number for p in table)])
        self._changing = asyncio.Lock()
        self.lost_before: dict[Identity, Counter[str]] = {}  # of policies that were removed

    @property
    def entries(self) -> list[Entry]:
        """Every policy that is or should be loaded, by domain, namespace and name."""
        order = sorted(self._entries, key=lambda one: (one.domain, one.namespace, one.name))
        return [self._entries[identity] for identity in order]

    @property
    def refused(self) -> list[tuple[str, str]]:
        """Files that hold no policy at all, each with the reason."""
        return self._documents.refused

    def get(self, identity: Identity) -> Entry | None:
        """Return the policy, or None."""
        return self._entries.get(identity)

    async def set_documents(self, documents: Sequence[Document]) -> None:
        """Make the policies of domain static those of ``documents``."""
        async with self._changing:
            wanted = self._documents.read(documents)
            changed = [policy for policy in wanted if self._differs(policy)]
            if changed:
                await self._backend.prepare(changed)
            for policy in changed:
                await self._load(_identity(policy), policy)
            names = {_identity(policy) for policy in wanted}
            for identity in [one for one in self._entries if one.domain == STATIC]:
                if identity not in names:
                    await self._unload(identity)

    async def close(self) -> None:
        """Switch everything off and detach it."""
        async with self._changing:
            for identity in list(self._entries):
                await self._unload(identity)

    def _differs(self, policy: Policy) -> bool:
        entry = self._entries.get(_identity(policy))
        return entry is None or entry.policy != policy

    async def _load(self, identity: Identity, policy: Policy) -> None:
        entry = self._entries.get(identity)
        if entry is None:
            self._numbers += 1
            entry = self._entries[identity] = Entry(identity, self._numbers, None)
        old, entry.policy, entry.file = entry.installation, policy, policy.file
        if old is None:
            entry.state = State.LOADING
        revision = self.table.next_revision(entry.number)
        try:
            new = await self._backend.install(policy, entry.number, revision)
        except (PolicyErrors, ServiceError) as error:
            self._failed(entry, error)
            return
        self.table.add(new.loaded)
        self._record(new.loaded)
        entry.mode = policy.options.mode or Mode.ENFORCE
        new.switch(entry.mode)
        if old is not None:
            # A call that met the new program before it was on must still find the old one on.
            await self._backend.settle()
            old.switch(None)
            entry.before = entry.before + old.counters()
        entry.installation, entry.error = new, ""
        entry.state = _state(new.statuses)
        log.info(
            "policy loaded" if old is None else "policy replaced",
            policy=str(identity),
            revision=revision,
            hooks=len(new.loaded.hooks),
            mechanisms=" ".join(mechanisms(new.statuses)),
            file=entry.file or None,
        )
        if old is not None:
            self.table.retire(old.loaded.key)
            await old.remove()

    def _failed(self, entry: Entry, error: Exception) -> None:
        entry.error = str(error)
        if entry.installation is None:
            entry.state = State.LOAD_ERROR
        log.error(
            "policy not loaded" if entry.installation is None else "policy not replaced",
            policy=str(entry.identity),
            file=entry.file or None,
            error=entry.error,
        )

    async def _unload(self, identity: Identity) -> None:
        entry = self._entries.pop(identity)
        if entry.installation is None:
            return
        entry.installation.switch(None)
        lost = self.lost_before.setdefault(identity, Counter())
        lost.update(entry.lost())
        self.table.retire(entry.installation.loaded.key)
        await entry.installation.remove()
        log.info("policy removed", policy=str(identity))


class _Documents:
    """Which policy each file holds; a file that turned bad still holds its last good one."""

    def __init__(self, parse: Callable[[str, str], Policy]) -> None:
        self._parse = parse
        self._texts: dict[str, str] = {}
        self._good: dict[str, Policy] = {}
        self._errors: dict[str, str] = {}
        self._duplicates: dict[str, str] = {}

    @property
    def refused(self) -> list[tuple[str, str]]:
        return sorted((self._duplicates | self._errors).items())

    def read(self, documents: Iterable[Document]) -> list[Policy]:
        """Return the policies that should be loaded, in the order of the documents."""
        found: dict[Identity, Policy] = {}
        names, duplicates = set(), dict[str, str]()
        for document in documents:
            name = str(document.path)
            names.add(name)
            self._read(name, document)
            policy = self._good.get(name)
            if policy is None:
                continue
            first = found.setdefault(_identity(policy), policy)
            if first is not policy:
                duplicates[name] = f"{name}: policy {policy.name} is also in {first.file}"
        for name in duplicates.keys() - self._duplicates.keys():
            log.error("policy file refused", error=duplicates[name])
        self._duplicates = duplicates
        for gone in self._texts.keys() - names:
            del self._texts[gone]
            self._good.pop(gone, None)
            self._errors.pop(gone, None)
        return list(found.values())

    def _read(self, name: str, document: Document) -> None:
        if document.error:
            self._texts[name] = ""
            self._refuse(name, f"{name}: {document.error}")
            return
        if self._texts.get(name) == document.text:
            return
        self._texts[name] = document.text
        try:
            self._good[name] = self._parse(document.text, name)
        except PolicyErrors as error:
            self._refuse(name, str(error))
        else:
            self._errors.pop(name, None)

    def _refuse(self, name: str, error: str) -> None:
        if self._errors.get(name) != error:
            self._errors[name] = error
            kept = self._good.get(name)
            log.error("policy file refused", error=error, still_loaded=kept.name if kept else None)


def _identity(policy: Policy) -> Identity:
    return Identity(policy.name, policy.namespace)


def _state(statuses: Iterable[HookStatus]) -> State:
    if all(status.state is HookState.LOADED for status in statuses):
        return State.ENABLED
    return State.PARTIALLY_ENABLED


def mechanisms(statuses: Iterable[HookStatus]) -> list[str]:
    """Return how the hooks are attached, each way once."""
    return sorted({one.value for status in statuses for one in status.mechanisms})
