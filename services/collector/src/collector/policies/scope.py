"""Keeps the map of cgroups: which filters of policies select each container's processes.

Everything here happens in the threads that report cgroups, containers and policies: a change is in
the kernel when the call returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from collector.bpf.maps import BpfMap
from collector.metadata.containers import Containers
from collector.policies.cgroup_tree import Cgroup, CgroupTree, unified_root
from collector.policies.groups import Groups
from collector.policies.workloads import bits_of

_START_S = 0.5  # that a container may wait for its cgroup to be noticed
_LARGEST = 4096  # entries of the map: CGROUP_ENTRIES

log = structlog.get_logger()


class WatchedContainers(Containers, Protocol):
    """Containers that report changes."""

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with the id of each container that is new or changed."""

    def listen_start(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` before a container starts, which then waits for it."""


class Scope:
    """Writes a value for each cgroup of a container, while a filter is in use."""

    def __init__(
        self, groups: Groups, values: BpfMap, containers: WatchedContainers, procfs: Path
    ) -> None:
        self._groups = groups
        self._values = values
        self._containers = containers
        self._procfs = procfs
        self._lock = threading.Condition()  # notified of each new cgroup
        self._cgroups: dict[int, Cgroup] = {}
        self._by_container: dict[str, set[int]] = {}
        self._written: dict[int, int] = {}
        self._started = self._closed = self._full = False

    def update(self) -> None:
        """Bring the filters that are in use now into effect; raise `ProbeError`."""
        if not self._started:
            tree = CgroupTree(unified_root(self._procfs), self._found, self._gone)
            self._containers.listen(self._changed)
            self._containers.listen_start(self._wait_for)
            tree.start()
            self._started = True
        with self._lock:
            for cgroup in self._cgroups.values():
                self._write(cgroup)

    def close(self) -> None:
        """Stop writing: the map is about to be closed."""
        with self._lock:
            self._closed = True

    def _found(self, cgroup: Cgroup) -> None:
        self._containers.settled(cgroup.container_id)  # looked up, if it is not known yet
        with self._lock:
            self._cgroups[cgroup.id] = cgroup
            self._by_container.setdefault(cgroup.container_id, set()).add(cgroup.id)
            self._write(cgroup)
            self._lock.notify_all()

    def _wait_for(self, full_id: str) -> None:
        """Return when a container that is about to start has its value, or after a while."""
        with self._lock:
            self._lock.wait_for(lambda: self._closed or full_id in self._by_container, _START_S)

    def _gone(self, number: int) -> None:
        with self._lock:
            cgroup = self._cgroups.pop(number, None)
            if cgroup is None:
                return
            ids = self._by_container[cgroup.container_id]
            ids.discard(number)
            if not ids:
                del self._by_container[cgroup.container_id]
            if self._written.pop(number, 0) and not self._closed:
                self._values.delete(number.to_bytes(8, "little"))

    def _changed(self, full_id: str) -> None:
        with self._lock:
            for number in self._by_container.get(full_id, ()):
                self._write(self._cgroups[number])

    def _write(self, cgroup: Cgroup) -> None:
        info = self._containers.get(cgroup.container_id)
        bits = bits_of(cgroup.container_id, cgroup.parts, info, self._groups.active())
        if self._closed or self._written.get(cgroup.id, 0) == bits:
            return
        try:
            self._values.update(cgroup.id.to_bytes(8, "little"), bits.to_bytes(8, "little"))
            self._written[cgroup.id] = bits
        except OSError as error:
            if not self._full:
                self._full = True
                log.error(
                    "more cgroups of containers than policies can tell apart",
                    most=_LARGEST, error=error.strerror,
                )  # fmt: skip
