"""``tetra policies list``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

from cli.command import Args, Command
from cli.flags import output_flag
from cli.policies.ready import of_fleet, parameters_set
from cli.server_flags import server_options
from cli.terminal import Output, notice, visible

if TYPE_CHECKING:
    from tetra.v1.policies_pb2 import FleetPolicy
    from tetragon.sensors_pb2 import TracingPolicyStatus

_HEADS = ("NAME", "STATE", "DOMAIN", "EVENTS", "MEMORY", "COST", "REPORTS")
_NONE = "-"
_FIGURES = ("events", "kernel_memory_bytes", "runs", "run_time_ns")


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
    parameters = {name: parameters_set(one) for name, one in fleet.items() if name in found}
    entries = _entries(found, fleet, parameters)
    output = Output.stdout()
    if args.output == "json":
        output.write("".join(json.dumps(one) + "\n" for one in entries))
        return 0
    output.write(_table(entries))
    for name in NAMES:
        if given := parameters.get(name):
            flags = " ".join(f"--set {quote(visible(f'{k}={v}'))}" for k, v in given.items())
            output.write(f"{name}: {flags}\n")
    for one in entries:
        if one["error"]:
            notice(f"policy {one['name']}: {visible(one['error'].splitlines()[0])}")
    return 0


def _entries(
    found: Mapping[str, Sequence[TracingPolicyStatus]],
    fleet: Mapping[str, FleetPolicy],
    parameters: Mapping[str, Mapping[str, str]],
) -> list[dict[str, Any]]:
    """Return what ``-o json`` prints: an entry for each policy, or each domain that it is in.

    ``fleet``: the policies that were added at a gateway, some of which no node has loaded.
    ``parameters``: those of each that are set.
    """
    from cli.policies.calls import DEFAULT_DOMAIN
    from cli.policies.fleet import state
    from cli.policies.table import state_text
    from readymade import load

    entries = []
    for name, statuses in found.items():
        ready, added = load(name), fleet.get(name)
        rows = [(state_text(one.state), one.domain, _figures(one)) for one in statuses]
        if not rows and added is not None:
            rows = [(state(added), DEFAULT_DOMAIN, _figures(None))]
        for word, domain, figures in rows or [("not enabled", "", _figures(None))]:
            entries.append({
                "name": name, "state": word, "domain": domain, **figures,
                "parameters": parameters.get(name) if domain == DEFAULT_DOMAIN else None,
                "cost": ready.cost_brief, "reports": ready.title,
            })  # fmt: skip
    return entries


def _figures(one: TracingPolicyStatus | None) -> dict[str, Any]:
    """Return what nodes count; runs are counted while kernel.bpf_stats_enabled is on."""
    if one is None:
        return {**dict.fromkeys(_FIGURES), "error": ""}
    return {
        "events": one.stats.action_counters.post,
        "kernel_memory_bytes": one.kernel_memory_bytes,
        "runs": one.details.runs,
        "run_time_ns": one.details.run_time_ns,
        "error": one.error,
    }


def _table(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return a row for each entry."""
    from cli.policies.table import columns

    lines = columns([_HEADS, *map(_row, entries)])
    return "".join(f"{line}\n" for line in lines)


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    from cli.policies.table import bytes_text

    events, memory, runs, spent_ns = map(one.get, _FIGURES)
    return (
        one["name"],
        one["state"],
        visible(one["domain"]) or _NONE,
        _NONE if events is None else str(events),
        _NONE if memory is None else bytes_text(memory),
        f"{spent_ns / runs:.0f} ns x {runs}" if runs and spent_ns else one["cost"],
        one["reports"],
    )


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
that tetra policies enable has set are below the table. -o json prints a line for each policy, with
the counted runs and their time; parameters are those that are set, null for domain static and
where the policy is not enabled.

examples:
  tetra policies
  tetra policies list --server-address gw.example:54321
  tetra policies -o json | jq 'select(.state != "enabled").name'
""",
    params=[output_flag("text", "json")],
)
