"""Collectors without a kernel: all that a collector does for policies of the fleet, on a real NATS.

Only the backend, which would load programs, is the test's: it refuses what it is given, and counts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bus import connection
from bus.settings import BusSettings
from collector.bpf.kernel import KernelInfo
from collector.control import Control
from collector.delivery.publisher import Publisher
from collector.delivery.segments import Run
from collector.delivery.spool import Spool
from collector.delivery.statistics import PublisherStatistics
from collector.errors import ProbeError
from collector.losses import Losses
from collector.policies.desired import Node
from collector.policies.entry import State
from collector.policies.fleet import FleetPolicies
from collector.policies.manager import PolicyManager
from collector.policies.plan import HookState, HookStatus, Mechanism
from collector.policies.report import statuses
from collector.policies.statistics import PolicyCounters, SelectorCounters
from collector.policies.status import PolicyStatus
from collector.policies.table import EventKind, Hook, LoadedPolicy, PolicyTable
from collector.policies.tries import Tries
from collector.processes.table import ProcessTable
from gateway.fleet import Fleet as GatewayFleet
from support.stages import NothingLost
from support.waiting import eventually
from tetra.v1.plans_pb2 import NodePlan, PlanOnNode
from tetra.v1.policies_pb2 import NodePolicies, NodePolicy
from tracingpolicy import parse
from tracingpolicy.model import Policy
from tracingpolicy.values import Mode

DOCUMENT = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {{name: {name}}}
spec:
  kprobes:
  - call: {call}
    syscall: false
    selectors:
    - matchActions: [{{action: {action}}}]
"""


def document(name: str = "one", call: str = "fd_install", action: str = "Post") -> str:
    """Return a policy."""
    return DOCUMENT.format(name=name, call=call, action=action)


@dataclass
class FakeInstallation:
    """Remembers how it was switched."""

    loaded: LoadedPolicy
    statuses: tuple[HookStatus, ...]
    node: SimulatedNode
    call: str
    mode: Mode | None = None
    posted: int = 0
    lost_records: int = 0
    removed: bool = False

    def switch(self, mode: Mode | None) -> None:
        """Note it."""
        self.mode = mode
        self.node.log.append((self.call, mode.value if mode else "off"))

    def counters(self) -> PolicyCounters:
        """Return what the test set."""
        return PolicyCounters(
            selectors={(0, 0): SelectorCounters(posted=self.posted)}, lost=self.lost()
        )

    def lost(self) -> Counter[str]:
        """Return what the test set."""
        return Counter({"ring full": self.lost_records} if self.lost_records else {})

    async def remove(self) -> None:
        """Take a moment."""
        await asyncio.sleep(0)
        self.removed = True
        self.node.installed.remove(self)


class DelayedStatus(PolicyStatus):
    """A node's status as a slow network delivers it: at some point nothing newer arrives."""

    stop_when: Callable[[NodePolicies], bool] = staticmethod(lambda _: False)
    _delivered: NodePolicies | None = None

    def stop(self) -> None:
        """Deliver nothing newer than what is so now."""
        self._delivered = super().current()

    def resume(self) -> None:
        """Deliver what is so."""
        self._delivered = None
        self.stop_when = lambda _: False
        self._changed.set()

    def current(self) -> NodePolicies:
        """Return what is delivered."""
        if self._delivered is None:
            fresh = super().current()
            if not self.stop_when(fresh):
                return fresh
            self._delivered = fresh
        return self._delivered


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


@dataclass
class SimulatedNode:
    """One node, and the backend of its manager."""

    name: str
    url: str
    folder: Path
    labels: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)  # functions that do not exist here
    delay_s: float = 0.0  # of loading
    gate: asyncio.Event = field(default_factory=_open_gate)  # loading waits until it is set
    installed: list[FakeInstallation] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)
    boot_id: str = "boot"
    user: dict[str, Any] = field(default_factory=dict)
    explain: Callable[[PlanOnNode], Awaitable[NodePlan]] | None = None
    manager: PolicyManager = field(init=False)
    status: DelayedStatus = field(init=False)

    def __post_init__(self) -> None:
        self.manager = PolicyManager(self, PolicyTable(), parse)

    async def prepare(self, policies: Sequence[Policy]) -> None:
        """See `Backend`."""

    async def settle(self) -> None:
        """See `Backend`."""
        await asyncio.sleep(0)

    async def install(self, policy: Policy, number: int, revision: int) -> FakeInstallation:
        """See `Backend`."""
        await asyncio.sleep(self.delay_s)
        await self.gate.wait()
        hook = policy.kprobes[0]
        if hook.call in self.refused:
            raise ProbeError(f"there is no function {hook.call!r}")
        loaded = LoadedPolicy(
            number, revision, policy.name, hooks=(Hook(EventKind.KPROBE, function=hook.call),)
        )
        status = HookStatus(hook=hook, state=HookState.LOADED, mechanisms=(Mechanism.FENTRY,))
        made = FakeInstallation(loaded, (status,), self, hook.call)
        self.installed.append(made)
        return made

    def active(self) -> dict[str, tuple[str, str]]:
        """Return function and mode of each policy that is on, by name with domain."""
        return {
            f"{entry.identity.domain}:{entry.identity.name}": (found.call, found.mode.value)
            for entry in self.manager.entries
            if isinstance(found := entry.installation, FakeInstallation) and found.mode
        }

    def states(self) -> dict[str, State]:
        """Return the state of each policy by name."""
        return {entry.identity.name: entry.state for entry in self.manager.entries}

    async def run(self) -> None:
        """Be alive until cancelled; state is kept in the folder."""
        settings = BusSettings(nats_url=self.url, **self.user)
        self.manager = PolicyManager(self, PolicyTable(), parse)
        fleet = FleetPolicies(Node(self.name, self.labels), self.manager, parse, self.folder)
        status = self.status = DelayedStatus(
            self.name, self.boot_id, self.manager, lambda: fleet.sequence, lambda: fleet.applied
        )
        tries = Tries(self.manager, parse)
        control = self._control(status, tries)
        connected = asyncio.get_running_loop().create_future()
        nc = connection.client()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fleet.run(connected))
                tasks.create_task(status.run(connected))
                tasks.create_task(tries.run())
                await connection.connect(settings, self.name, nc=nc, on_change=fleet.on_connection)
                await control.serve(nc)
                connected.set_result(nc)
        finally:
            await self.manager.close()
            await connection.drain(nc, 0.2)

    def _control(self, status: PolicyStatus, tries: Tries) -> Control:
        own = Run(self.name, self.boot_id, 1)
        losses = Losses(NothingLost(), (), {}, noted=lambda _: None)
        spool = Spool(self.folder, 0)
        publisher = Publisher(own, 1 << 20, losses.counters, spool, PublisherStatistics())
        fields = {name: () if name == "features" else "" for name in KernelInfo._fields}
        return Control(
            self.boot_id, KernelInfo(**fields), publisher, ProcessTable(), list, losses,
            policies=partial(statuses, self.manager), policy_status=status, tries=tries,
            labels=self.labels, explain=self.explain,
        )  # fmt: skip


class Fleet:
    """Nodes that come and go."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.nodes: dict[str, SimulatedNode] = {}

    def start(self, name: str, **settings: Any) -> SimulatedNode:
        """Start a node, or one that was stopped again."""
        node = self.nodes.get(name)
        if node is None:
            node = SimulatedNode(name, self._url, self._folder / name, **settings)
            self.nodes[name] = node
        self._tasks[name] = asyncio.create_task(node.run())
        return node

    async def stop(self, name: str) -> None:
        """End a node."""
        task = self._tasks.pop(name)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    @property
    def running(self) -> list[str]:
        """The nodes that are alive."""
        return sorted(self._tasks)


@asynccontextmanager
async def fleet(url: str, folder: Path) -> AsyncIterator[Fleet]:
    """Yield an empty fleet; end its nodes."""
    async with AsyncExitStack() as stack:
        found = Fleet(url, folder)

        async def end() -> None:
            for name in found.running:
                await found.stop(name)

        stack.push_async_callback(end)
        yield found


def by_node(nodes: Sequence[NodePolicy]) -> dict[str, NodePolicy]:
    """Return an answer's nodes by name."""
    return {node.node_name: node for node in nodes}


async def known(gateway: GatewayFleet, found: Fleet) -> None:
    """Wait until a gateway knows every node that runs."""

    async def all_alive() -> bool:
        alive = {one.node_name for one in gateway.nodes() if one.alive and one.HasField("policies")}
        if alive != set(found.running):
            await gateway.describe()
        return alive == set(found.running)

    await eventually(all_alive, 30)
