"""Measure the event path, side by side with what others use for the same.

Each section can run alone. Tools that are missing are installed from the distribution before the
first section runs; where that cannot be done, nothing runs and the exit code is 2. A section that
needs root, or a source that is not there, says so, and the exit code is 1. Figures are medians,
with the least and the most behind them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    build,
    busy,
    cli,
    export,
    fleet,
    footprint,
    gateway,
    latency,
    path,
    policies,
    query,
    ready,
    ready_guest,
    storm,
    tools,
)
from benchmarks.harness import CACHE, Report, Unavailable

SECTIONS: dict[str, Callable[[Report, bool], None]] = {
    "build": build.run,  # overhead on a real build, beside bpftrace and libbpf-tools
    "storm": storm.run,  # the same for short lives at the highest rate; probe costs
    "busy": busy.run,  # beside hogs: wake-ups and switches; AGAINST=FOLDER: beside another checkout
    "path": path.run,  # CPU of each step
    "latency": latency.run,
    "gateway": gateway.run,
    "fleet": fleet.run,
    "cli": cli.run,
    "export": export.run,
    "query": query.run,  # EVENTS=100000000: of so many
    "footprint": footprint.run,
    "policies": policies.run,  # beside bpftrace with the same filters
    "ready": ready.run,  # ready-made policies, on acts, servers and a build
    "ready-guest": ready_guest.run,  # the same servers where functions can be hooked, emulated
}


def main() -> int:
    """Run the sections; return 1 where one could not run."""
    parser = argparse.ArgumentParser(
        prog="make bench BENCH='...'",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)} [all]")
    parser.add_argument("--quick", action="store_true", help="small numbers: does it work at all?")
    parser.add_argument(
        "--json", type=Path, default=CACHE / "results.json", help=f"[{CACHE / 'results.json'}]"
    )
    args = parser.parse_args()
    unknown = set(args.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    try:
        tools.install(args.sections or SECTIONS)
    except Unavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    report, failed = Report(), {}
    start = time.monotonic()
    for name in args.sections or SECTIONS:
        try:
            SECTIONS[name](report, args.quick)
        except Unavailable as error:
            failed[name] = str(error)
            print(f"   NOT RUN: {error}", flush=True)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    report.write(args.json, failed)
    missed = [f for f in report.figures if f.met is False]
    targets = sum(f.wanted is not None for f in report.figures)
    print(f"\n{len(report.figures)} figures in {time.monotonic() - start:.0f} s; "
          f"{targets - len(missed)} of {targets} targets met; written to {args.json}")  # fmt: skip
    for figure in missed:
        print(f"  missed: {figure.section}: {figure.name}")
    for name, why in failed.items():
        print(f"  not run: {name}: {why}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
