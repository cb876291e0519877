"""The state of policies on the nodes: the newest status of each node."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus import policies, subjects
from bus.connection import until_cancelled
from bus.policies import Key
from eventstream.errors import BusError
from gateway.fleet import Fleet
from gateway.policies.signal import Signal
from tetra.v1.bus_pb2 import ControlRequest
from tetra.v1.node_pb2 import NodeInfo
from tetra.v1.policies_pb2 import NodePolicies, NodePolicy

_LOOK_EVERY_S = 1.0

_log = structlog.get_logger()


@dataclass(slots=True)
class PolicyNodes:
    """The status that each node published, or answered with."""

    nc: Client
    fleet: Fleet
    changed: Signal = field(default_factory=Signal)
    _statuses: dict[str, NodePolicies] = field(default_factory=dict)
    _by_key: dict[str, dict[Key, NodePolicy]] = field(default_factory=dict)

    async def run(self) -> None:
        """Receive published statuses, and ask for missed ones, until cancelled."""
        await until_cancelled(self.nc.subscribe(policies.STATUS_ALL, cb=self._on_message))
        while True:
            with suppress(BusError):  # the subscriber logs it
                await until_cancelled(self._ask_missing())
            await asyncio.sleep(_LOOK_EVERY_S)

    async def refresh(self) -> None:
        """Learn which nodes are alive, and what they have; raise `BusError`."""
        await self.fleet.describe()
        await self._ask_missing()

    def infos(self) -> list[NodeInfo]:
        """Return every node that is known, by name."""
        return self.fleet.nodes()

    def status(self, node: str, key: Key) -> NodePolicy | None:
        """Return a policy as the node reported it last."""
        return self._by_key.get(node, {}).get(key)

    def applied(self, node: str) -> int | None:
        """Return up to which message of the bucket the node has carried out what is wanted.

        None: its collector is of a version that does not report it.
        """
        known = self._statuses.get(node)
        return known.applied if known is not None and known.HasField("applied") else None

    def keys(self, node: str) -> set[Key]:
        """Return the policies that the node reported."""
        return set(self._by_key.get(node, {}))

    async def _ask_missing(self) -> None:
        missing = [info.node_name for info in self.infos() if info.alive and self._is_old(info)]
        if not missing:
            return
        request = ControlRequest(policy_status=True)
        everyone = len(missing) > 8
        for answer in await self.fleet.ask_nodes(
            request, frozenset() if everyone else frozenset(missing)
        ):
            if answer.HasField("policy_status"):
                self._take(answer.node.node_name, answer.policy_status, asked=True)

    def _is_old(self, info: NodeInfo) -> bool:
        known = self._statuses.get(info.node_name)
        if not info.HasField("policies"):
            return False  # a collector that knows no policies of the fleet
        if known is None or known.boot_id != info.boot_id:
            return True
        summary = info.policies
        if summary.HasField("start") and summary.start != known.collector_start:
            return True
        return known.version < summary.version

    async def _on_message(self, message: Msg) -> None:
        if message.headers:  # a message of a stream, which JetStream was asked to send here
            return
        node = subjects.node_of(message.subject)
        try:
            status = NodePolicies.FromString(message.data)
        except DecodeError:
            _log.warning("policy status malformed", node=node)
            return
        self._take(node, status)

    def _take(self, node: str, status: NodePolicies, *, asked: bool = False) -> None:
        """Note a status. A status of a collector that has ended can arrive late, unless it is an
        answer.

        Clocks can be set back, so the start time alone does not show which collector is newer.
        """
        if status.node_name != node:
            _log.warning("policy status names another node", node=node, named=status.node_name)
            return
        known = self._statuses.get(node)
        if known is not None:
            start = status.collector_start.ToNanoseconds()
            known_start = known.collector_start.ToNanoseconds()
            if start == known_start and known.version >= status.version:
                return
            if start < known_start and known.boot_id == status.boot_id and not asked:
                return
        self._statuses[node] = status
        self._by_key[node] = {
            Key(one.policy.name, one.policy.namespace, one.policy.domain): one.status
            for one in status.policies
        }
        self.changed.set()
