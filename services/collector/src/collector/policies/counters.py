"""What a policy's programs counted: the layout of MAP_COUNTERS of bpf/tracing/maps.h.

One array value, u64[cpus][slots], mapped into the collector: reading it costs no system call. Slot
0 counts calls that no selector matched, then come sixteen for each selector of each hook.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from collector.bpf.maps import MMAPABLE, MapSpec, MapType
from collector.policies.statistics import SelectorCounters

NAME = "policy_counters"
_OF_SELECTOR = 16  # COUNTERS_OF_SELECTOR


class Counter(IntEnum):
    """``enum selector_counter``."""

    POSTED = 0
    NOT_POSTED = 1
    RATE_LIMITED = 2
    SIGNAL = 3
    MONITOR_SIGNAL = 4
    OVERRIDE = 5
    MONITOR_OVERRIDE = 6
    NOTIFY = 7
    MONITOR_NOTIFY = 8
    SET = 9
    MONITOR_SET = 10
    SPARED = 11
    FAILED = 12
    MISSED = 13
    OVERWRITTEN = 14


@dataclass(frozen=True, slots=True)
class Counters:
    """The layout for one policy on this machine; both sizes are powers of two."""

    cpus: int
    slots: int

    @classmethod
    def of(cls, selectors: int, cpus: int) -> Counters:
        """Return the layout for this many selectors, over all hooks, and possible CPUs."""
        return cls(1 << max(0, cpus - 1).bit_length(), 1 << (selectors * _OF_SELECTOR).bit_length())

    def definitions(self) -> str:
        """Return the sizes as C."""
        return f"#define COUNTER_CPUS {self.cpus}\n#define COUNTER_SLOTS {self.slots}"

    def spec(self) -> MapSpec:
        """Return how the map is created."""
        return MapSpec(NAME, MapType.ARRAY, 4, 8 * self.cpus * self.slots, 1, MMAPABLE)

    def filtered(self, memory: mmap.mmap) -> int:
        """Return how many calls no selector matched."""
        return self._sum(memory, 0)

    def of_selector(self, memory: mmap.mmap, number: int) -> SelectorCounters:
        """Return the counts of a selector."""
        first = 1 + number * _OF_SELECTOR
        return SelectorCounters(*(self._sum(memory, first + counter) for counter in Counter))

    def _sum(self, memory: mmap.mmap, slot: int) -> int:
        one = Struct("<Q")
        places = (8 * (cpu * self.slots + slot) for cpu in range(self.cpus))
        return sum(int(one.unpack_from(memory, place)[0]) for place in places)
