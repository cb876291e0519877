"""``tetra version``."""

from __future__ import annotations

import argparse

from cli import __version__
from cli.arguments import server_options
from cli.terminal import visible

HELP = "print the version of this client, and of the server"
DESCRIPTION = """Print the version of this client; with --server that of the server too.

examples:
  tetra version
  tetra version --server
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "-s", "--server", action="store_true", help="ask the server for its version"
    )
    parser.add_argument("-b", "--build", action="store_true", help="say what this client runs on")


def run(args: argparse.Namespace) -> int:
    """Print versions."""
    print(f"CLI version: {__version__}", flush=True)
    if args.build:
        import platform
        from importlib.metadata import version

        print(f"Python version: {platform.python_version()}")
        print(f"gRPC version: {version('grpcio')}")
        print(f"Protobuf version: {version('protobuf')}", flush=True)
    if args.server:
        from cli.client import Client

        with Client(server_options(args)) as client:
            print(f"Server version: {visible(client.version())}")
    return 0
