"""``tetra-gateway``: the events of all nodes, from NATS to gRPC streams."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from functools import partial

import structlog

from bus import connection
from chassis import lifetime, listen
from chassis.http import HttpServer
from eventstream.batch import Batch
from eventstream.history import History
from gateway import health
from gateway.broadcaster import Broadcaster
from gateway.check import check
from gateway.fleet import Fleet
from gateway.metrics import Metrics
from gateway.policies.fleet_policies import fleet_policies
from gateway.server import Server
from gateway.settings import Settings
from gateway.streams import Streams
from gateway.subscriber import Subscriber

_DRAIN_S = 0.2

_log = structlog.get_logger()


class Gateway:
    """The stages, put together."""

    def __init__(self, settings: Settings) -> None:
        """Bind the address; raise `ServiceError` where settings do not fit together."""
        self._settings = settings
        self._nc = connection.client()
        broadcaster = Broadcaster(settings.window_bytes)
        self.fleet = Fleet(self._nc, lambda: bool(self.streams))
        self.subscriber = Subscriber(self._nc, settings, broadcaster, self._on_batch)
        history = History(self._nc, settings.max_catch_up)
        self.streams = Streams(
            broadcaster, history, self.subscriber, settings.max_clients, self.fleet.announce_client
        )
        self.policies = fleet_policies(self._nc, settings, self.fleet)
        self.metrics = Metrics(self.streams, self.fleet, self.policies)
        self.server = Server(settings, self.streams, self.fleet, self.policies)

    async def _serve_metrics(self) -> asyncio.Server:
        address = self._settings.metrics_address
        listen.check(address)
        why_not = partial(health.find_fault, self.streams, self.fleet)
        return await HttpServer(self.metrics, why_not).start(address)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(connection.drain, self._nc, _DRAIN_S)
            if self._settings.metrics_address:
                stack.callback((await self._serve_metrics()).close)
            stack.push_async_callback(self.policies.close)
            await self.server.start()
            stack.push_async_callback(self.server.stop)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.server.follow(self.subscriber))
                tasks.create_task(self.server.watch_tokens())
                tasks.create_task(self.subscriber.run())
                tasks.create_task(self._log_serving())
                await connection.connect(
                    self._settings, "tetra-gateway", nc=self._nc, on_change=self._on_connection
                )
                tasks.create_task(self.fleet.run())
                tasks.create_task(self.policies.run())

    def _on_connection(self, connected: bool) -> None:
        self.subscriber.restart()
        if connected:
            self.policies.store.restart()

    def _on_batch(self, batch: Batch) -> None:
        self.fleet.on_batch(batch)
        self.metrics.on_batch(batch)

    async def _log_serving(self) -> None:
        await self.subscriber.wait_live()
        _log.info("serving", address=self.server.address)


async def serve(settings: Settings) -> None:
    """Run the gateway until cancelled."""
    await Gateway(settings).run()


def main() -> None:
    """Run the service, or with --check ask whether one runs."""
    if "--check" in sys.argv[1:]:
        sys.exit(lifetime.check("gateway", Settings, check))
    sys.exit(lifetime.run("gateway", Settings, serve))
