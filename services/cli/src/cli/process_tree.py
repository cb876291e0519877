"""Processes under their parents, built from events; used by ``-o tree`` and ``tetra tree``."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cli.processes import command_of, is_kernel_thread, place_of, user_of
from cli.renderers.kinds import kind_of
from cli.terminal import visible
from cli.timestamps import duration_text, unix_ns
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process


@dataclass(slots=True, eq=False)
class Entry:
    """One process image: from an exec to the next exec or to the exit."""

    exec_id: str
    parent_id: str
    node: str
    pid: int
    text: str  # user and command line, printable
    start_s: float  # 0 if it is not known
    kernel: bool = False  # a kernel thread
    end_s: float | None = None
    how: str = ""  # printable: "exit 1", a signal or "exec"
    counts: Counter[str] = field(default_factory=Counter)  # of events that are no start or end
    children: list[Entry] = field(default_factory=list)

    @property
    def age(self) -> tuple[float, int]:
        """Return a key that puts older processes first."""
        return self.start_s, self.pid

    def ran(self, now_s: float | None = None) -> str:
        """Return how long it ran, or has run; nothing if that is not known."""
        until = self.end_s if self.end_s is not None else now_s
        return duration_text(until - self.start_s) if until is not None and self.start_s else ""

    def state(self) -> str:
        """Return ``running``, or how it ended and how long it ran, such as ``SIGKILL, 3ms``.

        Then the number of events of each other kind: ``running, 2 kprobe``.
        """
        counts = [f"{count} {kind}" for kind, count in sorted(self.counts.items())]
        if self.end_s is None:
            return ", ".join(("running", *counts))
        ended = [part for part in (self.how, self.ran()) if part] or ["ended"]
        return ", ".join((*ended, *counts))


class ProcessTree:
    """The processes of one or more nodes, each under its parent."""

    def __init__(self, *, keeps_ended: int) -> None:
        """Keep at most ``keeps_ended`` ended processes that have no running descendant."""
        self.entries: dict[str, Entry] = {}
        self.roots: list[Entry] = []
        self.running = 0
        self.forgotten = 0
        self._keeps_ended = self._full_at = keeps_ended

    def add(self, event: GetEventsResponse) -> None:
        """Add an event, as its kind does."""
        kind_of(event.WhichOneof("event")).tree(self, event)

    def start(self, event: GetEventsResponse, process: Process, parent: Process | None) -> None:
        """Add a process; where it is a new image of a running process, end the one before."""
        above = self._known(event.node_name, parent) if parent is not None else None
        entry = self._known(event.node_name, process)
        if above is None or entry is None or above is entry or above.pid != entry.pid:
            return
        self._end(above, unix_ns(event.time) / 1e9, "exec")  # now it runs another file

    def end(
        self, event: GetEventsResponse, process: Process, parent: Process | None, how: str
    ) -> None:
        """End a process; ``how`` is what is shown of its end."""
        entry = self._seen(event, process, parent)
        if entry is not None:
            self._end(entry, unix_ns(event.time) / 1e9, visible(how))

    def note(
        self, event: GetEventsResponse, process: Process, parent: Process | None, kind: str
    ) -> None:
        """Count an event that neither starts nor ends its process."""
        entry = self._seen(event, process, parent)
        if entry is not None:
            entry.counts[visible(kind)] += 1

    def _seen(
        self, event: GetEventsResponse, process: Process, parent: Process | None
    ) -> Entry | None:
        if parent is not None:
            self._known(event.node_name, parent)
        return self._known(event.node_name, process)

    def _known(self, node: str, process: Process) -> Entry | None:
        """Return the entry of ``process``; add it under its parent if it is new."""
        exec_id = process.exec_id
        if not exec_id:
            return None
        entry = self.entries.get(exec_id)
        if entry is None:
            place = place_of(process)
            text = f"{process.pid.value}: {user_of(process)}: {command_of(process)}"
            entry = Entry(
                exec_id=exec_id,
                parent_id=process.parent_exec_id,
                node=node,
                pid=process.pid.value,
                text=visible(f"{text} [{place}]" if place else text),
                start_s=unix_ns(process.start_time) / 1e9,
            )
            self.entries[exec_id] = entry
            self.running += 1
            above = self.entries.get(entry.parent_id)
            if above is None or above is entry:
                insort(self.roots, entry, key=lambda root: (root.node, *root.age))
            else:
                entry.kernel = is_kernel_thread(process, above.pid)
                insort(above.children, entry, key=lambda child: child.age)
            if len(self.entries) - self.running > self._full_at:
                self.forget_ended()
                # The rest has running descendants: searching again soon would find the same.
                self._full_at = max(self._keeps_ended, 2 * (len(self.entries) - self.running))
        return entry

    def _end(self, entry: Entry, moment_s: float, how: str) -> None:
        if entry.end_s is None:
            self.running -= 1
        entry.end_s, entry.how = moment_s, how

    def forget_ended(self, before_s: float | None = None) -> None:
        """Drop processes that ended (before a time) and have no running descendant.

        If such a process continues with another file, the new image takes its place.
        """

        def pruned(entries: list[Entry]) -> list[Entry]:
            kept = []
            for entry in entries:
                if entry.end_s is None or (before_s is not None and entry.end_s >= before_s):
                    kept.append(entry)
                    continue
                following = _following_image(entry)
                if following is not None:
                    entry.children.remove(following)
                    following.children = sorted(
                        [*entry.children, *following.children], key=lambda child: child.age
                    )
                    kept.append(following)
                elif entry.children:
                    kept.append(entry)
                    continue
                del self.entries[entry.exec_id]
                self.forgotten += 1
            return kept

        # From the leaves up, without recursion: chains of thousands of execs exist.
        downwards = [*self.roots]
        for entry in downwards:
            downwards.extend(entry.children)
        for entry in reversed(downwards):
            if entry.children:
                entry.children = pruned(entry.children)
        self.roots = pruned(self.roots)

    def walk(
        self, shows: Callable[[Entry], bool] = lambda entry: True
    ) -> Iterator[tuple[Entry, tuple[bool, ...]]]:
        """Yield each entry with, for each of its ancestors and itself, whether it is the last.

        Entries that ``shows`` rejects are left out with their descendants.
        """
        stack: list[tuple[Entry, tuple[bool, ...]]] = []

        def push(entries: list[Entry], above: tuple[bool, ...]) -> None:
            for place, entry in enumerate(filter(shows, reversed(entries))):
                stack.append((entry, (*above, place == 0)))

        push(self.roots, ())
        while stack:
            entry, lasts = stack.pop()
            yield entry, lasts
            push(entry.children, lasts)


def _following_image(entry: Entry) -> Entry | None:
    """Return the next image of a process whose image ``entry`` ended with an exec."""
    if entry.how != "exec":
        return None
    return next((child for child in entry.children if child.pid == entry.pid), None)


@dataclass(frozen=True, slots=True)
class Branches:
    """The strokes that draw a tree."""

    fork: str = "├─ "
    last: str = "└─ "
    through: str = "│  "
    blank: str = "   "

    @classmethod
    def of(cls, *, unicode: bool) -> Branches:
        """Return strokes that the locale can write."""
        return cls() if unicode else cls("|- ", "`- ", "|  ", "   ")

    def before(self, lasts: tuple[bool, ...]) -> str:
        """Return the strokes before an entry; a root has none."""
        if len(lasts) < 2:
            return ""
        stem = "".join(self.blank if last else self.through for last in lasts[1:-1])
        return stem + (self.last if lasts[-1] else self.fork)
