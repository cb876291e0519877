"""Receivers that stop, are busy or refuse events: nothing is missing, repeats have equal ids."""

import json
import re
import shutil
from collections import Counter

import pytest

from support.exporter import Exporter, away_and_killed
from support.feeder import exec_event
from support.receivers import (
    Elasticsearch,
    HttpReceiver,
    LogsService,
    Rsyslog,
    make_certificate,
    running,
)
from support.waiting import eventually

WAIT_S = 40
REFUSED = (
    "receiver refuses an event permanently: it is counted and skipped; further ones are not logged"
)


def pid(document):
    return document["process_exec"]["process"]["pid"]


async def test_elasticsearch_has_one_document_an_event(gateway, feeder, nats_server, tmp_path):
    database = Elasticsearch()
    receiver = HttpReceiver(database.answer)
    database.busy_once = database.page_once = True
    sink = {"name": "search", "type": "http", "url": receiver.url, "preset": "elasticsearch",
            "start": "oldest", "compress": True, "max_batch": 50}  # fmt: skip
    exporter = Exporter(tmp_path, nats_server.url, sink)
    with running(receiver):
        try:
            published = await away_and_killed(
                feeder, exporter, receiver, lambda: list(database.documents)
            )
            assert sorted(map(pid, database.documents.values())) == published
            # A document that the database can never take does not hold up what is behind it.
            refused = exec_event(99_999, node="refuse-me")
            feeder.node = "refuse-me"
            await feeder.send(feeder.batch([refused]))
            feeder.node = "n1"
            feeder.sequence -= 1
            more = await feeder.publish(5)
            await eventually(lambda: len(database.documents) == len(published) + len(more), WAIT_S)
            await eventually(lambda: exporter.count(REFUSED), WAIT_S)
        finally:
            await exporter.stop()


async def test_otlp_receiver_has_every_event(gateway, feeder, nats_server, tmp_path):
    service = LogsService()
    sink = {"name": "logs", "type": "otlp", "endpoint": f"http://127.0.0.1:{service.port}",
            "start": "oldest", "max_batch": 50, "timeout": 1}  # fmt: skip
    exporter = Exporter(tmp_path, nats_server.url, sink)

    def ids():
        return [attributes["event.id"] for _, attributes, _ in list(service.records)]

    with running(service):
        try:
            published = await away_and_killed(feeder, exporter, service, ids)
        finally:
            await exporter.stop()
    by_id = {attributes["event.id"]: json.loads(body) for _, attributes, body in service.records}
    assert sorted(map(pid, by_id.values())) == published
    resource, attributes, body = service.records[0]
    assert resource["host.name"] == "n1"
    assert attributes["process.pid"] == pid(json.loads(body))
    assert attributes["process.executable.path"] == "/usr/bin/true"
    assert attributes["process.command_line"] == f"/usr/bin/true {attributes['process.pid']}"


async def test_otlp_over_http(gateway, feeder, nats_server, tmp_path):
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    service = LogsService()

    def answer(path, body):
        assert path == "/v1/logs"
        service.keep(ExportLogsServiceRequest.FromString(body))
        return 200, b""

    receiver = HttpReceiver(answer)
    sink = {"name": "logs", "type": "otlp", "protocol": "http", "endpoint": receiver.url,
            "start": "oldest", "headers": {"X-Team": "blue"}}  # fmt: skip
    exporter = Exporter(tmp_path, nats_server.url, sink)
    published = await feeder.publish(100)
    with running(receiver):
        await exporter.start()
        await eventually(lambda: len(service.records) == 100, WAIT_S)
        await exporter.stop()
    assert [pid(json.loads(body)) for _, _, body in service.records] == published
    assert receiver.requests[0][1]["x-team"] == "blue"


@pytest.mark.skipif(not shutil.which("rsyslogd"), reason="rsyslogd is not installed")
@pytest.mark.parametrize("transport", ["tls", "tcp"])
async def test_rsyslog_has_every_event(gateway, feeder, nats_server, tmp_path, transport):
    certificate = make_certificate(tmp_path) if transport == "tls" else None
    receiver = Rsyslog(tmp_path, certificate)
    sink = {"name": "syslog", "type": "syslog", "address": f"127.0.0.1:{receiver.port}",
            "transport": transport, "start": "oldest", "settle": "1s"}  # fmt: skip
    if certificate:
        sink["ca_file"] = str(certificate[0])
    exporter = Exporter(tmp_path, nats_server.url, sink)
    pattern = re.compile(r'\[tetra@32473 id="([^"]*)"\] n1 tetra process_exec (.*)')

    def messages():
        return [pattern.fullmatch(line).groups() for line in receiver.lines()]

    with running(receiver):
        try:
            published = await away_and_killed(
                feeder, exporter, receiver, lambda: [name for name, _ in messages()]
            )
        finally:
            await exporter.stop()
    found = Counter(messages())
    by_id = dict(found)
    assert len({name for name, _ in by_id}) == len(by_id)  # equal ids have equal texts
    assert sorted(pid(json.loads(text)) for _, text in by_id) == published


async def test_loki_splunk_and_plain_json(gateway, feeder, nats_server, tmp_path):
    published = await feeder.publish(30)
    receiver = HttpReceiver()
    token = tmp_path / "token"
    token.write_text("secret\n")
    common = {"type": "http", "start": "oldest", "url": receiver.url, "token_file": str(token)}
    presets = ("loki", "splunk-hec", "json-array", "json-lines")
    sinks = [{"name": one, "preset": one, **common} for one in presets]
    sinks[2]["url"] = f"{receiver.url}/array"
    sinks[3]["url"] = f"{receiver.url}/lines"
    exporter = Exporter(tmp_path, nats_server.url, *sinks)
    with running(receiver):
        await exporter.start()
        await eventually(lambda: len(receiver.requests) >= 4, WAIT_S)
        await exporter.stop()
    bodies = {path: (headers, body) for path, headers, body in receiver.requests}
    (stream,) = json.loads(bodies["/loki/api/v1/push"][1])["streams"]
    assert stream["stream"] == {"job": "tetra", "node": "n1"}
    assert [pid(json.loads(line)) for _, line in stream["values"]] == published
    headers, body = bodies["/services/collector/event"]
    assert headers["Authorization"] == "Splunk secret"
    decoder, text, found = json.JSONDecoder(), body.decode(), []
    while text:
        one, end = decoder.raw_decode(text)
        found.append(one)
        text = text[end:]
    assert [pid(one["event"]) for one in found] == published
    assert len({one["fields"]["event_id"] for one in found}) == 30
    assert [pid(one) for one in json.loads(bodies["/array"][1])] == published
    lines = bodies["/lines"][1].decode().splitlines()
    assert [pid(json.loads(one)) for one in lines] == published
    assert bodies["/lines"][0]["Authorization"] == "Bearer secret"
