"""Profiles from the stream's past, over all nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cli.processes import process_of
from cli.profiles.family import Family
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
    family: Family | None = None,
) -> list[Profile]:
    """Return the profiles of some subjects, from one reading of the stream.

    ``family``: only what its processes did, and the facts that hold for them.
    """
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
        if family is not None:
            batch = batch._replace(events=[e for e in batch.events if family.concerns(e)])
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

    A filter on system calls is inherited: it has to allow what they need. Of a shell or interpreter
    that others start too, only what the processes that these subjects started did counts, and the
    facts of its container: a fact is reported for whichever process came first.
    """
    roots = [one for one in named if one.subject.is_executable or one.subject.is_unit]
    known = {one.subject.name for one in named}
    names = dict.fromkeys(name for one in roots for name in one.started if _is_fresh(name, known))
    family = Family([one.subject for one in roots])
    found: list[Profile] = []
    # Read again after the last new name: a fork's own events, and facts, may come behind what
    # depends on them.
    for turn in range(_DEPTH + 1):
        found = [
            one
            for chunk in _chunks(list(names))
            for one in collect(client, chunk, **window, family=family)
        ]
        started = dict.fromkeys(name for one in found for name in one.started)
        fresh = [name for name in started if _is_fresh(name, known) and name not in names]
        names.update(dict.fromkeys(fresh))
        if not fresh and turn:
            break
    return [*named, *found]


def _is_fresh(name: str, known: set[str]) -> bool:
    return name.startswith("/") and name not in known


def _chunks(names: list[str]) -> list[list[str]]:
    return [names[at : at + _AT_ONCE] for at in range(0, len(names), _AT_ONCE)]
