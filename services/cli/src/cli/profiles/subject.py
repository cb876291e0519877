"""Whose profile it is: an executable by its path, a systemd unit, or a container."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from cli.processes import parent_of, place_of, process_of
from tetragon.events_pb2 import EventType, Filter, GetEventsResponse
from tetragon.tetragon_pb2 import Process

_LEAST_ID = 8  # characters of a container's id that are enough to name it
_UNIT = re.compile(r"[^/]+\.(?:service|scope|socket|mount|swap)")
# What systemd starts in the unit's cgroup to become a command of the unit: systemd-executor, by a
# descriptor or by its path ("core: add systemd-executor binary", v255).
_EXECUTOR = re.compile(r"/proc/self/fd/\d+|(?:/usr)?/lib/systemd/systemd(?:-executor)?")


def filters(subjects: Sequence[Subject]) -> list[Filter]:
    """Return filters of which one matches each event that says something of a subject."""
    exact = [f"^{re.escape(one.name)}$" for one in subjects if one.is_executable]
    found = _of_executables(exact) if exact else []
    for one in subjects:
        if not one.is_executable:
            found += one.filters()
    return found


def _of_executables(exact: list[str]) -> list[Filter]:
    started = Filter(parent_binary_regex=exact, event_set=[EventType.PROCESS_EXEC])
    return [Filter(binary_regex=exact), started]


class Subject(NamedTuple):
    """A text that begins with a slash is an executable, any other text a unit or a container."""

    name: str

    @property
    def is_executable(self) -> bool:
        return self.name.startswith("/")

    @property
    def is_unit(self) -> bool:
        return _UNIT.fullmatch(self.name) is not None

    def filters(self) -> list[Filter]:
        """Return filters that together match every event about the subject."""
        exact = f"^{re.escape(self.name)}$"
        if self.is_executable:
            return _of_executables([exact])
        found = [Filter(container_name_regex=[exact])]
        namespace, slash, pod = self.name.partition("/")
        if slash:
            found.append(Filter(namespace=[namespace], pod_regex=[f"^{re.escape(pod)}$"]))
        if self.is_unit:
            found.append(Filter(unit=[self.name]))
        if len(self.name) >= _LEAST_ID and re.fullmatch("[0-9a-f]+", self.name):
            found.append(Filter(container_id=[f"^{self.name}"]))
        return found

    def owns(self, process: Process) -> bool:
        """Return whether the process is the executable's, of the unit, or in the container."""
        if self.is_executable:
            return process.binary == self.name
        container = process.pod.container if process.HasField("pod") else None
        return (
            (self.is_unit and self._is_of_unit(process))
            or place_of(process) == self.name
            or (container is not None and container.name == self.name)
            or (len(self.name) >= _LEAST_ID and process.docker.startswith(self.name))
        )

    def _is_of_unit(self, process: Process) -> bool:
        unit = process.host_unit
        if self.name not in (unit.unit, unit.user_unit):
            return False
        return not (_EXECUTOR.fullmatch(process.binary) and "--deserialize" in process.arguments)

    def started_by(self, event: GetEventsResponse) -> bool:
        """Return whether the subject started the process of an exec event."""
        parent = parent_of(event)
        process = process_of(event)
        if not self.is_executable:
            return process is not None and self.owns(process)
        # An exec of the same process replaces the subject; its own first exec is no start.
        return parent is not None and parent.binary == self.name
