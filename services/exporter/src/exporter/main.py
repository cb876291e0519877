"""``tetra-exporter``: the events of all nodes, from NATS to sinks."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from functools import partial
from http.client import HTTPConnection

import structlog

from bus import connection
from chassis import lifetime
from chassis.errors import ServiceError
from chassis.http import HttpServer
from eventstream.history import History
from exporter import config, event_log
from exporter.callers import Callers
from exporter.event_log import EventLog, serving
from exporter.metrics import Metrics, find_fault
from exporter.place import PlaceFile, lock
from exporter.settings import Settings
from exporter.sinks import check
from exporter.worker import Worker

_DRAIN_S = 1.0
_CHECK_S = 4.0
_READERS = 4  # sinks that read from NATS at once

_log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Run the exporter until cancelled."""
    sinks = config.load(settings).sinks
    callers = Callers(settings.token_file, settings.node_name)
    callers.check()
    if settings.check_sinks:
        await check(sinks)
        for sink in sinks:
            print(f"{sink.name}: {sink.type}, {sink.format}", file=sys.stderr)
        return
    if settings.event_log_address:
        event_log.check(settings.event_log_address)
    held = lock(settings.state_dir)
    nc = connection.client()
    history = History(nc, _READERS)
    node = settings.node_name
    workers = [
        Worker(sink, history, PlaceFile(settings.state_dir, sink.name), node) for sink in sinks
    ]
    try:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(connection.drain, nc, _DRAIN_S)
            if settings.metrics_address:
                http = HttpServer(Metrics(workers), partial(find_fault, workers))
                stack.callback((await http.start(settings.metrics_address)).close)
            await connection.connect(settings, "tetra-exporter", nc=nc)
            if settings.event_log_address:
                file = next((one.file for one in workers if one.file is not None), None)
                service = EventLog(file, callers)
                await stack.enter_async_context(serving(settings.event_log_address, service))
            _log.info("ready", sinks=[sink.name for sink in sinks])
            async with asyncio.TaskGroup() as tasks:
                for worker in workers:
                    tasks.create_task(worker.run())
    finally:
        os.close(held)


def _check(settings: Settings) -> int:
    """Ask the exporter with these settings whether every sink accepts events."""
    address = settings.metrics_address
    if not address:
        raise ServiceError("check: TETRA_METRICS_ADDRESS is not set")
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise ServiceError(f"check: {address}: expected HOST:PORT: set TETRA_METRICS_ADDRESS")
    connection = HTTPConnection(host.strip("[]") or "localhost", int(port), timeout=_CHECK_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        print(answer.read().decode().strip())
        return 0 if answer.status == 200 else 1
    except OSError as error:
        print(f"tetra-exporter: error: check: {address}: {error}", file=sys.stderr)
        return 1


def main() -> None:
    """Run the service, or with --check ask whether one runs and delivers."""
    if "--check" in sys.argv[1:]:
        sys.exit(lifetime.check("exporter", Settings, _check))
    sys.exit(lifetime.run("exporter", Settings, serve))
