"""``tetra version``."""

from __future__ import annotations

from cli import __version__
from cli.command import Args, Command
from cli.flags import Flag
from cli.server_flags import server_options
from cli.terminal import visible


def run(args: Args) -> int:
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


COMMAND = Command(
    "version",
    run,
    summary="print the version of this client, and of the server",
    text="""Print the version of this client; with --server also that of the server.

examples:
  tetra version
  tetra version --server
  tetra version --build      for a bug report
""",
    params=[
        Flag("-s", "--server", is_flag=True, help="ask the server for its version"),
        Flag("-b", "--build", is_flag=True, help="print the versions of Python and libraries"),
    ],
)
