"""Bodies of batches, and records of them on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from collector.delivery.segments import Run
from collector.delivery.spool import Spool
from tetra.v1.bus_pb2 import EventBatch
from tetra.v1.node_pb2 import LossCounters
from wire.write import message, tag, varint

BATCH_MAX_EVENTS = 5000
RECORD_BYTES = 512 << 10
LARGE = 4  # times as much in a record when memory is short
# Memory of an event besides its bytes: the object's header, its place in the queue, what the
# allocator rounds up. Measured with 131,000 events: 46 bytes each.
EVENT_EXTRA_BYTES = 48

_LOSS = tag(EventBatch.LOSS_FIELD_NUMBER)
_EVENT = tag(EventBatch.EVENTS_FIELD_NUMBER)


def body(loss: LossCounters, events: Iterable[bytes]) -> bytes:
    """Return the fields `loss` and `events` of an EventBatch."""
    parts = [message(_LOSS, loss.SerializeToString())]
    for event in events:
        parts += (_EVENT, varint(len(event)), event)
    return b"".join(parts)


def memory_of(events: Sequence[bytes]) -> int:
    """Return the memory that ``events`` take, in bytes."""
    return sum(map(len, events)) + len(events) * EVENT_EXTRA_BYTES


def first_record(events: Iterable[bytes], *, large: bool = False) -> list[bytes]:
    """Return the first of ``events``, as many as go into one record on disk.

    ``large``: memory is short, and each record costs a sync.
    """
    most = LARGE if large else 1
    part, size = list[bytes](), 0
    for event in events:
        size += len(event)
        part.append(event)
        if size > RECORD_BYTES * most or len(part) == BATCH_MAX_EVENTS * most:
            break
    return part


def spool_events(
    spool: Spool, run: Run, first: int, events: Sequence[bytes], loss: LossCounters
) -> int:
    """Put events of an earlier run, from index ``first`` on, into the spool; return how many."""
    done = 0
    while done < len(events):
        part = first_record(islice(events, done, None))
        if not spool.append(run, first + done, len(part), body(loss, part)):
            break
        done += len(part)
    return done
