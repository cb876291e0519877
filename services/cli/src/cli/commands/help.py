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
    command: click.Command = tetra()
    ctx = click.Context(command, info_name="tetra", **command.context_settings)
    for word in args.command:
        found = command.get_command(ctx, word) if isinstance(command, click.Group) else None
        if found is None:
            raise unknown_command(word, ctx)
        command = found
        ctx = click.Context(command, info_name=word, parent=ctx)
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
  tetra help tracingpolicy add
""",
    params=[click.Argument(["command"], type=_COMMAND, nargs=-1, metavar="[COMMAND...]")],
)
