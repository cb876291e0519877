"""A container engine on a unix socket: the two calls of the Docker Engine API that we use."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from queue import SimpleQueue
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from collector.metadata.containers.engine import Engine


@pytest.fixture(autouse=True)
def engines_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the threads that follow engines with the test that started them."""
    started: list[Engine] = []
    start = Engine.start

    def noted(self: Engine, *arguments: Any) -> None:
        started.append(self)
        start(self, *arguments)

    monkeypatch.setattr(Engine, "start", noted)
    yield
    for engine in started:
        engine.close()


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    engine: ContainerEngine


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        filters = json.loads(parse_qs(url.query).get("filters", ["{}"])[0])
        if url.path == "/events":
            self._send(200, b"")
            self._stream()
        else:
            self._list(filters.get("id", []))

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _list(self, ids: list[str]) -> None:
        engine = self.server.engine
        engine.lookups += ids
        engine.may_answer.wait(10)
        found = [c for c in engine.containers if not ids or c["Id"] in ids]
        body = json.dumps(found).encode() if engine.answer is None else engine.answer
        self._send(engine.status, body)

    def _stream(self) -> None:
        engine = self.server.engine
        engine.followers += 1
        while (line := engine.events.get()) is not None:
            self.wfile.write(line)
            self.wfile.flush()

    def log_message(self, *_arguments: Any) -> None:
        """Write nothing."""


class ContainerEngine:
    """Answers at ``path`` from `start` to `stop`; a test changes its attributes at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.containers: list[dict[str, Any]] = []
        self.lookups: list[str] = []  # ids that were asked for, in their order
        self.followers = 0  # requests for events
        self.may_answer = threading.Event()  # cleared: requests for containers wait
        self.may_answer.set()
        self.status = 200
        self.answer: bytes | None = None  # in place of the containers
        self.events: SimpleQueue[bytes | None] = SimpleQueue()
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen."""
        self._server = _Server(str(self.path), _Handler)
        self._server.engine = self
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """End the streams of events and remove the socket."""
        if self._server is None:
            return
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self.path.unlink()
        self.events.put(None)
        self._server = None

    def add(self, full_id: str, name: str, image: str) -> None:
        """List a container from now on."""
        self.containers.append({"Id": full_id, "Names": ["/" + name], "Image": image})

    def emit(self, full_id: str, name: str, image: str, action: str = "create") -> None:
        """Send an event about a container."""
        actor = {"ID": full_id, "Attributes": {"name": name, "image": image}}
        event = {"Type": "container", "Action": action, "Actor": actor}
        self.events.put(json.dumps(event).encode() + b"\n")
