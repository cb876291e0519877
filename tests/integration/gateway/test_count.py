"""Questions about the past: columns and stream answer alike, and say what is missing."""

import asyncio
import json
import random
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from eventcolumns import schema
from eventcolumns.fields import FIELDS
from gateway import past
from support.exporter import Exporter
from support.feeder import Feeder
from support.gateways import numbers_in
from support.waiting import eventually
from tetra.v1.stream_pb2 import CountEventsRequest, GapNotice
from tetragon.events_pb2 import EventType, Filter, GetEventsResponse

TETRA = Path(sys.executable).parent / "tetra"
SEED = 5
BASE_NS = 1_760_000_000_000_000_000
SECOND_NS = 1_000_000_000
KINDS = ("process_exec", "process_exit", "process_kprobe", "process_loader", "process_throttle")


def any_event(choose, number, node):
    """Return an event of some kind, with some of what the columns have."""
    event = GetEventsResponse(node_name=node)
    event.time.FromNanoseconds(BASE_NS + number * SECOND_NS)
    kind = choose.choice(KINDS)
    body = getattr(event, kind)
    if kind == "process_throttle":
        body.cgroup = "/a"
        return event.SerializeToString()
    process = body.process
    process.exec_id = f"{node}:{number}"
    process.pid.value = number
    process.binary = choose.choice(["/usr/bin/a", "/usr/bin/b'", "/usr/bin/c.d", "/opt/x y"])
    process.arguments = choose.choice(["", "-l", "--name=ü"])
    if choose.random() < 0.8:
        process.uid.value = choose.choice([0, 1000])
    process.user_name = choose.choice(["", "root"])
    if choose.random() < 0.5:
        body.parent.binary = choose.choice(["/usr/bin/sh", "/usr/bin/a"])
    place = choose.random()
    if place < 0.3:
        process.pod.namespace, process.pod.name = choose.choice([("shop", "web-1"), ("", "db")])
        process.pod.container.name = "main"
        process.docker = "c" * 31
    elif place < 0.6:
        process.docker = choose.choice(["a" * 31, "b" * 31])
        process.container_info.name = choose.choice(["", "web"])
    if kind == "process_exit":
        body.status, body.signal = choose.choice([(0, ""), (1, ""), (0, "SIGKILL")])
    if kind == "process_kprobe":
        body.policy_name = choose.choice(["", "files", "network"])
        body.function_name = "security_file_open"
        body.args.add().file_arg.path = choose.choice(["/etc/shadow", "/etc/passwd"])
        sock = body.args.add().sock_arg
        sock.family, sock.daddr, sock.dport = "AF_INET", "10.0.0.1", choose.choice([80, 443])
    return event.SerializeToString()


async def publish_any(feeder, choose, count, first=0):
    for at in range(first, first + count, 20):
        events = [any_event(choose, n, feeder.node) for n in range(at, at + 20)]
        await feeder.send(feeder.batch(events))


@pytest.fixture(autouse=True)
def _always_columns(monkeypatch):
    monkeypatch.setattr(past, "LEAST_MESSAGES", 0)


async def count(gateway, by, **request):
    """Return the rows and the basis."""
    call = gateway.events.CountEvents(CountEventsRequest(by=by, **request))
    answers = [answer async for answer in call if not answer.HasField("progress")]
    rows = [
        (tuple(row.values), row.count, row.first.ToNanoseconds(), row.last.ToNanoseconds(),
         row.first_node)
        for answer in answers for row in answer.rows
    ]  # fmt: skip
    return rows, answers[-1].basis


def shown(basis):
    """Return the basis without where the events were read."""
    copy = type(basis)()
    copy.CopyFrom(basis)
    copy.from_columns = 0
    return copy


async def export(exporter, folder, events):
    """Run the exporter until the columns have so many messages."""
    await exporter.start()
    await eventually(lambda: folder.exists() and any(
        block.last >= events for block in schema.blocks(folder)), 30)  # fmt: skip
    await exporter.stop()


FILTERS = [
    [],
    [Filter(binary_regex=["^/usr/bin/a$"])],
    [Filter(binary_regex=["b'$", "x y"]), Filter(pid=[3, 5])],
    [Filter(binary_regex=[r"^/usr/bin/c\.d$"], arguments_regex=["^-", "ü"])],
    [Filter(namespace=["shop", ""])],
    [Filter(namespace=[""], event_set=[EventType.PROCESS_EXEC])],
    [Filter(container_id=["^a"], parent_binary_regex=["^/usr/bin/sh$"])],
    [Filter(container_name_regex=["^(web|main)$"])],
    [Filter(pod_regex=["^web"])],
    [Filter(policy_names=["files"])],
    [Filter(event_set=[EventType.PROCESS_THROTTLE, EventType.UNDEF])],
    [Filter(file_below=["/etc/shadow"])],  # no condition on columns
    [Filter(cel_expression=["process_exit.status == uint(1)"]), Filter(pod_regex=["db"])],
    [Filter(pid_set=[4, 7])],
]


async def test_columns_and_stream_answer_alike(start_gateway, nc, nats_server, tmp_path):
    folder = tmp_path / "columns"
    gateway = await start_gateway(columns_dir=folder)
    choose = random.Random(SEED)
    for node in ("n1", "n2"):
        await publish_any(Feeder(nc, node), choose, 200)
    sink = {"name": "past", "type": "columns", "folder": str(folder), "flush": "1s"}
    await export(Exporter(tmp_path, nats_server.url, sink), folder, 20)
    late = Feeder(nc, "n3")  # only in the stream
    await publish_any(late, choose, 100, first=150)
    window = {"since": BASE_NS + 20 * SECOND_NS, "until": BASE_NS + 220 * SECOND_NS}
    asked = 0
    for allow in FILTERS:
        by = choose.sample(sorted(FIELDS), 3)
        request = CountEventsRequest(allow_list=allow, nodes=choose.choice([[], ["n1", "n3"]]))
        if choose.random() < 0.5:
            request.since.FromNanoseconds(window["since"])
            request.until.FromNanoseconds(window["until"])
            request.first_seen = choose.random() < 0.5
        if choose.random() < 0.3:
            request.deny_list.add(binary_regex=["x y$"])
        wanted = {name.name: value for name, value in request.ListFields()}
        rows, basis = await count(gateway, by, **wanted)
        plain, plain_basis = await count(gateway, by, **wanted, stream_only=True)
        assert rows == plain, (by, wanted)
        assert shown(basis) == shown(plain_basis)
        assert basis.from_columns > 0
        assert plain_basis.from_columns == 0
        asked += len(rows)
    assert asked > 100


async def test_basis_says_what_is_missing_and_rights_hold(start_gateway, nc, nats_server, tmp_path):
    folder, tokens = tmp_path / "columns", tmp_path / "tokens"
    tokens.write_text("one read n1\nall read\n")
    tokens.chmod(0o600)
    gateway = await start_gateway(columns_dir=folder, token_file=tokens)
    one, two = Feeder(nc, "n1"), Feeder(nc, "n2")
    await one.publish(40)
    one.sequence += 7
    two.loss.by_cause["ring"] = 4
    await one.publish(10)
    for _ in range(2):
        await two.publish(10)
        two.loss.by_cause["ring"] += 1
    sink = {"name": "past", "type": "columns", "folder": str(folder), "flush": "1s"}
    await export(Exporter(tmp_path, nats_server.url, sink), folder, 7)
    one.sequence += 3  # a hole between the columns and what follows in the stream
    await one.publish(10)

    async def ask(token, **request):
        call = gateway.events.CountEvents(
            CountEventsRequest(by=["node"], **request),
            metadata=(("authorization", f"Bearer {token}"),),
        )
        return [answer async for answer in call if not answer.HasField("progress")]

    first, basis = await ask("all")
    assert [(row.values[0], row.count) for row in first.rows] == [("n1", 60), ("n2", 20)]
    gaps = [(gap.cause, gap.node_name, gap.count) for gap in basis.basis.gaps]
    missing = GapNotice.CAUSE_MISSING_SEQUENCE
    assert gaps == [(missing, "n1", 7), (missing, "n1", 3)]
    assert [dict(loss.lost.by_cause) for loss in basis.basis.losses] == [{"ring": 1}]
    rows, basis = await ask("one")
    assert [(row.values[0], row.count) for row in rows.rows] == [("n1", 60)]
    assert [node.node_name for node in basis.basis.nodes] == ["n1"]
    assert not basis.basis.losses
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask("one", nodes=["n2"])
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("by", "reason"),
    [([], "0 fields"), (["binery"], "did you mean binary?"), (["binary"] * 7, "7 fields")],
)
async def test_unknown_fields_are_refused(gateway, by, reason):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await count(gateway, by)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert reason in str(refused.value.details())


async def test_events_of_the_past_come_from_columns(start_gateway, nc, nats_server, tmp_path):
    """Also those that the stream no longer has; then the stream's own, each once."""
    folder = tmp_path / "columns"
    gateway = await start_gateway(columns_dir=folder)
    feeder = Feeder(nc)
    published = await feeder.publish(200)
    sink = {"name": "past", "type": "columns", "folder": str(folder), "flush": "1s"}
    await export(Exporter(tmp_path, nats_server.url, sink), folder, 20)
    await nc.jetstream().purge_stream("TETRA_EVENTS", seq=12)
    published += await feeder.publish(30)
    since = Timestamp(seconds=1)
    responses = await gateway.read_all(since=since)
    assert numbers_in(*responses) == published
    assert not [gap for one in responses for gap in one.gaps]
    wanted = [Filter(pid=[5, 150, 210])]
    assert numbers_in(*await gateway.read_all(since=since, allow_list=wanted)) == [5, 150, 210]
    # A client that lost its gateway continues after its last cursor.
    cursor = next(one.cursor for one in responses if one.events)
    rest = await gateway.read_all(after=cursor)
    seen = numbers_in(*responses[: 1 + next(n for n, one in enumerate(responses) if one.events)])
    assert seen + numbers_in(*rest) == published


async def test_broken_columns_are_reported_and_the_stream_is_read(
    start_gateway, nc, nats_server, tmp_path
):
    folder = tmp_path / "columns"
    gateway = await start_gateway(columns_dir=folder)
    await Feeder(nc).publish(20)
    folder.mkdir()
    (folder / schema.Block(1, 1, 2, 1, 2_000_000_000).name).write_text("no Parquet")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await count(gateway, ["binary"])
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert str(folder) in str(refused.value.details())
    wanted = [Filter(pid=[5])]
    found = await gateway.read_all(since=Timestamp(seconds=1), allow_list=wanted)
    assert numbers_in(*found) == [5]


async def test_tetra_prints_the_answer_and_its_basis(gateway, feeder):
    await feeder.publish(20)

    async def tetra(*arguments):
        process = await asyncio.create_subprocess_exec(
            TETRA, "--server-address", gateway.address, "getevents", *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    code, out, _ = await tetra("--count-by", "binary,type", "--since", "1h")
    lines = out.splitlines()
    assert code == 0
    assert [line.split() for line in lines[:2]] == [
        ["EVENTS", "BINARY", "TYPE"],
        ["20", "/usr/bin/true", "process_exec"],
    ]
    assert lines[-1].startswith("based on 20 of 20 events of 1 node, ")
    assert lines[-1].endswith(": complete")
    feeder.sequence += 5
    await feeder.publish(10)
    code, out, _ = await tetra("--first-seen", "arguments", "--top", "3", "-o", "json")
    *found, basis = map(json.loads, out.splitlines())
    assert [row["arguments"] for row in found] == ["1", "2", "3"]
    assert basis["basis"]["complete"] is False
    assert basis["basis"]["rows"] == 30
    assert "5 events missing" in basis["basis"]["holes"][0]
    code, _, err = await tetra("--count-by", "binary", "--last", "5")
    assert code == 2
    assert "the second is about single events" in err
    code, _, err = await tetra("--count-by", "binery")
    assert code == 2
    assert "no field 'binery'" in err
