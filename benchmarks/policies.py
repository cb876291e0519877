"""Tracing policies: what they cost calls, to load, in memory, and in the collector."""

from __future__ import annotations

from benchmarks import policy_calls, policy_loads, policy_stream
from benchmarks.harness import Report, need_root


def run(report: Report, quick: bool) -> None:
    """Measure each part in turn."""
    report.begin("policies", "tracing policies, beside bpftrace with the same filters")
    need_root()
    policy_calls.run(report, quick)
    policy_loads.run(report, quick)
    policy_stream.run(report, quick)
