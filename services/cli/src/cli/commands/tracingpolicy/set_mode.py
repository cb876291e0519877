"""``tetra tracingpolicy set-mode``."""

from __future__ import annotations

import click

from cli.command import Args, Command
from cli.policies.configuration import configure
from cli.policies.flags import MODES, comment_flag, mode_number, name_argument, policy_flags
from cli.values import Choice


def run(args: Args) -> int:
    """Set the mode."""
    from tetra.v1.policies_pb2 import ConfigurePolicyRequest

    request = ConfigurePolicyRequest(mode=mode_number(args.mode))
    configure(args, args.name, request, "set mode of", f'set to mode "{args.mode}"')
    return 0


COMMAND = Command(
    "set-mode",
    run,
    summary="set whether a policy acts or only reports",
    text="""Set whether a policy carries out its actions (enforce) or reports what it would do
(monitor). Takes effect at once: no program is loaded again. A policy without enforcement actions
has no mode.

examples:
  tetra tracingpolicy set-mode no-raw-sockets monitor
  tetra tracingpolicy set-mode no-raw-sockets enforce
""",
    params=[
        name_argument(),
        click.Argument(["mode"], type=Choice(*MODES), metavar="MODE"),
        *policy_flags(),
        comment_flag(),
    ],
)
