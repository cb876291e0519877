"""Messages of the stream: times as NATS writes them, and what is not a batch."""

from datetime import UTC, datetime

import pytest

import eventfilters
from eventstream import encoded
from eventstream.batch import Batch
from eventstream.history import decode, decode_answer, time_ns
from gateway.selection import Selection
from tetra.v1 import bus_pb2
from tetragon.events_pb2 import Filter, GetEventsResponse
from unit.gateway.batches import SECOND_NS, event

SUBJECT = "tetra.events.n"


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("2026-01-02T03:04:05Z", 0),
        ("2026-01-02T03:04:05.1Z", 100_000_000),
        ("2026-01-02T03:04:05.123456789Z", 123_456_789),
        ("2026-01-02T03:04:05.00000001Z", 10),
    ],
)
def test_times_in_the_format_of_nats(text, nanos):
    seconds = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp())
    assert time_ns(text) == seconds * SECOND_NS + nanos


def message(*events, node="n", first=1):
    return bus_pb2.EventBatch(
        node_name=node, boot_id="b", first_sequence=first, events=events
    ).SerializeToString()


def test_batch_of_its_own_subject_is_decoded():
    found = decode(message(event(1), event(2)), SUBJECT, 7, 99)
    assert (found.node_name, found.stream_sequence, found.stored_ns) == ("n", 7, 99)
    assert found.payloads == [event(1), event(2)]


@pytest.mark.parametrize(
    ("data", "subject"),
    [
        (b"\xff\xff", SUBJECT),
        (message(event(1), node=""), SUBJECT),
        (message(event(1), node="other"), SUBJECT),
        (message(event(1)), "tetra.events.other"),
        (message(event(1), event(2), first=(1 << 64) - 1), SUBJECT),
    ],
    ids=["not protobuf", "without a node", "of another node", "on another subject", "number"],
)
def test_malformed_message_is_a_batch_of_no_node(data, subject):
    found = decode(data, subject, 7, 99)
    assert (found.node_name, found.stream_sequence) == ("", 7)


def test_malformed_events_are_left_out_and_numbered():
    found = decode(message(event(1), b"\xff", event(3, node="other"), event(4)), SUBJECT, 1, 1)
    assert found.payloads == [event(1), b"", b"", event(4)]
    assert found.malformed == [2, 3]


def test_empty_event_is_malformed():
    found = decode(message(event(1), b"", event(3)), SUBJECT, 1, 1, keep_parsed=True)
    assert found.malformed == [2]
    assert [one.process.pid.value for one in found.events() if one.data] == [1, 3]


@pytest.mark.parametrize("keep_parsed", [False, True])
def test_events_are_the_same_whether_parsed_at_once_or_later(keep_parsed):
    found = decode(message(event(1), event(2)), SUBJECT, 1, 1, keep_parsed=keep_parsed)
    pids = [one.process.pid.value for one in found.events()]
    assert (pids, [one.data for one in found.events()]) == ([1, 2], [event(1), event(2)])


PLACE = (
    b"Nats-Stream: TETRA_EVENTS\r\nNats-Subject: tetra.events.n\r\nNats-Sequence: 7\r\n"
    b"Nats-Time-Stamp: 2026-01-02T03:04:05.1Z\r\nNats-Num-Pending: 3\r\n"
)


@pytest.mark.parametrize(
    "headers",
    [
        b"NATS/1.0\r\n" + PLACE + b"\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: b-1\r\n" + PLACE + b"\r\n",
        b"NATS/1.0\r\n" + PLACE.replace(b": ", b":") + b"\r\n",
    ],
    ids=["as nats-server writes them", "behind those of the message", "in another form"],
)  # fmt: skip
def test_place_of_an_answer_is_read_from_its_headers(headers):
    found = decode_answer(headers, message(event(1)))
    assert (found.stream_sequence, found.payloads) == (7, [event(1)])
    assert found.stored_ns == time_ns("2026-01-02T03:04:05.1Z")


def test_answer_that_was_reflected_counts_as_malformed():
    headers = b"NATS/1.0\r\n" + PLACE.replace(b"7", b"3") + PLACE + b"\r\n"
    found = decode_answer(headers, message(event(1)))
    assert (found.node_name, found.stream_sequence, found.payloads) == ("", 7, [])


@pytest.mark.parametrize(
    "headers", [b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0\r\n" + PLACE.replace(b": 7", b": x") + b"\r\n"]
)
def test_answer_without_a_place_is_left_out(headers):
    assert decode_answer(headers, message(event(1))) is None


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(0, 0), (5, 1), (-1, 5), (5, -1), (253_402_300_799, 999_999_999), (253_402_300_800, 0)],
)
def test_time_of_an_event_is_the_same_from_its_bytes_and_parsed(seconds, nanos):
    one = GetEventsResponse(node_name="n")
    one.time.seconds, one.time.nanos = seconds, nanos
    data = message(one.SerializeToString())
    times = {Batch.decode(data, 1, 1, keep_parsed=kept).time_ns(0) for kept in (True, False)}
    assert times == {encoded.event_time_ns(one.SerializeToString())}


@pytest.mark.parametrize("wanted", [[], [Filter(pid=[1])], [Filter(pid=[2])]])
async def test_batch_of_one_event_is_selected_as_others_are(wanted):
    selection = Selection(frozenset(), eventfilters.compile(wanted))
    batch = decode(message(event(1)), SUBJECT, 1, 1, keep_parsed=True)
    sliced = [one async for part in selection.select(batch) for one in part]
    assert selection.select_one(batch) == sliced
    assert sliced == ([] if Filter(pid=[2]) in wanted else [(0, event(1))])
    assert Selection(frozenset({"m"}), selection.filters).select_one(batch) == []
