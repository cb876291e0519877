"""Changes of the fleet's policies: one at a time for each, recorded, and carried out."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import grpc
import structlog

from bus.policies import Key
from eventstream.errors import BusError
from gateway.errors import RequestError
from gateway.policies import canary
from gateway.policies.audit import Audit
from gateway.policies.finishing import Finishing
from gateway.policies.nodes import PolicyNodes
from gateway.policies.rollout import TIMEOUT_S, Change, Rollout
from gateway.policies.store import PolicyStore
from gateway.policies.stored import Stored
from tetra.v1.policies_pb2 import (
    AuditEntry,
    Canary,
    PolicyCandidate,
    PolicyChange,
    PolicyOrigin,
    PolicySpec,
    StoredPolicy,
)

_log = structlog.get_logger()


@dataclass(slots=True)
class Changer:
    """Makes changes: one at a time for each policy here, by compare-and-set elsewhere."""

    store: PolicyStore
    nodes: PolicyNodes
    rollout: Rollout
    audit: Audit
    finishing: Finishing
    _locks: dict[Key, asyncio.Lock] = field(default_factory=dict)

    async def change(
        self,
        key: Key,
        make: Callable[[Stored], PolicySpec],
        *,
        timeout_s: float = TIMEOUT_S,
        canary_of: Canary | None = None,
        interrupt: bool = False,
    ) -> PolicyChange:
        """Carry out the revision that ``make`` returns for what is stored; it raises a refusal.

        ``interrupt``: also while another change is in progress, which then fails.
        """
        async with self._before(key, alone=not interrupt) as before:
            if not interrupt:
                check_quiet(key, before.policy)
            spec = make(before)
            spec.revision = before.policy.last_revision + 1

            async def carry_out(name: str) -> PolicyChange:
                change = Change(key, before, name, timeout_s)
                return await self.rollout.carry_out(change, spec, canary_of)

            return await self._audited(key, spec, carry_out)

    async def promote(
        self, key: Key, make: Callable[[PolicySpec], PolicySpec], timeout_s: float
    ) -> PolicyChange:
        """Load the canary on every selected node; on failure it stays a canary.

        Each attempt has a revision of its own, so each has its own place in audit and history.
        """
        async with self._before(key) as before:
            held = canary.running(key, before.policy)
            spec = make(held.spec)
            spec.revision = before.policy.last_revision + 1
            candidate = PolicyCandidate(
                spec=spec, running=held.running, canary=held.canary, prepare_all=True
            )

            async def carry_out(name: str) -> PolicyChange:
                change = Change(key, before, name, timeout_s)
                return await self.rollout.in_two_steps(change, candidate, held)

            return await self._audited(key, spec, carry_out)

    async def abort(self, key: Key, make: Callable[[Stored], PolicySpec]) -> PolicyChange:
        """End a canary: its nodes return to what is current."""
        async with self._before(key) as before:
            held = canary.running(key, before.policy)
            spec = make(before)

            async def carry_out(name: str) -> PolicyChange:
                change = Change(key, before, name, TIMEOUT_S)
                return await self.rollout.abort(change, held, spec)

            return await self._audited(key, spec, carry_out)

    @contextlib.asynccontextmanager
    async def _before(self, key: Key, *, alone: bool = True) -> AsyncIterator[Stored]:
        """Yield the stored policy; ``alone``: while this gateway makes no other change of it."""
        lock = self._locks.setdefault(key, asyncio.Lock()) if alone else contextlib.nullcontext()
        async with lock:
            await self.nodes.refresh()
            yield await self.store.read(key)

    async def _audited(
        self, key: Key, spec: PolicySpec, carry_out: Callable[[str], Awaitable[PolicyChange]]
    ) -> PolicyChange:
        """Carry out a change between two entries of the audit."""
        change = secrets.token_hex(8)
        await self.audit.write(change, key, spec, AuditEntry.OUTCOME_STARTED)
        outcome, error, applied = AuditEntry.OUTCOME_FAILED, "the call was ended", 0
        try:
            answer = await carry_out(change)
            error = answer.error
            applied = sum(node.alive and node.selected for node in answer.nodes)
            if not error:
                outcome = AuditEntry.OUTCOME_APPLIED
            return answer
        except (RequestError, BusError) as refusal:
            error = str(refusal)
            raise
        finally:
            if self.store.get(key).policy.current == spec:  # whether or not the client has waited
                outcome = AuditEntry.OUTCOME_APPLIED
            await self.finishing.run(self.audit.write(change, key, spec, outcome, error, applied))
            _log.info(
                "policy changed" if outcome == AuditEntry.OUTCOME_APPLIED else "policy not changed",
                policy=str(key),
                revision=spec.revision,
                action=PolicyOrigin.Action.Name(spec.origin.action),
                who=spec.origin.who,
                error=error or None,
            )


def check_quiet(key: Key, stored: StoredPolicy) -> None:
    """Raise `RequestError` while another change, or a canary, is in progress."""
    if not stored.HasField("candidate"):
        return
    origin = stored.candidate.spec.origin
    by = f"by {origin.who} since {origin.time.ToJsonString()}"
    if stored.candidate.lease_s:
        raise RequestError(
            f"policy {key}: another change is in progress, {by}: try again later",
            grpc.StatusCode.ABORTED,
        )
    raise RequestError(
        f"policy {key}: a canary is in progress, {by}: promote or abort it first",
        grpc.StatusCode.FAILED_PRECONDITION,
    )
