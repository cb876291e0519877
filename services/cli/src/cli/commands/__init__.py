"""The commands of ``tetra``, one module each with a `COMMAND`.

Modules import what is slow (gRPC, messages, the terminal library) inside ``run``, so that
``tetra version`` does not import the libraries of ``tetra top``.
"""

from __future__ import annotations

import click

from cli import __version__
from cli.command import Group
from cli.flags import Flag
from cli.server_flags import given_server_flags

_NAMES = (
    "getevents",
    "tree",
    "top",
    "nodes",
    "policies",
    "tracingpolicy",
    "profile",
    "verify",
    "status",
    "info",
    "version",
    "loglevel",
    "eventlog",
    "doctor",
    "completion",
    "help",
)
MODULES = {name: f"cli.commands.{name}:COMMAND" for name in _NAMES}
COMPLETION_VARIABLE = "_TETRA_COMPLETE"

_TEXT = """Report every process start and exit on one host or on all hosts.

examples:
  tetra getevents                              every process, live
  tetra getevents --process '^/usr/bin/ssh'    only binaries that match
  tetra getevents --last 100 --no-follow       the last 100 events
  tetra getevents -o json | jq .process_exec   for scripts
  tetra top                                    which programs start and end most
  tetra tree                                   each process under its parent
  tetra tracingpolicy add policy.yaml          report more: a policy on every node
  sudo tetra doctor                            can this host run the collector?
  tetra --server-address gw.example:54321 status
"""
_EPILOG = """Environment:
  TETRA_SERVER_ADDRESS   default of --server-address
  TETRA_TOKEN            token for a gateway that requires one, instead of --token-file
  NO_COLOR, TERM=dumb    no colours, except with --color always

Exit codes: 0 done, 1 failed (no server, broken stream), 2 wrong command line,
3 verify: events are missing or duplicated; tracingpolicy diff: the file differs

Help on a command: tetra COMMAND --help
"""


def tetra() -> Group:
    """Return the whole command line."""
    return Group(
        "tetra",
        MODULES,
        summary="",
        text=_TEXT,
        epilog=_EPILOG,
        aliases={"log": "loglevel", "tp": "tracingpolicy"},  # Tetragon's own
        params=[_version_flag()],
    )


def is_debug(ctx: click.Context) -> bool:
    """Return whether tracebacks were asked for."""
    return bool(given_server_flags(ctx)["debug"])


def _version_flag() -> click.Option:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(f"CLI version: {__version__}")
            ctx.exit()

    return Flag(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="the same as tetra version",
    )
