"""The stages of a collector, started and stopped together; build.py makes them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from nats.aio.client import Client

from bus import connection
from collector import late
from collector.attach import Attached
from collector.bpf import kernel
from collector.bpf.reader import RingReader
from collector.control import Control
from collector.delivery.publisher import Publisher
from collector.events.encoder import Encoder
from collector.intake import Intake
from collector.losses import Losses
from collector.metadata.containers.catalog import Catalog
from collector.pipeline import Pipeline
from collector.policies.service import PolicyService
from collector.processes.table import ProcessTable
from collector.recovery.journal import Journal
from collector.recovery.saver import Saver
from collector.settings import Settings
from collector.throttle import Throttle

if TYPE_CHECKING:
    from collector.metrics import Metrics

DRAIN_TIMEOUT_S = 2.0
FLUSH_TIMEOUT_S = 1.0  # at stop; unacknowledged events then go to disk
TEND_EVERY_S = 2.0
HEALTH_FILE = "health"

log = structlog.get_logger()


@dataclass(slots=True)
class Collector:
    """All stages; `run` starts them and stops them."""

    settings: Settings
    kernel: kernel.KernelInfo
    containers: Catalog
    encoder: Encoder
    table: ProcessTable
    attached: Attached
    pipeline: Pipeline
    publisher: Publisher
    losses: Losses
    journal: Journal
    intake: Intake
    reader: RingReader
    saver: Saver
    policies: PolicyService
    control: Control
    make_metrics: Callable[[], Metrics]
    throttle: Throttle
    connected: asyncio.Future[Client]

    async def run(self) -> None:
        """Observe, report, and stop cleanly when cancelled: detach, drain, publish."""
        http, keep = None, self.settings.keep_probes
        try:
            http = await self._serve_metrics()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.reader.run())
                tasks.create_task(self.intake.run())
                tasks.create_task(self.publisher.run(self.connected))
                tasks.create_task(self._tend())
                tasks.create_task(self.throttle.run())
                tasks.create_task(self.saver.run())
                tasks.create_task(self.policies.run(self.connected))
                self._log_ready()
                await self._connect()
        except asyncio.CancelledError:  # stopped by a user: not a crash
            if keep == "crash":
                keep = "never"
            raise
        finally:
            if http:
                http.close()
            await self._stop(detach=keep == "never")

    async def _serve_metrics(self) -> asyncio.Server | None:
        if not self.settings.metrics_address:
            return None
        from chassis.http import HttpServer  # with Prometheus's client: not at each start

        reached = partial(is_connected, self.connected)
        server = HttpServer(self.make_metrics(), lambda: "" if reached() else "nats unreachable")
        return await server.start(self.settings.metrics_address)

    def _log_ready(self) -> None:
        log.info(
            "ready",
            node=self.settings.node_name,
            kernel=self.kernel.release,
            hooks=" ".join(self.attached.probes.hooks),
            probes="taken over" if self.attached.taken_over else "attached",
            processes=len(self.table.all_living()),
            version=version("tetra-collector"),
        )

    async def _connect(self) -> None:
        nc = await connection.connect(
            self.settings,
            f"tetra-collector {self.settings.node_name}",
            on_change=self._on_connection,
        )
        await self.control.refuse_second(nc)
        await self.control.serve(nc)
        self.connected.set_result(nc)

    def _on_connection(self, connected: bool) -> None:
        self.publisher.on_connection(connected)
        self.policies.fleet.on_connection(connected)

    async def _tend(self) -> None:
        """Read the counters, collect garbage and update the health file, at intervals."""
        health = self.settings.state_dir / HEALTH_FILE
        warned = False
        while True:
            self._refresh_losses()
            self.control.sample()
            self.table.collect(time.monotonic())
            late.apply_containers(self.containers.take_late(), self.table, self.encoder)
            if is_connected(self.connected) and (error := _touch(health)) and not warned:
                warned = True
                log.warning("state folder unusable", folder=str(health.parent), error=error)
            await asyncio.sleep(TEND_EVERY_S)

    def _refresh_losses(self) -> None:
        if self.losses.refresh():
            self.publisher.publish_loss()

    async def _stop(self, *, detach: bool) -> None:
        probes, pins = self.attached.probes, self.attached.pins
        await self.policies.close()
        if detach:
            pins.remove()
        probes.close()
        until_s = time.monotonic() + DRAIN_TIMEOUT_S  # kept probes continue to fill the ring
        while self.reader.read() and time.monotonic() < until_s:
            pass
        self.intake.finish()
        self._refresh_losses()
        self.saver.save()
        probes.free()
        pins.close()  # from here on another collector may continue in the ring
        await self._publish_rest()
        self.saver.save()
        self.journal.close()
        with contextlib.suppress(OSError):  # there is none, or the folder was reported unusable
            (self.settings.state_dir / HEALTH_FILE).unlink()
        log.info("stopped", events=self.publisher.statistics.published)

    async def _publish_rest(self) -> None:
        if self.connected.done():
            task = asyncio.create_task(self.publisher.run(self.connected))
            await self.publisher.flush(FLUSH_TIMEOUT_S)
            task.cancel()
            await asyncio.wait({task})
        self.publisher.close()
        if self.connected.done():
            await connection.drain(self.connected.result())


def is_connected(connected: asyncio.Future[Client]) -> bool:
    """Return whether there is a connection to NATS now."""
    return connected.done() and connected.result().is_connected


def _touch(file: Path) -> str:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        return error.strerror or str(error)
    return ""
