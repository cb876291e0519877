"""Messages of the bus, one a part: a gateway receives, filters and forwards them.

A message that is no good batch is dropped and counted, and the next one is taken. What is passed on
can be parsed by a client; notices, node list and metrics can be written.
"""

from __future__ import annotations

import asyncio
import atexit
from random import Random

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry, generate_latest

import eventfilters
from bus.subjects import events_subject
from eventstream import encoded
from eventstream.batch import Batch
from eventstream.history import History
from fuzz.inputs import flipped, join
from fuzz.messages import changed
from gateway.broadcaster import Broadcaster
from gateway.feed import Feed
from gateway.fleet import Fleet
from gateway.metrics import Metrics
from gateway.selection import Selection
from gateway.settings import Settings
from gateway.streams import Streams
from gateway.subscriber import Subscriber
from gateway.turn import Turn
from tetra.v1.bus_pb2 import ControlResponse, EventBatch
from tetra.v1.stream_pb2 import ListNodesResponse, StreamEventsResponse
from tetragon.events_pb2 import FieldFilter, Filter, GetEventsResponse

# Options.
SHOW_METRICS = 1
SMALL_WINDOW = 2
ANSWERS = 4  # the messages are taken as answers of collectors, too
OTHER_SUBJECT = 8  # they come on the subject of node "n", else on that of the node they name

_STORED_NS = 1_767_225_600_000_000_000
_SETTINGS = Settings()  # type: ignore[call-arg]  # all have defaults
_nc = Client()  # never connected: messages are handed over as its callback would
_filters = eventfilters.compile(
    [Filter(binary_regex=["x"]), Filter(pid_set=[1, 5]), Filter(ancestor_binary_regex=["."])],
    [],
    [FieldFilter(fields={"paths": ["process.binary"]})],
)


_loop = asyncio.new_event_loop()
atexit.register(_loop.close)


def check(options: int, parts: list[bytes]) -> None:
    """Receive the messages, then read them as a client's stream would."""
    _loop.run_until_complete(_check(options, parts))


async def _check(options: int, parts: list[bytes]) -> None:
    broadcaster = Broadcaster(400 if options & SMALL_WINDOW else 1 << 20)
    fleet, history = Fleet(_nc), History(_nc, 1)

    def on_batch(batch: Batch) -> None:
        fleet.on_batch(batch)
        metrics.on_batch(batch)

    subscriber = Subscriber(_nc, _SETTINGS, broadcaster, on_batch)
    streams = Streams(broadcaster, history, subscriber, 1)
    metrics = Metrics(streams, fleet)
    for sequence, part in enumerate(parts, start=1):
        subject = "tetra.events.n" if options & OTHER_SUBJECT else _subject(part)
        message = Msg(_nc, subject, "", part)
        subscriber._receive(message, sequence, _STORED_NS + sequence)
        assert broadcaster.head == sequence
        if options & ANSWERS and _is_answer(part):
            fleet._on_answer(ControlResponse.FromString(part))
    bad = sum(not _is_batch(part) for part in parts)
    counted = streams.malformed["message"]
    assert counted >= bad, f"{bad} are no batches, {counted} counted"
    first = min(broadcaster._batches, default=broadcaster.head + 1)
    await _read(Feed(broadcaster, history, Turn(), first), len(parts))
    nodes = ListNodesResponse(nodes=fleet.nodes())
    assert all(node.node_name for node in ListNodesResponse.FromString(_bytes(nodes)).nodes)
    assert set(fleet.stalled()) <= set(fleet.waiting())
    if options & SHOW_METRICS:
        registry = CollectorRegistry()
        registry.register(metrics)
        text = generate_latest(registry).decode()
        for kind, count in streams.malformed.items():
            assert f'\ntetra_gateway_malformed_total{{kind="{kind}"}} {float(count)}\n' in text


def _is_batch(part: bytes) -> bool:
    try:
        return bool(EventBatch.FromString(part).node_name)
    except DecodeError:
        return False


def _subject(part: bytes) -> str:
    try:
        return events_subject(EventBatch.FromString(part).node_name)
    except (DecodeError, ValueError):  # no batch, or without a name
        return "tetra.events.n"


def _is_answer(part: bytes) -> bool:
    try:
        ControlResponse.FromString(part)
    except DecodeError:
        return False
    return True


async def _read(feed: Feed, count: int) -> None:
    seen = 0
    while (found := feed.next_nowait()) is not None:
        batch, duplicates = found
        seen += 1
        assert 0 <= duplicates <= len(batch.payloads)
        good = [payload for payload in batch.payloads if payload]
        assert len(good) + len(batch.malformed) == len(batch.payloads)
        response = StreamEventsResponse.FromString(encoded.splice_events(good))
        assert len(response.events) == len(good)
        for payload, event in zip(good, response.events, strict=True):
            assert encoded.event_type(payload) >= 0
            assert encoded.event_time_ns(payload) == _time_ns(event) or not _is_plain(payload)
        async for part in Selection(frozenset(), _filters).select(batch, duplicates):
            for _, payload in part:
                GetEventsResponse.FromString(payload)
        losses, gaps = feed.take_notices()
        StreamEventsResponse.FromString(_bytes(StreamEventsResponse(losses=losses, gaps=gaps)))
    assert seen <= count


def _time_ns(event: GetEventsResponse) -> int:
    return event.time.seconds * 1_000_000_000 + event.time.nanos


# Protobuf allows a field to come in pieces, or with others inside, and any number: then the quick
# look may differ.
def _is_plain(payload: bytes) -> bool:
    event = GetEventsResponse.FromString(payload)
    time = Timestamp(seconds=event.time.seconds, nanos=event.time.nanos)
    return (
        event.SerializeToString() == payload
        and event.time.SerializeToString() == time.SerializeToString()
        and 0 <= event.time.seconds < 1 << 33
        and 0 <= event.time.nanos < 1_000_000_000
    )


def _bytes(message: StreamEventsResponse | ListNodesResponse) -> bytes:
    return message.SerializeToString()


def mutate(part: bytes, rng: Random) -> bytes:
    """Another batch by the schema, with other events in it, or other bytes."""
    if rng.random() < 0.15:
        return flipped(part, rng)
    kind = EventBatch if rng.random() < 0.9 else ControlResponse
    return changed(part, kind, rng, {"events": GetEventsResponse})


def _event(pid: int) -> bytes:
    event = GetEventsResponse(node_name="node-1")
    event.time.FromNanoseconds(_STORED_NS + pid)
    event.process_exec.process.binary = "/usr/bin/x"
    event.process_exec.process.pid.value = pid
    event.process_exec.parent.pid.value = 1
    return event.SerializeToString()


def _batch(first: int, node: str = "node-1", boot: str = "b", start: int = 1) -> bytes:
    batch = EventBatch(node_name=node, boot_id=boot, first_sequence=first)
    batch.collector_start.seconds = start
    batch.events.extend([_event(first), _event(first + 1)])
    return batch.SerializeToString()


def seeds() -> list[bytes]:
    """Batches: in order, repeated, with a gap, of other boots and nodes, with losses, and none."""
    lossy = EventBatch.FromString(_batch(9))
    lossy.loss.by_cause.update(kernel_exec=5, spool=7)
    answer = ControlResponse(sequence=7, events=[_event(1)])
    answer.node.node_name, answer.node.boot_id, answer.node.last_sequence = "node-1", "b", 9
    return [
        join(0, [_batch(1), _batch(3), _batch(5)]),
        join(ANSWERS | SHOW_METRICS, [_batch(1), answer.SerializeToString(), _batch(3)]),
        join(SHOW_METRICS, [_batch(1), _batch(9), _batch(3), _batch(3), lossy.SerializeToString()]),
        join(
            SMALL_WINDOW, [_batch(1), _batch(1, boot="c"), _batch(1, "node-2"), _batch(1, start=2)]
        ),
        join(SHOW_METRICS, [b"\xff\xff no batch", b"", _batch(1)]),
    ]
