"""Removes deleted policies from the bucket, so that old names do not fill it.

A deleted policy stays with its history for 30 days; when more than 500 are kept, the oldest for an
hour. Then a message without a policy takes the place of all its messages (the header Nats-Rollup),
and leaves the bucket itself after an hour (Nats-TTL, nats-server 2.11). Before that, every node
that is alive has to confirm that it has nothing of the policy.

Both headers are refused by the stream of events, so no collector can have a message that carries
them copied over another policy; the bucket's own such messages carry compare-and-set, too.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog

from bus.connection import until_cancelled
from bus.policies import Key
from eventstream.errors import BusError
from gateway.errors import RequestError
from gateway.policies.confirm import Confirmations, Write
from gateway.policies.store import PolicyStore
from gateway.policies.stored import Stored
from gateway.policies.view import exists
from tetra.v1.policies_pb2 import StoredPolicy

KEEP_S = 30 * 24 * 3600.0
KEEP_LEAST_S = 3600.0
MOST_KEPT = 500

_log = structlog.get_logger()


@dataclass(slots=True)
class Forgetting:
    """Finds the policies that are due."""

    store: PolicyStore
    confirmations: Confirmations

    async def run_once(self) -> None:
        """Forget policies that are due; what NATS refuses is tried again the next time."""
        for key, stored in due(self.store.kept(), time.time()):
            if self._is_confirmed(key, stored):
                with suppress(RequestError, BusError):
                    await until_cancelled(self._forget(key, stored))

    def _is_confirmed(self, key: Key, stored: Stored) -> bool:
        write = Write.of(key, stored)
        return all(
            self.confirmations.report(info.node_name, key).is_without(write)
            for info in self.confirmations.nodes.infos()
            if info.alive and info.HasField("policies")
        )

    async def _forget(self, key: Key, stored: Stored) -> None:
        nothing = StoredPolicy(
            policy=stored.policy.policy,
            change=secrets.token_hex(8),
            last_revision=stored.policy.last_revision,
        )
        await self.store.write(key, nothing, stored, forget=True)
        _log.info("deleted policy forgotten", policy=str(key))


def due(kept: Mapping[Key, Stored], now_s: float) -> list[tuple[Key, Stored]]:
    """Return the deleted policies that need not be kept any longer, oldest first."""
    gone = [
        (now_s - stored.stored_ns / 1e9, key, stored)
        for key, stored in kept.items()
        if not (exists(stored.policy) or stored.expires or stored.damaged)
    ]
    gone.sort(reverse=True)
    surplus = len(gone) - MOST_KEPT
    found = []
    for place, (age_s, key, stored) in enumerate(gone):
        # One without any revision was never loaded: it has no history.
        least = place < surplus or not stored.policy.HasField("current")
        if age_s > (KEEP_LEAST_S if least else KEEP_S):
            found.append((key, stored))
    return found
