"""``tetra eventlog``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.command import Args, Command, Group
from cli.errors import UnsupportedError, UsageError
from cli.flags import Flag
from cli.server_flags import server_options

if TYPE_CHECKING:
    from cli.client import Client

_EXPORTER = "--server-address unix:///run/tetra-exporter/api.sock"
_TEXT = """Show or set the rotation of the file that tetra-exporter writes, as in Tetragon.

--server-address is the exporter's TETRA_EVENT_LOG_ADDRESS. A change lasts until the exporter ends;
its settings or sinks.yaml make it permanent.

examples:
  tetra eventlog get --server-address unix:///run/tetra-exporter/api.sock
  tetra eventlog set --server-address unix:///run/tetra-exporter/api.sock --max-size 100
"""


@contextmanager
def _exporter(args: Args) -> Iterator[Client]:
    """Connect; an error of a server that is no exporter says which address is meant."""
    from cli.client import Client

    with Client(server_options(args)) as client:
        try:
            yield client
        except UnsupportedError as error:
            raise UsageError(
                f"{error}: a gateway has no export file; the exporter answers, at the address that "
                "its TETRA_EVENT_LOG_ADDRESS names",
                _EXPORTER,
            ) from None


def _get(args: Args) -> int:
    """Print the parameters."""
    with _exporter(args) as client:
        now = client.event_log_params()
    print(
        f"Current logging parameters: max_size:{now.max_size} "
        f'rotation_interval:"{now.rotation_interval}" max_backups:{now.max_backups}'
    )
    return 0


def _set(args: Args) -> int:
    """Set the parameters that were given."""
    from tetragon.eventlogservice_pb2 import SetEventLogParamsRequest

    request = SetEventLogParamsRequest(
        max_size=args.max_size,
        rotation_interval=args.rotation_interval,
        max_backups=args.max_backups,
    )
    if not request.ListFields():
        raise UsageError("eventlog set: no flag is given", f"{_EXPORTER} --max-size 100")
    with _exporter(args) as client:
        client.set_event_log_params(request)
    print("Logging parameters set")
    return 0


GET = Command(
    "get",
    _get,
    summary="print the parameters",
    text="""Print the rotation of the file that tetra-exporter writes.

--server-address is the exporter's TETRA_EVENT_LOG_ADDRESS.

examples:
  tetra eventlog get --server-address unix:///run/tetra-exporter/api.sock
""",
)
SET = Command(
    "set",
    _set,
    summary="set parameters",
    text="""Set the rotation of the file that tetra-exporter writes.

--server-address is the exporter's TETRA_EVENT_LOG_ADDRESS. A change lasts until the exporter ends;
its settings or sinks.yaml make it permanent.

examples:
  tetra eventlog set --server-address unix:///run/tetra-exporter/api.sock --max-size 100
""",
    params=[
        Flag("--max-size", type=int, metavar="MB", help="rotate at this size; 0: never"),
        Flag(
            "--rotation-interval", metavar="DURATION", help="rotate this often, 1h0m0s; 0s: never"
        ),
        Flag("--max-backups", type=int, metavar="N", help="files to keep; 0: all"),
    ],
)
COMMAND = Group(
    "eventlog",
    {"get": f"{__name__}:GET", "set": f"{__name__}:SET"},
    summary="show or set the rotation of the export file",
    text=_TEXT,
)
