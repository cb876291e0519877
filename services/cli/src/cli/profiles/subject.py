"""Whose profile it is: an executable by its path, or a container by name, id or pod."""

from __future__ import annotations

import re
from typing import NamedTuple

from cli.processes import parent_of, place_of, process_of
from tetragon.events_pb2 import EventType, Filter, GetEventsResponse
from tetragon.tetragon_pb2 import Process

_LEAST_ID = 8  # characters of a container's id that are enough to name it


class Subject(NamedTuple):
    """A text that begins with a slash is an executable, any other text a container."""

    name: str

    @property
    def is_executable(self) -> bool:
        return self.name.startswith("/")

    def filters(self) -> list[Filter]:
        """Return filters that together match every event about the subject."""
        exact = f"^{re.escape(self.name)}$"
        if self.is_executable:
            started = Filter(parent_binary_regex=[exact], event_set=[EventType.PROCESS_EXEC])
            return [Filter(binary_regex=[exact]), started]
        found = [Filter(container_name_regex=[exact])]
        namespace, slash, pod = self.name.partition("/")
        if slash:
            found.append(Filter(namespace=[namespace], pod_regex=[f"^{re.escape(pod)}$"]))
        if len(self.name) >= _LEAST_ID and re.fullmatch("[0-9a-f]+", self.name):
            found.append(Filter(container_id=[f"^{self.name}"]))
        return found

    def owns(self, process: Process) -> bool:
        """Return whether the process is the executable's, or in the container."""
        if self.is_executable:
            return process.binary == self.name
        container = process.pod.container if process.HasField("pod") else None
        return (
            place_of(process) == self.name
            or (container is not None and container.name == self.name)
            or (len(self.name) >= _LEAST_ID and process.docker.startswith(self.name))
        )

    def started_by(self, event: GetEventsResponse) -> bool:
        """Return whether the subject started the process of an exec event."""
        parent = parent_of(event)
        process = process_of(event)
        if not self.is_executable:
            return process is not None and self.owns(process)
        # An exec of the same process replaces the subject; its own first exec is no start.
        return parent is not None and parent.binary == self.name
