"""From ring bytes to events: each record goes to the sensor of its kind, in the order of the ring.

A record of an unknown kind and one that cannot be decoded are counted, reported once and left out.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from struct import Struct
from struct import error as StructError
from typing import Any

import structlog

from collector.clock import wall_offset_ns
from collector.errors import DecodeError
from collector.sensors.base import Moment, RecordKind, Sensor

WAIT_S = 0.25  # how long a record waits for its metadata, and delays the records behind it

_KIND = Struct("<I")  # the first field of every record

log = structlog.get_logger()


class KindCount:
    """Records of one kind, and the events that they became."""

    __slots__ = ("decode", "events", "handle", "kind", "ready", "records")

    def __init__(self, kind: RecordKind) -> None:
        self.kind = kind
        self.records = self.events = 0
        # Copied, since they are looked up for every record.
        self.decode, self.handle, self.ready = kind.decode, kind.handle, kind.ready


@dataclass(slots=True)
class PipelineStatistics:
    """Totals since this collector started."""

    kinds: dict[int, KindCount] = field(default_factory=dict)  # by record kind
    malformed: int = 0
    unknown: int = 0


@dataclass(slots=True)
class Pipeline:
    """Turns records into events."""

    sensors: Sequence[Sensor]
    statistics: PipelineStatistics = field(default_factory=PipelineStatistics)
    # Records behind one that is not ready, decoded, and until when they wait.
    _held: deque[tuple[KindCount, Any, Moment, float]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        for sensor in self.sensors:
            for kind in sensor.kinds:
                if kind.number in self.statistics.kinds:
                    raise ValueError(f"sensor {sensor.name}: record kind {kind.number}: taken")
                self.statistics.kinds[kind.number] = KindCount(kind)

    def handle(self, records: Iterable[bytes], offset_ns: int | None = None) -> list[bytes]:
        """Return the events of ``records``, in their order.

        ``offset_ns``: the offset of the calendar clock when the records were read; None: read it
        now. Records that have to wait are kept for `release`.
        """
        # Once for all records: the calendar clock may be set at any time.
        moment = Moment(wall_offset_ns() if offset_ns is None else offset_ns, time.monotonic())
        kinds = self.statistics.kinds
        events: list[bytes] = []
        for data in records:
            try:
                (number,) = _KIND.unpack_from(data)
                count = kinds[number]
                record = count.decode(data)
            except (KeyError, DecodeError, StructError) as error:
                self._reject(data, error)
                continue
            count.records += 1
            if record is None:
                continue
            if self._held or (count.ready is not None and not count.ready(record)):
                self._held.append((count, record, moment, moment.now_s + WAIT_S))
                continue
            event = count.handle(record, moment)
            if event is not None:
                count.events += 1
                events.append(event)
        return events

    @property
    def holds(self) -> int:
        """Records that wait for metadata, or behind one that does."""
        return len(self._held)

    @property
    def unfinished(self) -> bool:
        """Whether records arrived that no saved table holds yet."""
        return bool(self._held) or any(sensor.unfinished() for sensor in self.sensors)

    def release(self, *, all_of_them: bool = False) -> list[bytes]:
        """Return the events of held records that are ready, or have waited long enough."""
        now_s = time.monotonic()
        events: list[bytes] = []
        while self._held:
            count, record, moment, until_s = self._held[0]
            due = all_of_them or now_s >= until_s or count.ready is None
            if not (due or (count.ready is not None and count.ready(record))):
                break
            self._held.popleft()
            event = count.handle(record, moment)
            if event is not None:
                count.events += 1
                events.append(event)
        return events

    def _reject(self, data: bytes, error: Exception) -> None:
        statistics = self.statistics
        if isinstance(error, KeyError):
            statistics.unknown += 1
            if statistics.unknown == 1:
                log.error("record of an unknown kind dropped", kind=error.args[0], bytes=len(data))
            return
        statistics.malformed += 1
        if statistics.malformed == 1:
            log.error("malformed record dropped", error=str(error), bytes=len(data))
