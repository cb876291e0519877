"""The number of the last event that the stream has: what a collector continues from."""

from __future__ import annotations

import time

import structlog
from google.protobuf.message import DecodeError
from nats.aio.client import Client

from bus import subjects
from collector.delivery.segments import Run
from tetra.v1.bus_pb2 import EventBatch

ACK_TIMEOUT_S = 5.0

log = structlog.get_logger()


async def last_in_stream(nc: Client, run: Run, index: int) -> int:
    """Return the last number of the run's boot in the stream, 0 if it has none.

    ``index``: of the next event of ``run`` to be published.
    """
    subject = subjects.events_subject(run.node_name)
    api = f"$JS.API.DIRECT.GET.{subjects.EVENTS_STREAM}.{subject}"
    reply = await nc.request(api, b"", timeout=ACK_TIMEOUT_S)
    if not reply.data:
        return 0  # status 404: the stream has no message of this node
    try:
        batch = EventBatch.FromString(reply.data)
    except DecodeError:
        log.warning("malformed message of another publisher on this subject", subject=subject)
        return _without_stream(run, index)
    if batch.boot_id != run.boot_id:
        return 0
    return batch.first_sequence + len(batch.events) - 1


def _without_stream(run: Run, index: int) -> int:
    """Return a substitute for the last number in the stream if it cannot be read.

    Numbers must increase, or new events would be treated as duplicates. If the last number is
    unknown, the microseconds since boot replace it: there are fewer events than that. The jump is
    reported as a gap.
    """
    if run.base is not None:
        return run.base + index - 1
    if run.least_base:
        return run.least_base - 1
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
