"""``tetra nodes``."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from cli.arguments import server_options
from cli.terminal import visible
from cli.timestamps import duration_text

if TYPE_CHECKING:
    from tetra.v1.node_pb2 import NodeInfo

HELP = "list the hosts that events come from"
DESCRIPTION = """List every node that the gateway heard of, with what it lost.

examples:
  tetra nodes
  tetra nodes -o json | jq 'select(.alive | not).node_name'
"""

_HEADS = ("NODE", "STATE", "SEEN", "KERNEL", "COLLECTOR", "PROCESSES", "EVENTS", "EVENTS/S", "LOST")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="[text]")


def run(args: argparse.Namespace) -> int:
    """Print the nodes."""
    from cli.client import Client

    with Client(server_options(args)) as client:
        nodes = sorted(client.nodes(), key=lambda node: node.node_name)
    if args.output == "json":
        from cli.renderers.json import JsonEncoder

        encode = JsonEncoder(extensions=True).encode
        print("".join(encode(node) + "\n" for node in nodes), end="")
        return 0
    print("\n".join(table([_HEADS, *(_row(node, time.time()) for node in nodes)])))
    return 0


def _row(node: NodeInfo, now_s: float) -> tuple[str, ...]:
    lost = sum(count for _, count in node.loss.ListFields())
    seen_s = node.last_seen.ToNanoseconds() / 1e9
    return (
        visible(node.node_name),
        "alive" if node.alive else "silent",
        f"{duration_text(now_s - seen_s)} ago" if seen_s else "-",
        visible(node.kernel) or "-",
        visible(node.collector_version) or "-",
        str(node.processes),
        str(node.events_total),
        f"{node.events_per_second:.1f}",
        str(lost),
    )


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Return lines with columns aligned on the left, three blanks apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "   ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
