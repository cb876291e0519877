"""``make chaos``: run marked processes, break things, account for every mark."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chaos import outage
from chaos.account import Account, account, read_printed
from chaos.desired import await_desired
from chaos.faults import Faults
from chaos.policies import PolicyChanges
from chaos.report import say, say_rows, verify
from chaos.stack import Stack, run_marks, wait_for

DISK_BYTES = "96m"
EXAMPLES = """
examples (as CHAOS="..."):
  --marks 200000 --per-second 500 --faults 44 --seed 2026
  --nats 3 --faults 18                        a cluster of three
  --only 'collector killed' --faults 5        one kind of fault
  --keep-probes --only 'collector killed' --only 'collector stopped'
  --outage 300 --per-second 500               NATS unreachable for five minutes, nothing else
  --outage 300 --per-second 500 --spool-bytes 67108864 --kill
                                              a spool that fills, its collector killed
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make chaos", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--marks", type=int, default=20_000, help="processes to run [20000]")
    parser.add_argument("--per-second", type=int, default=250, help="how many a second [250]")
    parser.add_argument("--faults", type=int, default=12, help="how many faults [12]")
    parser.add_argument("--nats", type=int, choices=(1, 3), default=1, help="nodes of NATS [1]")
    parser.add_argument("--seed", type=int, default=None, help="of the schedule [by the clock]")
    parser.add_argument(
        "--keep-probes", action="store_true",
        help="KEEP_PROBES=always of the collector: nothing may be missing then",
    )  # fmt: skip
    parser.add_argument("--only", action="append", help="this kind of fault; may repeat")
    long = parser.add_argument_group("instead of faults: one long outage")
    long.add_argument("--outage", type=int, default=0, metavar="S", help="NATS away for S seconds")
    long.add_argument("--spool-bytes", type=int, help="SPOOL_DISK_BYTES of the collector [1 GiB]")
    long.add_argument("--kill", action="store_true", help="kill the collector in the outage")
    parser.add_argument("--keep", action="store_true", help="keep logs and events")
    parser.add_argument("--json", type=Path, help="write the result there, too")
    return parser.parse_args()


def main() -> int:
    """Return 0 if every mark was reported once or is excused."""
    args = parse()
    if os.geteuid() != 0:
        print("chaos: error: needs root: probes, network namespaces, a small disk", file=sys.stderr)
        return 2
    seed = args.seed if args.seed is not None else time.time_ns() % 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="tetra-chaos-"))
    passed = False
    try:
        result = (run_outage if args.outage else run_faults)(args, seed, folder)
        passed = bool(result.pop("passed"))
        if args.json:
            args.json.write_text(json.dumps(result, indent=2) + "\n")
    finally:
        if passed and not args.keep:
            shutil.rmtree(folder)
        else:
            print(f"logs and events: {folder}")
    # A line that test runners know.
    print(f"chaos: {int(passed)} passed, {int(not passed)} failed")
    return 0 if passed else 1


def run_outage(args: argparse.Namespace, seed: int, folder: Path) -> dict[str, object]:
    """Stop NATS for a long time; return the figures."""
    plan = outage.Plan(args.outage, args.per_second, kill=args.kill, on_disk=args.spool_bytes != 0)
    settings = {"spool_memory_bytes": plan.memory_bytes}
    if args.spool_bytes is not None:
        settings["spool_disk_bytes"] = args.spool_bytes
    stack = Stack(folder, args.nats, folder / "state", **settings)
    try:
        return outage.run(stack, folder, f"chaos-{seed}", plan)
    finally:
        stack.stop()


def run_faults(args: argparse.Namespace, seed: int, folder: Path) -> dict[str, object]:
    """Break things by a schedule; return the figures."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tetra-chaos", disk], check=True
    )
    settings = {}
    pins = folder / "bpf"
    if args.keep_probes:
        pins.mkdir()
        subprocess.run(["mount", "-t", "bpf", "tetra-chaos", pins], check=True)
        settings = {"keep_probes": "always", "pin_dir": pins / "tetra"}
    stack = Stack(folder, args.nats, disk / "state", **settings)
    try:
        return _run_faults(args, seed, folder, stack, Faults(stack, random.Random(seed), disk))
    finally:
        stack.stop()
        subprocess.run(["umount", "-l", disk, *([pins] if args.keep_probes else [])], check=False)


def _run_faults(
    args: argparse.Namespace, seed: int, folder: Path, stack: Stack, faults: Faults
) -> dict[str, object]:
    mark = f"chaos-{seed}"
    say(f"seed {seed}: {args.marks} marks at {args.per_second} a second, {args.faults} faults, "
        f"NATS on {args.nats}")  # fmt: skip
    stack.start()
    stack.nodes.start()
    marks = folder / "marks.txt"
    changes = PolicyChanges(stack.addresses.split(","), mark, seed)
    load = run_marks(folder, marks, mark, args.marks, args.per_second)
    changes.start()
    names = [args.only[n % len(args.only)] for n in range(args.faults)] if args.only else (
        faults.schedule(args.faults))  # fmt: skip
    planned_s = args.marks / args.per_second
    start, done = time.monotonic(), []
    killed: list[bool] = []
    for number, name in enumerate(names, start=1):
        # Spread over the load; a fault that takes longer moves the rest.
        due = start + planned_s * number / (len(names) + 1)
        time.sleep(max(0.0, due - time.monotonic()))
        if load.poll() is not None:
            say("the load ended before the schedule")
            break
        before = len(stack.collector.away)
        what = faults.kinds()[name]()
        killed += [name == "collector killed"] * (len(stack.collector.away) - before)
        done.append(name)
        say(f"{number:3}/{len(names)}  {name}: {what}")
    load.wait()
    changes.stop()
    say("load done; waiting until every mark is reported, and every node has its policies")
    wait_for(lambda: stack.value("spool_events") == 0, "the collector has published all", 300)
    dropped = stack.settled_value("dropped_events_total")
    away = [(*span, k) for span, k in zip(stack.collector.away, killed, strict=True)]
    if args.keep_probes:  # the probes recorded what ran meanwhile
        away = []
    result = await_account(marks, folder / "events.json", mark, away)
    wrong = await_desired(stack, changes)
    excused = "\0" if args.keep_probes else "no collector ran"
    verdict, gaps = await_verdict(stack, excused)
    say(f"{len(done)} faults of {len(set(done))} kinds, {result.marks} marks:")
    say_rows({
        "missing": len(result.missing),
        "reported more than once": len(result.duplicates),
        "not seen while no collector ran": result.unseen,
        "reported in part, by two collectors": result.partial,
        "dropped by the spool": dropped,
        "gaps in the stream": len(verdict["holes"]),
        "changes of policies": len(changes.made),
        **{f"  {outcome}": count for outcome, count in changes.outcomes.most_common()},
        "policies not as wanted": len(wrong),
    })  # fmt: skip
    for one in wrong:
        say(f"  {one}")
    for what, numbers in (("missing", result.missing), ("duplicates", result.duplicates)):
        if numbers:
            say(f"  {what}: {', '.join(map(str, numbers[:20]))}")
    for gap in verdict["holes"]:
        say(f"  {gap}")
    return {
        "passed": result.passed and not gaps and not dropped and not wrong,
        "seed": seed, "faults": len(done), "kinds": sorted(set(done)), "marks": result.marks,
        "missing": len(result.missing), "duplicates": len(result.duplicates),
        "unseen": result.unseen, "partial": result.partial, "dropped": dropped, "stream": verdict,
        "policy_changes": dict(changes.outcomes), "policies_wrong": wrong,
    }  # fmt: skip


def await_account(
    marks: Path, events: Path, mark: str, away: list[tuple[int, int, bool]]
) -> Account:
    """Return the account when it is good, or after four minutes for the client to catch up."""
    deadline = time.monotonic() + 240
    while True:
        result = account(marks, read_printed(events, mark), away)
        if result.passed or result.duplicates or time.monotonic() > deadline:
            return result
        time.sleep(2)


def await_verdict(stack: Stack, excused: str) -> tuple[dict[str, Any], list[str]]:
    """Return what verify reports, with the gaps that nothing excuses; wait a minute for none."""
    deadline = time.monotonic() + 60
    while True:
        verdict = verify(stack)
        gaps = [gap for gap in verdict["holes"] if excused not in gap]
        if not gaps or time.monotonic() > deadline:
            return verdict, gaps
        time.sleep(2)


if __name__ == "__main__":
    sys.exit(main())
