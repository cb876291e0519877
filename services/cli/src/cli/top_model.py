"""What ``tetra top`` counts: starts and ends a second by group, the longest running, losses."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from heapq import nsmallest
from operator import attrgetter

from cli.processes import command_of, is_kernel_thread, place_of, user_of
from cli.renderers.gaps import COPIES
from cli.resume import Batch
from cli.terminal import visible
from cli.timestamps import unix_ns

GROUPS = ("binary", "user", "container", "node")
_WINDOW_S = 10
_KEPT_TOTALS = 5_000  # groups whose totals are remembered; beyond twice that the rarest go


@dataclass(frozen=True, slots=True)
class Running:
    """A process that has not ended yet."""

    pid: int
    user: str
    command: str
    node: str
    start_s: float


@dataclass(slots=True)
class _Second:
    at: int
    started: dict[str, Counter[str]] = field(
        default_factory=lambda: {group: Counter() for group in GROUPS}
    )
    ended: dict[str, Counter[str]] = field(
        default_factory=lambda: {group: Counter() for group in GROUPS}
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One group: rates over the last ten seconds, and the starts since the beginning."""

    name: str
    starts_per_s: float
    ends_per_s: float
    total: int


class TopModel:
    """Counts a stream. Seconds are those of arrival, given by the caller."""

    def __init__(self) -> None:
        self.running: dict[str, Running] = {}
        self.nodes: set[str] = set()
        self.lost = 0
        self.gaps = 0
        self.started = self.ended = 0
        self._totals = {group: Counter[str]() for group in GROUPS}
        self._seconds: deque[_Second] = deque()
        self._begin: int | None = None

    def take(self, batch: Batch, now_s: float) -> None:
        """Count a batch that arrived at ``now_s``."""
        second = self._second(int(now_s))
        for event in batch.events:
            kind = event.WhichOneof("event")
            if kind not in ("process_exec", "process_exit"):
                continue
            process = getattr(event, kind).process
            self.nodes.add(event.node_name)
            if kind == "process_exec":
                if is_kernel_thread(process, event.process_exec.parent.pid.value):
                    continue  # nobody started it, and it runs for ever
                self.running[process.exec_id] = Running(
                    process.pid.value,
                    visible(user_of(process)),
                    visible(command_of(process)),
                    visible(event.node_name),
                    unix_ns(process.start_time) / 1e9,
                )
                parent = event.process_exec.parent
                if parent.pid.value == process.pid.value:
                    self.running.pop(parent.exec_id, None)  # the same process, another file
                if "procFS" in process.flags:
                    continue  # it ran before we looked: no start
                self.started += 1
            else:
                self.running.pop(process.exec_id, None)
                self.ended += 1
            names = (
                visible(process.binary),
                visible(user_of(process)),
                visible(place_of(process)) or "(host)",
                visible(event.node_name),
            )
            counters = second.started if kind == "process_exec" else second.ended
            for group, name in zip(GROUPS, names, strict=True):
                counters[group][name] += 1
                if kind == "process_exec":
                    self._count(group, name)
        for loss in batch.losses:
            self.lost += sum(loss.lost.by_cause.values())
        self.gaps += sum(gap.cause not in COPIES for gap in batch.gaps)

    def _count(self, group: str, name: str) -> None:
        totals = self._totals[group]
        totals[name] += 1
        if len(totals) > 2 * _KEPT_TOTALS:
            self._totals[group] = Counter(dict(totals.most_common(_KEPT_TOTALS)))

    def rows(self, group: str, now_s: float) -> list[Row]:
        """Return the groups, those with most starts and ends a second first."""
        self._second(int(now_s))
        window_s = self._window_s(now_s)
        started, ended = Counter[str](), Counter[str]()
        for second in self._seconds:
            started.update(second.started[group])
            ended.update(second.ended[group])
        rows = [
            Row(name, started[name] / window_s, ended[name] / window_s, self._totals[group][name])
            for name in {*started, *ended, *dict(self._totals[group].most_common(100))}
        ]
        return sorted(rows, key=lambda r: (-r.starts_per_s - r.ends_per_s, -r.total, r.name))

    def longest(self, count: int) -> list[Running]:
        """Return the processes that have run longest; those of unknown start are left out."""
        known = (process for process in self.running.values() if process.start_s)
        return nsmallest(count, known, key=attrgetter("start_s"))

    def _second(self, now: int) -> _Second:
        if self._begin is None:
            self._begin = now
        if not self._seconds or self._seconds[-1].at != now:
            self._seconds.append(_Second(now))
        while self._seconds[0].at <= now - _WINDOW_S:
            self._seconds.popleft()
        return self._seconds[-1]

    def _window_s(self, now_s: float) -> float:
        since_begin = now_s - (self._begin if self._begin is not None else now_s)
        return min(float(_WINDOW_S), max(1.0, since_begin))
