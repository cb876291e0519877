"""Run in a guest: measure the ready-made policies where functions can be hooked."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import ready_costs, ready_hooks
from benchmarks.harness import CACHE, Report

from support.host_compiler import compiled_by_host
from vm.guest.prove import compiler_port

ROUNDS = 3  # counted instructions differ little from round to round


def main() -> None:
    """Measure; write the figures to the folder of results."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--results", type=Path, required=True)
    options.add_argument("kind", choices=("full", "quick"))
    arguments = options.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    report = Report(section="ready-guest")
    with compiled_by_host(compiler_port()):
        ready_costs.run(report, quick=True)
        ready_hooks.run(report, arguments.kind == "quick", ROUNDS)
    report.write(arguments.results / "bench.json", {})


if __name__ == "__main__":
    main()
