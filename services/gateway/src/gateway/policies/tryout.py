"""Policies on trial: loaded for as long as one call is open.

Nodes hold a try for a lease, which the gateway renews every second. The trial ends when the client,
this gateway or NATS ends, or when its time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import grpc

from bus.connection import until_cancelled
from bus.policies import TRY_DOMAIN, Key
from eventstream.errors import BusError
from gateway.errors import RequestError
from gateway.fleet import Fleet
from gateway.policies import canary
from gateway.policies.audit import Audit
from gateway.policies.nodes import PolicyNodes
from gateway.policies.view import wants
from tetra.v1.bus_pb2 import ControlRequest, ControlResponse, TryOnNode
from tetra.v1.policies_pb2 import (
    AuditEntry,
    Canary,
    NodePolicy,
    PolicySpec,
    TryPolicyRequest,
    TryPolicyUpdate,
)
from tetragon.sensors_pb2 import TP_STATE_LOAD_ERROR, TP_STATE_LOADING

LEASE_S = 10
DEFAULT_S, MAX_S = 60.0, 3600.0
_UPDATE_EVERY_S = 1.0
_ANSWER_S = 1.0
_AT_ONCE = 16  # nodes that are asked one by one; more are asked together


@dataclass(slots=True)
class Tryout:
    """One try: on which nodes, and what they reported last."""

    fleet: Fleet
    nodes: PolicyNodes
    audit: Audit
    key: Key
    spec: PolicySpec
    request: TryPolicyRequest
    policy_name: str = ""
    _found: dict[str, NodePolicy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.policy_name = f"{self.key.name}.try-{secrets.token_hex(3)}"

    async def run(self) -> AsyncGenerator[TryPolicyUpdate, None]:
        """Load it, yield updates, and remove it at the end; raise `RequestError`."""
        await self.nodes.refresh()
        names = [i.node_name for i in self.nodes.infos() if i.alive and wants(self.spec, i)]
        if not names:
            raise RequestError("nodes: no selected node is alive", grpc.StatusCode.NOT_FOUND)
        self._found = {
            name: NodePolicy(node_name=name, alive=True, selected=True, state=TP_STATE_LOADING)
            for name in names
        }
        change = secrets.token_hex(8)
        await self.audit.write(change, self.key, self.spec, AuditEntry.OUTCOME_STARTED)
        reason = "the client ended the call"
        try:
            async for update in self._updates():
                reason = update.reason
                yield update
        except GeneratorExit:
            reason = "the client ended the call"
            raise
        finally:
            await asyncio.shield(self._end(change, reason))

    async def _updates(self) -> AsyncGenerator[TryPolicyUpdate, None]:
        loop = asyncio.get_running_loop()
        start_s, limit_s = loop.time(), self.duration_s()
        limits = Canary()
        for name in ("max_hits", "max_lost"):
            if self.request.HasField(name):
                setattr(limits, name, getattr(self.request, name))
        await self._ask(self.request.yaml)
        while True:
            elapsed_s = loop.time() - start_s
            nodes = [self._found[name] for name in sorted(self._found)]
            reason = canary.excess(limits, 1, nodes)
            if not reason and all(node.state == TP_STATE_LOAD_ERROR for node in nodes):
                reason = "no node could load it"
            if not reason and elapsed_s >= limit_s:
                reason = "time is over"
            update = TryPolicyUpdate(
                policy_name=self.policy_name, nodes=nodes, last=bool(reason), reason=reason
            )
            update.elapsed.FromNanoseconds(int(elapsed_s * 1e9))
            update.remaining.FromNanoseconds(int(max(0.0, limit_s - elapsed_s) * 1e9))
            yield update
            if reason:
                return
            await asyncio.sleep(min(_UPDATE_EVERY_S, max(0.0, limit_s - elapsed_s)))
            with contextlib.suppress(BusError):  # NATS may be back before the lease is over
                await until_cancelled(self._ask(""))

    def duration_s(self) -> float:
        """Return the duration that the client asks for; raise `RequestError`."""
        if not self.request.HasField("duration"):
            return DEFAULT_S
        wanted_s = self.request.duration.ToNanoseconds() / 1e9
        if not 0 < wanted_s <= MAX_S:
            raise RequestError(f"duration: {wanted_s:g} s: expected above 0, up to {MAX_S:.0f} s")
        return wanted_s

    async def _ask(self, yaml: str, lease_s: int = LEASE_S) -> None:
        order = TryOnNode(
            id=self.policy_name, yaml=yaml, lease_s=lease_s, policy_name=self.policy_name
        )
        request = ControlRequest(try_policy=order)
        if len(self._found) <= _AT_ONCE or yaml:
            answers = await self.fleet.ask_nodes(request, frozenset(self._found), _ANSWER_S)
        else:
            answers = await self.fleet.ask(request, timeout_s=_ANSWER_S)
        heard = {answer.node.node_name: answer for answer in answers}
        for name, node in self._found.items():
            answer = heard.get(name)
            node.alive = answer is not None
            if answer is not None:
                self._take(node, answer)

    def _take(self, node: NodePolicy, answer: ControlResponse) -> None:
        if answer.error:
            node.state, node.error = TP_STATE_LOAD_ERROR, answer.error
            return
        for one in answer.policy_status.policies:
            if (one.policy.domain, one.policy.name) == (TRY_DOMAIN, self.policy_name):
                node.CopyFrom(one.status)
                node.alive = node.selected = True

    async def _end(self, change: str, reason: str) -> None:
        with contextlib.suppress(BusError):  # the lease ends then
            await self._ask("", lease_s=0)
        with contextlib.suppress(BusError):
            await self.audit.write(
                change, self.key, self.spec, AuditEntry.OUTCOME_APPLIED, reason, len(self._found)
            )
