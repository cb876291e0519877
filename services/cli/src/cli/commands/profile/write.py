"""``tetra profile write``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.command import Args, Command
from cli.errors import NotSeenError, TetraError
from cli.flags import Flag
from cli.profiles.flags import subjects_argument, window_flags
from cli.server_flags import server_options
from cli.terminal import Output, notice
from cli.values import Choice

if TYPE_CHECKING:
    from cli.profiles.model import Profile


def run(args: Args) -> int:
    """Print the profile in the form that was asked for, and its certainty on stderr."""
    from cli.client import Client
    from cli.profiles.collect import beginning_ns, collect, with_started
    from cli.profiles.forms import FORMS
    from cli.profiles.notices import notices
    from cli.profiles.text import certainty

    window = {"since": args.since, "nodes": args.node}
    with Client(server_options(args)) as client:
        begins_ns = beginning_ns(client, args.since, args.node)
        named = collect(client, list(dict.fromkeys(args.subject)), **window)
        for profile in named:
            _check(profile)
        profiles = with_started(client, named, **window)
    form = getattr(args, "as")
    Output.stdout(exact=True).write(FORMS[form](profiles, len(named)))
    for profile in named:
        prefix = f"{profile.subject.name}: " if len(named) > 1 else ""
        for line in certainty(profile, begins_ns)[2:]:
            notice(prefix + line.strip())
    for line in notices(form, profiles, len(named)):
        notice(line)
    if any(one.compat_syscalls for one in profiles):
        notice("calls of 32-bit programs are left out, and would be refused")
    if started := profiles[len(named) :]:
        notice(f"with what it starts: {', '.join(one.subject.name for one in started)}")
    return 0


def _check(profile: Profile) -> None:
    name = profile.subject.name
    if not profile.instances:
        raise NotSeenError(name)
    if not profile.syscalls:
        raise TetraError(
            f"profile: {name}: the stream has no system call of it: run tetra policies "
            f"enable syscalls, then start it again"
        )


COMMAND = Command(
    "write",
    run,
    summary="write a security profile",
    text="""Write a profile that the program runs under, to stdout: system calls that it and the
executables that it starts have used, for systemd capabilities and written directories too. The
evidence is printed on stderr. In rare situations, such as errors, a program needs system calls that
it has not used yet: load the tracing policy first. It reports what the other forms would refuse.

A drop-in of systemd holds for every command of the unit, also for those that stop and reload it:
name the unit, or all executables that systemctl cat shows. Stop and reload it once before.

examples:
  tetra profile write /usr/sbin/nginx --as seccomp > nginx.json
  tetra profile write nginx.service --as systemd > nginx.service.d/profile.conf
  tetra profile write /usr/sbin/nginx /sbin/start-stop-daemon --as systemd
  tetra profile write /usr/sbin/nginx --as tracingpolicy | tetra tracingpolicy add -
""",
    params=[
        subjects_argument(),
        Flag(
            "--as",
            type=Choice("seccomp", "systemd", "tracingpolicy"),
            required=True,
            help="format of the profile",
        ),
        *window_flags(),
    ],
)
