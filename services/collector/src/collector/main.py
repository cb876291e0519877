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
from collector.bpf import kernel, probes, selfcheck
from collector.bpf.pins import Pins, build_id
from collector.bpf.probes import Probes
from collector.bpf.reader import RingReader
from collector.control import Control
from collector.delivery.publisher import Publisher, PublisherStatistics
from collector.delivery.spool import Run, Spool
from collector.errors import SecondCollector
from collector.events.process import Encoder
from collector.losses import Losses
from collector.metadata.containers.docker import Docker
from collector.metadata.enricher import Enricher
from collector.metadata.redaction import Redactor
from collector.metadata.users import Users
from collector.metrics import Metrics
from collector.pipeline import Pipeline
from collector.processes.cache import ProcessCache
from collector.processes.procfs import host_namespaces, read_all
from collector.recovery import state
from collector.recovery.journal import Journal
from collector.recovery.replay import Recovered, records_version, recover
from collector.settings import Settings, adopt_environment
from tetra.v1.state_pb2 import SavedTable

DRAIN_TIMEOUT_S = 2.0
FLUSH_TIMEOUT_S = 1.0  # at stop; what NATS has not taken then goes to disk
TEND_EVERY_S = 2.0
SAVE_EVERY_S = 5.0
SAVE_SHARE = 200  # a large table less often: at most this part of the time
SAVE_AT_BYTES = 32 << 20  # of journal: what is replayed after a kill, 10 us a record
HEALTH_FILE = "health"
HEALTH_STALE_S = 20.0

log = structlog.get_logger()


async def run(settings: Settings) -> None:
    """See, tell, and stop cleanly: detach, drain, publish."""
    kernel.check_rights()
    lock = _lock_node(settings.node_name)
    if settings.detach:
        detach(settings)
        return
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
    boot_id = kernel.boot_id()
    own = Run(settings.node_name, boot_id, start_time_ns=time.time_ns())
    spool = Spool(settings.state_dir / "spool", own, settings.spool_disk_bytes, settings.spool_sync)
    spool.open()
    journal = Journal(settings.state_dir / "journal")
    if not settings.spool_disk_bytes:
        journal.limit_bytes = 0
    docker.start()
    encoder = Encoder(settings.node_name, settings.cluster_name, enricher.host_namespaces)
    pipeline = Pipeline(_process_cache(settings), enricher, encoder, publish=lambda _: None)
    version_of_records = records_version(folder)
    recovered = None
    if saved := state.read(settings.state_dir, settings.node_name):
        recovered = recover(saved, journal.folder, version_of_records, pipeline, spool)
        own.least_base = recovered.next_base(boot_id)
    pins = Pins(settings.pin_dir, settings.node_name, build_id(folder, flags))
    pins.lock(make=settings.keep_probes != "never")
    opened = _take_over(settings, pins, recovered, flags)
    taken_over, early = opened is not None, list[bytes]()
    if opened is None:
        if left := pins.remove():
            log.info("kept probes detached", folders=len(left))
        opened = await probes.open_probes(info, flags, folder)
        own.probes_start_ns = time.time_ns()
        if not info.proven:
            early = selfcheck.verify(opened.ring, settings.btf, settings.cache_dir)
        if settings.keep_probes != "never":
            pins.keep(opened, own.probes_start_ns)
    published = PublisherStatistics()
    losses = Losses(opened.lost, pipeline.cache, published, spool.statistics, journal.loss)
    publisher = Publisher(own, settings.spool_memory_bytes, losses.counters, spool, published)
    publisher.numbered = journal.base
    pipeline.publish = publisher.publish
    if taken_over and recovered:
        own.probes_start_ns = recovered.run.probes_start_ns
        losses.go_on(recovered.loss)
    else:
        # Of another boot it is all gone, whatever looks alike.
        table = list(pipeline.cache) if recovered and recovered.run.boot_id == boot_id else []
        pipeline.cache = losses.cache = _process_cache(settings)
        found = read_all(settings.procfs, environment=settings.enable_process_environment_variables)
        alive = state.still_alive(table, settings.procfs)
        pipeline.add_older(found, opened.processes, settings.procfs, alive)
        pipeline.handle(early)

    def save() -> None:
        about = SavedTable(
            node_name=own.node_name,
            boot_id=boot_id,
            collector_start_ns=own.start_time_ns,
            base=own.base or 0,
            made=published.made,
            probes_start_ns=own.probes_start_ns,
            loss=losses.counters(),
            ring_position=opened.ring.position,
            journal=journal.next_number,
            records_version=version_of_records,
            untold=publisher.held() if settings.spool_disk_bytes else (),
        )
        if state.save(settings.state_dir, about, pipeline.cache, encoder):
            journal.begin()

    losses.refresh()
    save()  # before anything is told under our name
    control = Control(boot_id, info, publisher, pipeline, losses)
    connected: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
    reader = RingReader(opened.ring, pipeline.handle, journal.records)
    http, keep = None, settings.keep_probes
    try:
        if settings.metrics_address:
            reached = partial(_reached, connected)
            metrics = Metrics(pipeline, publisher, losses, reached)
            server = HttpServer(metrics, lambda: "" if reached() else "nats unreachable")
            http = await server.start(settings.metrics_address)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(reader.run())
            tasks.create_task(publisher.run(connected))
            tasks.create_task(_tend(settings.state_dir, pipeline.cache, losses, control, connected))
            tasks.create_task(_save_often(save, journal, pipeline))
            log.info(
                "ready",
                node=settings.node_name,
                kernel=info.release,
                hooks=" ".join(opened.hooks),
                probes="taken over" if taken_over else "attached",
                processes=len(pipeline.cache.all_living()),
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
    except asyncio.CancelledError:  # the wish of a person: not a crash
        if keep == "crash":
            keep = "never"
        raise
    finally:
        if http:
            http.close()
        if keep == "never":
            pins.remove()
        opened.close()
        until_s = time.monotonic() + DRAIN_TIMEOUT_S  # kept probes go on filling the ring
        while reader.read() and time.monotonic() < until_s:
            pass
        losses.refresh()
        save()
        opened.free()
        pins.close()  # from here on another may go on in the ring
        lock.close()
        await _publish_rest(publisher, connected)
        save()
        journal.close()
        with contextlib.suppress(OSError):  # no such file, or a folder we were warned of
            (settings.state_dir / HEALTH_FILE).unlink()
        log.info("stopped", events=published.published)


def _process_cache(settings: Settings) -> ProcessCache:
    return ProcessCache(
        capacity=settings.process_cache_size,
        grace_s=settings.process_cache_gc_interval,
        with_ancestors=bool(settings.enable_ancestors),
    )


def _take_over(
    settings: Settings, pins: Pins, recovered: Recovered | None, flags: list[str]
) -> Probes | None:
    """Return the probes of the collector before this one, where its journal reaches their ring."""
    if settings.keep_probes == "never" or recovered is None:
        return None
    kept = pins.take(recovered.run.probes_start_ns, probes.ring_size_bytes(flags))
    if kept is None:
        return None
    try:
        if recovered.whole:
            kept.ring.seek(recovered.ring_position)
            return kept
        why = "what was read of them is not known"
    except ValueError as error:
        why = str(error)
    log.warning("kept probes not used", why=why)
    kept.close()
    kept.free()
    return None


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


async def _save_often(save: Callable[[], None], journal: Journal, pipeline: Pipeline) -> None:
    """Save the process table now and then: a collector that is killed cannot."""
    due_s = time.monotonic() + SAVE_EVERY_S
    while True:
        await asyncio.sleep(1.0)
        start_s = time.monotonic()
        if start_s < due_s and journal.size_bytes < SAVE_AT_BYTES:
            continue
        if pipeline.in_pieces and start_s < due_s + 1.0:  # no table has these: wait for the rest
            continue
        save()
        took_s = time.monotonic() - start_s
        due_s = start_s + max(SAVE_EVERY_S, took_s * SAVE_SHARE)


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


def detach(settings: Settings) -> None:
    """Detach the probes that a collector of this node left attached, and say which."""
    pins = Pins(settings.pin_dir, settings.node_name, "")
    pins.lock(make=False)
    folders = pins.remove()
    pins.close()
    print("\n".join(f"detached: {folder}" for folder in folders) or "nothing was kept")


def main() -> int:
    """Entry point of tetra-collector."""
    adopt_environment(os.environ)
    os.umask(0o077)  # what it writes has the arguments of everybody's processes
    if "--check" in sys.argv[1:]:
        return check(load(Settings, "collector", []))
    return lifetime.run("collector", Settings, run)


if __name__ == "__main__":
    sys.exit(main())
