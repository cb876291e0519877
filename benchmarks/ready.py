"""Ready-made policies: what each costs the acts that it watches, and real servers and a build."""

from __future__ import annotations

from benchmarks import ready_costs, ready_hooks, ready_loads
from benchmarks.harness import Report, mount_tracefs, need_root


def run(report: Report, quick: bool) -> None:
    """Measure each part in turn."""
    report.begin("ready", "ready-made policies")
    need_root()
    mount_tracefs()
    ready_costs.run(report, quick)
    ready_hooks.run(report, quick)
    ready_loads.run(report, quick)
