"""``tetra policies list``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cli.command import Args, Command
from cli.policies.ready import of_fleet, parameters_set
from cli.server_flags import server_options
from cli.terminal import Output, notice, visible

if TYPE_CHECKING:
    from readymade import Ready
    from tetra.v1.policies_pb2 import FleetPolicy
    from tetragon.sensors_pb2 import TracingPolicyStatus

_HEADS = ("NAME", "STATE", "DOMAIN", "EVENTS", "MEMORY", "COST", "REPORTS")
_NONE = "-"


def run(args: Args) -> int:
    """Print the ready-made policies with their state at the server."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from readymade import NAMES

    with Client(server_options(args)) as client:
        calls = PolicyCalls(client)
        loaded = calls.statuses("").policies
        found = {name: [one for one in loaded if one.name == name] for name in NAMES}
        fleet = of_fleet(calls)
    waiting = {name: one for name, one in fleet.items() if not found.get(name)}
    output = Output.stdout()
    output.write(table(found, waiting))
    for name in NAMES:
        if given := parameters_set(fleet.get(name)):
            flags = " ".join(f"--set {visible(f'{key}={value}')}" for key, value in given.items())
            output.write(f"{name}: {flags}\n")
    for statuses in found.values():
        for one in statuses:
            if one.error:
                notice(f"policy {one.name}: {visible(one.error.splitlines()[0])}")
    return 0


def table(
    found: Mapping[str, Sequence[TracingPolicyStatus]], waiting: Mapping[str, FleetPolicy]
) -> str:
    """Return a row for each policy, several if it is loaded in several domains.

    ``waiting``: policies of the fleet, some of which no node has loaded.
    """
    from cli.policies.fleet import state
    from cli.policies.table import columns
    from readymade import load

    rows: list[Sequence[str]] = [_HEADS]
    for name, statuses in found.items():
        ready = load(name)
        states = (state(waiting[name]), "grpc") if name in waiting else ("not enabled", _NONE)
        rows += [_row(one, ready) for one in statuses] or [
            (name, *states, _NONE, _NONE, ready.cost_brief, ready.title)
        ]
    return "".join(f"{line}\n" for line in columns(rows))


def _row(one: TracingPolicyStatus, ready: Ready) -> tuple[str, ...]:
    from cli.policies.table import bytes_text, state_text

    return (
        visible(one.name),
        state_text(one.state),
        visible(one.domain),
        str(one.stats.action_counters.post),
        bytes_text(one.kernel_memory_bytes),
        _measured(one) or ready.cost_brief,
        ready.title,
    )


def _measured(one: TracingPolicyStatus) -> str:
    """Return the time of a run; it is measured while kernel.bpf_stats_enabled is on."""
    runs, spent_ns = one.details.runs, one.details.run_time_ns
    return f"{spent_ns / runs:.0f} ns x {runs}" if runs and spent_ns else ""


COMMAND = Command(
    "list",
    run,
    summary="list the ready-made policies with state and cost",
    text="""List the ready-made policies: whether each is enabled (waiting or away: on no node
that is there), in which domain (grpc: by tetra
policies enable; static: by TETRA_POLICIES of the nodes), how many events it has reported, the
kernel memory of its programs, and its cost: CPU time as measured on a development machine where
functions cannot be hooked (tetra policies explain NAME has more), or, while
kernel.bpf_stats_enabled is on, the average run time of its programs on these nodes. Parameters
that tetra policies enable has set are below the table.

examples:
  tetra policies
  tetra policies list --server-address gw.example:54321
""",
)
