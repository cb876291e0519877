"""Which processes the subjects started, directly or not, by the exec ids of their parents."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from cli.processes import parent_of, process_of
from cli.profiles.subject import Subject
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process

# Ids of processes that are remembered, those seen last: 83 MB when full.
_MOST = 1 << 18
_FACTS = frozenset({"ready/syscalls", "ready/capabilities"})

Place = tuple[str, str, str]  # node, container, executable


class Family:
    """What some subjects started; an event of a process comes behind its parent's exec."""

    def __init__(self, subjects: Iterable[Subject], most: int = _MOST) -> None:
        self._subjects = list(subjects)
        self._most = most
        self._ids = OrderedDict[int, None]()  # hashes of exec_ids, oldest first
        self.places: set[Place] = set()  # where its executables ran

    def has(self, event: GetEventsResponse) -> bool:
        """Return whether the event's process is of the family, and remember it."""
        process = process_of(event)
        if process is None or not process.exec_id:
            return False
        parent = parent_of(event)
        if not (self._knows(process) or (parent is not None and self._knows(parent))):
            return False
        self._remember(process.exec_id)
        self.places.add(place(event, process))
        return True

    def concerns(self, event: GetEventsResponse) -> bool:
        """Return whether the family did it, or a fact of the event holds for one of it."""
        if self.has(event):
            return True
        kind = event.WhichOneof("event") or ""
        tags = getattr(getattr(event, kind, None), "tags", ())
        return not _FACTS.isdisjoint(tags) and self.shares_facts(event)

    def shares_facts(self, event: GetEventsResponse) -> bool:
        """Return whether a fact of the event's process holds for one of the family.

        A fact is reported once per executable and container, for whichever process came first.
        """
        process = process_of(event)
        return process is not None and place(event, process) in self.places

    def _knows(self, process: Process) -> bool:
        """Return whether it is a subject's or of the family; a fork has no exec of its own."""
        if hash(process.exec_id) in self._ids or hash(process.parent_exec_id) in self._ids:
            return True
        return any(one.owns(process) for one in self._subjects)

    def _remember(self, exec_id: str) -> None:
        key = hash(exec_id)
        self._ids[key] = None
        self._ids.move_to_end(key)
        if len(self._ids) > self._most:
            self._ids.popitem(last=False)  # a dict would search for its first key each time


def place(event: GetEventsResponse, process: Process) -> Place:
    """Return what the facts of a process are shared by."""
    return event.node_name, process.docker, process.binary
