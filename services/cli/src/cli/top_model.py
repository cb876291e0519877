"""The figures of ``tetra top``: starts and ends a second by group, the longest running, losses."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import nsmallest
from operator import attrgetter

from cli.processes import command_of, is_kernel_thread, place_of, user_of
from cli.renderers.gaps import COPIES
from cli.renderers.kinds import kind_of
from cli.resume import Batch
from cli.terminal import visible
from cli.timestamps import unix_ns
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process

GROUPS = ("binary", "user", "container", "node")
# Accesses that ready-made policies report: `starts` counts all of them, `ends` the failed ones.
ACCESSES = ("file", "peer")
_WINDOW_S = 10
_KEPT_TOTALS = 5_000  # groups with a total; at twice as many, the smallest are dropped


@dataclass(frozen=True, slots=True)
class Running:
    """A process that has not ended."""

    pid: int
    user: str
    command: str
    node: str
    start_s: float


@dataclass(slots=True)
class _Second:
    at: int
    started: dict[str, Counter[str]] = field(
        default_factory=lambda: {group: Counter() for group in (*GROUPS, *ACCESSES)}
    )
    ended: dict[str, Counter[str]] = field(
        default_factory=lambda: {group: Counter() for group in (*GROUPS, *ACCESSES)}
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
        self.started = self.ended = self.others = 0
        self._totals = {group: Counter[str]() for group in (*GROUPS, *ACCESSES)}
        self._seconds: deque[_Second] = deque()
        self._begin: int | None = None
        self._current = _Second(0)  # the second in which the current batch is counted

    def take(self, batch: Batch, now_s: float) -> None:
        """Count a batch that arrived at ``now_s``."""
        self._current = self._second(int(now_s))
        for event in batch.events:
            kind_of(event.WhichOneof("event")).top(self, event)
        for loss in batch.losses:
            self.lost += sum(loss.lost.by_cause.values())
        self.gaps += sum(gap.cause not in COPIES for gap in batch.gaps)

    def start(self, event: GetEventsResponse, process: Process, parent: Process) -> None:
        """Count a start, unless the process ran before the stream began."""
        self.nodes.add(event.node_name)
        if is_kernel_thread(process, parent.pid.value):
            return  # it runs as long as the kernel
        self.running[process.exec_id] = Running(
            process.pid.value,
            visible(user_of(process)),
            visible(command_of(process)),
            visible(event.node_name),
            unix_ns(process.start_time) / 1e9,
        )
        if parent.pid.value == process.pid.value:
            self.running.pop(parent.exec_id, None)  # the same process, now running another file
        if "procFS" in process.flags:
            return
        self.started += 1
        for group, name in _groups(event, process):
            self._current.started[group][name] += 1
            self._count(group, name)

    def end(self, event: GetEventsResponse, process: Process) -> None:
        """Count an end."""
        self.nodes.add(event.node_name)
        self.running.pop(process.exec_id, None)
        self.ended += 1
        for group, name in _groups(event, process):
            self._current.ended[group][name] += 1

    def note(self, event: GetEventsResponse) -> None:
        """Count an event that neither starts nor ends a process."""
        self.nodes.add(event.node_name)
        self.others += 1

    def access(self, group: str, name: str, *, failed: bool) -> None:
        """Count an access to a file or a peer."""
        shown = visible(name)
        self._current.started[group][shown] += 1
        if failed:
            self._current.ended[group][shown] += 1
        self._count(group, shown)

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
        """Return the processes that have run longest, without those of unknown start."""
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


def _groups(event: GetEventsResponse, process: Process) -> Iterable[tuple[str, str]]:
    """Return for each of `GROUPS` the one that ``process`` belongs to."""
    names = (
        visible(process.binary),
        visible(user_of(process)),
        visible(place_of(process)) or "(host)",
        visible(event.node_name),
    )
    return zip(GROUPS, names, strict=True)
