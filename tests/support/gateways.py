"""A gateway in the test's own process, and what its clients read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from gateway.main import Gateway
from gateway.settings import Settings
from support.waiting import READY_S
from tetra.v1 import stream_pb2, stream_pb2_grpc
from tetragon import events_pb2, sensors_pb2_grpc


class RunningGateway:
    """A gateway in this process, and stubs to call it."""

    def __init__(self, gateway: Gateway, channel: grpc.aio.Channel) -> None:
        self.gateway = gateway
        self.channel = channel
        self.address = gateway.server.address
        self.sensors: Any = sensors_pb2_grpc.FineGuidanceSensorsStub(channel)
        self.events: Any = stream_pb2_grpc.EventStreamStub(channel)

    async def subscribe(self, **request: Any) -> Any:
        """Return a GetEvents call that is subscribed."""
        call = self.sensors.GetEvents(events_pb2.GetEventsRequest(**request))
        await call.initial_metadata()
        return call

    async def stream(self, **request: Any) -> Any:
        """Return a StreamEvents call whose first response has been read."""
        call = self.events.StreamEvents(stream_pb2.StreamEventsRequest(**request))
        first = await call.read()
        assert first is not grpc.aio.EOF, (await call.code(), await call.details())
        assert first.HasField("cursor")
        return call

    async def read_all(self, **request: Any) -> list[stream_pb2.StreamEventsResponse]:
        """Return the responses of a stream that is not followed."""
        call = self.events.StreamEvents(stream_pb2.StreamEventsRequest(no_follow=True, **request))
        return [response async for response in call]


StartGateway = Callable[..., Awaitable[RunningGateway]]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[RunningGateway]:
    """Run a gateway in this process until the block ends."""
    gateway = Gateway(settings)
    task = asyncio.create_task(gateway.run())
    live = asyncio.create_task(gateway.subscriber.wait_live())
    await asyncio.wait({task, live}, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    assert gateway.subscriber.live
    try:
        async with grpc.aio.insecure_channel(gateway.server.address) as channel:
            yield RunningGateway(gateway, channel)
    finally:
        live.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def read_numbers(call: Any, count: int, timeout_s: float = READY_S) -> list[int]:
    """Return the numbers of the next ``count`` events, over as many messages as they take."""
    numbers: list[int] = []
    async with asyncio.timeout(timeout_s):
        while len(numbers) < count:
            message = await call.read()
            assert message is not grpc.aio.EOF, (await call.code(), await call.details())
            numbers += numbers_in(message)
    return numbers


def numbers_in(*messages: Any) -> list[int]:
    """Return the numbers of the events in responses of either API."""
    return [
        event.process_exec.process.pid.value
        for message in messages
        for event in getattr(message, "events", [message])
    ]
