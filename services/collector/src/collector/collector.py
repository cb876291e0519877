"""The stages of a collector: built once, in the order in which data passes through them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog
from nats.aio.client import Client

from bus import connection
from chassis.http import HttpServer
from collector import late, running
from collector.attach import Attached, attach
from collector.bpf import kernel
from collector.bpf.reader import RingReader
from collector.clock import wall_offset_ns
from collector.control import Control
from collector.delivery.publisher import Publisher, PublisherStatistics
from collector.delivery.spool import Run, Spool
from collector.events.encoder import Encoder
from collector.events.stacks import StackResolver
from collector.intake import Intake
from collector.losses import Losses
from collector.metadata.containers.docker import Docker
from collector.metadata.enricher import Enricher
from collector.metadata.redaction import Redactor
from collector.metadata.users import Users
from collector.metrics import Metrics
from collector.pipeline import Pipeline
from collector.policies import saved as saved_policies
from collector.policies.report import statuses
from collector.policies.service import PolicyService, policy_service
from collector.policies.table import EventKind
from collector.processes.procfs import host_namespaces, read_all
from collector.processes.table import ProcessTable
from collector.recovery import state
from collector.recovery.journal import Journal
from collector.recovery.replay import Recovered, recover
from collector.recovery.saver import Saver
from collector.recovery.versions import records_version
from collector.sensors.registry import Parts, PolicyParts, sensors
from collector.settings import Settings

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
    docker: Docker
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
    metrics: Metrics
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
                tasks.create_task(self.saver.run())
                tasks.create_task(self.policies.run())
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
        reached = partial(is_connected, self.connected)
        server = HttpServer(self.metrics, lambda: "" if reached() else "nats unreachable")
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
            on_change=self.publisher.on_connection,
        )
        await self.control.refuse_second(nc)
        await self.control.serve(nc)
        self.connected.set_result(nc)

    async def _tend(self) -> None:
        """Read the counters, collect garbage and update the health file, at intervals."""
        health = self.settings.state_dir / HEALTH_FILE
        warned = False
        while True:
            self.losses.refresh()
            self.control.sample()
            self.table.collect(time.monotonic())
            late.apply_containers(self.docker.take_late(), self.table, self.encoder)
            if is_connected(self.connected) and (error := _touch(health)) and not warned:
                warned = True
                log.warning("state folder unusable", folder=str(health.parent), error=error)
            await asyncio.sleep(TEND_EVERY_S)

    async def _stop(self, *, detach: bool) -> None:
        probes, pins = self.attached.probes, self.attached.pins
        await self.policies.close()
        if detach:
            pins.remove()
        probes.close()
        until_s = time.monotonic() + DRAIN_TIMEOUT_S  # kept probes go on filling the ring
        while self.reader.read() and time.monotonic() < until_s:
            pass
        self.intake.finish()
        self.losses.refresh()
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


async def build(settings: Settings) -> Collector:
    """Return a collector whose probes are attached and whose older processes are reported."""
    info = kernel.detect(settings.cache_dir, settings.btf, settings.procfs)
    log.info(
        "kernel detected",
        release=info.release,
        machine=info.machine,
        cgroup=info.cgroup,
        features=" ".join(info.features),
    )
    docker = Docker(settings.docker_socket)
    docker.start()
    enricher = _enricher(settings, docker)
    encoder = Encoder(settings.node_name, settings.cluster_name, enricher.host_namespaces)
    own = Run(settings.node_name, kernel.boot_id(), start_time_ns=time.time_ns())
    spool = Spool(settings.state_dir / "spool", own, settings.spool_disk_bytes, settings.spool_sync)
    spool.open()
    journal = Journal(settings.state_dir / "journal")
    if not settings.spool_disk_bytes:
        journal.limit_bytes = 0
    policies = _policy_parts(settings, info.machine)
    recovered = _recover(settings, enricher, encoder, spool, journal, policies)
    if recovered:
        own.least_base = recovered.next_base(own.boot_id)
    attached = await attach(settings, info, recovered)
    own.probes_start_ns = attached.since_ns
    if recovered and attached.taken_over:
        table, pipeline, found = recovered.table, recovered.pipeline, []
    else:
        table = _table(settings, encoder)
        pipeline = Pipeline(sensors(Parts(table, enricher, encoder, policies)))
        found = _report_older(settings, enricher, encoder, table, attached, recovered, own.boot_id)
        found += pipeline.handle(attached.early)
    service = policy_service(
        settings,
        policies.table,
        record=lambda revision: journal.policy(saved_policies.to_message(revision)),
        kernel=info,
        shared=attached.probes.shared(),
        prepare_stacks=policies.stacks.prepare,
    )
    published = PublisherStatistics()
    losses = Losses(
        attached.probes.lost,
        pipeline.sensors,
        {
            "table_evictions": lambda: table.statistics.evictions,
            "spool": lambda: published.dropped + spool.statistics.dropped,
            "oversized": lambda: published.oversized,
            "malformed_records": lambda: (
                pipeline.statistics.malformed + policies.statistics.malformed
            ),
            "unknown_records": lambda: (
                pipeline.statistics.unknown + policies.statistics.unknown_policy
            ),
        },
        noted=journal.loss,
        continued=recovered.loss if recovered and attached.taken_over else None,
        more=service.losses,
    )
    publisher = Publisher(
        own, settings.spool_memory_bytes, losses.counters, spool, published, journal.base
    )
    publisher.publish(found)
    saver = Saver(
        settings.state_dir,
        bool(settings.spool_disk_bytes),
        publisher, pipeline, table, encoder, losses, attached.probes.ring, journal,
        policies.table,
    )  # fmt: skip
    losses.refresh()
    saver.save()  # before any event is published under our name
    connected: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
    intake = Intake(pipeline, publisher)
    return Collector(
        settings=settings,
        kernel=info,
        docker=docker,
        encoder=encoder,
        table=table,
        attached=attached,
        pipeline=pipeline,
        publisher=publisher,
        losses=losses,
        journal=journal,
        intake=intake,
        reader=RingReader(attached.probes.ring, intake.handle, journal.records),
        saver=saver,
        policies=service,
        control=Control(
            own.boot_id,
            info,
            publisher,
            table,
            partial(running.snapshot, table, encoder),
            losses,
            partial(statuses, service.manager),
        ),
        metrics=Metrics(
            pipeline,
            table,
            publisher,
            losses,
            partial(is_connected, connected),
            len(found),
            service.manager,
            policies.statistics,
        ),
        connected=connected,
    )


def _enricher(settings: Settings, docker: Docker) -> Enricher:
    return Enricher(
        host_namespaces=host_namespaces(settings.procfs),
        users=Users(settings.procfs),
        redactor=Redactor(settings.redaction_filters),
        containers=docker,
        credentials=settings.enable_process_cred,
        namespaces=settings.enable_process_ns,
        environment=settings.enable_process_environment_variables,
        environment_names=frozenset(filter(None, settings.filter_environment_variables.split(","))),
        show_user=settings.username_metadata == "unix",
        argv=settings.enable_argv,
    )


def _table(settings: Settings, encoder: Encoder) -> ProcessTable:
    return ProcessTable(
        capacity=settings.process_cache_size,
        grace_s=settings.process_cache_gc_interval,
        with_ancestors=bool(settings.enable_ancestors),
        removed=encoder.forget,
    )


def _policy_parts(settings: Settings, machine: str) -> PolicyParts:
    names = settings.enable_ancestors.split(",")
    return PolicyParts(
        stacks=StackResolver(settings.procfs, expose_addresses=settings.expose_stack_addresses),
        machine=machine,
        ancestors=frozenset(k for k in EventKind if k.value.removeprefix("process_") in names),
    )


def _recover(
    settings: Settings,
    enricher: Enricher,
    encoder: Encoder,
    spool: Spool,
    journal: Journal,
    policies: PolicyParts,
) -> Recovered | None:
    """Return where the previous collector of this node stopped, or None."""
    saved = state.read(settings.state_dir, settings.node_name)
    if saved is None:
        return None
    table = _table(settings, encoder)
    table.restore(
        state.processes(saved, running.kernel_process(wall_offset_ns())), time.monotonic()
    )
    policies.table.restore(map(saved_policies.from_message, saved.policies))
    pipeline = Pipeline(sensors(Parts(table, enricher, encoder, policies)))
    return recover(saved, journal.folder, records_version(), pipeline, table, spool, policies.table)


def _report_older(
    settings: Settings,
    enricher: Enricher,
    encoder: Encoder,
    table: ProcessTable,
    attached: Attached,
    recovered: Recovered | None,
    boot_id: str,
) -> list[bytes]:
    """Return the events of the processes that run already; enter them into ``table``."""
    # Nothing of another boot is alive, even if pids and times agree.
    known = list(recovered.table) if recovered and recovered.run.boot_id == boot_id else []
    found = read_all(settings.procfs, environment=settings.enable_process_environment_variables)
    alive = state.still_alive(known, settings.procfs)
    bootstrap = running.Bootstrap(
        table, enricher, encoder, attached.probes.processes, settings.procfs, wall_offset_ns()
    )
    return bootstrap.run(found, alive, time.monotonic())


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
