"""What the mapped formats read from an event."""

from __future__ import annotations

import json
import shlex
from typing import Any

from eventfilters import Event
from eventjson.encoder import JsonEncoder
from exporter.selection import Selected

# Members of an event's message that the formats map, or that repeat what they have.
_MAPPED = frozenset({"process", "parent", "ancestors"})

_encoder = JsonEncoder()


class Parts:
    """One event, taken apart."""

    def __init__(self, selected: Selected) -> None:
        event = Event(None, selected.message)
        self.id = selected.id
        self.time_ns = selected.time_ns
        self.node: str = selected.message.node_name
        self.cluster: str = selected.message.cluster_name
        self.kind: str = event.kind or "event"
        self.inner: Any = event.inner
        self.process: Any = event.process
        self.parent: Any = event.parent

    def rest(self) -> dict[str, Any]:
        """Return what no field of a format is for, in Tetragon's JSON form."""
        if self.inner is None:
            return {}
        found: dict[str, Any] = json.loads(_encoder.encode(self.inner))
        kept = {name: value for name, value in found.items() if name not in _MAPPED}
        if self.process is not None:
            process = json.loads(_encoder.encode(self.process))
            more = {
                name: process[name] for name in ("flags", "cap", "ns", "auid") if name in process
            }
            kept |= {"process": more} if more else {}
        return kept


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
        values = {"id": process.docker}
    return {name: value for name, value in values.items() if value}


def dumps(value: dict[str, Any]) -> str:
    """Return ``value`` as one line of JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
