"""Fixtures that several suites share; the classes and functions are in `support`."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from gateway.settings import Settings
from support.feeder import Feeder
from support.gateways import RunningGateway, StartGateway, running
from support.nats_server import NatsServer
from tetra.v1 import policies_pb2_grpc


@pytest.fixture
def bpf_file_system(tmp_path: Path) -> Iterator[Path]:
    """A BPF file system for this test alone."""
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


@pytest.fixture
async def start_gateway(nats_server: NatsServer) -> AsyncIterator[StartGateway]:
    """Start gateways on this test's NATS with settings of the test's choice."""
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


@pytest.fixture
def policies(gateway: RunningGateway) -> policies_pb2_grpc.PoliciesStub:
    """The gateway's service of policies."""
    return policies_pb2_grpc.PoliciesStub(gateway.channel)
