"""Accounts for every mark: reported once, excused, missing or a duplicate."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

# What a killed collector had not read yet of the ring, which goes with it: on a busy host it looks
# every quarter of a second (TETRA_MAX_READ_DELAY_MS), and may have to wait for a CPU as long.
IN_RING_NS = 500_000_000


@dataclass
class Printed:
    """Numbers of the marks, in the order in which the client printed them."""

    execs: list[int] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)


@dataclass
class Account:
    """Counts of one run."""

    marks: int = 0
    missing: list[int] = field(default_factory=list)  # and nothing excuses it
    duplicates: list[int] = field(default_factory=list)
    unseen: int = 0  # processes that started and ended while no collector ran
    partial: int = 0  # only one of exec and exit: the other was while no collector ran

    @property
    def passed(self) -> bool:
        """Whether every mark was reported exactly once or is excused."""
        return self.marks > 0 and not self.missing and not self.duplicates


def read_printed(events_file: Path, mark: str) -> Printed:
    """Return the marks that the client has printed so far."""
    printed = Printed()
    with events_file.open(encoding="utf-8") as lines:
        for line in lines:
            if mark not in line or not line.endswith("\n"):
                continue
            # A client that was killed may have left the begin of an event before the next one.
            event = json.loads(line[max(line.rfind('{"process_'), 0) :])
            kind = next((one for one in ("process_exec", "process_exit") if one in event), "")
            if not kind:
                continue  # what a tracing policy saw a mark do
            words = event[kind]["process"].get("arguments", "").split()
            if len(words) == 2 and words[0] == mark:
                numbers = printed.execs if kind == "process_exec" else printed.exits
                numbers.append(int(words[1]))
    return printed


def account(marks_file: Path, printed: Printed, away: list[tuple[int, int, bool]]) -> Account:
    """Compare what ran with what was printed.

    ``away``: times of the boot clock without a collector, and whether it was killed (else it
    stopped cleanly, and kept what it had).
    """
    execs, exits = Counter(printed.execs), Counter(printed.exits)
    result = Account()
    for row in marks_file.read_text().splitlines():
        number, start, end = map(int, row.split())
        result.marks += 1
        counts = execs[number], exits[number]
        if max(counts) > 1:
            result.duplicates.append(number)
        elif counts == (1, 1):
            continue
        elif any(start < to and end > gone - (IN_RING_NS if killed else 0)
                 for gone, to, killed in away):  # fmt: skip
            if counts == (0, 0):
                result.unseen += 1
            else:
                result.partial += 1
        else:
            result.missing.append(number)
    return result
