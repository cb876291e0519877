"""Filters on containers and pods, each a bit in the values of the map of cgroups.

`Groups` gives bits to the filters of loaded policies. Who knows containers asks `active` and writes
the bits of each container's cgroup into the map CGROUPS; until then a filter selects no container.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from collector.errors import ProbeError
from tracingpolicy.selectors import LabelSelector, MatchContainers

GROUPS_MAX = 64


@dataclass(frozen=True, slots=True)
class Workload:
    """Pods and containers that a policy, or a matchWorkloads, selects; None: not restricted."""

    pods: LabelSelector | None = None
    containers: LabelSelector | None = None
    namespace: str = ""  # of a namespaced policy


Group = Workload | MatchContainers


@dataclass(slots=True)
class Groups:
    """The bits in use."""

    _bits: dict[Group, int] = field(default_factory=dict)
    _uses: Counter[Group] = field(default_factory=Counter)

    def acquire(self, groups: Sequence[Group]) -> tuple[int, ...]:
        """Return the masks of filters, each one bit; raise `ProbeError`."""
        for one in dict.fromkeys(groups):
            if one not in self._bits:
                self._bits[one] = self._free_bit()
        self._uses.update(groups)
        return tuple(1 << self._bits[one] for one in groups)

    def release(self, groups: Sequence[Group]) -> None:
        """Forget the filters of a policy that is gone."""
        self._uses.subtract(groups)
        for one in dict.fromkeys(groups):
            if self._uses[one] <= 0:
                del self._bits[one], self._uses[one]

    def active(self) -> dict[Group, int]:
        """Return the mask of each filter in use."""
        return {one: 1 << bit for one, bit in self._bits.items()}

    def _free_bit(self) -> int:
        used = set(self._bits.values())
        for bit in range(GROUPS_MAX):
            if bit not in used:
                return bit
        raise ProbeError(
            f"policies: {GROUPS_MAX} different filters on containers are in use; remove a policy"
        )
