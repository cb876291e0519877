"""``tetra loglevel``."""

from __future__ import annotations

import click

from cli.command import Args, Command, Group
from cli.server_flags import server_options
from cli.values import Choice

_LEVELS = ("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic")


def _get(args: Args) -> int:
    """Print the level."""
    from cli.client import Client
    from tetragon.sensors_pb2 import LogLevel

    with Client(server_options(args)) as client:
        print(f"Current log level: {LogLevel.Name(client.log_level())}")
    return 0


def _set(args: Args) -> int:
    """Set the level."""
    from cli.client import Client
    from tetragon.sensors_pb2 import LogLevel

    name = {"warning": "WARN"}.get(args.level, args.level.upper())
    with Client(server_options(args)) as client:
        level = client.set_log_level(LogLevel.Value(f"LOG_LEVEL_{name}"))
        print(f"Log level set to: {LogLevel.Name(level)}")
    return 0


GET = Command(
    "get",
    _get,
    summary="print the level",
    text="""Print the log level of the server.

examples:
  tetra loglevel get
""",
)
SET = Command(
    "set",
    _set,
    summary="set the level",
    text=f"""Set the log level of the server until it ends: {", ".join(_LEVELS)}.

examples:
  tetra loglevel set debug
""",
    params=[click.Argument(["level"], type=Choice(*_LEVELS), metavar="LEVEL")],
)
COMMAND = Group(
    "loglevel",
    {"get": f"{__name__}:GET", "set": f"{__name__}:SET"},
    summary="show or set the log level of the server",
    text="""Show or set the log level of the server.

examples:
  tetra loglevel get
  tetra loglevel set debug
""",
)
