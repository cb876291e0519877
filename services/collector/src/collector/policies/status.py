"""The policies of this node for the gateways: published at each change, and as counters grow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from nats.aio.client import Client
from nats.errors import Error as NatsError

from bus.connection import until_cancelled
from bus.policies import status_subject
from collector.policies.entry import Entry, State
from collector.policies.manager import PolicyManager
from collector.policies.statistics import PolicyCounters
from tetra.v1.node_pb2 import PolicySummary
from tetra.v1.policies_pb2 import NodeHook, NodePolicies, NodePolicy
from tetragon.sensors_pb2 import TracingPolicyState

if TYPE_CHECKING:
    from collector.policies.plan import HookStatus

COUNT_EVERY_S = 2.0
_GATHER_S = 0.005  # changes that follow each other at once are one message
_ACTIVE = (State.ENABLED, State.PARTIALLY_ENABLED)


class PolicyStatus:
    """Publishes the policies of the manager."""

    def __init__(
        self,
        node_name: str,
        boot_id: str,
        manager: PolicyManager,
        sequence: Callable[[], int] = lambda: 0,
        applied: Callable[[], int] = lambda: 0,
    ) -> None:
        """``sequence`` and ``applied``: of the bucket; read, and carried out."""
        self._node_name = node_name
        self._manager = manager
        self._sequence, self._applied = sequence, applied
        self._changed = asyncio.Event()
        self._last = NodePolicies(node_name=node_name, boot_id=boot_id)
        self._last.collector_start.FromNanoseconds(time.time_ns())
        manager.on_change = self._changed.set

    def current(self) -> NodePolicies:
        """Return the status as of now."""
        fresh = NodePolicies(
            node_name=self._node_name,
            boot_id=self._last.boot_id,
            collector_start=self._last.collector_start,
            version=self._last.version,
            sequence=self._sequence(),
            applied=self._applied(),
        )
        for entry in self._manager.entries:
            one = fresh.policies.add(status=node_policy(entry, self._node_name))
            one.policy.name, one.policy.namespace, one.policy.domain = entry.identity
        if fresh != self._last:
            fresh.version += 1
            self._last = fresh
        return fresh

    def only(self, domain: str, name: str) -> NodePolicies:
        """Return the status of one policy, as of now."""
        status = NodePolicies()
        status.CopyFrom(self.current())
        del status.policies[:]
        status.policies.extend(
            one
            for one in self._last.policies
            if (one.policy.domain, one.policy.name) == (domain, name)
        )
        return status

    def summary(self) -> PolicySummary:
        """Return the totals over all policies, as they were published last."""
        found = PolicySummary(
            version=self._last.version,
            start=self._last.collector_start,
            failed=len(self._manager.refused),
        )
        for one in self._last.policies:
            status = one.status
            state = State(status.state)
            found.loaded += state in _ACTIVE
            found.failed += state in (State.LOAD_ERROR, State.ERROR)
            found.disabled += state is State.DISABLED
            found.loading += state is State.LOADING
            found.kernel_memory_bytes += status.kernel_memory_bytes
            found.hits += status.hits
            found.lost += sum(status.lost.values())
            found.missed += status.missed
        return found

    async def run(self, connected: asyncio.Future[Client]) -> None:
        """Publish until cancelled."""
        await asyncio.wait({connected})
        nc, published = connected.result(), -1
        while True:
            status = self.current()
            if status.version != published and nc.is_connected:
                try:
                    subject = status_subject(self._node_name)
                    await until_cancelled(nc.publish(subject, status.SerializeToString()))
                    published = status.version
                except (NatsError, OSError):
                    pass  # gateways then see an old version, and ask
            try:
                async with asyncio.timeout(COUNT_EVERY_S):
                    await self._changed.wait()
                await asyncio.sleep(_GATHER_S)
            except TimeoutError:
                pass
            self._changed.clear()


def node_policy(entry: Entry, node_name: str) -> NodePolicy:
    """Return one policy as this node has it."""
    installation = entry.installation
    counters = installation.counters() if installation else PolicyCounters()
    total, prepared = counters.total, entry.prepared
    state, error = entry.state, entry.error
    if error and state in _ACTIVE:
        state = State.LOAD_ERROR  # an older revision is active
    if prepared is not None:
        error = prepared.error  # of the revision that `seen` names
    status = NodePolicy(
        node_name=node_name,
        alive=True,
        selected=True,
        revision=entry.active,
        prepared=prepared.number if prepared and not prepared.error else 0,
        seen=_seen(entry),
        change=entry.change,
        state=TracingPolicyState.ValueType(state.value),
        error=error,
        hits=total.posted,
        not_posted=total.not_posted,
        filtered=counters.filtered,
        rate_limited=total.rate_limited,
        missed=counters.missed,
        kernel_memory_bytes=counters.memory_bytes,
        runs=counters.runs,
        run_time_ns=counters.run_time_ns,
    )
    status.lost.update({reason: count for reason, count in counters.lost.items() if count})
    if installation is not None:
        from collector.policies.report import mode  # not at each start

        status.mode = mode(entry)
        status.hits_before = entry.at_start.total.posted
        status.lost_before = sum(entry.at_start.lost.values()) + entry.at_start.missed
        status.hooks.extend(_hooks(installation.statuses))
    return status


def _seen(entry: Entry) -> int:
    """The revision that was tried last; one that is being loaded has not been seen."""
    if entry.prepared is not None:
        return entry.prepared.number
    if entry.wanted is None or entry.state is State.LOADING:
        return entry.active
    return entry.wanted.number


def _hooks(statuses: Iterable[HookStatus]) -> Iterable[NodeHook]:
    from collector.policies.report import HOOK_STATES, describe

    for status in statuses:
        yield NodeHook(
            hook=describe(status.hook),
            state=HOOK_STATES[status.state],
            mechanisms=sorted({one.value for one in status.mechanisms}),
        )
