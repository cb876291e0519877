"""``tetra profile write``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.errors import NotSeenError, TetraError
from cli.flags import Flag
from cli.profiles.flags import subject_argument, window_flags
from cli.server_flags import server_options
from cli.terminal import Output, notice
from cli.values import Choice


def run(args: Args) -> int:
    """Print the profile in the form that was asked for, and its certainty on stderr."""
    from cli.client import Client
    from cli.profiles.collect import collect, with_started
    from cli.profiles.forms import FORMS
    from cli.profiles.text import certainty

    window = {"since": args.since, "nodes": args.node}
    with Client(server_options(args)) as client:
        profile = collect(client, args.subject, **window)
        profiles = with_started(client, profile, **window)
    if not profile.instances:
        raise NotSeenError(args.subject)
    if not profile.syscalls:
        raise TetraError(
            f"profile: {args.subject}: the stream has no system call of it: run tetra policies "
            f"enable syscalls, then start it again"
        )
    Output.stdout().write(FORMS[getattr(args, "as")](profiles))
    for line in certainty(profile)[2:]:
        notice(line.strip())
    if len(profiles) > 1:
        notice(f"with what it starts: {', '.join(one.subject.name for one in profiles[1:])}")
    return 0


COMMAND = Command(
    "write",
    run,
    summary="write a security profile",
    text="""Write a profile that the program runs under, to stdout: system calls that it and the
executables that it starts have used, for systemd capabilities and written directories too. The
evidence is printed on stderr. In rare situations, such as errors, a program needs system calls that
it has not used yet: load the tracing policy first. It reports what the other forms would refuse.

examples:
  tetra profile write /usr/sbin/nginx --as seccomp > nginx.json
  tetra profile write /usr/sbin/nginx --as systemd > nginx.service.d/profile.conf
  tetra profile write /usr/sbin/nginx --as tracingpolicy | tetra tracingpolicy add -
""",
    params=[
        subject_argument(),
        Flag(
            "--as",
            type=Choice("seccomp", "systemd", "tracingpolicy"),
            required=True,
            help="format of the profile",
        ),
        *window_flags(),
    ],
)
