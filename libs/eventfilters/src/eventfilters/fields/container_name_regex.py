"""container_name_regex: any regex is found in the container's name.

The name is that of the pod's container, or the one that a container engine such as Docker reports.
Tetragon looks at pods only.
"""

from __future__ import annotations

from eventfilters import regex
from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.container_name_regex:
        return None
    found = regex.any_of("container_name_regex", wanted.container_name_regex, allowance)

    def match(event: Event) -> bool:
        process = event.process
        if process is None:
            return False
        return (process.HasField("pod") and found(process.pod.container.name)) or (
            process.HasField("container_info") and found(process.container_info.name)
        )

    return match
