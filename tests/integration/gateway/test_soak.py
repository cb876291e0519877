"""A reader that stalls under load: for seconds, or with SOAK=1 for half a minute."""

import asyncio
import os
import time
from contextlib import suppress

import grpc
import pytest

from support.feeder import Feeder
from support.gateway_process import gateway_process, resident_bytes
from support.gateways import numbers_in
from support.waiting import eventually
from tetra.v1 import stream_pb2, stream_pb2_grpc
from tetragon import events_pb2, sensors_pb2_grpc

WHOLE = os.environ.get("SOAK") == "1"
STALL_S = 30.0 if WHOLE else 4.0
RATE_EVENTS = 2000
BATCH_EVENTS = 40
ARGUMENT_BYTES = 600
GROWTH_BYTES = 48 << 20  # of what allocators keep and connections hold, not of what piles up

pytestmark = pytest.mark.timeout(600)


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


# Both kinds of streams stop reading, one continues.
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
