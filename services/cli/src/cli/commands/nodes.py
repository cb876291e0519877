"""``tetra nodes``."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from cli.arguments import server_options
from cli.terminal import Fit, Output, terminal_width, visible
from cli.timestamps import duration_text

if TYPE_CHECKING:
    from tetra.v1.node_pb2 import NodeInfo

HELP = "list the hosts that events come from"
DESCRIPTION = """List every node that the gateway heard of: whether it is alive, how long ago it
was last heard of, its processes, the events it told and how many a second, what it lost.

examples:
  tetra nodes
  tetra nodes -o json | jq 'select(.alive | not).node_name'
"""

_HEADS = ("NODE", "STATE", "SEEN", "PROCS", "EVENTS", "RATE", "LOST", "VERSION", "KERNEL")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="[text]")


def run(args: argparse.Namespace) -> int:
    """Print the nodes."""
    from cli.client import Client

    with Client(server_options(args)) as client:
        nodes = sorted(client.nodes(), key=lambda node: node.node_name)
    if args.output == "json":
        from eventjson import JsonEncoder

        encode = JsonEncoder(extensions=True).encode
        print("".join(encode(node) + "\n" for node in nodes), end="")
        return 0
    output = Output.stdout()
    width, fit = terminal_width(), Fit(unicode=output.unicode)
    lines = table([_HEADS, *(_row(node, time.time()) for node in nodes)])
    output.write("".join((fit(line, width) if width else line) + "\n" for line in lines))
    return 0


def _row(node: NodeInfo, now_s: float) -> tuple[str, ...]:
    lost = sum(node.loss.by_cause.values())
    seen_s = node.last_seen.ToNanoseconds() / 1e9
    return (
        visible(node.node_name),
        "alive" if node.alive else "silent",
        duration_text(now_s - seen_s) if seen_s else "-",
        str(node.processes),
        str(node.events_total),
        f"{node.events_per_second:.1f}/s",
        str(lost),
        visible(node.collector_version) or "-",
        visible(node.kernel) or "-",
    )


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Return lines with columns aligned on the left, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
