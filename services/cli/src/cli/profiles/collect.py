"""Profiles from the stream's past, over all nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.profiles.model import Profile
from cli.profiles.subject import Subject

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from cli.client import Client

_DEPTH = 4  # executables that start executables


def collect(
    client: Client,
    name: str,
    since: Timestamp | None,
    until: Timestamp | None = None,
    nodes: list[str] | None = None,
) -> Profile:
    """Return the profile of one subject."""
    from tetra.v1.stream_pb2 import StreamEventsRequest

    profile = Profile(Subject(name))
    request = StreamEventsRequest(
        allow_list=profile.subject.filters(), no_follow=True, nodes=nodes or [], until=until
    )
    if since is not None:
        request.since.CopyFrom(since)
    else:
        request.since.FromSeconds(1)  # the whole stream
    for batch in client.stream(request):
        profile.take(batch)
    return profile


def with_started(client: Client, profile: Profile, **window: Any) -> list[Profile]:
    """Return the profile and those of the executables that it started, and that they started.

    A filter on system calls is inherited: it has to allow what they need.
    """
    found = {profile.subject.name: profile}
    wanted = list(profile.started) if profile.subject.is_executable else []
    for _ in range(_DEPTH):
        fresh = [name for name in wanted if name.startswith("/") and name not in found]
        wanted = []
        for name in fresh:
            found[name] = collect(client, name, **window)
            wanted += found[name].started
    return list(found.values())
