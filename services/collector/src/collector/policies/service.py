"""Tracing policies of a running collector: its documents, loaded, counted and saved.

The kernel's types, the compiler's cache and the maps of policies are set up with the first policy:
a collector without policies pays nothing for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog
from nats.aio.client import Client

import readymade
import tracingpolicy
from collector.bpf.kernel import KernelInfo
from collector.bpf.maps import BpfMap
from collector.errors import BtfError, ProbeError
from collector.policies.desired import Node, selectable_labels
from collector.policies.enforcement import Enforcement
from collector.policies.entry import Installation
from collector.policies.files import Document, PolicyFiles
from collector.policies.fleet import FleetPolicies
from collector.policies.kept_enforcement import KeptEnforcement, folder_of
from collector.policies.manager import PolicyManager
from collector.policies.spared import Spared, nothing_spared, numbers_of
from collector.policies.status import PolicyStatus
from collector.policies.table import LoadedPolicy, PolicyTable
from collector.policies.tries import Tries
from collector.policies.watch import EnforcementWatch
from collector.settings import Settings

if TYPE_CHECKING:
    from collector.policies.backend import KernelBackend
    from collector.policies.scope import WatchedContainers
    from tracingpolicy.model import Policy

_RETRY_S = 5.0

log = structlog.get_logger()


class Resources(Protocol):
    """Policies that are stored elsewhere, such as at an API server."""

    def states_changed(self) -> None:
        """Write the states of policies that have changed."""

    async def run(self) -> None:
        """Load them, now and at each change, until cancelled."""


@dataclass(slots=True)
class LateBackend:
    """Makes the backend when the first policy needs it."""

    make: Callable[[], KernelBackend]
    prepare_stacks: Callable[[], None]
    made: KernelBackend | None = None
    _stacks_prepared: bool = False

    async def prepare(self, policies: Sequence[Policy]) -> None:
        """See `Backend`."""
        with contextlib.suppress(BtfError, ProbeError):  # `install` reports it
            await (await self._backend()).prepare(policies)

    async def settle(self) -> None:
        """See `Backend`."""
        await (await self._backend()).settle()

    async def install(self, policy: Policy, number: int, revision: int) -> Installation:
        """See `Backend`."""
        backend = await self._backend()
        if _wants_kernel_stacks(policy) and not self._stacks_prepared:
            self._stacks_prepared = True
            await asyncio.to_thread(self.prepare_stacks)
        return await backend.install(policy, number, revision)

    async def _backend(self) -> KernelBackend:
        if self.made is None:
            self.made = await asyncio.to_thread(self.make)
        return self.made

    def rates(self) -> BpfMap | None:
        """Return the rates by cgroup and policy; None where there are none."""
        return self.made.shared.rates() if self.made is not None else None

    def close(self) -> None:
        """Close the maps of all policies."""
        if self.made is not None:
            self.made.shared.close()
            self.made = None


@dataclass(slots=True)
class PolicyService:
    """The policies of this node."""

    files: PolicyFiles
    manager: PolicyManager
    fleet: FleetPolicies
    status: PolicyStatus
    tries: Tries
    _backend: LateBackend
    resources: Resources | None = None
    watch: EnforcementWatch | None = None
    kept: KeptEnforcement | None = None
    stays: bool = False  # policies that act stay in force when the collector is stopped

    async def run(self, connected: asyncio.Future[Client]) -> None:
        """Load the policies of files, fleet and trials, now and at each change, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_files())
            tasks.create_task(self.fleet.run(connected))
            tasks.create_task(self.status.run(connected))
            tasks.create_task(self.tries.run())
            if self.resources is not None:
                tasks.create_task(self.resources.run())
            if self.watch is not None:
                tasks.create_task(self.watch.run())

    async def _follow_files(self) -> None:
        while True:
            try:
                async for documents in self.files.changes():
                    await self.manager.set_documents(documents)
                    await self._end_earlier()
            except Exception:  # an error here must not end the base events
                log.exception("policies not updated")
                await asyncio.sleep(_RETRY_S)

    def rates(self) -> BpfMap | None:
        """Return the kernel's map of rates by cgroup and policy; None where nothing is loaded."""
        return self._backend.rates()

    def losses(self) -> dict[str, int]:
        """Return lost records by cause, those of removed policies too: policy and reason."""
        totals = Counter[str]()
        lost = [*self.manager.lost_before.items()]
        lost += [(one.identity, one.lost()) for one in self.manager.entries]
        for identity, counted in lost:
            for reason, count in counted.items():
                totals[f"policy:{identity.name}:{reason.replace(' ', '_')}"] += count
        return {cause: count for cause, count in totals.items() if count}

    async def _end_earlier(self) -> None:
        """Remove enforcement that an earlier collector has kept, now that this one enforces."""
        if self.kept is not None:
            await asyncio.to_thread(self.kept.remove_earlier)

    async def close(self) -> None:
        """Switch off and detach every policy, unless enforcement outlives the collector."""
        if self.stays:
            return  # the process ends: links with a name stay attached, others are detached
        await self.manager.close()
        self._backend.close()
        if self.kept is not None:
            await asyncio.to_thread(self.kept.remove)


def _wants_kernel_stacks(policy: Policy) -> bool:
    return any(
        action.kernel_stack_trace
        for hook in policy.hooks()
        for selector in hook.selectors
        for action in (*selector.actions, *selector.return_actions)
    )


def enforcement(settings: Settings) -> Enforcement:
    """Return the shared state of enforcing policies, by the settings."""
    spared: Callable[[], Mapping[int, int]] = nothing_spared
    known: frozenset[tuple[str, int]] = frozenset()
    if settings.policy_spare:
        uids = {os.geteuid(), *numbers_of(settings.policy_spare_uids.split(","))}
        programs = frozenset(settings.policy_spare_programs.replace(" ", "").split(",")) - {""}
        spared = Spared(programs, frozenset(uids), settings.procfs).find
        known = frozenset(product(programs, uids))
    kept = KeptEnforcement(
        folder_of(settings.pin_dir, settings.node_name), settings.keep_enforcement != "never"
    )
    return Enforcement(settings.policy_signals_per_minute, spared, known, kept)


def policy_service(
    settings: Settings,
    table: PolicyTable,
    record: Callable[[LoadedPolicy], None],
    kernel: KernelInfo,
    shared: Mapping[str, int],
    prepare_stacks: Callable[[], None],
    boot_id: str,
    containers: WatchedContainers,
    make_resources: Callable[[PolicyManager], Resources] | None = None,
) -> PolicyService:
    """Return the service; nothing is read or loaded before `PolicyService.run`.

    ``prepare_stacks`` is called in a thread ahead of the first policy with kernel stacks.
    ``make_resources`` gets the manager that loads their policies.
    """
    acting = enforcement(settings)

    def make() -> KernelBackend:
        # Code that a collector without policies does not need; imported in a thread.
        from collector.policies.kernel_backend import kernel_backend

        return kernel_backend(
            kernel, shared, settings.procfs, containers, acting,
            settings.request_hosts(), settings.policy_cgroup_rate,
        )  # fmt: skip

    backend = LateBackend(make, prepare_stacks)
    node = Node(settings.node_name, settings.node_labels)
    manager = PolicyManager(backend, table, parse, record, selectable_labels(node))
    files = [settings.tracing_policy] if settings.tracing_policy else []
    fleet = FleetPolicies(node, manager, parse, settings.state_dir)
    status = PolicyStatus(
        settings.node_name, boot_id, manager, lambda: fleet.sequence, lambda: fleet.applied
    )
    resources = None
    if make_resources is not None:
        resources = make_resources(manager)
        manager.on_change = partial(_call_all, manager.on_change, resources.states_changed)
    return PolicyService(
        PolicyFiles(_folder(settings), files, _ready_made(settings.policies)),
        manager,
        fleet,
        status,
        Tries(manager, parse),
        backend,
        resources,
        EnforcementWatch(acting, manager),
        acting.kept,
        settings.keep_enforcement == "always",
    )


def parse(text: str, file: str) -> Policy:
    """Return the policy in ``text``; raise `PolicyErrors`."""
    return tracingpolicy.parse(text, file)  # imported with the first policy


def _folder(settings: Settings) -> Path:
    folder = settings.tracing_policy_dir
    if "tracing_policy_dir" in settings.model_fields_set and not folder.is_dir():
        log.warning("folder of policies is not there: it is read once it is", folder=str(folder))
    return folder


def _ready_made(names: str) -> list[Document]:
    if not names:
        return []  # nothing is imported
    return [
        Document(readymade.load(one.name).path, one.document())
        for one in readymade.selection(names)
    ]


def _call_all(*calls: Callable[[], None]) -> None:
    for call in calls:
        call()
