"""``tetra nodes``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cli.command import Args, Command
from cli.flags import output_flag
from cli.server_flags import server_options
from cli.terminal import Fit, Output, terminal_width, visible
from cli.timestamps import duration_text

if TYPE_CHECKING:
    from tetra.v1.node_pb2 import NodeInfo

_HEADS = (
    "NODE", "STATE", "SEEN", "PROCS", "EVENTS", "RATE", "LOST", "POLICIES", "VERSION", "KERNEL",
)  # fmt: skip


def run(args: Args) -> int:
    """Print the nodes."""
    from cli.client import Client

    with Client(server_options(args)) as client:
        nodes = sorted(client.nodes(), key=lambda node: node.node_name)
    if args.output == "json":
        from eventjson.encoder import JsonEncoder

        encode = JsonEncoder(extensions=True).encode
        print("".join(encode(node) + "\n" for node in nodes), end="")
        return 0
    output = Output.stdout()
    width, fit = terminal_width(), Fit(unicode=output.unicode)
    lines = table([_HEADS, *(_row(node, time.time()) for node in nodes)])
    output.write("".join((fit(line, width) if width else line) + "\n" for line in lines))
    output.write("".join(_clash(node) + "\n" for node in nodes if node.others))
    return 0


def _clash(node: NodeInfo) -> str:
    boots = ", ".join(map(visible, [node.boot_id, *(one.boot_id for one in node.others)]))
    return (
        f"node {visible(node.node_name)}: {len(node.others) + 1} collectors answer in its name, "
        f"of boots {boots} (/proc/sys/kernel/random/boot_id): set NODE_NAME on all hosts but one"
    )


def _row(node: NodeInfo, now_s: float) -> tuple[str, ...]:
    lost = sum(node.loss.by_cause.values())
    seen_s = node.last_seen.ToNanoseconds() / 1e9
    return (
        visible(node.node_name),
        _state(node),
        duration_text(now_s - seen_s) if seen_s else "-",
        str(node.processes),
        str(node.events_total),
        f"{node.events_per_second:.1f}/s",
        str(lost),
        _policies(node),
        visible(node.collector_version) or "-",
        visible(node.kernel) or "-",
    )


def _state(node: NodeInfo) -> str:
    if node.others:
        return f"{len(node.others) + 1} hosts"
    return "alive" if node.alive else "silent"


def _policies(node: NodeInfo) -> str:
    """Return ``3``, ``2, 1 failed`` or ``-`` for a collector that does not report them."""
    if not node.HasField("policies"):
        return "-"
    found = node.policies
    others = ((found.failed, "failed"), (found.loading, "loading"), (found.disabled, "disabled"))
    return ", ".join([str(found.loaded), *(f"{count} {word}" for count, word in others if count)])


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Return lines with columns aligned on the left, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


COMMAND = Command(
    "nodes",
    run,
    summary="list the hosts that publish events",
    text="""List every node that the gateway knows: whether it is alive, how long ago it was last
seen, its processes, how many events it published and at which rate, how many it lost, and how many
tracing policies are loaded. A name that two hosts use is shown as "2 hosts", with their boots.
-o json has more: labels, memory and counters of policies.

examples:
  tetra nodes
  tetra nodes -o json | jq 'select(.alive | not).node_name'
""",
    params=[output_flag("text", "json")],
)
