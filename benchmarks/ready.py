"""Ready-made policies: what each costs the acts that it watches."""

from __future__ import annotations

from benchmarks import ready_costs
from benchmarks.harness import Report, need_root


def run(report: Report, quick: bool) -> None:
    """Measure each part in turn."""
    report.begin("ready", "ready-made policies")
    need_root()
    ready_costs.run(report, quick)
