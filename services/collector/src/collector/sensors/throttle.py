"""Cgroups whose events are withheld, by the records of the kernel and of collector/throttle.py.

Each beginning and end is reported once: two CPUs can record the same beginning, and if the ring had
no room for it, the collector finds it in the kernel's map.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from collector.events.encoder import Encoder
from collector.events.throttle import throttle_event
from collector.policies.table import PolicyTable
from collector.records import layouts
from collector.records import process as records
from collector.records.layouts import ThrottleRecord
from collector.sensors.base import Moment, RecordKind, Sensor
from tetragon.events_pb2 import THROTTLE_START

ThrottleKey = tuple[int, int]  # cgroup id; number of the policy, 0: process life


@dataclass(slots=True)
class Throttled:
    """The cgroups that are throttled now, each with the record of its beginning."""

    cgroups: dict[ThrottleKey, ThrottleRecord] = field(default_factory=dict)
    started: int = 0
    stopped: int = 0

    def saved(self) -> list[bytes]:
        """Return the records as bytes, for `restore`."""
        return [pack(record) for record in self.cgroups.values()]

    def restore(self, saved: Iterable[bytes]) -> None:
        """Continue with what an earlier collector saved."""
        for data in saved:
            record = records.decode_throttle(data)
            self.cgroups[record.cgroup_id, record.policy] = record


def pack(record: ThrottleRecord) -> bytes:
    """Return the bytes of the record in the ring."""
    return layouts.THROTTLE.format.pack(*record[:-1]) + record.name


class ThrottleSensor:
    """Makes the events that a cgroup is throttled, or no longer."""

    def __init__(self, encoder: Encoder, policies: PolicyTable, throttled: Throttled) -> None:
        self._encoder = encoder
        self._policies = policies
        self._throttled = throttled

    def sensor(self) -> Sensor:
        """Return the sensor that this is."""
        return Sensor(
            name="throttle",
            kinds=(
                RecordKind(
                    records.THROTTLE, "throttle", records.decode_throttle, self._event,
                    event="PROCESS_THROTTLE", operation="27",
                ),
            ),
        )  # fmt: skip

    def _event(self, record: ThrottleRecord, moment: Moment) -> bytes | None:
        key, cgroups = (record.cgroup_id, record.policy), self._throttled.cgroups
        begins = record.type == THROTTLE_START
        if begins == (key in cgroups):
            return None
        if begins:
            cgroups[key] = record
            self._throttled.started += 1
        name = record.name or (record if begins else cgroups.pop(key)).name
        self._throttled.stopped += not begins
        policy = self._policies.name_of(record.policy) if record.policy else ""
        return throttle_event(self._encoder, record, name, policy, moment.offset_ns)
