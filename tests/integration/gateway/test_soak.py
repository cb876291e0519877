"""Slow readers and clients that come and go, under load: shortened, unless SOAK=1 asks for all."""

import asyncio
import gc
import os
import random
import re
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from conftest import RunningGateway, eventually, free_port, numbers_in, running
from feeder import Feeder
from gateway.settings import Settings
from tetra.v1 import stream_pb2, stream_pb2_grpc
from tetragon import events_pb2, sensors_pb2_grpc

WHOLE = os.environ.get("SOAK") == "1"
STALL_S = 30.0 if WHOLE else 4.0
CHURN_S = 120.0 if WHOLE else 8.0
CLIENTS = 200
RATE_EVENTS = 2000
BATCH_EVENTS = 40
ARGUMENT_BYTES = 600
GROWTH_BYTES = 48 << 20  # of what allocators keep and connections hold, not of what piles up

pytestmark = pytest.mark.timeout(600)


def resident_bytes(pid):
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@asynccontextmanager
async def gateway_process(url, **settings):
    """Run a gateway in a process of its own; yield its address and pid."""
    address = f"127.0.0.1:{free_port()}"
    flags = {"nats-url": url, "listen-address": address} | settings
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "tetra-gateway",
        *(f"--{name}={value}" for name, value in flags.items()),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield address, process.pid
        assert process.returncode is None
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), 20)


async def publish_at_rate(feeder, until):
    """Publish ``RATE_EVENTS`` a second until the condition holds; return the numbers."""
    numbers: list[int] = []
    start = time.monotonic()
    while not until():
        numbers += await feeder.publish(BATCH_EVENTS, BATCH_EVENTS, ARGUMENT_BYTES)
        ahead_s = len(numbers) / RATE_EVENTS - (time.monotonic() - start)
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
    return numbers


# Both kinds of streams stop reading, one goes on.
async def test_readers_that_stall_miss_nothing_and_memory_stays_flat(nats_server, nc):
    async with (
        gateway_process(nats_server.url, **{"window-bytes": 2 << 20}) as (address, pid),
        grpc.aio.insecure_channel(address) as channel,
    ):
        own = stream_pb2_grpc.EventStreamStub(channel)
        old = sensors_pb2_grpc.FineGuidanceSensorsStub(channel)
        ready = None

        async def is_ready():
            nonlocal ready
            ready = own.StreamEvents(stream_pb2.StreamEventsRequest())
            return await ready.read() is not grpc.aio.EOF

        async def answers():
            with suppress(grpc.aio.AioRpcError):
                return await is_ready()

        await eventually(answers, 30, 0.2)
        stalled = [own.StreamEvents(stream_pb2.StreamEventsRequest())]
        stalled.append(old.GetEvents(events_pb2.GetEventsRequest()))
        await stalled[0].read()
        await stalled[1].initial_metadata()

        reader = asyncio.create_task(_read_until_cancelled(ready))
        feeder = Feeder(nc)
        start = time.monotonic()
        sizes: list[int] = []

        def is_over():
            sizes.append(resident_bytes(pid))
            return time.monotonic() - start > STALL_S

        numbers = await publish_at_rate(feeder, is_over)
        assert len(numbers) > RATE_EVENTS * STALL_S / 4  # a busy machine publishes slower
        settled, most = sizes[len(sizes) // 4], max(sizes)
        reading = [asyncio.create_task(_read(call, len(numbers))) for call in stalled]
        numbers_now = numbers + await publish_at_rate(feeder, lambda: all(map(_done, reading)))
        for got in await asyncio.gather(*reading):
            assert got == numbers
        reader.cancel()
        live = await reader
        assert live == numbers_now[: len(live)]
        after = resident_bytes(pid)
        print(
            f"{len(numbers)} events in {STALL_S:.0f} s; resident: {settled >> 20} MB after a "
            f"quarter, {most >> 20} MB at most, {after >> 20} MB when all was read"
        )
        assert most - settled < GROWTH_BYTES
        assert after - settled < GROWTH_BYTES


def _done(task):
    return task.done()


async def _read(call, count):
    """Return the numbers of the first ``count`` events."""
    numbers: list[int] = []
    async with asyncio.timeout(300):
        while len(numbers) < count:
            message = await call.read()
            assert message is not grpc.aio.EOF, (await call.code(), await call.details())
            numbers += numbers_in(message)
    return numbers[:count]


async def _read_until_cancelled(call):
    numbers: list[int] = []
    with suppress(asyncio.CancelledError):
        while True:
            numbers += numbers_in(await call.read())
    return numbers


def _counts(gateway):
    gc.collect()
    tasks = [task for task in asyncio.all_tasks() if "grpc" not in repr(task.get_coro())]
    return len(tasks), len(gateway.gateway._nc._subs), len(os.listdir("/proc/self/fd"))


# Gateway and clients are one process: whatever either keeps is seen.
async def test_clients_that_come_and_go_under_load_leave_nothing(nats_server, nc):
    options: dict[str, Any] = {
        "nats_url": nats_server.url, "listen_address": "127.0.0.1:0",
        "max_clients": CLIENTS + 10, "window_bytes": 1 << 20,
    }  # fmt: skip
    async with running(Settings(**options)) as gateway:
        feeder = Feeder(nc)
        await feeder.publish(2000, 100)
        streams = gateway.gateway.streams
        calls = 0

        async def come_and_go(until_s):
            nonlocal calls
            while time.monotonic() < until_s:
                await _one_call(gateway)
                calls += 1

        async def churn(seconds):
            until_s = time.monotonic() + seconds
            load = asyncio.create_task(publish_at_rate(feeder, lambda: time.monotonic() > until_s))
            await asyncio.gather(load, *(come_and_go(until_s) for _ in range(CLIENTS)))
            await eventually(lambda: len(streams) == 0, 30)

        await churn(min(10.0, CHURN_S / 3))  # pools and caches fill
        before, size = _counts(gateway), resident_bytes(os.getpid())
        await churn(CHURN_S)
        await eventually(
            lambda: all(b <= a + 2 for a, b in zip(before, _counts(gateway), strict=True)), 30
        )
        after, grown = _counts(gateway), resident_bytes(os.getpid()) - size
        info = await feeder.js.stream_info("TETRA_EVENTS")
        print(
            f"{calls} calls by {CLIENTS} clients; tasks, subscriptions, files: {before} before, "
            f"{after} after; consumers: {info.state.consumer_count}; resident: "
            f"{grown / 1e6:+.1f} MB"
        )
        assert info.state.consumer_count == 1
        assert calls > CLIENTS
        assert grown < GROWTH_BYTES


async def _one_call(gateway: RunningGateway) -> None:
    """Open a stream of some kind, read a little, and go in one of several ways."""
    kind = random.randrange(5)
    if kind == 0:  # a connection of its own, which just ends
        async with grpc.aio.insecure_channel(
            gateway.address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            call = stream_pb2_grpc.EventStreamStub(channel).StreamEvents(
                stream_pb2.StreamEventsRequest()
            )
            with suppress(grpc.aio.AioRpcError):
                await call.read()
        return
    if kind == 1:
        request = events_pb2.GetEventsRequest(allow_list=[events_pb2.Filter(pid_set=[1])])
        call = gateway.sensors.GetEvents(request)
        with suppress(grpc.aio.AioRpcError):
            await call.initial_metadata()
    else:
        start = {2: {"last": 500}, 3: {"after": stream_pb2.Cursor(stream_sequence=1)}, 4: {}}[kind]
        call = gateway.events.StreamEvents(stream_pb2.StreamEventsRequest(**start))
        with suppress(grpc.aio.AioRpcError):
            for _ in range(random.randrange(1, 4)):
                await call.read()
    await asyncio.sleep(random.random() / 5)
    call.cancel()
