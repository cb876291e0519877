"""What all container engines share: the containers that are known, and lookups of the others.

One thread lists an engine's containers and follows its events, so a container is known when it is
created, before anything in it runs. Another looks up the ids that are not known then. Both end with
the process. Nothing waits for an engine: one may accept a connection and never answer.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import ClassVar

import structlog
from cachetools import LRUCache

from chassis.backoff import Backoff
from collector.processes.table import ContainerInfo

RECONNECT_MIN_S, RECONNECT_MAX_S = 0.2, 5.0
LOOKUPS_MAX = 3  # of one id that is not found: it belongs to another engine
LOOKUP_EVERY_S = 1.0  # of one id
_KNOWN_MAX = 10_000

log = structlog.get_logger()


class _Lookup:
    """How often an id was looked up and not found, and whether a lookup is under way."""

    __slots__ = ("asked_s", "misses", "pending")

    def __init__(self) -> None:
        self.misses = 0
        self.pending = False
        self.asked_s = float("-inf")


class Engine(ABC):
    """Knows the containers of one engine by their full id."""

    errors: ClassVar[tuple[type[Exception], ...]] = ()  # of an engine that does not answer well

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()  # of the two dictionaries
        self._known: LRUCache[str, ContainerInfo] = LRUCache(_KNOWN_MAX)
        self._lookups: LRUCache[str, _Lookup] = LRUCache(_KNOWN_MAX)
        self._late: list[ContainerInfo] = []
        self._queue: SimpleQueue[str] = SimpleQueue()
        self._present = bool(path) and Path(path).exists()
        self._disabled = False  # a socket that serves something else
        self._listed = False  # since the connection was lost
        self._listed_once = False
        self._first_read = threading.Event()  # set when the first list came, or failed
        self._changed: Callable[[str], None] = _ignore
        self._closed = threading.Event()

    @abstractmethod
    def read(self, full_id: str = "") -> None:
        """Ask the engine for one container, or for all, and `add` them; raise `errors`."""

    @abstractmethod
    def follow(self) -> None:
        """`add` each new container, until the engine ends the connection; raise `errors`."""

    def start(self, changed: Callable[[str], None] | None = None) -> None:
        """List the containers and follow changes, in threads; ``changed`` gets the id of each."""
        if not self.path:
            return
        self._changed = changed or _ignore
        for target in (self._follow, self._look_up):
            threading.Thread(target=target, name="container engine", daemon=True).start()

    def close(self) -> None:
        """Stop following the engine when its connection ends."""
        self._closed.set()

    def wait_listed(self, until_s: float) -> None:
        """Wait for the first list, at most until ``until_s`` of the monotonic clock."""
        if self._present:
            self._first_read.wait(max(0.0, until_s - time.monotonic()))

    def get(self, full_id: str) -> ContainerInfo | None:
        """Return the container with this full id, or None while it is unknown."""
        with self._lock:
            found = self._known.get(full_id)
            if found is None and not self._listed_once and full_id not in self._lookups:
                self._lookups[full_id] = _Lookup()  # it is late when the first list names it
        return found

    def known(self, full_id: str) -> ContainerInfo | None:
        """Return what `get` returns; an engine asks this about its own containers."""
        with self._lock:
            return self._known.get(full_id)

    def settled(self, full_id: str) -> bool:
        """Return False while the engine is being asked about ``full_id``."""
        if not self._present:
            return True
        with self._lock:
            if full_id in self._known:
                return True
            lookup = self._lookups.setdefault(full_id, _Lookup())
            if lookup.pending:
                return False
            now_s = time.monotonic()
            if lookup.misses >= LOOKUPS_MAX or now_s - lookup.asked_s < LOOKUP_EVERY_S:
                return True
            lookup.pending, lookup.asked_s = True, now_s
        self._queue.put(full_id)
        return False

    def take_late(self) -> list[ContainerInfo]:
        """Return the containers that became known after a lookup had failed, each once."""
        with self._lock:
            late, self._late = self._late, []
        return late

    def add(self, info: ContainerInfo) -> None:
        """Enter a container, or replace its entry."""
        with self._lock:
            self._known[info.id] = info
            lookup = self._lookups.pop(info.id, None)
            if lookup is not None:  # events may have been reported without the name
                self._late.append(info)
        self._changed(info.id)

    def _look_up(self) -> None:
        while True:
            full_id = self._queue.get()
            try:
                self.read(full_id)
            except self.errors as error:
                log.debug("container not found", container=full_id[:12], error=brief(error))
            with self._lock:
                if lookup := self._lookups.get(full_id):
                    lookup.misses += 1
                    lookup.pending = False
                    lookup.asked_s = time.monotonic()

    def _follow(self) -> None:
        self._read_first()
        waits = Backoff(RECONNECT_MIN_S, RECONNECT_MAX_S)
        while not self._closed.is_set():
            start_s = time.monotonic()
            try:
                self.follow()
            except self.errors:
                self._present = Path(self.path).exists()
            self._listed = False
            if time.monotonic() - start_s > RECONNECT_MAX_S:  # it was connected
                waits.reset()
            self._closed.wait(waits.next_s())

    def _read_first(self) -> None:
        """List the containers where there is a socket; `follow` lists them again if that failed."""
        try:
            if self._present:
                self.read()
                self._listed = self._listed_once = True
        except self.errors as error:
            log.warning("container engine not readable", socket=self.path, error=brief(error))
        finally:
            self._first_read.set()

    def _connected(self) -> None:
        """List containers created while there was no connection; `follow` calls it."""
        if not self._listed:
            self.read()
            self._listed = self._listed_once = True
        self._present = not self._disabled  # from now on unknown containers are looked up


def brief(error: Exception) -> str:
    """Return the first line of an error."""
    return str(error).partition("\n")[0]


def _ignore(_full_id: str) -> None:
    """Ignore a change."""
