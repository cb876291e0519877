"""Restarts a child that has ended, does not answer, or reports that it cannot work.

nats-server whose disk was full refuses every message until it is started again, also when there is
room again ("write error: ... no space left on device" in /healthz, seen with 2.15.1).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from chassis.backoff import Backoff
from embedded import health
from embedded.child import Child
from embedded.errors import ChildError

STARTS_MAX = 5
WITHIN_S = 600.0


@dataclass(frozen=True, slots=True)
class Patience:
    """The interval of checks, and how long a fault must last before a child is restarted."""

    look_every_s: float = 1.0
    silent_s: float = 20.0  # without an answer; the machine may be busy
    unhealthy_s: float = 5.0
    room_bytes: int = 32 << 20  # NATS is not started on a disk with less


@dataclass(slots=True)
class Service:
    """A child, and where it reports its health."""

    child: Child
    port: int
    path: str
    starts: deque[float] = field(default_factory=deque)  # monotonic, of those after the first


class Supervisor:
    """Watches the services. ``start`` starts a child and returns when it is ready."""

    def __init__(
        self,
        services: list[Service],
        start: Callable[[Child], Awaitable[None]],
        free_bytes: Callable[[], int],
        say: Callable[[str], None],
        patience: Patience | None = None,
    ) -> None:
        self._services = services
        self._start = start
        self._free_bytes = free_bytes
        self._say = say
        self._patience = patience or Patience()

    async def run(self) -> None:
        """Watch until cancelled; raise `ChildError` for a child that had to be started too
        often."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for service in self._services:
                    tasks.create_task(self._keep(service))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _keep(self, service: Service) -> None:
        waits = Backoff(0.2, 5.0)
        while True:
            cause = await self._until_broken(service)
            while cause:
                self._count(service, cause)
                await waits.wait()
                await service.child.stop()
                try:
                    await self._start(service.child)
                    cause = ""
                except ChildError as error:
                    cause = str(error).removeprefix(f"{service.child.name}: ")

    # Notes a start; raises where there were too many.
    def _count(self, service: Service, cause: str) -> None:
        now, starts, name = time.monotonic(), service.starts, service.child.name
        while starts and starts[0] < now - WITHIN_S:
            starts.popleft()
        if len(starts) == STARTS_MAX:
            raise ChildError(
                f"{name}: {cause}; it was started again {STARTS_MAX} times within "
                f"{WITHIN_S / 60:.0f} minutes",
                exit_code=1,
                details=service.child.tail(),
            )
        starts.append(now)
        self._say(f"{name}: {cause}: starting it again ({len(starts)} of {STARTS_MAX})")

    async def _until_broken(self, service: Service) -> str:
        """Return why the child is started again."""
        end = asyncio.create_task(service.child.wait())
        watch = asyncio.create_task(self._until_unhealthy(service))
        try:
            await asyncio.wait((end, watch), return_when=asyncio.FIRST_COMPLETED)
            if end.done():
                return str(service.child.death()).removeprefix(f"{service.child.name}: ")
            return watch.result()
        finally:
            end.cancel()
            watch.cancel()

    async def _until_unhealthy(self, service: Service) -> str:
        answered = healthy = time.monotonic()
        waits_for_room = False
        while True:
            await asyncio.sleep(self._patience.look_every_s)
            cause = await health.ask(service.port, service.path)
            now = time.monotonic()
            if cause is None:
                if now - answered > self._patience.silent_s:
                    return f"no answer for {now - answered:.0f} s"
                continue
            answered = now
            if not cause:
                healthy = now
                waits_for_room = False
            elif now - healthy > self._patience.unhealthy_s:
                if self._free_bytes() >= self._patience.room_bytes:
                    return cause
                if not waits_for_room:
                    waits_for_room = True
                    self._say(
                        f"{service.child.name}: {cause}: it is started again when the disk has "
                        f"{self._patience.room_bytes >> 20} MiB free; events wait at the collector"
                    )
