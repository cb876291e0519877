"""What all ready-made policies cost servers in the kernel, and what of it hooks without work cost.

In each round a server's load runs without hooks, then with programs that return at once at the
hooks that all policies have together, at fewer of them, with the policies, and with bpftrace. They
are loaded as the collector loads them and nobody reads the ring meanwhile: user space is not in
these figures.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from benchmarks.bpftrace import bpftrace
from benchmarks.harness import Report
from benchmarks.policy_kernel import PolicyKernel, empty_programs
from benchmarks.ready_costs import Case, acting, fastest
from benchmarks.ready_loads import BPFTRACE
from benchmarks.ready_servers import Done, Load, servers
from readymade import NAMES, load, render

Beside = Callable[[], AbstractContextManager[object]]
ROUNDS = 9
SECONDS = 1.0
WARM_S = 2.5  # until frequent system calls are left out, see collector.policies.frequent
_ENTRY, _RETURN, _PACKET = "sys_enter", "sys_exit", "net_dev_queue"
_CALLS = (
    Case("", "getppid", "getppid", acts=20_000),
    Case("", "open to read and close", "open", "/usr/bin/env", acts=2000),
    Case("", "datagram sent to a peer reported before", "udp", acts=2000),
)
POLICIES, FEWER, PEER = "all policies", "all policies but syscalls", "bpftrace"
_EMPTY = {
    f"an empty program at {_ENTRY}": (_ENTRY,),
    f"empty programs at {_ENTRY} and {_RETURN}": (_ENTRY, _RETURN),
    f"empty programs at {_ENTRY}, {_RETURN} and {_PACKET}": (_ENTRY, _RETURN, _PACKET),
}


def run(report: Report, quick: bool, full_rounds: int = ROUNDS) -> None:
    """Measure each server with each variant in turn, in rounds."""
    texts = {name: render(load(name), {}) for name in NAMES}
    rounds = 2 if quick else full_rounds
    with PolicyKernel.opened() as kernel, servers() as loads:
        kernel.prepare(list(texts.values()))
        beside = _variants(kernel, texts)
        for case in _CALLS:
            _report_call(report, case.what, _calls(kernel, case, beside, rounds))
        for name, one in loads.items():
            found = [
                {
                    variant: _measured(kernel, one, beside(), WARM_S if variant == POLICIES else 0)
                    for variant, beside in beside.items()
                }
                for _ in range(rounds)
            ]
            _report(report, name, found)


def _variants(kernel: PolicyKernel, texts: dict[str, str]) -> dict[str, Beside]:
    """Return what stands beside a load, by name; nothing is called ""."""
    empty = {name: partial(empty_programs, hooks) for name, hooks in _EMPTY.items()}
    fewer = [text for name, text in texts.items() if name != "syscalls"]
    return {
        "": nullcontext,
        **empty,
        FEWER: partial(kernel.loaded, fewer),
        POLICIES: partial(kernel.loaded, list(texts.values())),
        PEER: partial(bpftrace, BPFTRACE),
    }


def _calls(
    kernel: PolicyKernel, case: Case, variants: dict[str, Beside], rounds: int
) -> list[dict[str, float]]:
    """Return the CPU time in ns of calls that no policy reports but as a repeated fact."""
    found = []
    with acting(case, kernel.ring.drain) as piece:
        for _ in range(rounds):
            one = {}
            for name, beside in variants.items():
                with beside():
                    one[name] = fastest(piece)
            found.append(one)
    return found


def _report_call(report: Report, call: str, rounds: list[dict[str, float]]) -> None:
    report.add(f"{call}: CPU", [one[""] for one in rounds], "ns")
    for variant in list(rounds[0])[1:]:
        more = [one[variant] - one[""] for one in rounds]
        report.add(f"{call}: CPU more with {variant}", more, "ns")


def _measured(
    kernel: PolicyKernel, load: Load, beside: AbstractContextManager[object], warm_s: float
) -> Done:
    with beside:
        if warm_s:
            load.run(warm_s)
        done = load.run(SECONDS)
    kernel.ring.drain()
    return done


def _report(report: Report, load: str, rounds: list[dict[str, Done]]) -> None:
    def cost_us(done: Done) -> float:
        return 1e6 * done.cpu_s / done.operations

    report.add(f"{load}: CPU an operation", [cost_us(one[""]) for one in rounds], "us")
    for variant in list(rounds[0])[1:]:
        ratios = [cost_us(one[variant]) / cost_us(one[""]) for one in rounds]
        report.add(f"{load}: CPU with {variant}", ratios, "x")
        wanted = ("<=", 1.03) if variant == POLICIES else None
        slowed = [one[""].per_second / one[variant].per_second for one in rounds]
        report.add(f"{load}: slowed by {variant}", slowed, "x", wanted)
