"""Reads the stream from NATS directly: a second account, independent of the gateways."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import nats
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import DeliverPolicy

from bus.subjects import EVENTS_STREAM, events_subject
from tetra.v1.bus_pb2 import EventBatch
from tetragon.events_pb2 import GetEventsResponse

SILENCE_S = 30.0


@dataclass
class Tally:
    """Counts of one node's events in the stream."""

    events: int = 0
    gaps: list[int] = field(default_factory=list)  # events missing between two that are there
    overlaps: int = 0  # batches that begin before the end of the batch before them
    execs: list[int] = field(default_factory=list)  # numbers of the marks, as they come
    exits: list[int] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Events that the numbers say are missing."""
        return sum(self.gaps)

    @property
    def in_order(self) -> bool:
        """Whether numbers only rise, and so do the marks, which ran one after the other."""
        return not self.overlaps and all(
            all(a < b for a, b in itertools.pairwise(marks)) for marks in (self.execs, self.exits)
        )


def tally(url: str, node: str, mark: str) -> Tally:
    """Read all that the stream has of ``node`` in one boot; raise what cannot be decoded."""
    return asyncio.run(_tally(url, node, mark))


async def _tally(url: str, node: str, mark: str) -> Tally:
    result, last = Tally(), 0
    for data in await _read(url, events_subject(node)):
        batch = EventBatch.FromString(data)
        first = batch.first_sequence
        if last and first > last + 1:
            result.gaps.append(first - last - 1)
        result.overlaps += first <= last
        last = first + len(batch.events) - 1
        result.events += len(batch.events)
        for kind, number in _marks(batch, mark):
            (result.execs if kind == "process_exec" else result.exits).append(number)
    return result


def _marks(batch: EventBatch, mark: str) -> Iterator[tuple[str, int]]:
    for payload in batch.events:
        event = GetEventsResponse.FromString(payload)
        kind = event.WhichOneof("event") or ""
        words = getattr(event, kind).process.arguments.split() if kind else []
        if len(words) == 2 and words[0] == mark:
            yield kind, int(words[1])


async def _read(url: str, subject: str) -> list[bytes]:
    nc = await nats.connect(url.split(","))
    try:
        js = nc.jetstream()
        last = (await js.stream_info(EVENTS_STREAM)).state.last_seq
        found = await js.subscribe(
            subject, stream=EVENTS_STREAM, ordered_consumer=True, deliver_policy=DeliverPolicy.ALL,
            pending_msgs_limit=-1, pending_bytes_limit=-1,
        )  # fmt: skip
        messages: list[bytes] = []
        while True:
            try:
                message = await found.next_msg(SILENCE_S)
            except NatsTimeoutError:
                raise TimeoutError(
                    f"stream: nothing for {SILENCE_S:.0f} s, end at {last}"
                ) from None
            messages.append(message.data)
            if message.metadata.sequence.stream >= last or not message.metadata.num_pending:
                return messages
    finally:
        await nc.close()
