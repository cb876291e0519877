"""An API server over HTTP for what a real one rarely does: slow answers, 410, cut watches."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import parse_qs, urlsplit

from collector.kubernetes.access import Access


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    api: ApiServer


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        api, url = self.server.api, urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        api.may_answer.wait(20)
        mine = url.path.endswith(api.only)
        if query.get("watch"):
            self._watch(query, mine=mine)
        elif not mine:
            self._send(200, {"metadata": {"resourceVersion": "1"}, "items": []})
        else:
            api.lists.append(query)
            if api.status != 200:
                self._send(api.status, {"code": api.status, "message": "as the test wants"})
                return
            page = int(query.get("continue", "0"))
            size = api.page or len(api.items) or 1
            about = {"resourceVersion": str(api.version)}
            if page + size < len(api.items):
                about["continue"] = str(page + size)
            self._send(200, {"metadata": about, "items": api.items[page : page + size]})

    def do_PATCH(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.api.patches.append((self.path, json.loads(body)))
        self._send(200, {})

    def _watch(self, query: dict[str, str], *, mine: bool) -> None:
        api = self.server.api
        if mine:
            api.watches.append(query["resourceVersion"])
        self.send_response(200)
        self.end_headers()
        events = api.events
        source = events if mine else SimpleQueue[bytes]()
        while api.events is events:  # until `cut`
            try:
                event = source.get(timeout=0.01)
            except Empty:
                continue
            self.wfile.write(event)
            self.wfile.flush()

    def _send(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_arguments: Any) -> None:
        """Write nothing."""


class ApiServer:
    """Answers from `start` to `stop`; a test changes its attributes at any time."""

    def __init__(self) -> None:
        self.only = ""  # end of the path of the resources; others are empty
        self.items: list[dict[str, Any]] = []
        self.version = 1
        self.status = 200  # of lists
        self.page = 0  # items in a page; 0: all
        self.lists: list[dict[str, str]] = []
        self.watches: list[str] = []  # the version that each began at
        self.patches: list[tuple[str, dict[str, Any]]] = []
        self.events: SimpleQueue[bytes] = SimpleQueue()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self

    @property
    def access(self) -> Access:
        """How to reach it."""
        return Access("127.0.0.1", self._server.server_address[1], None, token="t")

    def start(self) -> None:
        """Answer in a thread."""
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Answer nothing any more."""
        self.cut()
        self._server.shutdown()
        self._server.server_close()

    def emit(self, kind: str, item: dict[str, Any]) -> None:
        """Send an event to the watch."""
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.events.put(json.dumps({"type": kind, "object": item}).encode() + b"\n")

    def expire(self) -> None:
        """End the watch with 410, as for a version that was compacted."""
        status = {"kind": "Status", "code": 410, "message": "too old resource version"}
        self.events.put(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")

    def cut(self) -> None:
        """End every watch."""
        self.events = SimpleQueue()


def pod(name: str, namespace: str = "shop", uid: str = "", **about: Any) -> dict[str, Any]:
    """Return a pod as an API server describes it."""
    status = about.pop("status", {})
    spec = about.pop("spec", {"containers": [{"name": "nginx", "image": "nginx:1"}]})
    metadata = {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", **about}
    return {"metadata": metadata, "spec": spec, "status": status}


def running(full_id: str, name: str = "nginx") -> dict[str, Any]:
    """Return the status of a pod whose container runs."""
    return {
        "containerStatuses": [
            {
                "name": name, "containerID": f"containerd://{full_id}", "image": "nginx:1",
                "imageID": "docker.io/library/nginx@sha256:1",
                "state": {"running": {"startedAt": "2026-11-27T03:00:00Z"}},
            }
        ]
    }  # fmt: skip
