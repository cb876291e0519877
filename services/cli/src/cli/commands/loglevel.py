"""``tetra loglevel``."""

from __future__ import annotations

import argparse

from cli.arguments import add_global_flags, server_options

HELP = "show or set how much the server logs"
DESCRIPTION = """Show or set how much the server logs.

examples:
  tetra loglevel get
  tetra loglevel set debug
"""
USAGE = "get|set LEVEL "
ALIASES = ("log",)  # the original's

_LEVELS = ("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the two verbs."""
    verbs = parser.add_subparsers(dest="verb", metavar="get|set", required=True)
    for verb, help in (("get", "print the level"), ("set", "set the level")):
        sub = verbs.add_parser(
            verb, prog=f"tetra loglevel {verb}", help=help, description=DESCRIPTION
        )
        if verb == "set":
            sub.add_argument("level", choices=_LEVELS, metavar="LEVEL", help=", ".join(_LEVELS))
        add_global_flags(sub, suppress=True)


def run(args: argparse.Namespace) -> int:
    """Print or set the level."""
    from cli.client import Client
    from tetragon.sensors_pb2 import LogLevel

    with Client(server_options(args)) as client:
        if args.verb == "get":
            print(f"Current log level: {LogLevel.Name(client.log_level())}")
        else:
            name = {"warning": "WARN"}.get(args.level, args.level.upper())
            level = client.set_log_level(LogLevel.Value(f"LOG_LEVEL_{name}"))
            print(f"Log level set to: {LogLevel.Name(level)}")
    return 0
