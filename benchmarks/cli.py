"""The command: start, first line, output from a batch stream."""

from __future__ import annotations

from benchmarks.cli_speed import results
from benchmarks.harness import Report

_WANTED = {
    "version_s": ("<=", 0.35),
    "first_line_s": ("<=", 0.7),
    "lifecycle_events_per_s": (">=", 40_000.0),
    "json_events_per_s": (">=", 20_000.0),
    "lifecycle_peak_mb": ("<=", 60.0),
    "json_peak_mb": ("<=", 60.0),
    "compact_peak_mb": ("<=", 60.0),
}


def run(report: Report, quick: bool) -> None:
    """Against a server that only sends."""
    report.begin("cli", "tetra against a server that only sends; medians")
    for name, value in results(50_000 if quick else 200_000, 3 if quick else 5).items():
        report.add(name, value, "", _WANTED.get(name))
