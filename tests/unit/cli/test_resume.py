"""Requests of a stream after a lost connection, and the events that it leaves out."""

import pytest

from cli.resume import Batch, Progress
from tetra.v1.stream_pb2 import Cursor, StreamEventsRequest
from tetragon.events_pb2 import GetEventsResponse


def cursor(sequence, index=0):
    return Cursor(stream_sequence=sequence, index=index)


def started(name, second=0):
    event = GetEventsResponse(node_name="n")
    event.time.seconds = second
    event.process_exec.process.exec_id = name
    return event


def ended(name):
    event = GetEventsResponse(node_name="n")
    event.process_exit.process.exec_id = name
    return event


def new_events(progress, *batches):
    """Use batches; return process and kind of their new events."""
    names = []
    for batch in batches:
        news = progress.news(batch)
        for event in news.events:
            kind = event.WhichOneof("event")
            names.append(f"{kind[8]}{kind[10]} {getattr(event, kind).process.exec_id}")
        progress.passed(news)
    return names


def test_rest_begins_after_the_last_cursor():
    progress = Progress(StreamEventsRequest(last=5, nodes=["n"]))
    assert not progress.resumable
    assert new_events(progress, Batch([], cursor(3)), Batch([started("a")], cursor(4, 1))) == [
        "ee a"
    ]
    progress.lost()
    assert progress.resumable
    assert progress.request == StreamEventsRequest(after=cursor(4, 1), nodes=["n"])
    assert new_events(progress, Batch([started("a"), ended("a")], cursor(5))) == ["ee a", "ei a"]


def test_plain_server_has_no_rest():
    progress = Progress(StreamEventsRequest())
    new_events(progress, Batch([started("a")]))
    progress.lost()
    assert not progress.resumable


@pytest.mark.parametrize(
    ("request_", "ends"),
    [
        (StreamEventsRequest(), False),
        (StreamEventsRequest(no_follow=True, last=1), True),
        (StreamEventsRequest(until={"seconds": 1}), True),
    ],
)
def test_clean_end_is_the_end_of_streams_that_have_one(request_, ends):
    assert Progress(request_).ended() is ends


def test_broken_snapshot_is_complete_and_without_duplicates():
    progress = Progress(StreamEventsRequest(snapshot=True))
    at = cursor(10, 2)
    assert new_events(progress, Batch([], at), Batch([started("a"), started("b")], at)) == [
        "ee a",
        "ee b",
    ]
    assert progress.resumable
    progress.lost()
    assert progress.request == StreamEventsRequest(snapshot=True, no_follow=True)
    # b has ended, c was not returned before, d is new. Events after the second snapshot are not
    # used.
    now = cursor(14)
    assert new_events(
        progress,
        Batch([], now),
        Batch([started("a"), started("c")], now),
        Batch([started("d")], now),
        Batch([started("e")], cursor(15)),
    ) == ["ee c", "ee d"]
    progress.lost()
    assert progress.request == StreamEventsRequest(snapshot=True, no_follow=True)
    again = cursor(16)
    assert new_events(progress, Batch([], again), Batch([started("a"), started("e")], again)) == [
        "ee e"
    ]
    assert not progress.ended()
    # From the first snapshot on: b's end, and nothing of d and e again.
    assert progress.request == StreamEventsRequest(after=at)
    assert new_events(
        progress,
        Batch([ended("b"), started("d"), started("f")], cursor(15)),
        Batch([started("e"), ended("f")], cursor(17)),
    ) == ["ei b", "ee f", "ei f"]
    progress.lost()
    assert progress.request == StreamEventsRequest(after=cursor(17))


def test_snapshot_ends_with_events_that_happened_during_it():
    progress = Progress(StreamEventsRequest(snapshot=True, no_follow=True))
    new_events(progress, Batch([], cursor(1)), Batch([started("a")], cursor(1)))
    progress.lost()
    new_events(progress, Batch([], cursor(3)), Batch([started("b")], cursor(3)))
    assert not progress.ended()
    assert progress.request == StreamEventsRequest(after=cursor(1), no_follow=True)
    assert new_events(progress, Batch([ended("a"), started("b")], cursor(4))) == ["ei a"]
    assert progress.ended()


def test_finished_snapshot_is_not_requested_again():
    progress = Progress(StreamEventsRequest(snapshot=True))
    new_events(progress, Batch([], cursor(1)), Batch([started("a")], cursor(1)))
    new_events(progress, Batch([started("b")], cursor(2)))
    progress.lost()
    assert progress.request == StreamEventsRequest(after=cursor(2))
    # A node's events of before the snapshot may come behind another's cursor.
    assert new_events(progress, Batch([started("a"), started("c")], cursor(3))) == ["ee c"]


def test_events_before_since_stay_out_after_a_lost_connection():
    progress = Progress(StreamEventsRequest(since={"seconds": 100}))
    new_events(progress, Batch([], cursor(1)))
    progress.lost()
    assert progress.request == StreamEventsRequest(after=cursor(1))
    batch = Batch([started("a", 99), started("b", 100)], cursor(2))
    assert new_events(progress, batch) == ["ee b"]
