"""Real parts of Kubernetes, unpacked by `.ci/kubernetes-parts`, beside a real collector."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from support.collector_process import CollectorProcess
from support.containerd import Containerd
from support.gateways import RunningGateway
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.nats_server import NatsServer
from tetragon.events_pb2 import GetEventsResponse

PARTS = Path(os.environ.get("TETRA_KUBERNETES_PARTS", "/nonexistent"))

StartCollector = Callable[..., Awaitable[CollectorProcess]]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of compiled programs for all collectors."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=["containerd-1.7", "containerd"])
def containerd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Containerd]:
    """containerd with CRI: 1.7, and 1.6, whose CRI has no events."""
    started = Containerd(PARTS, request.param, tmp_path_factory.mktemp(request.param))
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture
async def start_collector(
    tmp_path: Path, cache: Path, nats_server: NatsServer, gateway: RunningGateway
) -> AsyncIterator[StartCollector]:
    """Start a collector with settings of the test's choice."""
    started = []

    async def start(**settings: str) -> CollectorProcess:
        collector = CollectorProcess(tmp_path, cache, nats_server.url, **settings)
        started.append(collector)
        await collector.start()
        return collector

    yield start
    for collector in started:
        await collector.stop()


async def events_of(gateway: RunningGateway, kind: str = "process_exec") -> list[GetEventsResponse]:
    """Return all events of a kind that the stream holds."""
    responses = await gateway.read_all(last=1_000_000)
    return [event for one in responses for event in one.events if event.HasField(kind)]
