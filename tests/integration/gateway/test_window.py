"""Notices are cut by the same window of time as events."""

import time

from google.protobuf.timestamp_pb2 import Timestamp

from eventjson.times import rfc3339
from integration.gateway.test_verify import verify
from support.feeder import exec_event
from support.gateways import numbers_in
from tetra.v1 import stream_pb2

SECOND_NS = 1_000_000_000


def stamp(time_ns):
    made = Timestamp()
    made.FromNanoseconds(time_ns)
    return made


async def publish(feeder, count, time_ns):
    numbers = range(feeder.sequence + 1, feeder.sequence + count + 1)
    await feeder.send(feeder.batch([exec_event(n, time_ns=time_ns) for n in numbers]))


async def make_history(feeder, now_ns):
    """Publish a loss and a gap 40 s ago, then complete batches; return when those began."""
    await publish(feeder, 10, now_ns - 50 * SECOND_NS)
    feeder.loss.by_cause["ring"] = 5
    await publish(feeder, 10, now_ns - 40 * SECOND_NS)
    feeder.sequence += 7  # never published
    await publish(feeder, 10, now_ns - 39 * SECOND_NS)
    await publish(feeder, 10, now_ns - 20 * SECOND_NS)
    await publish(feeder, 10, now_ns - 10 * SECOND_NS)
    return now_ns - 30 * SECOND_NS


def notices_in(responses):
    losses = [dict(n.lost.by_cause) for one in responses for n in one.losses]
    gaps = [gap.cause for one in responses for gap in one.gaps]
    return losses, gaps


async def test_notices_before_since_are_left_out(gateway, feeder):
    since_ns = await make_history(feeder, time.time_ns())
    responses = await gateway.read_all(since=stamp(since_ns))
    assert len(numbers_in(*responses)) == 20
    assert notices_in(responses) == ([], [])


async def test_notices_inside_the_window_stay(gateway, feeder):
    now_ns = time.time_ns()
    await make_history(feeder, now_ns)
    responses = await gateway.read_all(since=stamp(now_ns - 45 * SECOND_NS))
    assert notices_in(responses) == ([{"ring": 5}], [stream_pb2.GapNotice.CAUSE_MISSING_SEQUENCE])


async def test_notice_that_reaches_into_the_window_stays(gateway, feeder):
    now_ns = time.time_ns()
    await publish(feeder, 10, now_ns - 50 * SECOND_NS)
    feeder.sequence += 7
    await publish(feeder, 10, now_ns - 20 * SECOND_NS)
    responses = await gateway.read_all(since=stamp(now_ns - 30 * SECOND_NS))
    assert notices_in(responses) == ([], [stream_pb2.GapNotice.CAUSE_MISSING_SEQUENCE])


async def test_notices_after_until_are_left_out(gateway, feeder):
    now_ns = time.time_ns()
    await publish(feeder, 10, now_ns - 50 * SECOND_NS)
    await publish(feeder, 10, now_ns - 45 * SECOND_NS)
    feeder.sequence += 7
    feeder.loss.by_cause["ring"] = 5
    await publish(feeder, 10, now_ns - 44 * SECOND_NS)
    cut = await gateway.read_all(
        since=stamp(now_ns - 60 * SECOND_NS), until=stamp(now_ns - 46 * SECOND_NS)
    )
    assert (len(numbers_in(*cut)), notices_in(cut)) == (10, ([], []))
    # The loss may be from any moment between the batches around it.
    touched = await gateway.read_all(
        since=stamp(now_ns - 60 * SECOND_NS), until=stamp(now_ns - 45 * SECOND_NS)
    )
    assert notices_in(touched) == ([{"ring": 5}], [stream_pb2.GapNotice.CAUSE_MISSING_SEQUENCE])


async def test_verify_since_reports_a_clean_window_as_complete(gateway, feeder):
    since_ns = await make_history(feeder, time.time_ns())
    code, out = await verify(gateway, "--since", rfc3339(stamp(since_ns)))
    assert (code, out.splitlines()[-1]) == (0, "complete: 20 events of 1 node, 0 gaps")
    before = stamp(since_ns - 15 * SECOND_NS)
    code, out = await verify(gateway, "--since", rfc3339(before))
    assert code == 3
    assert "7 events missing" in out
