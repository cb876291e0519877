"""``tetra profile show``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.profiles.flags import subject_argument, window_flags
from cli.server_flags import server_options
from cli.terminal import Output


def run(args: Args) -> int:
    """Print the profile."""
    from cli.client import Client
    from cli.profiles.collect import beginning_ns, collect
    from cli.profiles.text import text

    with Client(server_options(args)) as client:
        begins_ns = beginning_ns(client, args.since, args.node)
        (profile,) = collect(client, [args.subject], args.since, nodes=args.node)
    Output.stdout().write(text(profile, begins_ns))
    return 0 if profile.instances else 1


COMMAND = Command(
    "show",
    run,
    summary="show what a program or container did",
    text="""Show what a program (by the path that it was started by), a systemd unit (nginx.service)
or a container (by name, id or namespace/pod) did: executables started, files by directory, peers,
capabilities, system calls, with the evidence: time, instances, losses, policies that reported
nothing.

examples:
  tetra profile show /usr/sbin/nginx --since 7d
  tetra profile show web-1
""",
    params=[subject_argument(), *window_flags()],
)
