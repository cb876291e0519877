"""The life of one policy in the kernel: installed, switched on, replaced, switched off, removed.

A revision that replaces another is switched on before the old one is switched off, so one of the
two is always active.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from chassis.errors import ServiceError
from collector.policies.entry import STATIC, Backend, Entry, Installation, State, mechanisms
from collector.policies.statistics import PolicyCounters
from collector.policies.table import LoadedPolicy, PolicyTable
from tracingpolicy.position import PolicyErrors
from tracingpolicy.values import Mode

if TYPE_CHECKING:
    from collector.policies.plan import HookStatus
    from tracingpolicy.model import Policy

_TOGETHER = 64  # policies that are installed at a time

log = structlog.get_logger()


@dataclass(slots=True)
class Lifecycle:
    """The steps, each on the entry of the policy; the caller makes one change at a time."""

    backend: Backend
    table: PolicyTable
    record: Callable[[LoadedPolicy], None]  # keeps a revision before its events
    on_loading: Callable[[], None]  # a state changed that lasts while something is loaded
    _removing: set[asyncio.Task[None]] = field(default_factory=set)

    async def install(self, entry: Entry, policy: Policy) -> Installation:
        """Load and attach, switched off, and enter it into the table; raise as the backend."""
        revision = self.table.next_revision(entry.number)
        new = await self.backend.install(policy, entry.number, revision)
        if new.loaded.domain != entry.identity.domain:
            new.loaded = replace(new.loaded, domain=entry.identity.domain)
        self.table.add(new.loaded)
        self.record(new.loaded)
        return new

    async def load(self, entry: Entry, policy: Policy, mode: Mode | None = None) -> bool:
        """Install and switch on; return whether that succeeded."""
        await self.load_all([(entry, policy)], mode)
        return not entry.error

    async def load_all(
        self, wanted: Sequence[tuple[Entry, Policy]], mode: Mode | None = None
    ) -> None:
        """Install policies, many at a time, and switch each of them on.

        Raises an unexpected error of one when it has loaded the others.
        """
        unexpected: list[BaseException] = []
        for entry, policy in wanted:
            entry.policy, entry.file = policy, _file(entry, policy)
            if entry.installation is None:
                entry.state = State.LOADING
                self.on_loading()
        for first in range(0, len(wanted), _TOGETHER):
            some = wanted[first : first + _TOGETHER]
            found = await asyncio.gather(
                *(self._load(entry, policy, mode) for entry, policy in some),
                return_exceptions=True,
            )
            unexpected += (error for error in found if error is not None)
        for error in unexpected:
            raise error

    async def _load(self, entry: Entry, policy: Policy, mode: Mode | None) -> None:
        try:
            new = await self.install(entry, policy)
        except (PolicyErrors, ServiceError) as error:
            self.failed(entry, str(error))
        else:
            await self.replace(entry, policy, new, mode)

    async def replace(
        self, entry: Entry, policy: Policy, new: Installation, mode: Mode | None
    ) -> None:
        """Switch the new installation on, then the old one off."""
        old = entry.installation
        entry.policy, entry.file, entry.error = policy, _file(entry, policy), ""
        entry.mode = mode_of(policy, mode)
        new.switch(entry.mode)
        if old is not None:
            # A call that reached the new program before it was on must still find the old one on.
            await self.backend.settle()
            old.switch(None)
            entry.before = entry.before + old.counters()
        entry.installation, entry.installed = new, policy
        entry.at_start = PolicyCounters()
        entry.state = state_of(new.statuses)
        log.info(
            "policy loaded" if old is None else "policy replaced",
            policy=str(entry.identity),
            revision=new.loaded.revision,
            hooks=len(new.loaded.hooks),
            mechanisms=" ".join(mechanisms(new.statuses)),
            file=entry.file or None,
        )
        doubts = (doubt for status in new.statuses for doubt in status.doubts)
        for notice in (*policy.notices(), *doubts):
            log.warning("policy has warnings", policy=str(entry.identity), notice=notice)
        inactive_s = self.table.resumed(new.loaded, time.time())
        if inactive_s:
            log.warning(
                "policy reported nothing while no collector ran",
                policy=str(entry.identity),
                seconds=round(inactive_s, 1),
            )
        if old is not None:
            await self.remove(old, wait=entry.identity.domain == STATIC)

    def failed(self, entry: Entry, error: str) -> None:
        """Note that a revision could not be loaded; an earlier one stays loaded."""
        entry.error = error
        if entry.installation is None:
            entry.state = State.LOAD_ERROR
        log.error(
            "policy not loaded" if entry.installation is None else "policy not replaced",
            policy=str(entry.identity),
            file=entry.file or None,
            error=entry.error,
        )

    def deactivate(self, entry: Entry, state: State) -> None:
        """Switch off and detach, and keep the entry."""
        old, entry.installation, entry.installed = entry.installation, None, None
        entry.active, entry.state, entry.error = 0, state, ""
        if old is not None:
            old.switch(None)
            entry.before = entry.before + old.counters()
            self.retire(old)
            log.info("policy switched off", policy=str(entry.identity))

    async def unload(self, entry: Entry, *, wait: bool) -> None:
        """Detach all of a policy that is switched off."""
        if entry.prepared is not None and entry.prepared.installation is not None:
            await self.remove(entry.prepared.installation, wait=wait)
        if entry.installation is not None:
            await self.remove(entry.installation, wait=wait)

    async def remove(self, installation: Installation, *, wait: bool) -> None:
        """Detach, which takes up to 0.1 s a hook: changes of the fleet do not wait for it."""
        if wait:
            self.table.retire(installation.loaded.key)
            await installation.remove()
        else:
            self.retire(installation)

    def retire(self, installation: Installation) -> None:
        """Detach in the background."""
        self.table.retire(installation.loaded.key)
        task = asyncio.create_task(installation.remove())
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)

    async def wait_removed(self) -> None:
        """Return when all detaching in the background has ended."""
        if self._removing:
            await asyncio.wait(self._removing)


def mode_of(policy: Policy, wanted: Mode | None) -> Mode:
    """Return the mode in which a policy runs: the one that is set, else the document's."""
    return wanted or policy.options.mode or Mode.ENFORCE


def state_of(statuses: Iterable[HookStatus]) -> State:
    """Return the state of a policy with these hooks, which is on."""
    from collector.policies.plan import HookState  # not at each start

    if all(status.state is HookState.LOADED for status in statuses):
        return State.ENABLED
    return State.PARTIALLY_ENABLED


def _file(entry: Entry, policy: Policy) -> str:
    return policy.file if entry.identity.domain == STATIC else ""
