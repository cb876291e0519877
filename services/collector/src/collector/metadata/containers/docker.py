"""Names and images of containers, from the Docker Engine API (Podman serves the same).

Optional: without the socket events carry ids only. One thread follows the engine's events, so a
container is known when it is created, before anything in it runs. Another looks up the ids that
are not known then.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import quote

import structlog
from cachetools import LRUCache

from collector.processes.table import ContainerInfo

_LOOKUP_TIMEOUT_S = 5.0
_RECONNECT_S = 5.0
_LOOKUPS_MAX = 3  # of one id that is not found: it belongs to another engine
_LOOKUP_EVERY_S = 1.0  # of one id
_KNOWN_MAX = 10_000
_RUNTIME = "docker"
_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, http.client.HTTPException)

log = structlog.get_logger()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Lookup:
    """How often an id was looked up and not found, and whether a lookup is under way."""

    __slots__ = ("asked_s", "misses", "pending")

    def __init__(self) -> None:
        self.misses = 0
        self.pending = False
        self.asked_s = float("-inf")


class Docker:
    """Knows containers by their full id."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()  # of the two dictionaries
        self._known: LRUCache[str, ContainerInfo] = LRUCache(_KNOWN_MAX)
        self._lookups: LRUCache[str, _Lookup] = LRUCache(_KNOWN_MAX)
        self._late: list[ContainerInfo] = []
        self._queue: SimpleQueue[str] = SimpleQueue()
        self._present = bool(path) and Path(path).exists()

    def start(self) -> None:
        """List the containers, and follow changes in threads that end with the process."""
        if not self._path:
            return
        if self._present:
            try:
                self._list(timeout_s=_LOOKUP_TIMEOUT_S)
            except _ERRORS as error:
                log.warning("container engine not readable", socket=self._path, error=str(error))
        for target in (self._follow, self._look_up):
            threading.Thread(target=target, name="container engine", daemon=True).start()

    def get(self, full_id: str) -> ContainerInfo | None:
        """Return the container with this full id, or None while it is unknown."""
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
            if lookup.misses >= _LOOKUPS_MAX or now_s - lookup.asked_s < _LOOKUP_EVERY_S:
                return True
            lookup.pending, lookup.asked_s = True, now_s
        self._queue.put(full_id)
        return False

    def take_late(self) -> list[ContainerInfo]:
        """Return the containers that became known after a lookup had failed, each once."""
        with self._lock:
            late, self._late = self._late, []
        return late

    def _look_up(self) -> None:
        while True:
            full_id = self._queue.get()
            try:
                self._list(full_id, timeout_s=_LOOKUP_TIMEOUT_S)
            except _ERRORS as error:
                log.debug("container not found", container=full_id[:12], error=str(error))
            with self._lock:
                if lookup := self._lookups.get(full_id):
                    lookup.misses += 1
                    lookup.pending = False
                    lookup.asked_s = time.monotonic()

    def _list(self, full_id: str = "", *, timeout_s: float) -> None:
        # Not /containers/<id>/json: that waits for a container that is being started.
        query = "/containers/json?all=1"
        if full_id:
            query += "&filters=" + quote(json.dumps({"id": [full_id]}))
        connection = _Connection(self._path, timeout_s)
        try:
            connection.request("GET", query)
            answer = connection.getresponse()
            if answer.status != 200:
                raise ValueError(f"status {answer.status}")
            for item in json.loads(answer.read()):
                names = item.get("Names") or [""]
                self._add(item["Id"], names[0].lstrip("/"), item.get("Image", ""))
        finally:
            connection.close()

    def _add(self, full_id: str, name: str, image: str) -> None:
        info = ContainerInfo(full_id, name, image, _RUNTIME)
        with self._lock:
            self._known[full_id] = info
            lookup = self._lookups.pop(full_id, None)
            if lookup is not None:  # events may have been reported without the name
                self._late.append(info)

    def _follow(self) -> None:
        query = "/events?filters=" + quote(
            json.dumps({"type": ["container"], "event": ["create", "rename"]})
        )
        while True:
            connection = _Connection(self._path, None)
            try:
                connection.request("GET", query)
                answer = connection.getresponse()
                if not self._present:
                    self._present = True
                    self._list(timeout_s=_LOOKUP_TIMEOUT_S)
                while line := answer.readline():
                    self._learn(json.loads(line))
            except _ERRORS:
                self._present = Path(self._path).exists()
            finally:
                connection.close()
            time.sleep(_RECONNECT_S)

    def _learn(self, event: dict[str, Any]) -> None:
        actor = event.get("Actor", {})
        attributes = actor.get("Attributes", {})
        if actor.get("ID"):
            self._add(actor["ID"], attributes.get("name", ""), attributes.get("image", ""))
