"""tetra-collector: assembles the stages and runs them until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog
from nats.aio.client import Client

from bus import connection
from chassis import lifetime
from chassis.http import HttpServer
from chassis.settings import load
from collector import kernel, probes, selfcheck, state
from collector.control import Control
from collector.docker import Docker
from collector.enricher import Enricher
from collector.errors import SecondCollector
from collector.events import Encoder
from collector.losses import Losses
from collector.metrics import Metrics
from collector.pipeline import Pipeline
from collector.process_cache import ProcessCache
from collector.procfs import host_namespaces, read_all
from collector.publisher import Publisher, PublisherStatistics
from collector.reader import RingReader
from collector.redaction import Redactor
from collector.settings import Settings, adopt_environment
from collector.spool import Run, Spool
from collector.users import Users

FLUSH_TIMEOUT_S = 1.0  # at stop; what NATS has not taken then goes to disk
TEND_EVERY_S = 2.0
SAVE_EVERY_S = 5.0
SAVE_SHARE = 200  # a large table less often: at most this part of the time
HEALTH_FILE = "health"
HEALTH_STALE_S = 20.0

log = structlog.get_logger()


async def run(settings: Settings) -> None:
    """See, tell, and stop cleanly: detach, drain, publish."""
    kernel.check_rights()
    lock = _lock_node(settings.node_name)
    info = kernel.detect(settings.cache_dir, settings.btf, settings.procfs)
    log.info(
        "kernel detected",
        release=info.release,
        machine=info.machine,
        cgroup=info.cgroup,
        features=" ".join(info.features),
    )
    folder = probes.bpf_folder()
    flags = probes.compiler_flags(
        info,
        folder,
        ring_size_bytes=1 << (settings.ring_size_bytes - 1).bit_length(),
        process_map_entries=settings.execve_map_entries,
        enable=_enabled(settings),
    )
    docker = Docker(settings.docker_socket)
    enricher = Enricher(
        host_namespaces=host_namespaces(settings.procfs),
        users=Users(settings.procfs),
        redactor=Redactor(settings.redaction_filters),
        container=docker.get,
        credentials=settings.enable_process_cred,
        namespaces=settings.enable_process_ns,
        environment=settings.enable_process_environment_variables,
        environment_names=frozenset(filter(None, settings.filter_environment_variables.split(","))),
        show_user=settings.username_metadata == "unix",
        argv=settings.enable_argv,
    )
    cache = ProcessCache(
        capacity=settings.process_cache_size,
        grace_s=settings.process_cache_gc_interval,
        with_ancestors=bool(settings.enable_ancestors),
    )
    boot_id = kernel.boot_id()
    opened = await probes.open_probes(info, flags, folder)
    early = [] if info.proven else selfcheck.verify(opened.ring, settings.btf, settings.cache_dir)
    own = Run(settings.node_name, boot_id, start_time_ns=time.time_ns())
    spool = Spool(settings.state_dir / "spool", own, settings.spool_disk_bytes, settings.spool_sync)
    spool.open()
    published = PublisherStatistics()
    losses = Losses(opened.lost, cache, published, spool.statistics)
    publisher = Publisher(own, settings.spool_memory_bytes, losses.counters, spool, published)
    encoder = Encoder(settings.node_name, settings.cluster_name, enricher.host_namespaces)
    pipeline = Pipeline(
        cache=cache,
        enricher=enricher,
        encoder=encoder,
        publish=publisher.publish,
    )
    control = Control(boot_id, info, publisher, pipeline, losses)
    connected: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
    http = None
    try:
        if settings.metrics_address:
            reached = partial(_reached, connected)
            metrics = Metrics(pipeline, publisher, losses, reached)
            server = HttpServer(metrics, lambda: "" if reached() else "nats unreachable")
            http = await server.start(settings.metrics_address)
        async with asyncio.TaskGroup() as tasks:
            docker.start()
            found = read_all(
                settings.procfs, environment=settings.enable_process_environment_variables
            )
            saved = state.load(settings.state_dir, settings.node_name, boot_id, settings.procfs)
            pipeline.add_older(found, opened.processes, settings.procfs, saved)
            pipeline.handle(early)
            tasks.create_task(RingReader(opened.ring, pipeline.handle).run())
            tasks.create_task(publisher.run(connected))
            tasks.create_task(_tend(settings.state_dir, cache, losses, control, connected))
            tasks.create_task(_save_often(partial(_save, settings, boot_id, cache, encoder)))
            log.info(
                "ready",
                node=settings.node_name,
                kernel=info.release,
                hooks=" ".join(opened.hooks),
                processes=len(found),
                kept=len(saved),
                version=version("tetra-collector"),
            )
            nc = await connection.connect(
                settings,
                f"tetra-collector {settings.node_name}",
                on_change=publisher.on_connection,
            )
            await control.refuse_second(nc)
            await control.serve(nc)
            connected.set_result(nc)
    finally:
        if http:
            http.close()
        opened.close()
        pipeline.handle(opened.ring.drain(1 << 30))
        losses.refresh()
        _save(settings, boot_id, cache, encoder)
        opened.free()
        lock.close()
        await _publish_rest(publisher, connected)
        with contextlib.suppress(OSError):  # no such file, or a folder we were warned of
            (settings.state_dir / HEALTH_FILE).unlink()
        log.info("stopped", events=published.published)


async def _publish_rest(publisher: Publisher, connected: asyncio.Future[Client]) -> None:
    if connected.done():
        task = asyncio.create_task(publisher.run(connected))
        await publisher.flush(FLUSH_TIMEOUT_S)
        task.cancel()
        await asyncio.wait({task})
    publisher.close()
    if connected.done():
        await connection.drain(connected.result())


async def _tend(
    folder: Path,
    cache: ProcessCache,
    losses: Losses,
    control: Control,
    connected: asyncio.Future[Client],
) -> None:
    """Count, collect garbage and show that we live and reach NATS, now and then."""
    health = folder / HEALTH_FILE
    warned = False
    while True:
        losses.refresh()
        control.sample()
        cache.collect(time.monotonic())
        if _reached(connected) and (error := _touch(health)) and not warned:
            warned = True
            log.warning("state folder unusable", folder=str(folder), error=error)
        await asyncio.sleep(TEND_EVERY_S)


def _save(settings: Settings, boot_id: str, cache: ProcessCache, encoder: Encoder) -> None:
    state.save(settings.state_dir, settings.node_name, boot_id, cache, encoder)


async def _save_often(save: Callable[[], None]) -> None:
    """Save the process table now and then: a collector that is killed cannot."""
    pause_s = SAVE_EVERY_S
    while True:
        await asyncio.sleep(pause_s)
        start = time.monotonic()
        save()
        pause_s = max(SAVE_EVERY_S, (time.monotonic() - start) * SAVE_SHARE)


def _reached(connected: asyncio.Future[Client]) -> bool:
    return connected.done() and connected.result().is_connected


def _touch(file: Path) -> str:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _enabled(settings: Settings) -> tuple[str, ...]:
    parts = {
        "CRED": settings.enable_process_cred,
        "NS": settings.enable_process_ns,
        "ENVS": settings.enable_process_environment_variables,
    }
    return tuple(name for name, on in parts.items() if on)


def _lock_node(node_name: str) -> socket.socket:
    """Hold a name that only one process in this network namespace can have."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0tetra-collector:{node_name}")
    except OSError:
        lock.close()
        raise SecondCollector(
            f"node {node_name}: another collector runs on this host: stop it first"
        ) from None
    return lock


def check(settings: Settings) -> int:
    """Return 0 if a collector with this state folder lives and reaches NATS, else 1."""
    try:
        age_s = time.time() - (settings.state_dir / HEALTH_FILE).stat().st_mtime
    except OSError:
        return 1
    return int(age_s > HEALTH_STALE_S)


def main() -> int:
    """Entry point of tetra-collector."""
    adopt_environment(os.environ)
    if "--check" in sys.argv[1:]:
        return check(load(Settings, "collector", []))
    return lifetime.run("collector", Settings, run)


if __name__ == "__main__":
    sys.exit(main())
