"""``tetra status``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.server_flags import server_options
from cli.terminal import visible


def run(args: Args) -> int:
    """Print the health status."""
    from cli.client import Client
    from tetragon.tetragon_pb2 import HEALTH_STATUS_ERROR, HEALTH_STATUS_RUNNING

    with Client(server_options(args)) as client:
        statuses = client.health()
    if not statuses:
        print("Health Status: no status available")
        return 1
    print(f"Health Status: {visible(statuses[0].details)}")
    for status in statuses[1:]:
        if status.status == HEALTH_STATUS_ERROR:
            print(visible(status.details))
    return 0 if statuses[0].status == HEALTH_STATUS_RUNNING else 1


COMMAND = Command(
    "status",
    run,
    summary="print the health of the server",
    text="""Ask the server for its health. Exit code 0: it is running. 1: it is not, or no server
answers. Below it stand nodes that need attention: those whose events do not reach the stream, and
those whose name two hosts use.

examples:
  tetra status
  tetra status --server-address gateway.example:54321 --timeout 2s
""",
)
