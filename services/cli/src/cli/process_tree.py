"""Processes under their parents, built from events; used by ``-o tree`` and ``tetra tree``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cli.processes import command_of, end_of, place_of, user_of
from cli.terminal import visible
from cli.timestamps import duration_text
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process

_KEPT_ENDED = 20_000  # ended processes without living descendants are forgotten beyond this


@dataclass(slots=True, eq=False)
class Entry:
    """One process image: from an exec to the next one or to the end."""

    exec_id: str
    parent_id: str
    node: str
    pid: int
    text: str  # who and what, printable
    start_s: float  # 0 where it is not known
    end_s: float | None = None
    how: str = ""  # printable: exit status, signal or "exec"
    children: list[Entry] = field(default_factory=list)

    def state(self, now_s: float | None = None) -> str:
        """Return how long it ran and how it ended, such as ``SIGKILL, 3ms``."""
        until = self.end_s if self.end_s is not None else now_s
        ran = duration_text(until - self.start_s) if until is not None and self.start_s else ""
        if self.end_s is None:
            return f"running {ran}".rstrip()
        return ", ".join(part for part in (self.how, ran) if part) or "ended"


class ProcessTree:
    """The processes of one or more nodes, each under its parent."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.roots: list[Entry] = []
        self.running = 0

    def add(self, event: GetEventsResponse) -> None:
        """Take in an exec or an exit; ignore other events."""
        kind = event.WhichOneof("event")
        if kind not in ("process_exec", "process_exit"):
            return
        body = event.process_exec if kind == "process_exec" else event.process_exit
        parent = self._known(event.node_name, body.parent) if body.HasField("parent") else None
        entry = self._known(event.node_name, body.process)
        if entry is None:
            return
        moment_s = event.time.ToNanoseconds() / 1e9
        if kind == "process_exit":
            self._end(entry, moment_s, visible(end_of(event.process_exit)))
        elif parent is not None and parent is not entry and parent.pid == entry.pid:
            self._end(parent, moment_s, "exec")  # the same process, now running another file

    def _known(self, node: str, process: Process) -> Entry | None:
        """Return the entry of ``process``, made and hung under its parent if it is new."""
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
                start_s=process.start_time.ToNanoseconds() / 1e9,
            )
            self.entries[exec_id] = entry
            self.running += 1
            above = self.entries.get(entry.parent_id)
            if above is None or above is entry:
                self.roots.append(entry)
            else:
                above.children.append(entry)
            if len(self.entries) - self.running > _KEPT_ENDED:
                self.forget_ended()
        return entry

    def _end(self, entry: Entry, moment_s: float, how: str) -> None:
        if entry.end_s is None:
            self.running -= 1
        entry.end_s, entry.how = moment_s, how

    def forget_ended(self, before_s: float | None = None) -> None:
        """Forget processes that ended (before a time), with no running descendant."""

        def gone(entry: Entry) -> bool:
            return entry.end_s is not None and (before_s is None or entry.end_s < before_s)

        def pruned(entries: list[Entry]) -> list[Entry]:
            kept = []
            for entry in entries:
                if entry.children or not gone(entry):
                    kept.append(entry)
                else:
                    del self.entries[entry.exec_id]
            return kept

        # From the leaves up, without recursion: chains of thousands of execs exist.
        for entry, _ in reversed(list(self.walk())):
            if entry.children:
                entry.children = pruned(entry.children)
        self.roots = pruned(self.roots)

    def walk(self) -> Iterator[tuple[Entry, tuple[bool, ...]]]:
        """Yield each entry with, for each of its ancestors and itself, whether it is the last."""
        stack: list[tuple[Entry, tuple[bool, ...]]] = []

        def push(entries: list[Entry], above: tuple[bool, ...]) -> None:
            for place, entry in enumerate(reversed(entries)):
                stack.append((entry, (*above, place == 0)))

        push(sorted(self.roots, key=lambda root: root.node), ())
        while stack:
            entry, lasts = stack.pop()
            yield entry, lasts
            push(entry.children, lasts)


@dataclass(frozen=True, slots=True)
class Branches:
    """The strokes of a tree."""

    fork: str = "├─ "
    last: str = "└─ "
    through: str = "│  "
    blank: str = "   "

    @classmethod
    def of(cls, *, unicode: bool) -> Branches:
        """Return strokes that the locale can write."""
        return cls() if unicode else cls("|- ", "`- ", "|  ", "   ")

    def before(self, lasts: tuple[bool, ...]) -> str:
        """Return what stands before an entry; roots have nothing before them."""
        if len(lasts) < 2:
            return ""
        stem = "".join(self.blank if last else self.through for last in lasts[1:-1])
        return stem + (self.last if lasts[-1] else self.fork)
