"""``tetra policies``: the ready-made policies, one command each."""

from __future__ import annotations

import click

from cli.command import Group

_HERE = "cli.commands.policies"


class _Policies(Group):
    """Without a command: the list."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``list`` before flags that stand alone."""
        flags = bool(args) and args[0].startswith("-") and args[0] not in ("-h", "--help")
        return super().parse_args(ctx, ["list", *args] if not args or flags else args)


COMMAND = _Policies(
    "policies",
    {name: f"{_HERE}.{name}:COMMAND" for name in ("list", "enable", "disable", "explain")},
    summary="ready-made policies: files, network, credentials, host",
    text="""Ready-made policies report who opens and changes files, who talks to whom, who changes
credentials, and who changes the host. Each is enabled with one command, on every node, now and
whenever a node joins.

examples:
  tetra policies                               all of them, and which are enabled
  tetra policies explain files                 what it reports and misses, its parameters
  tetra policies enable files network
  tetra policies enable files --set paths=/etc,/srv --node 'web-*'
  tetra policies disable network
""",
)
