"""Desired policies to loaded ones: what is wanted goes in, and stays loaded until it is not wanted.

One change at a time. A policy that replaces another is switched on before the old one is switched
off, so at no moment is neither active. Whatever fails for one policy is that policy's state: the
others, and a previous revision of the same one, are not touched.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import structlog

from chassis.errors import ServiceError
from collector.policies.documents import Documents
from collector.policies.entry import (
    STATIC,
    Backend,
    Entry,
    Identity,
    Installation,
    Prepared,
    Revision,
    State,
    Wanted,
    mechanisms,
)
from collector.policies.files import Document
from collector.policies.plan import HookState, HookStatus
from collector.policies.table import LoadedPolicy, PolicyTable
from tracingpolicy.model import Policy
from tracingpolicy.position import PolicyErrors
from tracingpolicy.values import Mode

_FIRST_NUMBER = 2  # 0 and 1 are reserved, as in the original

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
    ) -> None:
        """``parse``: from text and file name. ``record`` keeps a revision before its events."""
        self._backend = backend
        self.table = table
        self._record = record
        self._entries: dict[Identity, Entry] = {}
        self._documents = Documents(parse)
        self._numbers = max([_FIRST_NUMBER - 1, *(p.number for p in table)])
        self._changing = asyncio.Lock()
        self._removing: set[asyncio.Task[None]] = set()
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
            changed = [policy for policy in wanted if self._differs(policy)]
            if changed:
                await self._backend.prepare(changed)
            for policy in changed:
                await self._load(self._enter(_identity(policy)), policy)
            names = {_identity(policy) for policy in wanted}
            for identity in [one for one in self._entries if one.domain == STATIC]:
                if identity not in names:
                    await self._unload(identity)
            self.on_change()

    async def apply(self, wanted: Sequence[Wanted]) -> None:
        """Make these policies what the fleet wants; other policies stay as they are."""
        async with self._changing:
            missing = [policy for one in wanted for policy in self._missing(one)]
            if missing:
                await self._backend.prepare(missing)
            for one in wanted:
                await self._apply(one)
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
            if self._removing:
                await asyncio.wait(self._removing)

    def _differs(self, policy: Policy) -> bool:
        entry = self._entries.get(_identity(policy))
        return entry is None or entry.policy != policy

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
            self._deactivate(entry, State.LOADING)
            entry.wanted = None
        elif entry.wanted != wanted.active:
            await self._activate(entry, wanted.active)
        await self._set_prepared(entry, wanted.prepared)

    async def _activate(self, entry: Entry, revision: Revision) -> None:
        entry.wanted = revision
        entry.error = ""
        policy, prepared = revision.policy, entry.prepared
        if policy is None:
            self._failed(entry, revision.error)
            return
        if not revision.enabled:
            self._deactivate(entry, revision.off)
            entry.policy, entry.active = policy, revision.number
        elif entry.installation is not None and entry.installed == policy:
            entry.mode = _mode(policy, revision.mode)
            entry.installation.switch(entry.mode)
            entry.active = revision.number
            entry.state = _state(entry.installation.statuses)
        elif prepared and prepared.is_of(revision) and prepared.installation:
            entry.prepared = None
            await self._replace(entry, policy, prepared.installation, revision.mode)
            entry.active = revision.number
        elif await self._load(entry, policy, revision.mode):
            entry.active = revision.number

    async def _set_prepared(self, entry: Entry, revision: Revision | None) -> None:
        prepared = entry.prepared
        if revision is not None and prepared is not None and prepared.is_of(revision):
            return
        entry.prepared = None
        if prepared is not None and prepared.installation is not None:
            self._retire(prepared.installation)
        if revision is None:
            return
        number, policy = revision.number, revision.policy
        if policy is None:
            entry.prepared = Prepared(number, None, None, revision.error)
        elif entry.installation is not None and entry.installed == policy:
            entry.prepared = Prepared(number, policy, None)
        else:
            try:
                installation = await self._install(entry, policy)
            except (PolicyErrors, ServiceError) as error:
                entry.prepared = Prepared(number, policy, None, str(error))
                log.error("policy not prepared", policy=str(entry.identity), error=str(error))
            else:
                entry.prepared = Prepared(number, policy, installation)

    async def _install(self, entry: Entry, policy: Policy) -> Installation:
        """Load and attach, switched off, and enter it into the table; raise as the backend."""
        revision = self.table.next_revision(entry.number)
        new = await self._backend.install(policy, entry.number, revision)
        if new.loaded.domain != entry.identity.domain:
            new.loaded = replace(new.loaded, domain=entry.identity.domain)
        self.table.add(new.loaded)
        self._record(new.loaded)
        return new

    async def _load(self, entry: Entry, policy: Policy, mode: Mode | None = None) -> bool:
        """Install and switch on; return whether that succeeded."""
        entry.policy, entry.file = policy, _file(entry, policy)
        if entry.installation is None:
            entry.state = State.LOADING
            self.on_change()
        try:
            new = await self._install(entry, policy)
        except (PolicyErrors, ServiceError) as error:
            self._failed(entry, str(error))
            return False
        await self._replace(entry, policy, new, mode)
        return True

    async def _replace(
        self, entry: Entry, policy: Policy, new: Installation, mode: Mode | None
    ) -> None:
        """Switch the new installation on, then the old one off."""
        old = entry.installation
        entry.policy, entry.file, entry.error = policy, _file(entry, policy), ""
        entry.mode = _mode(policy, mode)
        new.switch(entry.mode)
        if old is not None:
            # A call that met the new program before it was on must still find the old one on.
            await self._backend.settle()
            old.switch(None)
            entry.before = entry.before + old.counters()
        entry.installation, entry.installed = new, policy
        entry.state = _state(new.statuses)
        log.info(
            "policy loaded" if old is None else "policy replaced",
            policy=str(entry.identity),
            revision=new.loaded.revision,
            hooks=len(new.loaded.hooks),
            mechanisms=" ".join(mechanisms(new.statuses)),
            file=entry.file or None,
        )
        inactive_s = self.table.resumed(new.loaded, time.time())
        if inactive_s:
            log.warning(
                "policy reported nothing while no collector ran",
                policy=str(entry.identity),
                seconds=round(inactive_s, 1),
            )
        if old is not None:
            await self._remove(old, wait=entry.identity.domain == STATIC)

    def _failed(self, entry: Entry, error: str) -> None:
        entry.error = error
        if entry.installation is None:
            entry.state = State.LOAD_ERROR
        log.error(
            "policy not loaded" if entry.installation is None else "policy not replaced",
            policy=str(entry.identity),
            file=entry.file or None,
            error=entry.error,
        )

    def _deactivate(self, entry: Entry, state: State) -> None:
        """Switch off and detach, and keep the entry."""
        old, entry.installation, entry.installed = entry.installation, None, None
        entry.active, entry.state, entry.error = 0, state, ""
        if old is not None:
            old.switch(None)
            entry.before = entry.before + old.counters()
            self._retire(old)
            log.info("policy switched off", policy=str(entry.identity))

    async def _unload(self, identity: Identity, *, wait: bool = True) -> None:
        entry = self._entries.pop(identity)
        if entry.prepared is not None and entry.prepared.installation is not None:
            await self._remove(entry.prepared.installation, wait=wait)
        if entry.installation is None and not entry.before.lost:
            return
        self.lost_before.setdefault(identity, Counter()).update(entry.lost())
        if entry.installation is not None:
            entry.installation.switch(None)
            await self._remove(entry.installation, wait=wait)
        log.info("policy removed", policy=str(identity))

    async def _remove(self, installation: Installation, *, wait: bool) -> None:
        """Detach, which takes up to 0.1 s a hook: changes of the fleet do not wait for it."""
        if wait:
            self.table.retire(installation.loaded.key)
            await installation.remove()
        else:
            self._retire(installation)

    def _retire(self, installation: Installation) -> None:
        self.table.retire(installation.loaded.key)
        task = asyncio.create_task(installation.remove())
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)


def _file(entry: Entry, policy: Policy) -> str:
    return policy.file if entry.identity.domain == STATIC else ""


def _mode(policy: Policy, wanted: Mode | None) -> Mode:
    return wanted or policy.options.mode or Mode.ENFORCE


def _identity(policy: Policy) -> Identity:
    return Identity(policy.name, policy.namespace)


def _state(statuses: Iterable[HookStatus]) -> State:
    if all(status.state is HookState.LOADED for status in statuses):
        return State.ENABLED
    return State.PARTIALLY_ENABLED
