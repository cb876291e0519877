"""The counters of a policy's programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, dataclass, field
from operator import add


@dataclass(frozen=True, slots=True)
class SelectorCounters:
    """The decisions of one selector of one hook.

    Enforcement actions have two counts: carried out, and omitted in mode monitor.
    """

    posted: int = 0  # records that reached the ring
    not_posted: int = 0  # by NoPost
    rate_limited: int = 0
    signal: int = 0
    monitor_signal: int = 0
    override: int = 0
    monitor_override: int = 0
    notify: int = 0
    monitor_notify: int = 0
    set: int = 0
    monitor_set: int = 0
    spared: int = 0  # actions omitted because the process is spared
    failed: int = 0  # actions that the kernel refused
    missed: int = 0  # notifications that were cleaned up: no enforcer took them
    overwritten: int = 0  # notifications that the thread's next one replaced

    def __add__(self, other: SelectorCounters) -> SelectorCounters:
        return SelectorCounters(*map(add, astuple(self), astuple(other)))


# The hook's index in the document's order, and the selector's in the hook; a hook without
# selectors counts as selector 0.
Selector = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PolicyCounters:
    """Totals of a policy since it was loaded."""

    filtered: int = 0  # calls that no selector matched
    selectors: dict[Selector, SelectorCounters] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)  # by reason
    missed: int = 0  # runs that the kernel skipped: recursion, or no room for a return
    runs: int = 0  # only while kernel.bpf_stats_enabled is on
    run_time_ns: int = 0
    memory_bytes: int = 0  # of programs and own maps
    sampled_calls: int = 0  # system calls that are followed by samples now, see `frequent`

    @property
    def total(self) -> SelectorCounters:
        """The sum of all selectors."""
        return sum(self.selectors.values(), SelectorCounters())

    def __add__(self, other: PolicyCounters) -> PolicyCounters:
        """Totals of an earlier revision and a later one; memory and samples are the later one's."""
        selectors = dict(self.selectors)
        for key, counters in other.selectors.items():
            selectors[key] = selectors.get(key, SelectorCounters()) + counters
        return PolicyCounters(
            self.filtered + other.filtered,
            selectors,
            self.lost + other.lost,
            self.missed + other.missed,
            self.runs + other.runs,
            self.run_time_ns + other.run_time_ns,
            other.memory_bytes,
            other.sampled_calls,
        )
