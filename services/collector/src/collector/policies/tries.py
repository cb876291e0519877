"""Policies on trial: loaded in monitor mode for as long as a gateway renews its request.

A lease ends by this host's own clock and is stored nowhere, so a trial never outlives its client,
its gateway, NATS or a restart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from bus.policies import TRY_DOMAIN
from collector.policies.entry import Identity, Revision, Wanted
from collector.policies.files import LARGEST_BYTES
from collector.policies.manager import PolicyManager
from tetra.v1.bus_pb2 import TryOnNode
from tracingpolicy.position import PolicyErrors
from tracingpolicy.values import Mode

if TYPE_CHECKING:
    from tracingpolicy.model import Policy

MOST = 8  # at a time
LEASE_MAX_S = 60

log = structlog.get_logger()


@dataclass(slots=True)
class Tries:
    """Loads and removes; `handle` is called for each request, `run` ends those not renewed."""

    manager: PolicyManager
    parse: Callable[[str, str], Policy]
    _ends: dict[Identity, float] = field(default_factory=dict)  # monotonic
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def handle(self, request: TryOnNode) -> str:
        """Begin, renew or end a trial; return the error, or ""."""
        identity = Identity(request.policy_name, "", TRY_DOMAIN)
        if not request.lease_s:
            self._end(identity)
            return ""
        if identity not in self._ends:
            if not request.yaml:
                return "the trial is over: it was not renewed in time"
            if error := self._begin(identity, request):
                return error
        self._ends[identity] = time.monotonic() + min(request.lease_s, LEASE_MAX_S)
        self._changed.set()
        return ""

    async def run(self) -> None:
        """Remove trials that were not renewed, until cancelled."""
        while True:
            now = time.monotonic()
            for identity in [one for one, end in self._ends.items() if end <= now]:
                log.info("try not renewed", policy=str(identity))
                self._end(identity)
            wait_s = min(self._ends.values()) - now if self._ends else None
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()

    def _begin(self, identity: Identity, request: TryOnNode) -> str:
        if len(self._ends) >= MOST:
            return f"{MOST} policies are tried already, which is the limit"
        if len(request.yaml) > LARGEST_BYTES:
            return f"document larger than {LARGEST_BYTES} bytes"
        try:
            policy = self.parse(request.yaml, identity.name)
        except PolicyErrors as errors:
            return str(errors)
        policy = replace(policy, name=identity.name, namespace="")
        revision = Revision(1, policy, mode=Mode.MONITOR)
        self._apply(Wanted(identity, revision))
        return ""

    def _end(self, identity: Identity) -> None:
        if self._ends.pop(identity, None) is not None:
            self._apply(Wanted(identity))

    def _apply(self, wanted: Wanted) -> None:
        """Loading can take seconds; the answers show its progress."""
        task = asyncio.create_task(self.manager.apply([wanted]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
