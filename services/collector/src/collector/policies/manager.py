"""Makes the loaded policies equal the desired ones.

One change at a time. A failure is recorded as the state of its policy; other policies, and a
previous revision of the same one, are not affected.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from bus.policies import TRY_DOMAIN
from chassis.errors import ServiceError
from collector.policies.documents import Documents
from collector.policies.entry import (
    STATIC,
    Backend,
    Entry,
    Identity,
    Prepared,
    Revision,
    State,
    Wanted,
)
from collector.policies.files import Document
from collector.policies.lifecycle import Lifecycle, mode_of, state_of
from collector.policies.table import LoadedPolicy, PolicyTable
from collector.policies.workloads import selects
from tracingpolicy.position import PolicyErrors

if TYPE_CHECKING:
    from tracingpolicy.model import Policy

_FIRST_NUMBER = 2  # 0 and 1 are reserved, as in Tetragon

log = structlog.get_logger()


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
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """``parse``: from text and file name. ``record`` keeps a revision before its events.

        ``labels``: of this node, for ``nodeSelector``.
        """
        self._labels = labels or {}
        self._backend = backend
        self.table = table
        self._life = Lifecycle(backend, table, record, lambda: self.on_change())
        self._entries: dict[Identity, Entry] = {}
        self._documents = Documents(parse)
        self._numbers = max([_FIRST_NUMBER - 1, *(p.number for p in table)])
        self._changing = asyncio.Lock()
        self.on_change: Callable[[], None] = lambda: None  # after every change of a state
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
            here = [policy for policy in wanted if self._is_for_node(policy)]
            changed = [policy for policy in here if self._differs(policy)]
            if changed:
                await self._backend.prepare(changed)
            await self._life.load_all(
                [(self._enter(_identity(policy)), policy) for policy in changed]
            )
            for policy in changed:
                self._notice_twins(_identity(policy))
            for policy in wanted:
                if not self._is_for_node(policy):
                    self._skip(policy)
            names = {_identity(policy) for policy in wanted}
            for identity in [one for one in self._entries if one.domain == STATIC]:
                if identity not in names:
                    await self._unload(identity)
            self.on_change()

    async def apply(self, wanted: Sequence[Wanted]) -> None:
        """Set the desired policies of the fleet; other policies are not changed."""
        wanted = [
            one._replace(active=self._selected(one.active), prepared=self._selected(one.prepared))
            for one in wanted
        ]
        async with self._changing:
            missing = [policy for one in wanted for policy in self._missing(one)]
            if missing:
                await self._backend.prepare(missing)
            for one in wanted:
                was_on = self._is_on(one.identity)
                await self._apply(one)
                if not was_on:
                    self._notice_twins(one.identity)
                self.on_change()

    def switch_off(self, identity: Identity) -> None:
        """Switch a policy off at once, ahead of the `apply` that removes it."""
        entry = self._entries.get(identity)
        if entry is not None and entry.installation is not None:
            entry.installation.switch(None)

    async def close(self) -> None:
        """Switch everything off and detach it."""
        async with self._changing:
            for identity in list(self._entries):
                await self._unload(identity)
            await self._life.wait_removed()

    def _is_on(self, identity: Identity) -> bool:
        entry = self._entries.get(identity)
        return entry is not None and entry.installation is not None

    def _notice_twins(self, identity: Identity) -> None:
        """Log policies of the same name from elsewhere: what both of them match comes twice."""
        if not self._is_on(identity) or identity.domain == TRY_DOMAIN:
            return
        for other in self._entries:
            same = (other.name, other.namespace) == (identity.name, identity.namespace)
            if same and other != identity and other.domain != TRY_DOMAIN and self._is_on(other):
                log.warning(
                    "policy loaded twice: what both match is reported twice",
                    policy=str(identity),
                    other=str(other),
                    file=self._entries[other].file or self._entries[identity].file or None,
                )

    def _differs(self, policy: Policy) -> bool:
        entry = self._entries.get(_identity(policy))
        return entry is None or entry.policy != policy or entry.state is State.SKIPPED

    def _is_for_node(self, policy: Policy) -> bool:
        """Return whether ``nodeSelector`` selects this node."""
        return policy.node_selector is None or selects(policy.node_selector, self._labels)

    def _selected(self, revision: Revision | None) -> Revision | None:
        """Return a revision of the fleet; one that is for other nodes is not enabled here."""
        if revision is None or revision.policy is None or self._is_for_node(revision.policy):
            return revision
        return replace(revision, enabled=False, off=State.SKIPPED)

    def _skip(self, policy: Policy) -> None:
        entry = self._enter(_identity(policy))
        self._life.deactivate(entry, State.SKIPPED)
        entry.policy, entry.file = policy, policy.file

    def _enter(self, identity: Identity) -> Entry:
        entry = self._entries.get(identity)
        if entry is None:
            self._numbers += 1
            entry = self._entries[identity] = Entry(identity, self._numbers, None)
        return entry

    def _missing(self, wanted: Wanted) -> Iterable[Policy]:
        """Yield the policies that have to be compiled and loaded."""
        entry = self._entries.get(wanted.identity)
        for revision in (wanted.active, wanted.prepared):
            if revision is None or revision.policy is None or not revision.enabled:
                continue
            if entry is not None and revision.policy == entry.installed:
                continue
            prepared = entry.prepared if entry is not None else None
            if prepared is None or not prepared.is_of(revision):
                yield revision.policy

    async def _apply(self, wanted: Wanted) -> None:
        if wanted.active is None and wanted.prepared is None:
            if wanted.identity in self._entries:
                await self._unload(wanted.identity, wait=False)
            return
        entry = self._enter(wanted.identity)
        if wanted.active is None:
            self._life.deactivate(entry, State.LOADING)
            entry.wanted = None
        elif entry.wanted != wanted.active:
            await self._activate(entry, wanted.active)
        await self._set_prepared(entry, wanted.prepared)
        entry.change = wanted.change

    async def _activate(self, entry: Entry, revision: Revision) -> None:
        entry.wanted = revision
        entry.error = ""
        policy, prepared = revision.policy, entry.prepared
        if policy is None:
            self._life.failed(entry, revision.error)
            return
        if not revision.enabled:
            self._life.deactivate(entry, revision.off)
            entry.policy, entry.active = policy, revision.number
        elif entry.installation is not None and entry.installed == policy:
            entry.mode = mode_of(policy, revision.mode)
            entry.at_start = entry.installation.counters()
            entry.installation.switch(entry.mode)
            entry.active = revision.number
            entry.state = state_of(entry.installation.statuses)
        elif prepared and prepared.is_of(revision) and prepared.installation:
            entry.prepared = None
            await self._life.replace(entry, policy, prepared.installation, revision.mode)
            entry.active = revision.number
        elif await self._life.load(entry, policy, revision.mode):
            entry.active = revision.number

    async def _set_prepared(self, entry: Entry, revision: Revision | None) -> None:
        prepared = entry.prepared
        if revision is not None and prepared is not None and prepared.is_of(revision):
            return
        entry.prepared = None
        if prepared is not None and prepared.installation is not None:
            self._life.retire(prepared.installation)
        if revision is None:
            return
        number, policy = revision.number, revision.policy
        if policy is None:
            entry.prepared = Prepared(number, None, None, revision.error)
        elif (not revision.enabled and revision.off is State.SKIPPED) or (
            entry.installation is not None and entry.installed == policy
        ):
            entry.prepared = Prepared(number, policy, None)
        else:
            try:
                installation = await self._life.install(entry, policy)
            except (PolicyErrors, ServiceError) as error:
                entry.prepared = Prepared(number, policy, None, str(error))
                log.error("policy not prepared", policy=str(entry.identity), error=str(error))
            else:
                entry.prepared = Prepared(number, policy, installation)

    async def _unload(self, identity: Identity, *, wait: bool = True) -> None:
        entry = self._entries.pop(identity)
        if entry.installation is not None:
            entry.installation.switch(None)
        if entry.installation is not None or entry.before.lost:
            self.lost_before.setdefault(identity, Counter()).update(entry.lost())
            log.info("policy removed", policy=str(identity))
        await self._life.unload(entry, wait=wait)


def _identity(policy: Policy) -> Identity:
    return Identity(policy.name, policy.namespace)
