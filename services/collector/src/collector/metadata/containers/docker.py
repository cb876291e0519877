"""Names and images of containers, from the Docker Engine API, which Podman serves too.

Optional: without the socket events carry ids only.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import quote

from collector.metadata.containers.engine import Engine
from collector.processes.table import ContainerInfo

_LOOKUP_TIMEOUT_S = 5.0
DOCKER, PODMAN = "docker", "podman"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Docker(Engine):
    """Containers of a Docker or Podman socket."""

    errors = (
        OSError, ValueError, KeyError, TypeError, AttributeError, http.client.HTTPException,
        RecursionError,  # JSON that is nested too deeply
    )  # fmt: skip

    def __init__(self, path: str, runtime: str = DOCKER) -> None:
        super().__init__(path)
        self._runtime = runtime

    def read(self, full_id: str = "") -> None:
        """See `Engine`."""
        # Not /containers/<id>/json: that waits for a container that is being started.
        query = "/containers/json?all=1"
        if full_id:
            query += "&filters=" + quote(json.dumps({"id": [full_id]}))
        connection = _Connection(self.path, _LOOKUP_TIMEOUT_S)
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

    def follow(self) -> None:
        """See `Engine`."""
        query = "/events?filters=" + quote(
            json.dumps({"type": ["container"], "event": ["create", "rename"]})
        )
        connection = _Connection(self.path, None)
        try:
            connection.request("GET", query)
            answer = connection.getresponse()
            self._connected()
            while line := answer.readline():
                self._learn(json.loads(line))
        finally:
            connection.close()

    def _learn(self, event: dict[str, Any]) -> None:
        actor = event.get("Actor", {})
        attributes = actor.get("Attributes", {})
        if actor.get("ID"):
            self._add(actor["ID"], attributes.get("name", ""), attributes.get("image", ""))

    def _add(self, full_id: str, name: str, image: str) -> None:
        self.add(ContainerInfo(full_id, name, image, self._runtime))
