"""Short lives on a busy host: how much they are slowed, by wake-ups above all.

``AGAINST=FOLDER`` in the environment names a checkout of another version, made ready by its own
``make setup``: its services are measured in the same rounds.
"""

from __future__ import annotations

import os
import resource
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import BIN, Report, Services, build_static, need_root, peers, whole_stack
from benchmarks.hogs import Hogs, hogs, installed
from benchmarks.storm import STORM_C, TRUE_C

LIVES = 4000
ROUNDS = 7
SETTLED_S = 1.5  # several times the longest pause of any stage

NOTHING = "nothing"
PEERS = ("libbpf-tools", "bpftrace")


@dataclass(slots=True)
class Round:
    """One storm under one variant."""

    life_s: float
    preempted: float  # involuntary switches of the workload, a life
    wakes: dict[str, float] = field(default_factory=dict)  # a life, by service
    cpu_us: dict[str, float] = field(default_factory=dict)  # a life, by service
    lost: int = 0  # events


def variants() -> dict[str, tuple[bool, Path]]:
    """Return the variants with our services: whether there is a client, and which programs."""
    found = {"no client": (False, BIN), "one client": (True, BIN)}
    if against := os.environ.get("AGAINST"):
        programs = Path(against).resolve() / ".venv/bin"
        found |= {"before, no client": (False, programs), "before, one client": (True, programs)}
    return found


def run(report: Report, quick: bool) -> None:
    """Each kind of hog; beside it each variant in turn, in rounds."""
    lives, rounds = (1000, 2) if quick else (LIVES, ROUNDS)
    need_root()
    ours = variants()
    for kind in installed():
        report.begin(
            f"busy, {kind}",
            f"{lives:,} lives beside {kind} on all of {os.cpu_count()} cores, {rounds} rounds",
        )
        measured: dict[str, list[Round]] = {}
        with hogs(kind) as others:
            for number in range(rounds):
                for name in (NOTHING, *ours, *PEERS):
                    measured.setdefault(name, []).append(_round(name, ours, others, lives))
                report.say(f"round {number + 1} done")
        _add(report, measured, list(ours))


def _round(name: str, ours: dict[str, tuple[bool, Path]], others: Hogs, lives: int) -> Round:
    with ExitStack() as stack:
        running: Services | None = None
        if name in ours:
            client, programs = ours[name]
            running = stack.enter_context(whole_stack("busy", client=client, programs=programs))
        elif name != NOTHING:
            stack.enter_context(peers(name))
        stack.enter_context(others.working())
        before = _usage(running)
        took_s, switches = _storm(lives)
        time.sleep(SETTLED_S if running else 0)
        after = _usage(running)
        lost = running.lost() if running else 0
    done = Round(took_s / lives, switches / lives, lost=lost)
    for service, (wakes, cpu_ns) in after.items():
        done.wakes[service] = (wakes - before[service][0]) / lives
        done.cpu_us[service] = (cpu_ns - before[service][1]) / lives / 1000
    return done


def _storm(lives: int) -> tuple[float, int]:
    """Run short lives; return the seconds and their involuntary switches."""
    program, true = build_static("storm", STORM_C), build_static("true", TRUE_C)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_nivcsw
    start = time.monotonic()
    subprocess.run([program, true, str(lives)], check=True)
    took_s = time.monotonic() - start
    return took_s, resource.getrusage(resource.RUSAGE_CHILDREN).ru_nivcsw - before


def _usage(running: Services | None) -> dict[str, tuple[int, int]]:
    """Return the wake-ups and nanoseconds of CPU of each service so far."""
    if running is None:
        return {}
    return {name: _threads(process.pid) for name, process in running.processes.items()}


def _threads(pid: int) -> tuple[int, int]:
    """Return how often threads that slept were woken, and their CPU time."""
    wakes = cpu_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (task / "status").read_text()
            cpu_ns += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):  # it ended
            continue
        wakes += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return wakes, cpu_ns


def _add(report: Report, measured: dict[str, list[Round]], ours: list[str]) -> None:
    nothing = measured[NOTHING]
    report.add("lives a second, nothing beside it", [1 / r.life_s for r in nothing], "/s")
    for name, rounds in measured.items():
        if name == NOTHING:
            continue
        target = ("<=", 1.2) if name == "one client" else None
        slowed = [one.life_s / without.life_s for one, without in zip(rounds, nothing, strict=True)]
        label = f"tetra, {name}" if name in ours else name
        report.add(f"slowed by {label}", slowed, "x", target)
    report.add(
        "events lost", sum(one.lost for name in ours for one in measured[name]), "", ("<=", 0)
    )
    for name, rounds in measured.items():
        label = f"involuntary switches a life, {name}"
        report.add(label, [one.preempted for one in rounds])
    for name in ours:
        for what, unit in (("wakes", ""), ("cpu_us", "us")):
            label = "wake-ups" if what == "wakes" else "CPU"
            values = [getattr(one, what) for one in measured[name]]
            report.add(f"{label} a life, {name}", [sum(v.values()) for v in values], unit)
            for service in values[0]:
                report.add(f"  {service}", [v[service] for v in values], unit)
    for name in ours:
        if (earlier := measured.get(f"before, {name}")) is None:
            continue
        for what, label, wanted in (
            ("wakes", "wake-ups, before against now", (">=", 10.0)),
            ("cpu_us", "CPU, now against before", ("<=", 1 / 3) if name == "no client" else None),
        ):
            now = [sum(getattr(one, what).values()) for one in measured[name]]
            then = [sum(getattr(one, what).values()) for one in earlier]
            pairs = zip(now, then, strict=True)
            ratios = [old / new if what == "wakes" else new / old for new, old in pairs]
            report.add(f"{label}, {name}", ratios, "x", wanted)
