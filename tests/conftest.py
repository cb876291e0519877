"""A real nats-server, a running gateway and its channel, for every test that asks."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import nats
import pytest
from nats.aio.client import Client

from gateway.main import Gateway
from gateway.settings import Settings
from support.feeder import Feeder
from tetra.v1 import stream_pb2, stream_pb2_grpc
from tetragon import events_pb2, sensors_pb2_grpc

NATS_SERVER = Path(sys.executable).parent / "nats-server"
READY_S = 10.0


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def eventually(
    condition: Callable[[], Any], timeout_s: float = READY_S, every_s: float = 0.02
) -> Any:
    """Return the condition's value as soon as it is true; fail after ``timeout_s``."""
    async with asyncio.timeout(timeout_s):
        while True:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            await asyncio.sleep(every_s)


class NatsServer:
    """A real nats-server with JetStream, on a port of its own; it can be stopped and started."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.log = folder / "nats.log"
        self._command = [
            str(NATS_SERVER), "-a", "127.0.0.1", "-p", str(self.port),
            "-js", "-sd", str(folder / "jetstream"), *flags,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                if probe.recv(4) == b"INFO":
                    return
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def stop(self, *, kill: bool = False) -> None:
        """Stop it and wait."""
        if self._process is not None:
            self._process.kill() if kill else self._process.terminate()
            self._process.wait(READY_S)
            self._process = None


@pytest.fixture
def bpf_file_system(tmp_path: Path) -> Iterator[Path]:
    """A BPF file system of this test's own."""
    folder = tmp_path / "bpf"
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A fresh NATS for this test."""
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.stop(kill=True)


@pytest.fixture
async def nc(nats_server: NatsServer) -> AsyncIterator[Client]:
    """A connection to this test's NATS."""
    client = await nats.connect(
        nats_server.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1
    )
    yield client
    await client.close()


@pytest.fixture
async def feeder(nc: Client, gateway: RunningGateway) -> Feeder:
    """The collector of node n1; the stream is there."""
    return Feeder(nc)


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


@pytest.fixture
async def start_gateway(nats_server: NatsServer) -> AsyncIterator[StartGateway]:
    """Start gateways on this test's NATS with settings of one's own."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> RunningGateway:
            settings = {
                "nats_url": nats_server.url, "listen_address": "127.0.0.1:0", **settings
            }  # fmt: skip
            return await stack.enter_async_context(running(Settings(**settings)))

        yield start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    """A gateway with default settings."""
    return await start_gateway()


async def read_numbers(call: Any, count: int, timeout_s: float = READY_S) -> list[int]:
    """Return the numbers of the next ``count`` events, in whatever messages they come."""
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
