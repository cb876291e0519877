"""Throttling, once a second: its end, its counts, and long-lived processes.

The kernel withholds events and records the beginning (bpf/lib/throttle.h, withhold.h). Other facts
become records here, as if they came from the ring, so that a replay of the journal repeats them:
the end, when a cgroup's rate has been low for long enough, and each process of a throttled cgroup
that has run for a second, which is reported as found in /proc. So no process can hide in a storm of
others: only short-lived processes are withheld.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import Protocol

import structlog

from collector.bpf.probes import ThrottleMaps
from collector.bpf.rate import Rate
from collector.processes import found
from collector.records import layouts
from collector.records.layouts import ProcessValue, ThrottleRecord, ThrottleValue, WithheldValue
from collector.records.process import THROTTLE
from collector.sensors.throttle import Throttled, ThrottleKey, pack
from tetragon.events_pb2 import THROTTLE_START, THROTTLE_STOP, ThrottleType

LOOK_EVERY_S = 1.0
STAYED_NS = 1_000_000_000  # a process that has run for this long is reported
IDLE_NS = 60_000_000_000  # a cgroup without events for this long is dropped
_PID = Struct("<I")
_KINDS = ("exec", "fork", "exit")  # enum withheld_kind, in its order

log = structlog.get_logger()


class RateMap(Protocol):
    """The kernel's map of rates; see `BpfMap`."""

    def items(self) -> list[tuple[bytes, bytes]]:
        """Return the entries."""

    def delete(self, key: bytes) -> bool:
        """Delete ``key``; return whether it was there."""


class Lookup(Protocol):
    """A map of the kernel; see `BpfMap`."""

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value, or None."""


@dataclass(slots=True)
class Withheld:
    """How many events were withheld."""

    life: Lookup | None = None  # the kernel's counters of process life
    policies: Counter[str] = field(default_factory=Counter)  # as last looked at, by policy:NAME

    def totals(self) -> Mapping[str, int]:
        """Return the totals, by kind."""
        found = Counter(self.policies)
        counts = self.counts()
        found.update({kind: counts[kind] for kind in ("exec", "exit")})
        return {kind: count for kind, count in found.items() if count}

    def counts(self) -> dict[str, int]:
        """Return how many execs, forks and exits were withheld, as the kernel counts them now."""
        if self.life is None:
            return dict.fromkeys(_KINDS, 0)
        return {
            kind: sum(memoryview(self.life.lookup(_PID.pack(slot)) or b"").cast("Q"))
            for slot, kind in enumerate(_KINDS)
        }


@dataclass(slots=True)
class Throttle:
    """The collector's part of throttling; ``feed`` takes a record as if from the ring."""

    throttled: Throttled
    feed: Callable[[bytes], None]
    withheld: Withheld
    life: tuple[Rate, ThrottleMaps, Lookup] | None = None  # throttling of process life
    policy_rate: Rate | None = None
    policy_map: Callable[[], RateMap | None] = lambda: None
    policy_name: Callable[[int], str] = lambda _number: ""
    procfs: Path = Path("/proc")
    environment: bool = False
    reported: int = 0  # processes that were found in /proc
    _expected: set[ThrottleKey] = field(default_factory=set)  # beginnings that were not read yet
    _seen: dict[ThrottleKey, ThrottleValue] = field(default_factory=dict)
    _at_stop: dict[ThrottleKey, ThrottleValue] = field(default_factory=dict)

    async def run(self) -> None:
        """Check at intervals, until cancelled."""
        while self.is_on:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                self.look(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            except OSError as error:
                log.warning("throttling not checked", error=str(error))

    @property
    def is_on(self) -> bool:
        """Whether anything can be throttled."""
        return self.life is not None or self.policy_rate is not None

    def look(self, now_ns: int) -> None:
        """Report beginnings, ends and long-lived processes; ``now_ns``: boot clock."""
        live: set[ThrottleKey] = set()
        if self.life is not None:
            rate, maps, _ = self.life
            live |= self._look_at(maps.rates, rate, now_ns)
        policies = self.policy_map() if self.policy_rate else None
        if policies is not None and self.policy_rate:
            live |= self._look_at(policies, self.policy_rate, now_ns)
        for key in [key for key in self.throttled.cgroups if key not in live]:
            self._say(THROTTLE_STOP, key, now_ns)  # of an earlier collector, or a policy that went
        if self.life is not None:
            self._report_stayed(now_ns)

    def _look_at(self, rates: RateMap, rate: Rate, now_ns: int) -> set[ThrottleKey]:
        """Return the cgroups that are throttled."""
        live = set()
        for packed, data in rates.items():
            key = layouts.THROTTLE_KEY.format.unpack(packed)[:2]
            value = ThrottleValue(*layouts.THROTTLE_VALUE.format.unpack(data))
            self._count(key, value)
            if value.over_ns and now_ns - value.over_ns < rate.hold_ns:
                live.add(key)
                self._begin_late(key, value.over_ns)
                continue
            self._expected.discard(key)
            if key in self.throttled.cgroups:
                self._say(THROTTLE_STOP, key, now_ns)
            newest_ns = max(value.window_even, value.window_odd) * rate.interval_ns
            idle_ns = max(IDLE_NS, 2 * rate.interval_ns, rate.hold_ns)
            # It is not throttled, so its count of withheld events cannot change meanwhile.
            if now_ns - newest_ns > idle_ns and rates.delete(packed):
                self._seen.pop(key, None)
                self._at_stop.pop(key, None)
        return live

    def _begin_late(self, key: ThrottleKey, over_ns: int) -> None:
        """Report a beginning whose record the ring had no room for.

        Only at the second check: until then the record, which has the cgroup's name, may still be
        in the ring.
        """
        if key in self.throttled.cgroups:
            self._expected.discard(key)
        elif key in self._expected:
            self._expected.discard(key)
            self._say(THROTTLE_START, key, over_ns)
        else:
            self._expected.add(key)

    def _count(self, key: ThrottleKey, value: ThrottleValue) -> None:
        seen = self._seen.get(key)
        self._seen[key] = value
        if key[1] and value.tracing:
            more = value.tracing - (seen.tracing if seen else 0)
            self.withheld.policies[f"policy:{self.policy_name(key[1])}"] += more

    def _say(self, what: ThrottleType.ValueType, key: ThrottleKey, ktime_ns: int) -> None:
        if (what == THROTTLE_START) == (key in self.throttled.cgroups):
            return
        name = b"" if what == THROTTLE_STOP else b"%d" % key[0]
        record = ThrottleRecord(THROTTLE, what, ktime_ns, *key, len(name), 0, 0, 0, name)
        value = self._seen.get(key)
        if what == THROTTLE_STOP and value is not None:
            before = self._at_stop.get(key)
            self._at_stop[key] = value
            record = record._replace(
                exec=value.exec - (before.exec if before else 0),
                exit=value.exit - (before.exit if before else 0),
                tracing=value.tracing - (before.tracing if before else 0),
            )
        self.feed(pack(record))

    def _report_stayed(self, now_ns: int) -> None:
        """Report withheld processes that still run, at most as many as the rate allows."""
        assert self.life is not None
        rate, maps, processes = self.life
        left = rate.events
        for packed, data in maps.withheld.items():
            ktime_ns, pid = layouts.WITHHELD_KEY.format.unpack(packed)
            if now_ns - ktime_ns < STAYED_NS:
                continue
            held = WithheldValue(*layouts.WITHHELD_VALUE.format.unpack(data))
            value = _value(processes, pid)
            if value is None or value.ktime_ns != ktime_ns:
                continue  # it has just ended, or has another image
            record = found.exec_record(
                self.procfs, pid, value, held.known_ktime_ns, held.cgroup_id,
                environment=self.environment,
            )  # fmt: skip
            # The side that deletes the entry decides: if it is gone, its end was withheld too.
            if record is not None and maps.withheld.delete(packed):
                self.feed(record)
                self.reported += 1
                left -= 1
            if left <= 0:
                return


def _value(processes: Lookup, pid: int) -> ProcessValue | None:
    data = processes.lookup(_PID.pack(pid))
    return None if data is None else ProcessValue(*layouts.PROCESS_VALUE.format.unpack(data))
