"""``tetra help``."""

from __future__ import annotations

import click

from cli.command import Args, Command
from cli.commands import MODULES, tetra
from cli.usage import unknown_command
from cli.values import Value

_COMMAND = Value("COMMAND", example="getevents", known=lambda ctx: MODULES)


def run(args: Args) -> int:
    """Print the help text of ``tetra`` or of a command."""
    group = tetra()
    ctx = click.Context(group, info_name="tetra", **group.context_settings)
    if args.command is not None:
        command = group.get_command(ctx, args.command)
        if command is None:
            raise unknown_command(args.command, ctx)
        ctx = click.Context(command, info_name=args.command, parent=ctx)
    click.echo(ctx.get_help())
    return 0


COMMAND = Command(
    "help",
    run,
    summary="help on tetra or on a command",
    text="""Print the help text of tetra or of a command, the same as --help.

examples:
  tetra help
  tetra help getevents
""",
    params=[click.Argument(["command"], type=_COMMAND, required=False, metavar="[COMMAND]")],
)
