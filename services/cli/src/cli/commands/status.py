"""``tetra status``."""

from __future__ import annotations

import argparse

from cli.arguments import server_options
from cli.terminal import visible

HELP = "tell whether the server is well"
DESCRIPTION = """Ask the server for its health. Exit code 0 means that it runs, 1 that it does not.

examples:
  tetra status
  tetra status --server-address gateway.example:54321 --timeout 2s
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare no flags of its own."""


def run(args: argparse.Namespace) -> int:
    """Print the health status."""
    from cli.client import Client
    from tetragon.tetragon_pb2 import HEALTH_STATUS_RUNNING

    with Client(server_options(args)) as client:
        statuses = client.health()
    if not statuses:
        print("Health Status: no status available")
        return 1
    print(f"Health Status: {visible(statuses[0].details)}")
    return 0 if statuses[0].status == HEALTH_STATUS_RUNNING else 1
