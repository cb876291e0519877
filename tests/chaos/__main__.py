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

from chaos.account import Account, account
from chaos.faults import Faults
from chaos.stack import BIN, Stack, wait_for

TRUE = "/usr/bin/true"
DISK_BYTES = "96m"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--marks", type=int, default=20_000, help="processes to run [20000]")
    parser.add_argument("--per-second", type=int, default=250, help="how many a second [250]")
    parser.add_argument("--faults", type=int, default=12, help="how many faults [12]")
    parser.add_argument("--nats", type=int, choices=(1, 3), default=1, help="nodes of NATS [1]")
    parser.add_argument("--seed", type=int, default=None, help="of the schedule [by the clock]")
    parser.add_argument("--only", action="append", help="this kind of fault; may repeat")
    parser.add_argument("--keep", action="store_true", help="keep logs and events")
    parser.add_argument("--json", type=Path, help="write the result there, too")
    return parser.parse_args()


def main() -> int:
    """Return 0 if every mark was told once or rightly not at all."""
    args = parse()
    if os.geteuid() != 0:
        print("chaos: error: needs root: probes, network namespaces, a small disk", file=sys.stderr)
        return 2
    seed = args.seed if args.seed is not None else time.time_ns() % 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="tetra-chaos-"))
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tetra-chaos", disk], check=True
    )
    stack = Stack(folder, args.nats, disk / "state")
    passed = False
    try:
        result = run(args, seed, folder, stack, Faults(stack, random.Random(seed), disk))
        passed = bool(result.pop("passed"))
        if args.json:
            args.json.write_text(json.dumps(result, indent=2) + "\n")
    finally:
        stack.stop()
        subprocess.run(["umount", "-l", disk], check=False)
        if passed and not args.keep:
            shutil.rmtree(folder)
        else:
            print(f"logs and events: {folder}")
    # A line that test runners know.
    print(f"chaos: {int(passed)} passed, {int(not passed)} failed")
    return 0 if passed else 1


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def build(folder: Path) -> Path:
    source = Path(__file__).parents[1] / "workloads" / "marks.c"
    program = folder / "marks"
    subprocess.run(["gcc", "-O1", "-o", program, source], check=True)
    return program


def run(
    args: argparse.Namespace, seed: int, folder: Path, stack: Stack, faults: Faults
) -> dict[str, object]:
    """Carry out one run; return its figures."""
    mark = f"chaos-{seed}"
    say(f"seed {seed}: {args.marks} marks at {args.per_second} a second, {args.faults} faults, "
        f"NATS on {args.nats}")  # fmt: skip
    stack.start()
    marks = folder / "marks.txt"
    with marks.open("wb") as out:
        load = subprocess.Popen(
            [build(folder), TRUE, mark, "1", str(args.marks), str(args.per_second)], stdout=out
        )
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
    say("load done; waiting until everything is told")
    wait_for(lambda: stack.events_published()[0] == 0, "collector has published all", 180)
    _, dropped = stack.events_published()
    away = [(*span, k) for span, k in zip(stack.collector.away, killed, strict=True)]
    events = folder / "events.json"
    result = account(marks, events, mark, away)
    deadline = time.monotonic() + 120
    while not result.passed and not result.twice and time.monotonic() < deadline:
        time.sleep(2)  # the client may still be reading
        result = account(marks, events, mark, away)
    verdict = verify(stack)
    tell(result, done, dropped, verdict)
    holes = [hole for hole in verdict["holes"] if "no collector ran" not in hole]
    return {
        "passed": result.passed and not holes and not dropped,
        "seed": seed, "faults": len(done), "kinds": sorted(set(done)), "marks": result.marks,
        "missing": len(result.missing), "twice": len(result.twice), "unseen": result.unseen,
        "poorer": result.poorer, "dropped": dropped, "stream": verdict,
    }  # fmt: skip


def verify(stack: Stack) -> dict[str, list[str]]:
    """Let `tetra verify` account for the stream."""
    command = [str(BIN / "tetra"), "verify", "-o", "json", "--server-address", stack.addresses]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode not in (0, 3):
        return {"holes": [done.stderr.strip()], "nodes": []}
    told: dict[str, list[str]] = json.loads(done.stdout)
    return told


def tell(result: Account, done: list[str], dropped: int, verdict: dict[str, list[str]]) -> None:
    """Print the figures."""
    say(f"{len(done)} faults of {len(set(done))} kinds, {result.marks} marks:")
    rows = {
        "missing": len(result.missing),
        "told twice": len(result.twice),
        "unseen while no collector ran": result.unseen,
        "seen in part, by two collectors": result.poorer,
        "dropped by the spool": dropped,
        "holes in the stream": len(verdict["holes"]),
    }
    for name, value in rows.items():
        say(f"  {name:34} {value}")
    for what, numbers in (("missing", result.missing), ("twice", result.twice)):
        if numbers:
            say(f"  {what}: {', '.join(map(str, numbers[:20]))}")
    for hole in verdict["holes"]:
        say(f"  {hole}")


if __name__ == "__main__":
    sys.exit(main())
