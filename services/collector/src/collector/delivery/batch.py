"""A batch on its way to the bus: the message that carries it, and how much fits into one."""

from __future__ import annotations

from dataclasses import dataclass

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import Header

from bus import subjects
from collector.delivery.numbering import ACK_TIMEOUT_S
from collector.delivery.segments import Record, Run
from collector.delivery.stored import body
from tetra.v1.bus_pb2 import EventBatch
from tetra.v1.node_pb2 import LossCounters
from wire.write import VARINT, message, tag, timestamp, varint

EVENT_OVERHEAD = 6  # tag and length in a batch
# Room in a NATS message for what is not events: header, names, counters.
_ENVELOPE_BYTES = 4096
_DEFAULT_PAYLOAD_BYTES = 1 << 20

_COLLECTOR_START = tag(EventBatch.COLLECTOR_START_FIELD_NUMBER)
_PROBES_START = tag(EventBatch.PROBES_START_FIELD_NUMBER)
_FIRST_SEQUENCE = tag(EventBatch.FIRST_SEQUENCE_FIELD_NUMBER, VARINT)


@dataclass(slots=True)
class Batch:
    """Events under way; those that are acknowledged already are no longer in it."""

    run: Run
    first: int  # index in the run
    loss: LossCounters
    events: list[bytes]
    record: Record | None = None  # its place on disk

    def fitting(self, room: int) -> list[bytes]:
        """Return the first events that fit into ``room`` bytes; none if the first does not."""
        size = 0
        for count, event in enumerate(self.events):
            size += len(event) + EVENT_OVERHEAD
            if size > room:
                return self.events[:count]
        return self.events


def room(nc: Client) -> int:
    """Return how many bytes of events fit into a message."""
    return (nc.max_payload or _DEFAULT_PAYLOAD_BYTES) - _ENVELOPE_BYTES


async def send(nc: Client, run: Run, first: int, loss: LossCounters, events: list[bytes]) -> None:
    """Publish a batch; without events it reports losses, and ``first`` is the next event's number.

    Totals alone have no Nats-Msg-Id: JetStream would discard the batch of the next event, which has
    the same number, as a duplicate. Twice the same totals mean the same as once.
    """
    subject = subjects.events_subject(run.node_name)
    prefix = (
        EventBatch(node_name=run.node_name, boot_id=run.boot_id).SerializeToString()
        + message(_COLLECTOR_START, timestamp(run.start_time_ns))
        + message(_PROBES_START, timestamp(run.probes_start_ns or run.start_time_ns))
        + _FIRST_SEQUENCE
        + varint(first)
    )
    token = subject.removeprefix(subjects.EVENTS_PREFIX)
    headers = {Header.MSG_ID.value: f"{token}:{run.boot_id}:{first}"} if events else None
    reply = await nc.request(
        subject,
        prefix + body(loss, events),
        timeout=ACK_TIMEOUT_S,
        headers=headers,
    )
    if b'"error"' in reply.data:
        raise NatsError(f"not stored: {reply.data.decode(errors='replace')}")
