"""``tetra profile diff``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cli.command import Args, Command
from cli.errors import NotSeenError
from cli.flags import Flag
from cli.profiles.flags import subject_argument, window_flags
from cli.server_flags import server_options
from cli.terminal import Output, notice, visible
from cli.values import TIME

if TYPE_CHECKING:
    from cli.profiles.model import Profile


def run(args: Args) -> int:
    """Print what is new since a time; return 1 if something is."""
    from google.protobuf.timestamp_pb2 import Timestamp

    from cli.client import Client
    from cli.profiles.collect import collect

    new = args.new
    if new is None:
        new = Timestamp()
        new.FromSeconds(int(time.time()) - 86_400)
    with Client(server_options(args)) as client:
        (before,) = collect(client, [args.subject], args.since, new, nodes=args.node)
        (after,) = collect(client, [args.subject], new, nodes=args.node)
    if not before.instances and not after.instances:
        raise NotSeenError(args.subject)
    if not before.instances:
        notice("the stream has no events of it before that time: everything is new")
    elif not after.instances:
        notice("the stream has no events of it since that time")
    lines = list(differences(before, after))
    Output.stdout().write("".join(f"{line}\n" for line in lines) or "nothing new\n")
    return 1 if lines else 0


def differences(before: Profile, after: Profile) -> Iterator[str]:
    """Yield what ``after`` has and ``before`` has not, a line each."""
    pairs: tuple[tuple[str, Iterable[str], Iterable[str]], ...] = (
        ("starts", before.started, after.started),
        ("reads in", before.read, after.read),
        ("writes in", before.written, after.written),
        ("connects to", before.connected, after.connected),
        ("listens on", before.listened, after.listened),
        ("capability", before.capabilities, after.capabilities),
        ("system call", before.syscalls, after.syscalls),
        ("system call", before.compat_syscalls, after.compat_syscalls),
    )
    for title, old, new in pairs:
        yield from (f"+ {title} {visible(name)}" for name in sorted(set(new) - set(old)))


COMMAND = Command(
    "diff",
    run,
    summary="show what a program or container has done for the first time",
    text="""Show what a program or container has done since a given time, but never before in the
stream. Exit code 0: nothing is new. 1: something is. 3: the stream has no events of it.

examples:
  tetra profile diff /usr/sbin/nginx --new 1d
  tetra profile diff web-1 --since 7d --new 14:00
""",
    params=[
        subject_argument(),
        Flag("--new", type=TIME, help="events since this time count as new [default: 1d]"),
        *window_flags(),
    ],
)
