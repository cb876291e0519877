"""The metrics of both services, and a dashboard that uses no others."""

import asyncio
import json
import re
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chassis.http import HttpServer
from collector.delivery.publisher import Publisher
from collector.delivery.segments import Run
from collector.delivery.spool import Spool
from collector.losses import Losses
from collector.metadata.enricher import Enricher
from collector.metrics import Metrics
from collector.policies.files import Document
from collector.processes.procfs import host_namespaces
from collector.sensors.tracing import TracingStatistics
from readymade import NAMES
from support.feeder import Feeder
from support.fleet import SimulatedNode, document
from support.gateways import read_numbers
from support.net import free_port
from support.stages import NothingLost, Stages
from support.waiting import eventually
from tetra.v1 import node_pb2
from tetragon import sensors_pb2

ROOT = Path(__file__).parents[3]
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/tetra.json").read_text())
QUERIES = [
    (target["expr"], target["legendFormat"])
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
FUNCTIONS = {
    "by", "histogram_quantile", "increase", "le", "max", "rate", "sum", "instance", "job",
    "rate_interval",
}  # fmt: skip


class Lost:
    """The kernel's map of lost records, which no kernel fills here."""

    def lookup(self, key):
        return int(key[0] == 0).to_bytes(8, "little") * 3


async def get(port, path):
    """Return status code and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


async def scrape(port):
    """Return each sample's labels and value by its name."""
    code, body = await get(port, "/metrics")
    assert code == 200
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(body):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(samples, name, **labels):
    [found] = [v for had, v in samples[name] if had.items() >= labels.items()]
    return found


@pytest.fixture
async def gateway_port(start_gateway, nc):
    """A gateway that has seen two nodes and serves one client."""
    port = free_port()
    gateway = await start_gateway(metrics_address=f"127.0.0.1:{port}")
    one, two = Feeder(nc, "one"), Feeder(nc, "two")
    one.loss.by_cause["kernel_exec"] = 4
    await one.answer()
    call = await gateway.stream()
    await one.publish(30)
    await two.publish(12)
    await nc.jetstream().publish("tetra.events.one", b"\xff\xff no batch")
    await read_numbers(call, 42)
    await eventually(lambda: gateway.gateway.streams.malformed["message"])
    one.sequence += 5
    await gateway.sensors.AddTracingPolicy(sensors_pb2.AddTracingPolicyRequest(yaml=document()))
    await gateway.gateway.fleet.describe()
    yield port
    call.cancel()


@pytest.fixture
async def collector_port(tmp_path):
    """The collector's own metrics, of stages that have handled nothing, and one policy."""
    own = Run("n1", "boot", time.time_ns())
    spool = Spool(tmp_path / "spool", 1 << 20, "never")
    publisher = Publisher(own, 1 << 20, node_pb2.LossCounters, spool)
    stages = Stages(Enricher(host_namespaces(Path("/proc"))), "n1")
    losses = Losses(NothingLost(), stages.pipeline.sensors, {}, noted=lambda _: None)
    losses.refresh()
    port = free_port()
    node = SimulatedNode("n1", "", tmp_path)
    await node.manager.set_documents([Document(tmp_path / "p.yaml", document())])
    node.installed[0].lost_records = node.installed[0].posted = 1
    tracing = TracingStatistics()
    tracing.events["one", "kprobe:fd_install"] = 1
    metrics = Metrics(
        stages.pipeline, stages.table, publisher, losses, lambda: False, 0, node.manager, tracing
    )
    server = await HttpServer(metrics, lambda: "nats unreachable").start(f"127.0.0.1:{port}")
    yield port
    server.close()


async def test_the_gateway_counts_received_events_and_nodes(gateway_port):
    samples = await scrape(gateway_port)
    assert value(samples, "tetragon_events_total", type="PROCESS_EXEC") == 42
    assert value(samples, "tetra_gateway_sent_events_total") == 42
    assert value(samples, "tetra_gateway_clients") == 1
    assert value(samples, "tetra_gateway_malformed_total", kind="message") == 1
    assert value(samples, "tetra_gateway_malformed_total", kind="event") == 0
    assert value(samples, "tetra_gateway_live") == 1
    assert value(samples, "tetra_gateway_node_alive", node="one") == 1
    assert value(samples, "tetra_gateway_node_waiting_events", node="one") == 5
    assert (
        value(samples, "tetra_gateway_node_lost_events_total", node="one", cause="kernel_exec") == 4
    )
    assert value(samples, "process_resident_memory_bytes") > 1 << 20


async def test_both_services_answer_health(gateway_port, collector_port, nats_server):
    assert await get(gateway_port, "/healthz") == (200, "ok\n")
    assert await get(gateway_port, "/readyz") == (200, "ok\n")
    assert (await get(gateway_port, "/nothing"))[0] == 404
    assert await get(collector_port, "/healthz") == (200, "ok\n")
    assert await get(collector_port, "/readyz") == (503, "nats unreachable\n")
    nats_server.stop()
    unready = (503, "nats unreachable or stream missing\n")

    async def reported():
        return await get(gateway_port, "/readyz") == unready

    await eventually(reported)
    assert await get(gateway_port, "/healthz") == (200, "ok\n")


async def test_every_query_of_the_dashboard_names_existing_metrics(gateway_port, collector_port):
    samples = await scrape(gateway_port)
    for name, found in (await scrape(collector_port)).items():
        samples.setdefault(name, []).extend(found)
    asked = set()
    for query, legend in QUERIES:
        assert query.count("(") == query.count(")"), query
        words = set(re.findall(r"[a-z_][a-z0-9_]*", re.sub(r'"[^"]*"|\[[^]]*\]', "", query)))
        names = {word for word in words if word in samples}
        labels = {label for name in names for had, _ in samples[name] for label in had}
        assert names, query
        assert words - names - labels - FUNCTIONS == set(), query
        assert set(re.findall(r"{{(\w+)}}", legend)) <= labels | {"instance", "job"}, legend
        asked |= names
    assert len(asked) > 20


def test_the_dashboard_has_a_row_for_each_ready_made_policy():
    selected = {
        name
        for query, _ in QUERIES
        for names in re.findall(r'policy=~?"(.*?)"', query)
        for name in names.split("|")
    }
    assert selected == set(NAMES)
    titles = {panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"}
    rows = ("files", "network", "credentials", "host", "facts")
    assert {f"Ready-made policies: {row}" for row in rows} <= titles
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))


async def test_metrics_that_tetragon_has_keep_its_names(gateway_port, collector_port):
    theirs = {"tetragon_build_info", "tetragon_events_total"}
    assert theirs <= set(await scrape(gateway_port))
    assert theirs | {
        "tetragon_msg_op_total", "tetragon_bpf_missed_events_total",
        "tetragon_observer_ringbuf_events_received_total",
        "tetragon_observer_ringbuf_events_lost_total", "tetragon_process_cache_size",
        "tetragon_process_cache_capacity", "tetragon_process_cache_evictions_total",
    } <= set(await scrape(collector_port))  # fmt: skip


def test_compose_mounts_existing_files():
    text = (ROOT / "compose.metrics.yaml").read_text()
    mounted = re.findall(r"- \./(deploy/\S+?):", text)
    assert len(mounted) == 3
    assert all((ROOT / path).is_dir() for path in mounted)
    scraped = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    ports = set(re.findall(r"port: (\d+)", scraped))
    assert ports == set(re.findall(r'TETRA_METRICS_ADDRESS: ":(\d+)"', text)) == {"9090"}
