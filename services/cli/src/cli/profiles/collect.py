"""Profiles from the stream's past, over all nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cli.processes import process_of
from cli.profiles.model import Profile
from cli.profiles.subject import Subject, filters
from cli.timestamps import unix_ns

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from cli.client import Client

_DEPTH = 4  # executables that start executables
_AT_ONCE = 200  # executables: a gateway accepts 1,024 patterns, and each needs two


def collect(
    client: Client,
    names: Sequence[str],
    since: Timestamp | None,
    until: Timestamp | None = None,
    nodes: list[str] | None = None,
) -> list[Profile]:
    """Return the profiles of some subjects, from one reading of the stream."""
    from tetra.v1.stream_pb2 import StreamEventsRequest

    profiles = [Profile(Subject(name)) for name in names]
    request = StreamEventsRequest(
        allow_list=filters([one.subject for one in profiles]),
        no_follow=True,
        nodes=nodes or [],
        until=until,
    )
    if since is not None:
        request.since.CopyFrom(since)
    else:
        request.since.FromSeconds(1)  # the whole stream
    for batch in client.stream(request):
        for profile in profiles:
            profile.take(batch)
    return profiles


def beginning_ns(client: Client, since: Timestamp | None, nodes: list[str] | None = None) -> int:
    """Return the time of the first event that the stream still has since then; 0 if none."""
    from tetra.v1.stream_pb2 import StreamEventsRequest

    request = StreamEventsRequest(no_follow=True, nodes=nodes or [])
    if since is not None:
        request.since.CopyFrom(since)
    else:
        request.since.FromSeconds(1)
    for batch in client.stream(request):
        for event in batch.events:
            process = process_of(event)
            # Of one that ran when its collector started the time is that of its own start.
            if process is None or "procFS" not in process.flags:
                return unix_ns(event.time)
    return 0


def with_started(client: Client, named: Sequence[Profile], **window: Any) -> list[Profile]:
    """Return the profiles and those of the executables that they started, and those started.

    A filter on system calls is inherited: it has to allow what they need. A unit's executables may
    have used a call for the first time in another unit; in a container they have not.
    """
    found = {one.subject.name: one for one in named}
    last = [one for one in named if one.subject.is_executable or one.subject.is_unit]
    for _ in range(_DEPTH):
        started = dict.fromkeys(name for one in last for name in one.started)
        fresh = [name for name in started if name.startswith("/") and name not in found]
        if not fresh:
            break
        last = [
            one
            for at in range(0, len(fresh), _AT_ONCE)
            for one in collect(client, fresh[at : at + _AT_ONCE], **window)
        ]
        found.update((one.subject.name, one) for one in last)
    return list(found.values())
