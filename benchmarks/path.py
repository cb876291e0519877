"""CPU microseconds an event of each step, on records of this kernel."""

from __future__ import annotations

import asyncio
import atexit
import io
import select
import subprocess
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path

from google.protobuf.wrappers_pb2 import BoolValue

import eventfilters
from benchmarks.harness import CACHE, TRUE, Report, need_root
from cli.renderers.json import JsonRenderer
from cli.renderers.lifecycle import LifecycleRenderer
from collector.bpf import kernel, probes
from collector.delivery.stored import body
from collector.metadata.enricher import Enricher
from collector.pipeline import Pipeline
from collector.processes.procfs import host_namespaces
from eventstream.batch import Batch
from gateway.selection import Selection
from support.stages import NoMap, Stages
from tetra.v1.bus_pb2 import EventBatch
from tetra.v1.node_pb2 import LossCounters
from tetragon.events_pb2 import EventType, Filter, GetEventsResponse

ROUNDS = 7
PROCFS = Path("/proc")
BATCH_EVENTS = 500
NODE = "node-000"  # as long as the names that feed.py gives


def record(lives: int) -> list[bytes]:
    """Return the records of real short lives, as the ring has them.

    Their shell runs until this process ends: in a real storm a process has ended when its record is
    read, and its parent runs.
    """
    info, folder = kernel.detect(CACHE / "headers"), probes.bpf_folder()
    flags = probes.compiler_flags(info, ring_size_bytes=64 << 20, process_map_entries=65536)
    opened = asyncio.run(probes.open_probes(info, flags, folder))
    try:
        script = f"for i in $(seq {lives}); do {TRUE} $i; done; echo done; read"
        pipe = subprocess.PIPE
        load = subprocess.Popen(["/bin/bash", "-c", script], stdin=pipe, stdout=pipe)
        assert load.stdout
        atexit.register(load.communicate)
        records: list[bytes] = []
        while not select.select([load.stdout], [], [], 0.05)[0]:
            records += opened.ring.drain(1 << 20)
        return records + opened.ring.drain(1 << 20)
    finally:
        opened.close()
        opened.free()


def pipeline() -> Pipeline:
    """Return the collector's stages with the processes of now."""
    stages = Stages(Enricher(host_namespaces(PROCFS)), NODE)
    stages.bootstrap(NoMap())
    return stages.pipeline


def per_event(step: Callable[[], object], events: int) -> list[float]:
    """Return the CPU microseconds an event, of several rounds."""
    step()
    found = []
    for _ in range(ROUNDS):
        start = time.process_time()
        step()
        found.append((time.process_time() - start) / events * 1e6)
    return found


def batches(events: list[bytes]) -> list[Batch]:
    """Return the events as a gateway gets them."""
    found = []
    for at in range(0, len(events), BATCH_EVENTS):
        part = events[at : at + BATCH_EVENTS]
        message = EventBatch(node_name=NODE, boot_id="b", first_sequence=at + 1, events=part)
        found.append(Batch.decode(message.SerializeToString(), at // BATCH_EVENTS + 1, 1))
    return found


def run(report: Report, quick: bool) -> None:
    """Time each step alone."""
    lives = 2000 if quick else 10_000
    report.begin("path", f"CPU an event, from the records of {lives:,} real lives; {ROUNDS} rounds")
    need_root()
    records = record(lives)
    events = pipeline().handle(records)
    count = len(events)

    kinds = {kind.number: kind for sensor in pipeline().sensors for kind in sensor.kinds}

    def decode() -> None:
        for data in records:
            kinds[data[0]].decode(data)

    # Made before: each reads the processes of now from /proc.
    pipelines = iter([pipeline() for _ in range(ROUNDS + 1)])

    def whole() -> None:
        staged = next(pipelines)
        for at in range(0, len(records), 100):
            staged.handle(records[at : at + 100])

    report.add("collector: decode", per_event(decode, count), "us")
    report.add("collector: decode to event", per_event(whole, count), "us")
    report.add(
        "collector: batch",
        per_event(
            lambda: [
                body(LossCounters(), events[at : at + BATCH_EVENTS])
                for at in range(0, count, BATCH_EVENTS)
            ],
            count,
        ),
        "us",
    )
    raw = [
        EventBatch(node_name=NODE, events=events[at : at + BATCH_EVENTS]).SerializeToString()
        for at in range(0, count, BATCH_EVENTS)
    ]
    report.add(
        "gateway: pass-through",
        per_event(lambda: [Batch.decode(data, 1, 1).spliced() for data in raw], count),
        "us",
    )
    for name, wanted in {
        "event_set": Filter(event_set=[EventType.PROCESS_EXIT]),
        "pid": Filter(pid=[1]),
        "namespace": Filter(namespace=[""]),
        "binary_regex": Filter(binary_regex=["^/usr/bin/true$"]),
        "arguments_regex": Filter(arguments_regex=["^4.*2$"]),
        "parent_binary_regex": Filter(parent_binary_regex=["bash$"]),
        "pid_set": Filter(pid_set=[1]),
        "in_init_tree": Filter(in_init_tree=BoolValue(value=False)),
        "cel_expression": Filter(cel_expression=["process_exec.process.pid > uint(5)"]),
    }.items():
        filters = eventfilters.compile([wanted])

        async def match(filters: eventfilters.Filters = filters) -> None:
            for data in raw:  # decoded again: else the parsed events would be there already
                async for _ in Selection(frozenset(), filters).select(Batch.decode(data, 1, 1)):
                    pass

        def run_match(match: Callable[[], Coroutine[None, None, None]] = match) -> None:
            asyncio.run(match())

        report.add(f"gateway: filter {name}", per_event(run_match, count), "us")
    parsed = [GetEventsResponse.FromString(event) for event in events]
    out = io.StringIO()

    def render(renderer: LifecycleRenderer | JsonRenderer) -> None:
        out.seek(0)
        out.write(renderer.render(parsed))

    for name, renderer in (("lifecycle", LifecycleRenderer()), ("json", JsonRenderer())):
        report.add(f"cli: {name}", per_event(partial(render, renderer), count), "us")
