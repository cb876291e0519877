"""A long outage of NATS under load: spooled events, memory, and what is lost afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chaos.account import Account, Printed, account, read_printed
from chaos.report import say, say_rows, verify
from chaos.stack import Stack, run_marks, wait_for
from chaos.stream import Tally, tally

# What the collector may take beside the events that it keeps: its table of processes, which grows
# for half a minute under load, the record under way, its index of the spool.
OVERHEAD_BYTES = 48 << 20
ENDLESS = 1 << 40
LONGEST_S = 60.0  # beyond its time an outage waits for a spool to fill


@dataclass
class Plan:
    """One outage."""

    seconds: float
    per_second: int
    lead_s: float = 10  # of load before it, and behind it
    # The collector too, when three quarters of it are over and its spool has begun to drop events.
    kill: bool = False
    memory_bytes: int = 64 << 20  # SPOOL_MEMORY_BYTES of the collector
    on_disk: bool = True  # it has a spool there


@dataclass
class Figures:
    """Figures measured from outside the collector."""

    away_s: float = 0.0
    caught_up_s: float = 0.0  # from when NATS is back until hardly anything waits
    memory_before: int = 0  # bytes, resident
    memory_most: int = 0
    waiting_most: int = 0  # events
    dropped: int = 0  # by the account of the collector that ran last
    dropped_killed: int = 0  # by that of the one that was killed, just before
    gone: list[tuple[int, int, bool]] = field(default_factory=list)  # see account()

    @property
    def memory_more(self) -> int:
        """What the outage took, in bytes."""
        return self.memory_most - self.memory_before


def run(stack: Stack, folder: Path, mark: str, plan: Plan) -> dict[str, object]:
    """Stop NATS while marked processes run; return the figures and whether all were reported."""
    stack.start()
    marks = folder / "marks.txt"
    load = run_marks(folder, marks, mark, ENDLESS, plan.per_second)
    try:
        time.sleep(plan.lead_s)
        figures = _take_away(stack, plan)
        time.sleep(plan.lead_s)
    finally:
        load.terminate()
        load.wait()
    say("load done; waiting until every mark is reported")
    wait_for(lambda: stack.value("spool_events") == 0, "the collector has published all", 300)
    figures.dropped = stack.settled_value("dropped_events_total")
    printed, stream = _await_last(stack, folder, mark)
    verdict = verify(stack)
    node: dict[str, object] = next(
        (n for n in verdict["nodes"] if n["node_name"] == stack.node), {}
    )
    for gap in verdict["holes"]:
        say(f"  {gap}")
    result = account(marks, printed, figures.gone)
    return _judge(plan, figures, stream, node, result, printed)


def _take_away(stack: Stack, plan: Plan) -> Figures:
    collector = stack.collector
    figures = Figures(memory_before=collector.memory_bytes("VmRSS"))
    collector.forget_peak()
    start = time.monotonic()
    for service in stack.nats:
        service.end()
    say(f"NATS is down for {plan.seconds:g} s")
    while _continues(plan, figures, time.monotonic() - start):
        figures.waiting_most = max(figures.waiting_most, stack.value("spool_events"))
        figures.memory_most = max(figures.memory_most, collector.memory_bytes("VmHWM"))
        dropped = stack.value("dropped_events_total")
        due = plan.kill and time.monotonic() - start > plan.seconds * 0.75
        if due and dropped > 0 and not figures.gone:
            collector.end()
            collector.start()
            say(f"collector killed and started; it had dropped {dropped} events")
            figures.dropped_killed = dropped
            figures.gone = [(*span, True) for span in collector.away]
        time.sleep(0.2)
    for service in stack.nats:
        service.spawn()
    for service in stack.nats:
        service.wait_ready()
    back = time.monotonic()
    figures.away_s = back - start
    say(f"NATS is back; {stack.value('spool_events')} events are spooled")
    wait_for(lambda: stack.value("spool_events") < plan.per_second, "caught up", 600)
    figures.caught_up_s = time.monotonic() - back
    figures.memory_most = max(figures.memory_most, collector.memory_bytes("VmHWM"))
    return figures


def _continues(plan: Plan, figures: Figures, away_s: float) -> bool:
    waits = plan.kill and not figures.gone
    return away_s < plan.seconds + (LONGEST_S if waits else 0)


def _await_last(stack: Stack, folder: Path, mark: str) -> tuple[Printed, Tally]:
    """Return what client and stream have: when both have the last mark, or after a while."""
    last = int((folder / "marks.txt").read_text().splitlines()[-1].split()[0])
    deadline = time.monotonic() + 120
    while True:
        stream = tally(stack.url, stack.node, mark)
        printed = read_printed(folder / "events.json", mark)
        if (stream.exits[-1:] == [last] and _agree(printed, stream)) or time.monotonic() > deadline:
            return printed, stream
        time.sleep(2)


def _agree(printed: Printed, stream: Tally) -> bool:
    return (printed.execs, printed.exits) == (stream.execs, stream.exits)


def _judge(
    plan: Plan,
    figures: Figures,
    stream: Tally,
    node: Mapping[str, object],
    result: Account,
    printed: Printed,
) -> dict[str, object]:
    """``node``: what `tetra verify` says of it."""
    checks = {
        "every mark reported once, or counted as lost": not result.duplicates
        and (stream.missing > 0 or not result.missing),
        "the client printed what the stream has, in its order": _agree(printed, stream),
        "the stream is in order": stream.in_order,
        "verify reports what is missing": (
            (node.get("missing"), node.get("twice")) == (stream.missing, 0)
        ),
        # A killed collector's last count may be younger than what it could still report.
        "the collector counted what is missing": plan.kill or figures.dropped == stream.missing,
        "and reported the count": plan.kill or node.get("lost") == stream.missing,
        # In memory alone the batch under way is the oldest, and what goes then is behind it.
        "the oldest events are lost": _stretches(result) <= (1 if plan.on_disk else 2),
        "memory within its setting": figures.memory_more <= plan.memory_bytes + OVERHEAD_BYTES,
    }
    if plan.kill:
        checks["the killed collector's spool was full"] = figures.dropped_killed > 0
    rows: dict[str, object] = {
        "NATS down, s": round(figures.away_s, 1),
        "caught up within, s": round(figures.caught_up_s, 1),
        "events spooled, at most": figures.waiting_most,
        "memory before, MB": figures.memory_before >> 20,
        "memory at most, MB": figures.memory_most >> 20,
        "memory for events by setting, MB": plan.memory_bytes >> 20,
        "marks": result.marks,
        "marks missing": len(result.missing),
        "marks reported more than once": len(result.duplicates),
        "marks not seen, no collector ran": result.unseen,
        "marks reported in part": result.partial,
        "events in the stream": stream.events,
        "events missing there, by number": stream.missing,
        "gaps": len(stream.gaps),
        "missing by tetra verify": node.get("missing"),
        "lost by tetra verify": node.get("lost"),
        "dropped by the collector's count": figures.dropped,
    }
    say_rows(rows)
    for check, holds in checks.items():
        say(f"  {'yes' if holds else 'NO '}  {check}")
    failed = [check for check, holds in checks.items() if not holds]
    return {"passed": not failed, **rows, "failed": failed}


def _stretches(result: Account) -> int:
    """Return how many stretches of marks that follow each other are missing without excuse."""
    missing = result.missing
    return sum(n == 0 or number - missing[n - 1] > 1 for n, number in enumerate(missing))
