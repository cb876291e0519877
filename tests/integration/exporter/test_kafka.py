"""Kafka: a real broker and a real client; nothing is missing, repeats have equal ids."""

import asyncio
import json
import re

import pytest

from exporter.config import KafkaSink
from exporter.errors import DeliveryError, SinkError
from exporter.selection import Selected
from exporter.sinks.base import Line
from exporter.sinks.kafka import Kafka as Sink
from support.exporter import Exporter, away_and_killed
from support.kafka import Kafka
from support.net import free_port
from support.receivers import make_certificate
from support.tls_proxy import tls_proxy
from support.waiting import eventually
from tetragon.events_pb2 import GetEventsResponse

WAIT_S = 60


@pytest.fixture
def brokers():
    """Those to end after the test."""
    found = []
    yield found
    for broker in found:
        broker.end()


def pids(broker):
    return [json.loads(one.value())["process_exec"]["process"]["pid"] for one in broker.messages()]


async def test_broker_away_and_exporter_killed(gateway, feeder, nats_server, tmp_path, brokers):
    broker = Kafka(tmp_path, "events")
    brokers.append(broker)
    broker.start()
    sink = {"name": "bus", "type": "kafka", "brokers": [broker.address], "topic": "events",
            "transport": "tcp", "timeout": "2s", "start": "oldest", "max_batch": 50,
            "compression": "zstd"}  # fmt: skip
    exporter = Exporter(tmp_path, nats_server.url, sink)
    try:
        published = await away_and_killed(feeder, exporter, broker, lambda: pids(broker))
    finally:
        await exporter.stop()
    texts = {dict(one.headers())["id"]: one.value() for one in broker.messages()}
    assert len(texts) == len(published)  # what is there twice has equal ids
    assert all(texts[dict(one.headers())["id"]] == one.value() for one in broker.messages())
    assert {one.key() for one in broker.messages()} == {b"n1"}
    assert sorted(set(pids(broker))) == published


async def test_tls(gateway, feeder, nats_server, tmp_path, brokers):
    certificate, port = make_certificate(tmp_path), free_port()
    front, ca = f"127.0.0.1:{port}", str(certificate[0])
    broker = Kafka(tmp_path, "events", front, **{"security.protocol": "SSL", "ssl.ca.location": ca})
    brokers.append(broker)
    sink = {"name": "bus", "type": "kafka", "brokers": [front], "topic": "events", "ca_file": ca,
            "start": "oldest"}  # fmt: skip
    exporter = Exporter(tmp_path, nats_server.url, sink)
    published = await feeder.publish(100)
    with tls_proxy(port, broker.address, certificate):
        await asyncio.to_thread(broker.start)
        await exporter.start()
        try:
            await eventually(lambda: exporter.count("exporting"), WAIT_S)
            found = []
            while len(found) < len(published):
                found = await asyncio.to_thread(pids, broker)
        finally:
            await exporter.stop()
            await asyncio.to_thread(broker.end)
    assert found == published


def lines(*texts):
    message = GetEventsResponse(node_name="n1")
    return [Line(Selected(f"n1:b:{at}", 1, message), text) for at, text in enumerate(texts)]


async def test_broker_that_is_not_there_is_named(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    sink = Sink(config(brokers=[address], timeout=0.5))
    with pytest.raises(DeliveryError) as caught:
        await sink.deliver(lines("{}"))
    assert re.search(
        rf"^{address}: topic events: .*{address}.*[Cc]onnection refused", str(caught.value)
    )
    await sink.close()


async def test_record_that_the_topic_refuses_is_counted_and_others_arrive(tmp_path, brokers):
    broker = Kafka(tmp_path, "events")
    brokers.append(broker)
    broker.start()
    sink = Sink(config(brokers=[broker.address], properties={"message.max.bytes": "2000"}))
    assert await sink.deliver(lines('"a"', f'"{"x" * 3000}"', '"b"')) == 1
    await sink.close()
    await eventually(lambda: len(broker.messages()) == 2, WAIT_S)
    assert [one.value() for one in broker.messages()] == [b'"a"', b'"b"']


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"properties": {"nope": "1"}}, 'sink bus: kafka: No such configuration property: "nope"'),
        (
            {"transport": "tls", "ca_file": "/nope.pem"},
            "sink bus: ca_file: /nope.pem: No such file",
        ),
        ({"user": "u", "password_file": "/nope"}, "sink bus: password_file: /nope: No such file"),
    ],
)
async def test_mistake_is_named(options, text):
    with pytest.raises(SinkError, match=text):
        Sink(config(brokers=["127.0.0.1:9"], **options))


def config(**options):
    return KafkaSink(name="bus", type="kafka", topic="events", **{"transport": "tcp"} | options)
