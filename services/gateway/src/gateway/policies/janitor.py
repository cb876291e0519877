"""Ends abandoned work: preparations of a gateway that has ended, canaries over their limits.

Repairs what JetStream was made to copy over a policy (see `bus.connection.is_reflected`), and lets
deleted policies leave the bucket (`forget`).

Every gateway does this; if two do it at once, the first write wins.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from bus.connection import until_cancelled
from bus.policies import Key
from eventstream.errors import BusError
from gateway.errors import RequestError
from gateway.policies import canary
from gateway.policies.changes import Changer
from gateway.policies.forget import Forgetting
from gateway.policies.stored import Stored
from tetra.v1.policies_pb2 import (
    AuditEntry,
    PolicyCandidate,
    PolicyOrigin,
    PolicySpec,
)

_LOOK_EVERY_S = 1.0

_log = structlog.get_logger()


@dataclass(slots=True)
class Janitor:
    """Checks all candidates once a second."""

    changer: Changer
    forgetting: Forgetting
    gateway: str
    _seen: dict[Key, tuple[str, float]] = field(default_factory=dict)  # change, when; monotonic

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            for key in self.changer.store.damaged():
                with suppress(RequestError, BusError):
                    await until_cancelled(self.changer.store.repair(key))
            await self.forgetting.run_once()
            for key, policy in self.changer.store.all().items():
                if not policy.HasField("candidate"):
                    self._seen.pop(key, None)
                    continue
                with suppress(RequestError, BusError):
                    await until_cancelled(self._look(key))

    async def _look(self, key: Key) -> None:
        stored = self.changer.store.get(key)
        candidate = stored.policy.candidate
        if candidate.lease_s:
            seen = self._seen.get(key)
            if seen is None or seen[0] != stored.policy.change:
                seen = self._seen[key] = stored.policy.change, time.monotonic()
            if time.monotonic() - seen[1] > candidate.lease_s:
                await self._end(key, stored, "its gateway has not finished it")
            return
        nodes = [self.changer.nodes.status(name, key) for name in candidate.running]
        reason = canary.excess(
            candidate.canary, candidate.spec.revision, [node for node in nodes if node]
        )
        if reason:
            await self._end(key, stored, reason)

    async def _end(self, key: Key, stored: Stored, reason: str) -> None:
        """Return to what is current; a promotion that was left unfinished stays a canary."""
        candidate = stored.policy.candidate
        remains = None
        if candidate.lease_s and candidate.running:
            remains = PolicyCandidate(
                spec=candidate.spec, running=candidate.running, canary=candidate.canary
            )
        change = secrets.token_hex(8)
        await self.changer.rollout.write(key, stored, change, candidate=remains)
        spec = PolicySpec()
        spec.CopyFrom(candidate.spec)
        spec.origin.action = PolicyOrigin.ACTION_AUTO_ABORT
        spec.origin.gateway, spec.origin.comment = self.gateway, reason
        spec.origin.time.GetCurrentTime()
        _log.warning("policy candidate ended", policy=str(key), reason=reason)
        await self.changer.audit.write(change, key, spec, AuditEntry.OUTCOME_APPLIED, reason)
