"""``tetra completion``."""

from __future__ import annotations

import click

from cli.command import Args, Command
from cli.commands import COMPLETION_VARIABLE, tetra
from cli.values import Choice


def run(args: Args) -> int:
    """Print the script. It calls ``tetra`` for every word that it completes."""
    from click.shell_completion import get_completion_class

    completer = get_completion_class(args.shell)
    assert completer is not None  # one of the three below
    click.echo(completer(tetra(), {}, "tetra", COMPLETION_VARIABLE).source(), nl=False)
    return 0


COMMAND = Command(
    "completion",
    run,
    summary="print a completion script for a shell",
    text="""Print a completion script for bash, zsh or fish. It completes commands, flags, file
names, words such as those of --output, and the names of nodes that the gateway knows.

examples:
  source <(tetra completion bash)                                  in ~/.bashrc
  tetra completion zsh > "${fpath[1]}/_tetra"
  tetra completion fish > ~/.config/fish/completions/tetra.fish
""",
    params=[click.Argument(["shell"], type=Choice("bash", "zsh", "fish"), metavar="SHELL")],
)
