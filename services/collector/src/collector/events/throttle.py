"""Event process_throttle."""

from __future__ import annotations

from collector.events.encoder import Encoder, event_tag
from collector.records.layouts import ThrottleRecord
from collector.records.text import utf8
from tetra.v1.extensions_pb2 import WithheldEvents
from tetragon.events_pb2 import THROTTLE_STOP, ProcessThrottle, ThrottleType

_TAG = event_tag("process_throttle")


def throttle_event(
    encoder: Encoder, record: ThrottleRecord, name: bytes, policy: str, offset_ns: int
) -> bytes:
    """Return the event of ``record``; ``name``: of the cgroup; ``policy``: whose events.

    ``offset_ns``: what to add to the boot clock for the calendar's.
    """
    event = ProcessThrottle(
        type=ThrottleType.ValueType(record.type), cgroup=utf8(name), policy_name=policy
    )
    if record.type == THROTTLE_STOP:
        event.withheld.CopyFrom(
            WithheldEvents(exec=record.exec, exit=record.exit, policy=record.tracing)
        )
    return encoder.response(_TAG, event.SerializeToString(), record.ktime_ns + offset_ns)
