"""Real parts of Kubernetes, unpacked by `.ci/kubernetes-parts`, beside a real collector."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from support.collector_process import CollectorProcess
from support.containerd import Containerd
from support.gateways import RunningGateway
from support.kubernetes_api import KubernetesApi
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.nats_server import NatsServer
from support.waiting import wait_until
from tetragon.events_pb2 import GetEventsResponse

PARTS = Path(os.environ.get("TETRA_KUBERNETES_PARTS", "/nonexistent"))

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
NODE = "node-1"  # this machine, at the API server
COMMAND = "/bin/usleep"

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


@pytest.fixture(scope="module")
def containerd_17(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """containerd 1.7 alone."""
    started = Containerd(PARTS, "containerd-1.7", tmp_path_factory.mktemp("containerd"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesApi]:
    """An API server with a node, our definitions, and the account of the collector."""
    started = KubernetesApi(PARTS, tmp_path_factory.mktemp("api"))
    try:
        started.start()
        node = {"metadata": {"name": NODE, "labels": {"zone": "a"}}}
        started.make("/api/v1/nodes", node)
        account = {"metadata": {"name": "tetra-collector"}}
        wait_until(lambda: has_namespace(started, "kube-system"), 120, lambda: "no kube-system")
        started.make("/api/v1/namespaces/kube-system/serviceaccounts", account)
        for document in sorted(KUBERNETES.glob("*.yaml")):
            started.apply(document)
        yield started
    finally:
        started.stop()


def has_namespace(api: KubernetesApi, name: str) -> bool:
    """Return whether the server has made a namespace."""
    found = api.call("GET", "/api/v1/namespaces")["items"]
    return any(one["metadata"]["name"] == name for one in found)


@pytest.fixture
def namespace(api: KubernetesApi) -> str:
    """A namespace of this test."""
    name = f"shop-{uuid4().hex[:8]}"
    api.make("/api/v1/namespaces", {"metadata": {"name": name}})
    return name


@pytest.fixture
async def start_collector(
    tmp_path: Path, cache: Path, nats_server: NatsServer, gateway: RunningGateway
) -> AsyncIterator[StartCollector]:
    """Start a collector with settings of the test's choice."""
    async with AsyncExitStack() as started:

        async def start(**settings: str) -> CollectorProcess:
            collector = CollectorProcess(tmp_path, cache, nats_server.url, **settings)
            started.push_async_callback(collector.stop)
            await collector.start()
            return collector

        yield start


async def events_of(gateway: RunningGateway, kind: str = "process_exec") -> list[GetEventsResponse]:
    """Return all events of a kind that the stream holds."""
    responses = await gateway.read_all(last=1_000_000)
    return [event for one in responses for event in one.events if event.HasField(kind)]
