"""How a change reaches the nodes: on every node that is alive, or nowhere.

In two steps: the new revision is stored as candidate, which nodes load but do not switch on; when
all have loaded it, it becomes current. A gateway that ends in between leaves a candidate with a
lease, and another gateway removes it (`janitor`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from bus.policies import Key
from gateway.policies import canary
from gateway.policies.confirm import Confirmations, Outcome, Report, Write, carried_out
from gateway.policies.finishing import Finishing
from gateway.policies.store import PolicyStore
from gateway.policies.stored import Conflict, Stored
from gateway.policies.view import View, candidate_wants, in_one_line, wants
from tetra.v1.node_pb2 import NodeInfo
from tetra.v1.policies_pb2 import (
    ROLLOUT_WHEREVER,
    Canary,
    PolicyCandidate,
    PolicyChange,
    PolicySpec,
    StoredPolicy,
)

TIMEOUT_S = 60.0
LEASE_S = 10  # of a candidate, which its gateway renews
_RENEW_S = 4.0


class Change(NamedTuple):
    """A change of one policy: what is stored before it, and the name of its writes."""

    key: Key
    before: Stored
    name: str
    timeout_s: float


@dataclass(slots=True)
class Rollout:
    """Carries changes out; each raises `Conflict` or `BusError`."""

    store: PolicyStore
    confirmations: Confirmations
    view: View
    finishing: Finishing

    async def carry_out(
        self, change: Change, spec: PolicySpec, canary_of: Canary | None
    ) -> PolicyChange:
        """Make ``spec`` current, or with ``canary_of`` run it on some nodes."""
        if canary_of is not None:
            chosen = canary.choose(change.key, canary_of.percent, self._able(spec))
            candidate = PolicyCandidate(spec=spec, prepare=chosen, canary=canary_of)
            return await self.in_two_steps(change, candidate)
        loads = _has_to_load(change.before.policy, spec)
        if spec.rollout == ROLLOUT_WHEREVER or spec.deleted or not loads:
            return await self._at_once(change, spec)
        return await self.in_two_steps(change, PolicyCandidate(spec=spec, prepare_all=True))

    async def in_two_steps(
        self, change: Change, candidate: PolicyCandidate, fallback: PolicyCandidate | None = None
    ) -> PolicyChange:
        """Load on all nodes that the candidate names, then switch on, or return to ``fallback``."""
        candidate.lease_s = LEASE_S
        written = await self.write(change.key, change.before, change.name, candidate=candidate)
        held = [written]
        try:
            outcome = await self._prepared(change, candidate, held)
        except BaseException:
            await self.finishing.run(self._undo(change, held[-1], fallback))
            raise
        errors = outcome.errors(change.timeout_s)
        if errors:
            await self._undo(change, held[-1], fallback)
            error = f"policy {change.key}: not carried out: {in_one_line(errors)}"
            return self._answer(change.key, held[-1].policy, candidate.spec, error)
        return await self._switch_on(change, held[-1], candidate)

    async def abort(self, change: Change, held: PolicyCandidate, spec: PolicySpec) -> PolicyChange:
        """Return the nodes of a canary to what is current."""
        after = await self.write(change.key, change.before, change.name)
        return await self._confirmed(change, after, set(held.running), spec)

    async def write(
        self,
        key: Key,
        before: Stored,
        name: str,
        *,
        current: PolicySpec | None = None,
        candidate: PolicyCandidate | None = None,
    ) -> Stored:
        """Store what is wanted; no ``current`` leaves it. Raise `Conflict` or `BusError`."""
        policy = StoredPolicy(change=name, last_revision=before.policy.last_revision)
        policy.policy.name, policy.policy.namespace, policy.policy.domain = key
        if current is not None:
            policy.current.CopyFrom(current)
        elif before.policy.HasField("current"):
            policy.current.CopyFrom(before.policy.current)
        if candidate is not None:
            policy.candidate.CopyFrom(candidate)
        policy.last_revision = max(
            policy.last_revision, policy.current.revision, policy.candidate.spec.revision
        )
        return await self.store.write(key, policy, before)

    async def _at_once(self, change: Change, spec: PolicySpec) -> PolicyChange:
        after = await self.write(change.key, change.before, change.name, current=spec)
        return await self._confirmed(change, after, None, spec)

    async def _prepared(
        self, change: Change, candidate: PolicyCandidate, held: list[Stored]
    ) -> Outcome:
        """Wait until the candidate is loaded, and renew its lease; ``held``: what is stored."""
        revision, loop = candidate.spec.revision, asyncio.get_running_loop()
        write = Write.of(change.key, held[0])

        def loaded(_info: NodeInfo, report: Report) -> bool:
            return report.has_loaded(write, revision)

        deadline = loop.time() + change.timeout_s
        while True:
            left_s = deadline - loop.time()
            outcome = await self.confirmations.wait(
                write, lambda info: candidate_wants(candidate, info), loaded,
                min(left_s, _RENEW_S), until_failure=True,
            )  # fmt: skip
            if outcome.failed:
                outcome.waiting.clear()
            if not outcome.waiting or left_s <= _RENEW_S:
                return outcome
            name = write.renewal(held[-1].sequence)
            held.append(await self.write(change.key, held[-1], name, candidate=candidate))

    async def _switch_on(
        self, change: Change, held: Stored, candidate: PolicyCandidate
    ) -> PolicyChange:
        spec, name = candidate.spec, f"{change.name}+"
        if candidate.prepare_all:
            after = await self.write(change.key, held, name, current=spec)
            return await self._confirmed(change, after, None, spec)
        nodes = list(candidate.prepare)
        running = PolicyCandidate(spec=spec, running=nodes, canary=candidate.canary)
        after = await self.write(change.key, held, name, candidate=running)
        return await self._confirmed(change, after, set(nodes), spec)

    async def _confirmed(
        self, change: Change, after: Stored, nodes: set[str] | None, spec: PolicySpec
    ) -> PolicyChange:
        """Wait until ``nodes``, or all that the change concerns, have carried out ``after``."""
        write = Write.of(change.key, after)
        concerned = self.confirmations.concerned(change.key, change.before.policy, after.policy)
        try:
            outcome = await self.confirmations.wait(
                write,
                concerned if nodes is None else lambda info: info.node_name in nodes,
                carried_out(write, after.policy),
                change.timeout_s,
            )
        except Conflict:
            error = f"policy {change.key}: stored, and changed again before all nodes confirmed it"
            return self._answer(change.key, after.policy, spec, error)
        errors = outcome.errors(change.timeout_s)
        error = ""
        if errors and spec.rollout != ROLLOUT_WHEREVER:
            error = f"policy {change.key}: stored, but not confirmed: {in_one_line(errors)}"
        return self._answer(change.key, after.policy, spec, error)

    async def _undo(self, change: Change, held: Stored, fallback: PolicyCandidate | None) -> None:
        try:
            await self.write(change.key, held, f"{change.name}-", candidate=fallback)
        except Conflict:  # a later change has removed it already
            return

    def _able(self, spec: PolicySpec) -> Iterable[str]:
        """Return the selected nodes that are alive and know policies of the fleet."""
        return [
            info.node_name
            for info in self.confirmations.nodes.infos()
            if info.alive and info.HasField("policies") and wants(spec, info)
        ]

    def _answer(self, key: Key, shown: StoredPolicy, spec: PolicySpec, error: str) -> PolicyChange:
        answer = PolicyChange(revision=spec.revision, error=error)
        answer.policy.name, answer.policy.namespace, answer.policy.domain = key
        answer.nodes.extend(self.view.nodes(key, shown))
        return answer


def _has_to_load(before: StoredPolicy, spec: PolicySpec) -> bool:
    """Return whether a node can fail to carry it out: only if it has to load something."""
    if not spec.enabled:
        return False
    current = before.current
    same = current.enabled and not current.deleted and current.yaml == spec.yaml
    return not same or current.nodes != spec.nodes
