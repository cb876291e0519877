"""What all ready-made policies cost servers in the kernel, and what of it hooks without work cost.

In each round a server's load runs without hooks, then with programs that return at once at the
hooks that all policies have together, at fewer of them, and with the policies. They are loaded as
the collector loads them and nobody reads the ring meanwhile: user space is not in these figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from benchmarks.harness import Report
from benchmarks.policy_kernel import PolicyKernel, empty_programs
from benchmarks.ready_costs import Case, acting, fastest
from benchmarks.ready_servers import Done, Load, servers
from readymade import NAMES, load, render

ROUNDS = 9
SECONDS = 1.0
_ENTRY, _RETURN, _PACKET = "sys_enter", "sys_exit", "net_dev_queue"
POLICIES = "all policies"
_EMPTY = {
    f"an empty program at {_ENTRY}": (_ENTRY,),
    f"empty programs at {_ENTRY} and {_RETURN}": (_ENTRY, _RETURN),
    f"empty programs at {_ENTRY}, {_RETURN} and {_PACKET}": (_ENTRY, _RETURN, _PACKET),
}


def run(report: Report, quick: bool) -> None:
    """Measure each server with each variant in turn, in rounds."""
    texts = [render(load(name), {}) for name in NAMES]
    rounds = 2 if quick else ROUNDS
    with PolicyKernel.opened() as kernel, servers() as loads:
        kernel.prepare(texts)
        _report_call(report, _calls(kernel, texts, rounds))
        for name, one in loads.items():
            found = [_round(kernel, texts, one) for _ in range(rounds)]
            _report(report, name, found)


def _calls(kernel: PolicyKernel, texts: list[str], rounds: int) -> list[dict[str, float]]:
    """Return the CPU time in ns of a call that no policy reports but as a repeated fact."""
    found = []
    with acting(Case("", "", "getppid", acts=20_000), kernel.ring.drain) as piece:
        for _ in range(rounds):
            one = {}
            for name, beside in _variants(kernel, texts):
                with beside():
                    one[name] = fastest(piece)
            found.append(one)
    return found


def _report_call(report: Report, rounds: list[dict[str, float]]) -> None:
    report.add("getppid: CPU", [one[""] for one in rounds], "ns")
    for variant in (*_EMPTY, POLICIES):
        more = [one[variant] - one[""] for one in rounds]
        report.add(f"getppid: CPU more with {variant}", more, "ns")


def _round(kernel: PolicyKernel, texts: list[str], load: Load) -> dict[str, Done]:
    return {name: _measured(kernel, load, beside()) for name, beside in _variants(kernel, texts)}


def _measured(kernel: PolicyKernel, load: Load, beside: AbstractContextManager[object]) -> Done:
    with beside:
        done = load.run(SECONDS)
    kernel.ring.drain()
    return done


def _variants(
    kernel: PolicyKernel, texts: list[str]
) -> Iterator[tuple[str, Callable[[], AbstractContextManager[object]]]]:
    yield "", nullcontext
    for name, hooks in _EMPTY.items():
        yield name, partial(empty_programs, hooks)
    yield POLICIES, partial(kernel.loaded, texts)


def _report(report: Report, load: str, rounds: list[dict[str, Done]]) -> None:
    def cost_us(done: Done) -> float:
        return 1e6 * done.cpu_s / done.operations

    report.add(f"{load}: CPU an operation", [cost_us(one[""]) for one in rounds], "us")
    for variant in (*_EMPTY, POLICIES):
        ratios = [cost_us(one[variant]) / cost_us(one[""]) for one in rounds]
        wanted = ("<=", 1.03) if variant == POLICIES else None
        report.add(f"{load}: with {variant}", ratios, "x", wanted)
