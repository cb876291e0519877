"""EventLogService: the rotation of the export file is read and changed while it is written."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from bus import connection
from bus.settings import BusSettings
from bus.subjects import events_subject
from eventstream.history import History
from exporter import node_reader
from support.exporter import Exporter
from support.feeder import Feeder, exec_event, number_of
from support.net import free_port
from support.waiting import eventually
from tetragon.eventlogservice_pb2 import GetEventLogParamsRequest, SetEventLogParamsRequest
from tetragon.eventlogservice_pb2_grpc import EventLogServiceStub
from tetragon.events_pb2 import GetEventsResponse

TETRA = Path(sys.executable).parent / "tetra"
WAIT_S = 40


def file_sink(folder, **more):
    return {"name": "file", "type": "file", "path": str(folder / "out.log"), "start": "oldest",
            **more}  # fmt: skip


async def cli(address, *arguments):
    """Run ``tetra eventlog``; return its exit code and output."""
    command = [TETRA, "eventlog", *arguments, "--server-address", address]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def pids(folder):
    lines = [line for path in sorted(folder.glob("out*")) for line in path.read_text().splitlines()]
    return [json.loads(line)["process_exec"]["process"]["pid"] for line in lines]


async def test_rotation_changes_while_events_are_written(gateway, feeder, nats_server, tmp_path):
    socket = f"unix://{tmp_path}/api.sock"
    exporter = Exporter(
        tmp_path, nats_server.url, file_sink(tmp_path), TETRA_EVENT_LOG_ADDRESS=socket
    )
    await exporter.start()
    try:
        code, text = await cli(socket, "get")
        assert (code, text) == (
            0,
            'Current logging parameters: max_size:10 rotation_interval:"0s" max_backups:5\n',
        )
        assert (tmp_path / "api.sock").stat().st_mode & 0o777 == 0o660
        arguments = ("--max-size", "1", "--max-backups", "0", "--rotation-interval", "1h30m")
        assert (await cli(socket, "set", *arguments))[0] == 0
        assert (
            'max_size:1 rotation_interval:"1h30m0s" max_backups:0' in (await cli(socket, "get"))[1]
        )
        published = await feeder.publish(1000, per_batch=50, argument_bytes=4000)
        await eventually(lambda: len(pids(tmp_path)) >= len(published), WAIT_S)
        assert pids(tmp_path) == published  # rotated at 1 MB: several files, each event once
        assert len(list(tmp_path.glob("out-*.log"))) >= 3
        code, text = await cli(socket, "set", "--rotation-interval", "soon")
        assert code == 2
        assert "'soon' is not a duration" in text
        assert (await cli(socket, "set", "--max-size=-1"))[0] == 2
    finally:
        await exporter.stop()


async def test_own_node_is_exported_alone(gateway, feeder, nc, nats_server, tmp_path):
    await feeder.publish(20)
    other = Feeder(nc, "n2")
    await other.send(other.batch([exec_event(n, node="n2") for n in range(901, 911)]))
    exporter = Exporter(
        tmp_path, nats_server.url, file_sink(tmp_path), TETRA_OWN_NODE="true", NODE_NAME="n2"
    )
    requests = []

    async def note(message):
        requests.append(json.loads(message.data))

    await nc.subscribe("$JS.API.DIRECT.GET.TETRA_EVENTS", cb=note)
    await exporter.start()
    try:
        await eventually(lambda: len(pids(tmp_path)) >= 10, WAIT_S)
        published = await feeder.publish(20)
        await other.send(other.batch([exec_event(911, node="n2")]))
        await eventually(lambda: 911 in pids(tmp_path), WAIT_S)
    finally:
        await exporter.stop()
    assert pids(tmp_path) == list(range(901, 912))
    assert published
    # NATS selects the node's batches: the others' never come here.
    reads = [one for one in requests if "batch" in one and "multi_last" not in one]
    assert reads
    assert {one.get("next_by_subj") for one in reads} == {events_subject("n2")}


async def test_place_of_a_quiet_node_moves_behind_what_others_published(
    gateway, feeder, nc, nats_server, monkeypatch
):
    monkeypatch.setattr(node_reader, "_BOUNDS_S", 0.0)
    monkeypatch.setattr(node_reader, "_SETTLED_S", 0.0)
    settings: dict[str, Any] = {"nats_url": nats_server.url}
    reading = await connection.connect(BusSettings(**settings), "reader")
    history, other = History(reading, 1), Feeder(nc, "n2")
    await other.send(other.batch([exec_event(901, node="n2")]))
    reader = node_reader.NodeReader(history, "sink", "n2")
    await reader.open(None, "oldest")
    chunk = await asyncio.wait_for(reader.next(), WAIT_S)
    assert [batch.node_name for batch, _ in chunk.batches] == ["n2"]
    await feeder.publish(50)
    last = (await history.bounds()).last
    while reader.place.sequence < last:
        chunk = await asyncio.wait_for(reader.next(), WAIT_S)
        assert (chunk.batches, chunk.gaps) == ([], [])
    # A reader that begins there takes the stream for the one that it knows.
    again = node_reader.NodeReader(history, "sink", "n2")
    await again.open(reader.place, "oldest")
    await other.send(other.batch([exec_event(902, node="n2")]))
    chunk = await asyncio.wait_for(again.next(), WAIT_S)
    assert [number_of(GetEventsResponse.FromString(one))
            for batch, _ in chunk.batches for one in batch.payloads] == [902]  # fmt: skip
    assert chunk.gaps == []
    await reading.close()


@pytest.mark.parametrize(
    ("token", "get", "set_"),
    [
        (None, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAUTHENTICATED),
        ("wrong", grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAUTHENTICATED),
        ("reads", grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED),
        ("elsewhere", grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.PERMISSION_DENIED),
        ("changes", grpc.StatusCode.OK, grpc.StatusCode.OK),
    ],
)
async def test_calls_need_their_right(secured, token, get, set_):
    metadata = [("authorization", f"Bearer {token}")] if token else []
    stub = EventLogServiceStub(secured)
    asked = stub.GetEventLogParams(GetEventLogParamsRequest(), metadata=metadata)
    assert await asked.code() == get
    changed = stub.SetEventLogParams(SetEventLogParamsRequest(max_size=7), metadata=metadata)
    assert await changed.code() == set_


@pytest.fixture
async def secured(gateway, nats_server, tmp_path):
    """A channel to an exporter that needs tokens."""
    tokens = tmp_path / "tokens"
    tokens.write_text("reads read\nelsewhere read,control n9\nchanges read,control here\n")
    address = f"127.0.0.1:{free_port()}"
    exporter = Exporter(
        tmp_path, nats_server.url, file_sink(tmp_path), TETRA_EVENT_LOG_ADDRESS=address,
        TETRA_TOKEN_FILE=str(tokens), NODE_NAME="here",
    )  # fmt: skip
    await exporter.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel
    await exporter.stop()


async def test_exporter_without_a_file_reports_it(gateway, nats_server, tmp_path):
    address = f"unix://{tmp_path}/api.sock"
    sink = {"name": "out", "type": "stdout"}
    exporter = Exporter(tmp_path, nats_server.url, sink, TETRA_EVENT_LOG_ADDRESS=address)
    await exporter.start()
    try:
        code, text = await cli(address, "get")
    finally:
        await exporter.stop()
    assert code == 1
    assert "no log params setters available" in text


@pytest.mark.parametrize(
    "address", ["0.0.0.0:5000", "10.0.0.1:5000", "unix:///no/such/x.sock", "x"]
)
async def test_address_that_other_hosts_reach_is_refused(nats_server, tmp_path, address):
    sink = {"name": "out", "type": "stdout"}
    exporter = Exporter(tmp_path, nats_server.url, sink, TETRA_EVENT_LOG_ADDRESS=address)
    await exporter.start(wait=False)
    assert await asyncio.wait_for(exporter.process.wait(), WAIT_S) == 2
    assert "event_log_address" in exporter.log.read_text()
