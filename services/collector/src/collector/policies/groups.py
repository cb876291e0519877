"""Filters on containers and pods, each a bit in the values of the map of cgroups.

`Groups` gives bits to the filters of loaded policies; `Scope` writes them for each container's
cgroup into the map CGROUPS.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from collector.errors import ProbeError
from collector.policies.bits import free_bit
from tracingpolicy.selectors import LabelSelector, MatchContainers

GROUPS_MAX = 62
UNKNOWN = 1 << 62  # GROUP_UNKNOWN of bpf/tracing/workloads.h: a container whose name is not known
POD = 1 << 63  # GROUP_POD: a container of a pod; every other cgroup is the host's


@dataclass(frozen=True, slots=True)
class Workload:
    """Pods and containers that a policy, or a matchWorkloads, selects; None: not restricted."""

    pods: LabelSelector | None = None
    containers: LabelSelector | None = None
    namespace: str = ""  # of a namespaced policy


@dataclass(frozen=True, slots=True)
class HostProcesses:
    """Processes outside of pods; selected by the absence of a bit."""


Group = Workload | MatchContainers | HostProcesses


def _nothing() -> None:
    """Do nothing."""


@dataclass(slots=True)
class Groups:
    """The bits in use; ``changed`` is called when there are more or fewer, in any thread."""

    changed: Callable[[], None] = _nothing
    _bits: dict[Group, int] = field(default_factory=dict)
    _uses: Counter[Group] = field(default_factory=Counter)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def acquire(self, groups: Sequence[Group]) -> tuple[int, ...]:
        """Return the masks of filters, each one bit, in effect; raise `ProbeError`."""
        with self._lock:
            self._uses.update(groups)
            try:
                for one in dict.fromkeys(groups):
                    if one not in self._bits:
                        self._bits[one] = free_bit(
                            self._bits.values(), GROUPS_MAX, "filters on containers"
                        )
            except ProbeError:
                self.release(groups)
                raise
            masks = tuple(1 << self._bits[one] for one in groups)
        if groups:
            try:
                self.changed()
            except ProbeError:
                self.release(groups)
                raise
        return masks

    def release(self, groups: Sequence[Group]) -> None:
        """Forget the filters of a policy that is gone."""
        with self._lock:
            self._uses.subtract(groups)
            for one in dict.fromkeys(groups):
                if self._uses[one] <= 0:
                    del self._uses[one]
                    self._bits.pop(one, None)

    def active(self) -> dict[Group, int]:
        """Return the mask of each filter in use."""
        with self._lock:
            return {one: 1 << bit for one, bit in self._bits.items()}
