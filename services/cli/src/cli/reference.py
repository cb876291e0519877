"""Write the reference part of docs/cli.md: ``python -m cli.reference docs/cli.md``.

The part above the marker is written by hand and stays.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from cli.commands import tetra

MARKER = "<!-- below: python -m cli.reference docs/cli.md -->\n"


def reference() -> str:
    """Return every command with its description and flags as Markdown."""
    group = tetra()
    ctx = click.Context(group, info_name="tetra")
    parts = ["\n## Flags of every command\n", _flags(group.get_params(ctx), ctx)]
    shared = {option for param in group.params for option in param.opts}
    parts += _commands(group, ctx, shared)
    return "".join(parts)


def _commands(group: click.Group, ctx: click.Context, shared: set[str]) -> Iterator[str]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=ctx)
        text, _, examples = (command.help or "").partition("\nexamples:\n")
        level = "#" * inner.command_path.count(" ")
        yield f"\n#{level} {inner.command_path}\n\n{text.strip()}\n"
        shown = "\n".join(line.removeprefix("  ") for line in examples.rstrip().splitlines())
        yield f"\n```sh\n{shown}\n```\n"
        yield _flags((p for p in command.params if not shared & {*p.opts}), inner)
        if isinstance(command, click.Group) and _differ(command, inner):
            yield from _commands(command, inner, shared)


def _differ(group: click.Group, ctx: click.Context) -> bool:
    """Return whether the commands of a group have descriptions of their own."""
    commands = (group.get_command(ctx, name) for name in group.list_commands(ctx))
    return any(command is not None and command.help != group.help for command in commands)


def _flags(params: Iterable[click.Parameter], ctx: click.Context) -> str:
    rows = []
    for param in params:
        if isinstance(param, click.Option):
            meaning = (param.help or "").replace("|", "\\|")
            rows.append(f"| {_names(param, ctx)} | {meaning} |\n")
    return "\n| flag | meaning |\n|---|---|\n" + "".join(rows) if rows else ""


def _names(option: click.Option, ctx: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if isinstance(option.type, click.Choice):
        return f"{names} {', '.join(f'`{choice}`' for choice in option.type.choices)}"
    metavar = "" if option.is_flag else option.make_metavar(ctx)
    return f"{names} {metavar}".rstrip().replace("|", "\\|")


def main() -> int:
    """Rewrite the part below the marker in the file named on the command line."""
    page = Path(sys.argv[1])
    above, _, _ = page.read_text().partition(MARKER)
    page.write_text(above + MARKER + reference())
    return 0


if __name__ == "__main__":
    sys.exit(main())
