"""Names and images of containers, from the Docker Engine API (Podman serves the same).

Optional: without the socket events carry ids only. A thread follows the engine's events, so a
container is known when it is created, before anything in it runs; what is not known then is asked
for once, at the cost of some milliseconds.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog

from collector.processes.cache import ContainerInfo

_ASK_TIMEOUT_S = 0.25
_RECONNECT_S = 5.0
_MISSES_MAX = 3  # of one id: it belongs to another engine
_KNOWN_MAX = 10_000
_RUNTIME = "docker"

log = structlog.get_logger()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Docker:
    """Knows containers by their full id."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: dict[str, ContainerInfo] = {}
        self._misses: dict[str, int] = {}
        self._present = bool(path) and Path(path).exists()

    def start(self) -> None:
        """Learn what runs and follow what comes, in a thread that ends with the process."""
        if not self._path:
            return
        if self._present:
            try:
                self._list()
            except (OSError, ValueError, http.client.HTTPException) as error:
                log.warning("container engine", socket=self._path, error=str(error))
        threading.Thread(target=self._follow, name="container engine", daemon=True).start()

    def get(self, full_id: str) -> ContainerInfo | None:
        """Return the container, or None where the engine does not know it."""
        known = self._known.get(full_id)
        if known or not self._present or self._misses.get(full_id, 0) >= _MISSES_MAX:
            return known
        self._misses[full_id] = self._misses.get(full_id, 0) + 1
        if len(self._misses) > _KNOWN_MAX:
            self._misses.clear()
        try:
            self._list(full_id)
        except (OSError, ValueError, http.client.HTTPException) as error:
            log.debug("container not found", container=full_id[:12], error=str(error))
        return self._known.get(full_id)

    def _list(self, full_id: str = "") -> None:
        # Not /containers/<id>/json: that waits for a container that is being started.
        query = "/containers/json?all=1"
        if full_id:
            query += "&filters=" + quote(json.dumps({"id": [full_id]}))
        connection = _Connection(self._path, _ASK_TIMEOUT_S)
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
        if len(self._known) >= _KNOWN_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[full_id] = ContainerInfo(full_id, name, image, _RUNTIME)
        self._misses.pop(full_id, None)

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
                    self._list()
                while line := answer.readline():
                    self._learn(json.loads(line))
            except (OSError, ValueError, http.client.HTTPException):
                self._present = Path(self._path).exists()
            finally:
                connection.close()
            time.sleep(_RECONNECT_S)

    def _learn(self, event: dict[str, Any]) -> None:
        actor = event.get("Actor", {})
        attributes = actor.get("Attributes", {})
        if actor.get("ID"):
            self._add(actor["ID"], attributes.get("name", ""), attributes.get("image", ""))
