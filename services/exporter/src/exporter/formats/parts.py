"""What the mapped formats read from an event."""

from __future__ import annotations

import json
import shlex
from typing import Any

from eventfilters import Event
from eventjson.encoder import JsonEncoder
from exporter.selection import Selected

# Fields of a process that each format maps; ``argv`` repeats ``arguments``.
MAPPED = frozenset(
    ("exec_id", "pid", "uid", "binary", "arguments", "argv", "start_time", "docker", "tid",
     "user", "user_name")
)  # fmt: skip
_FAMILY = ("process", "parent")
_OF_EVENT = ("aggregation_info", "cluster_name", "node_labels")

_encoder = JsonEncoder(extensions=True)


class Parts:
    """One event, taken apart."""

    def __init__(self, selected: Selected) -> None:
        event = Event(None, selected.message)
        self.message = selected.message
        self.id = selected.id
        self.time_ns = selected.time_ns
        self.node: str = selected.message.node_name
        self.cluster: str = selected.message.cluster_name
        self.kind: str = event.kind or "event"
        self.count: int = selected.message.aggregation_info.count
        self.inner: Any = event.inner
        self.process: Any = event.process
        self.parent: Any = event.parent

    def rest(self, mapped: frozenset[str]) -> dict[str, Any]:
        """Return the facts that a format has no field for, in the JSON form of events.

        ``mapped``: the fields of a process, and of its parent, that the format has.
        """
        if self.inner is None:
            return {}
        found: dict[str, Any] = json.loads(_encoder.encode(self.inner))
        for name in _FAMILY:
            process = found.pop(name, {})
            if more := {key: value for key, value in process.items() if key not in mapped}:
                found[name] = more
        for name in _OF_EVENT:
            if (text := _encoder.field(self.message, name)) is not None:
                found[name] = json.loads(text)
        return found


def milliseconds(time_ns: int) -> int:
    """Return ``time_ns`` in milliseconds since 1970."""
    return time_ns // 1_000_000


def name_of(path: str) -> str:
    """Return the last name in ``path``."""
    return path.rpartition("/")[2] or path


def command_line(process: Any) -> str:
    """Return program and arguments as a shell would take them."""
    return f"{process.binary} {process.arguments}".rstrip()


def arguments(process: Any) -> list[str]:
    """Return program and arguments; an argument with a space in it is quoted in the event."""
    try:
        return [process.binary, *shlex.split(process.arguments)]
    except ValueError:  # cut off within quotes
        return [process.binary, *process.arguments.split()]


def user_name(process: Any) -> str:
    """Return the name of the process's user, where it is known."""
    return str(process.user.name or process.user_name)


def container(process: Any) -> dict[str, str]:
    """Return id, name, image id and image name of the process's container, where known."""
    if process.HasField("pod") and process.pod.HasField("container"):
        found = process.pod.container
        values = {
            "id": found.id.rpartition("//")[2],
            "name": found.name,
            "image_id": found.image.id,
            "image": found.image.name,
        }
    else:
        found = process.container_info
        values = {"id": found.id or process.docker, "name": found.name, "image": found.image}
    return {name: value for name, value in values.items() if value}


def dumps(value: dict[str, Any]) -> str:
    """Return ``value`` as one line of JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
