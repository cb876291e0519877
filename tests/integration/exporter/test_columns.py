"""The columns sink: each event exactly once despite kills, with notices of missing events."""

import asyncio
import random
import signal
from functools import partial
from itertools import pairwise

import duckdb

from eventcolumns import schema
from eventcolumns.conditions import condition
from eventcolumns.engine import Engine, Limits
from support.exporter import Exporter
from support.feeder import Feeder, exec_event
from support.waiting import eventually
from tetra.v1.stream_pb2 import GapNotice

SEED = 11


def sink(folder, **more):
    return {"name": "past", "type": "columns", "folder": str(folder), "flush": "1s"} | more


def rows(folder):
    """Return sequence number and process number of each event, in the order of the blocks."""
    if not (folder.exists() and schema.blocks(folder)):
        return []
    files = [str(folder / block.name) for block in schema.blocks(folder)]
    query = f"SELECT sequence, pid FROM read_parquet({files})"
    try:
        return duckdb.sql(query).fetchall()
    except duckdb.IOException:  # merged meanwhile
        return []


def pids(folder):
    return [pid for _, pid in rows(folder)]


def has_progress(folder, before, has_unfinished):
    if not folder.exists():
        return False
    return schema.blocks(folder) != before or (has_unfinished and any(folder.glob("*.new")))


async def test_killed_exporter_writes_each_event_once(gateway, feeder, nats_server, tmp_path):
    out = tmp_path / "columns"
    exporter = Exporter(tmp_path, nats_server.url, sink(out))
    choose = random.Random(SEED)
    published = []
    for attempt in range(10):
        published += await feeder.publish(300, per_batch=20)
        before = schema.blocks(out) if out.exists() else []
        await exporter.start(wait=False)
        # With a new block, or while one is written if that is seen in time.
        has_unfinished = attempt % 2 == 0
        await eventually(partial(has_progress, out, before, has_unfinished), 60)
        await asyncio.sleep(choose.uniform(0, 0.05))  # anywhere in its work
        await exporter.stop(signal.SIGKILL)
    await exporter.start()
    published += await feeder.publish(100)
    await eventually(lambda: len(pids(out)) >= len(published), 30)
    await exporter.stop()
    assert rows(out) == [(number, number) for number in published]
    found = schema.blocks(out)
    assert all(a.last + 1 == b.first for a, b in pairwise(found))
    assert not any(out.glob("*.new"))


async def test_restart_without_a_place_writes_nothing_again(
    gateway, feeder, nc, nats_server, tmp_path
):
    out = tmp_path / "columns"
    exporter = Exporter(tmp_path, nats_server.url, sink(out))
    events = [exec_event(number) for number in range(1, 11)]
    await feeder.send(feeder.batch(events))
    feeder.sequence += 5
    feeder.loss.by_cause["ring"] = 3
    await feeder.publish(10)
    await exporter.start()
    await eventually(lambda: len(pids(out)) == 20, 30)
    await exporter.stop()
    stored = await nc.jetstream().get_msg("TETRA_EVENTS", 1)
    assert schema.blocks(out)[0].from_s == int(stored.time.timestamp())
    found = list(Engine(out, Limits()).find(condition([], []), []))
    assert [one.event for one in found][:10] == events
    footers = [footer for _, footer in Engine(out, Limits()).footers()]
    [gap] = [gap for footer in footers for gap in footer.gaps]
    [loss] = [loss for footer in footers for loss in footer.losses]
    assert (gap.cause, gap.node_name, gap.count) == (GapNotice.CAUSE_MISSING_SEQUENCE, "n1", 5)
    assert (gap.first, gap.last) == (11, 15)
    assert dict(loss.lost.by_cause) == {"ring": 3}
    (tmp_path / "exporter" / "past.place").unlink()
    await feeder.publish(10)
    await exporter.start()
    await eventually(lambda: len(pids(out)) >= 30, 30)
    await exporter.stop()
    assert [number for number, _ in rows(out)] == [*range(1, 11), *range(16, 36)]


async def test_replaced_stream_is_written_beside_the_old_one(
    gateway, feeder, nc, nats_server, tmp_path
):
    out = tmp_path / "columns"
    exporter = Exporter(tmp_path, nats_server.url, sink(out))
    await feeder.publish(30)
    await exporter.start()
    await eventually(lambda: len(pids(out)) == 30, 30)
    await nc.jetstream().delete_stream("TETRA_EVENTS")
    gateway.gateway.subscriber.restart()
    other = Feeder(nc, "n2")
    await other.publish(20)  # waits until the gateway has made a new stream
    await eventually(lambda: len(pids(out)) == 50, 40)
    await exporter.stop()
    assert {block.generation for block in schema.blocks(out)} == {1, 2}
