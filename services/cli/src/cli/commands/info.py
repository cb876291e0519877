"""``tetra info``."""

from __future__ import annotations

import json
from typing import Any

from cli.command import Args, Command
from cli.server_flags import server_options
from cli.terminal import Output


def run(args: Args) -> int:
    """Print name, version, probes, settings and build of the server."""
    from cli.client import Client

    with Client(server_options(args)) as client:
        info = client.info()
    build = info.build
    line = {
        "Name": info.name,
        "Version": info.version,
        "Probes": {probe.Name: probe.Enabled.value for probe in info.probes},
        "Conf": {entry.key: _setting(entry.value) for entry in info.conf},
        "Build": {
            "GoVersion": build.go_version,
            "Commit": build.commit,
            "Time": build.time,
            "Modified": build.modified,
        },
    }
    # Escaped to ASCII: a setting must not reach the terminal as a control sequence.
    Output.stdout().write(json.dumps(line).replace("\x7f", "\\u007f") + "\n")
    return 0


def _setting(value: Any) -> object:
    """Return the value in a google.protobuf.Any; None for a type that servers do not send."""
    from google.protobuf import json_format
    from google.protobuf.struct_pb2 import ListValue
    from google.protobuf.wrappers_pb2 import BoolValue, Int64Value, StringValue

    for kind in (StringValue, BoolValue, Int64Value):
        holder = kind()
        if value.Unpack(holder):
            return holder.value
    listed = ListValue()
    return json_format.MessageToDict(listed) if value.Unpack(listed) else None


COMMAND = Command(
    "info",
    run,
    summary="print the server's build, probes and settings as JSON",
    text="""Print one line of JSON: Name, Version, Probes, Conf, Build.

examples:
  tetra info
  tetra info | jq .Conf
""",
)
