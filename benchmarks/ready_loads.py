"""Servers and a build: alone, beside the ready-made policies, and beside bpftrace.

All policies are on, with the tree of the build among the paths of ``files``. bpftrace reports as
much by its own means: opens for writing with their results, changes of TCP sockets, of user ids,
and each system call of a command once. Beside the rate there is the CPU time of an operation, of
load and server: on a machine that others use too it says more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from benchmarks import build
from benchmarks.bpftrace import bpftrace
from benchmarks.harness import Report, services, wait_for
from benchmarks.ready_servers import Done, Load, children_cpu_s, servers
from readymade import NAMES

VARIANTS = ("nothing", "tetra", "bpftrace")
ROUNDS = 5
SECONDS = 4.0  # of each load
BPFTRACE = r"""
tracepoint:syscalls:sys_enter_openat { @name[tid] = args->filename; @flags[tid] = args->flags; }
tracepoint:syscalls:sys_exit_openat
{
  if (@flags[tid] & 579) { printf("open %d %s %d\n", pid, str(@name[tid]), args->ret); }
  delete(@name[tid]); delete(@flags[tid]);
}
tracepoint:sock:inet_sock_set_state
{
  printf("tcp %d %s:%d %d %d\n", pid, ntop(args->daddr), args->dport, args->oldstate,
    args->newstate);
}
tracepoint:syscalls:sys_enter_setuid,
tracepoint:syscalls:sys_enter_setgid,
tracepoint:syscalls:sys_enter_setresuid,
tracepoint:syscalls:sys_enter_setresgid { printf("%s %d\n", probe, pid); }
tracepoint:syscalls:sys_exit_unlink,
tracepoint:syscalls:sys_exit_rename { printf("%s %d %d\n", probe, pid, args->ret); }
tracepoint:raw_syscalls:sys_enter { @used[comm, args->id] = 1; }
"""


def run(report: Report, quick: bool) -> None:
    """Each variant in turn, in rounds; all loads beside each."""
    tree = build.source(report)
    rounds, seconds = (1, 1.0) if quick else (ROUNDS, SECONDS)
    found: dict[tuple[str, str], list[Done]] = {}
    build.build(tree)
    with servers() as loads:
        for number in range(rounds):
            for variant in VARIANTS:
                with _beside(variant, tree):
                    for name, done in _each(loads, tree, seconds):
                        found.setdefault((name, variant), []).append(done)
            report.say(f"round {number + 1} done")
    for name in (*loads, "make -j2"):
        _report(report, name, {one: found[name, one] for one in VARIANTS})


def _each(loads: dict[str, Load], tree: Path, seconds: float) -> Iterator[tuple[str, Done]]:
    for name, load in loads.items():
        yield name, load.run(seconds)
    before_s = children_cpu_s()
    took_s = build.build(tree)
    yield "make -j2", Done(1, 1 / took_s, children_cpu_s() - before_s)


def _report(report: Report, name: str, found: dict[str, list[Done]]) -> None:
    alone = found["nothing"]
    report.add(f"{name}, alone", [one.per_second for one in alone], "/s")
    for variant in VARIANTS[1:]:
        pairs = list(zip(alone, found[variant], strict=True))
        wanted = ("<=", 1.03) if variant == "tetra" else None
        slowed = [without.per_second / with_it.per_second for without, with_it in pairs]
        report.add(f"{name}, slowed by {variant}", slowed, "x", wanted)
        cpu = [
            with_it.cpu_s / with_it.operations / (without.cpu_s / without.operations)
            for without, with_it in pairs
        ]
        report.add(f"{name}, CPU an operation with {variant}", cpu, "x")


def _beside(variant: str, tree: Path) -> AbstractContextManager[object]:
    if variant == "nothing":
        return nullcontext()
    return _tetra(tree) if variant == "tetra" else bpftrace(BPFTRACE)


@contextmanager
def _tetra(tree: Path) -> Iterator[None]:
    policies = "; ".join(f"files paths=/etc,{tree}" if one == "files" else one for one in NAMES)
    with services("ready") as running:
        running.start_nats()
        running.start_gateway()
        running.start_collector(TETRA_POLICIES=policies)
        loaded = 'tetragon_tracingpolicy_loaded{state="enabled"}'
        wait_for(lambda: running.metrics("collector")[loaded] == len(NAMES), "policies loaded", 300)
        yield
