"""Short lives as fast as the machine can, and what each of our programs costs in the kernel."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path

from benchmarks.harness import (
    Report,
    Services,
    build_static,
    cpu_s,
    need,
    need_root,
    peers,
    whole_stack,
)

LIVES = 100_000
ROUNDS = 5
_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")

TRUE_C = "int main(void) { return 0; }\n"
STORM_C = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* storm PROGRAM LIVES: fork, exec, exit on all cores at once. */
int main(int argc, char **argv)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN), lives = atol(argv[2]) / cores;
	char *args[] = {argv[1], NULL}, *none[] = {NULL};

	for (long core = 0; core < cores; core++) {
		if (fork())
			continue;
		for (long n = 0; n < lives; n++) {
			pid_t pid = fork();

			if (pid == 0) {
				execve(argv[1], args, none);
				_exit(9);
			}
			waitpid(pid, NULL, 0);
		}
		_exit(0);
	}
	while (wait(NULL) > 0)
		;
	return 0;
}
"""
VARIANTS = ("nothing", "no client", "one client", "libbpf-tools", "bpftrace")


def storm(lives: int) -> float:
    """Run ``lives`` short lives; return the seconds."""
    program, true = build_static("storm", STORM_C), build_static("true", TRUE_C)
    start = time.monotonic()
    subprocess.run([program, true, str(lives)], check=True)
    return time.monotonic() - start


def run(report: Report, quick: bool) -> None:
    """Each variant in turn, in rounds; then the cost of the probes."""
    lives = (20_000 if quick else LIVES) // ROUNDS
    report.begin("storm", f"{lives * ROUNDS:,} lives on {os.cpu_count()} cores, {ROUNDS} rounds")
    need_root()
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    costs: dict[str, list[float]] = {}
    lost = 0
    storm(1000)
    for number in range(ROUNDS):
        for name in VARIANTS:
            if name in ("no client", "one client"):
                with whole_stack("storm", client=name == "one client") as running:
                    before, began = running.cpu(), running.lost()
                    times[name].append(storm(lives))
                    running.settle()
                    lost += running.lost() - began
                    if name == "one client":
                        for service, value in running.cpu().items():
                            cost = (value - before[service]) / lives * 1e6
                            costs.setdefault(service, []).append(cost)
            else:
                none: list[subprocess.Popen[bytes]] = []
                with nullcontext(none) if name == "nothing" else peers(name) as others:
                    began_s = sum(cpu_s(p.pid) for p in others)
                    times[name].append(storm(lives))
                    if name != "nothing":
                        spent = sum(cpu_s(p.pid) for p in others) - began_s
                        costs.setdefault(name, []).append(spent / lives * 1e6)
        report.say(f"round {number + 1} done")
    report.add("lives a second, nothing beside it", [lives / t for t in times["nothing"]], "/s")
    limits = {"no client": 1.10, "one client": 1.20}
    for name in VARIANTS[1:]:
        pairs = zip(times[name], times["nothing"], strict=True)
        limit = limits.get(name)
        report.add(
            f"slowed by {'tetra, ' if limit else ''}{name}",
            [with_it / without for with_it, without in pairs],
            "x",
            ("<=", limit) if limit else None,
        )
    report.add("events lost", float(lost), "", ("<=", 0))
    for name, values in costs.items():
        report.add(f"CPU a life, {name}", values, "us", ("<=", 40) if name == "collector" else None)
    _probes(report, 2000 if quick else 10_000)


@contextmanager
def statistics_on() -> Iterator[None]:
    """Let the kernel measure BPF programs."""
    before = _STATS.read_text()
    _STATS.write_text("1")
    try:
        yield
    finally:
        _STATS.write_text(before)


def _programs(pids: list[int]) -> dict[str, tuple[int, int]]:
    """Return (ns, runs) of the BPF programs that these processes hold, by name."""
    tool = need("bpftool", "bpftool")
    shown = subprocess.run([tool, "--json", "prog", "show"], capture_output=True, check=True)
    held = set()
    for pid in pids:
        for info in Path(f"/proc/{pid}/fdinfo").iterdir():
            words = info.read_text().split()
            held |= {int(b) for a, b in pairwise(words) if a == "prog_id:"}
    return {
        program["name"]: (program.get("run_time_ns", 0), program.get("run_cnt", 0))
        for program in json.loads(shown.stdout)
        if program["id"] in held
    }


def _probes(report: Report, lives: int) -> None:
    report.begin("probes", f"average run time in the kernel over {lives:,} lives")
    limits = {"on_exec": 8.0, "on_fork": 2.0, "on_exit": 2.0}
    with statistics_on():
        with whole_stack("probes", client=False) as running:
            _report_programs(report, running_pids(running), lives, limits)
        with peers("libbpf-tools") as others:
            children = [int(pid) for p in others for pid in _children(p.pid)]
            _report_programs(report, [p.pid for p in others] + children, lives, {})


def running_pids(running: Services) -> list[int]:
    """Return the process that holds our programs."""
    return [running.processes["collector"].pid]


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _report_programs(report: Report, pids: list[int], lives: int, limits: dict[str, float]) -> None:
    before = _programs(pids)
    storm(lives)
    for name, (spent_ns, runs) in sorted(_programs(pids).items()):
        old_ns, old_runs = before.get(name, (0, 0))
        if runs - old_runs < lives // 2:
            continue
        limit = limits.get(name)
        report.add(
            f"{name}{'' if limits else ' (libbpf-tools)'}",
            (spent_ns - old_ns) / (runs - old_runs) / 1000,
            "us",
            ("<=", limit) if limit else None,
        )
