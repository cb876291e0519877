"""Messages of the stream: times as NATS writes them, and what is not a batch."""

from datetime import UTC, datetime

import pytest

from eventstream.history import decode, time_ns
from tetra.v1 import bus_pb2
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
