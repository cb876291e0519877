"""Receivers of exported events: HTTP servers, OpenTelemetry's log service, rsyslogd."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc

from support.net import free_port
from support.waiting import wait_until

Answer = tuple[int, bytes]


class HttpReceiver:
    """Keeps every request; ``answer`` makes the status and the body."""

    def __init__(self, answer: Callable[[str, bytes], Answer] = lambda path, body: (200, b"{}")):
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self._answer = answer
        self.port = free_port()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; again after `stop`, too."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                body = self.rfile.read(size)
                if len(body) < size:  # the sender was killed
                    return
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                status, answer = receiver._answer(self.path, body)
                receiver.requests.append((self.path, dict(self.headers), body))
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class Elasticsearch:
    """The bulk protocol: one document an id; where asked, a request fails once."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.busy_once = False  # one document is refused with 429
        self.page_once = False  # the answer is that of a proxy
        self.conflicts = 0

    def answer(self, path: str, body: bytes) -> Answer:
        assert path == "/_bulk"
        if self.page_once:
            self.page_once = False
            return 200, b"<html>"
        items: list[dict[str, Any]] = []
        lines = body.decode().splitlines()
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            name = json.loads(action)["create"]["_id"]
            found = json.loads(document)
            if self.busy_once:
                self.busy_once = False
                items.append({"create": {"_id": name, "status": 429}})
            elif name in self.documents:
                self.conflicts += 1
                items.append({"create": {"_id": name, "status": 409}})
            elif "refuse-me" in document:
                error = {"type": "mapper_parsing_exception"}
                items.append({"create": {"_id": name, "status": 400, "error": error}})
            else:
                self.documents[name] = found
                items.append({"create": {"_id": name, "status": 201}})
        errors = any(one["create"]["status"] >= 300 for one in items)
        return 200, json.dumps({"errors": errors, "items": items}).encode()


class LogsService(logs_service_pb2_grpc.LogsServiceServicer):
    """OpenTelemetry's log service, as a collector serves it."""

    def __init__(self) -> None:
        self.records: list[tuple[dict[str, Any], dict[str, Any], str]] = []  # resource, own, body
        self.port = free_port()
        self._server: grpc.Server | None = None

    def Export(self, request: Any, context: Any) -> Any:
        """Keep the records."""
        self.keep(request)
        return logs_service_pb2.ExportLogsServiceResponse()

    def keep(self, request: Any) -> None:
        """Keep the records of a request."""
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    attributes = {one.key: _value(one.value) for one in record.attributes}
                    about = {one.key: _value(one.value) for one in resource.resource.attributes}
                    self.records.append((about, attributes, record.body.string_value))

    def start(self) -> None:
        """Listen."""
        self._server = grpc.server(ThreadPoolExecutor(2))
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


class Rsyslog:
    """rsyslogd with a TLS or a plain TCP input, which writes each message to a file."""

    def __init__(self, folder: Path, certificate: tuple[Path, Path] | None) -> None:
        self.port = free_port()
        self.output = folder / "received.log"
        self._config = folder / "rsyslog.conf"
        self._pid = folder / "rsyslog.pid"
        self._log = folder / "rsyslogd.log"
        self._process: subprocess.Popen[bytes] | None = None
        driver = ""
        stream = ""
        if certificate is not None:
            path, key = certificate
            driver = (
                f'global(DefaultNetstreamDriverCAFile="{path}" '
                f'DefaultNetstreamDriverCertFile="{path}" DefaultNetstreamDriverKeyFile="{key}")'
            )
            stream = 'StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon"'
        self._config.write_text(
            f'global(workDirectory="{folder}" maxMessageSize="8m")\n'
            f"{driver}\n"
            f'module(load="imtcp" {stream})\n'
            f'input(type="imtcp" port="{self.port}" address="127.0.0.1")\n'
            'template(name="all" type="string" string="%structured-data% %hostname% %app-name% '
            '%msgid% %msg%\\n")\n'
            f'action(type="omfile" file="{self.output}" template="all" asyncWriting="off")\n'
        )

    def start(self) -> None:
        """Start it and wait until its port is open."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["rsyslogd", "-n", "-f", self._config, "-i", self._pid], stdout=log, stderr=log
            )
        wait_until(lambda: _is_open(self.port), 20, self._log.read_text)

    def stop(self) -> None:
        """End it; what it has read is in its file."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None
            self._pid.unlink(missing_ok=True)

    def lines(self) -> list[str]:
        """Return the messages."""
        return self.output.read_text().splitlines() if self.output.exists() else []


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return a certificate for 127.0.0.1 that signs itself, and its key."""
    path, key = folder / "receiver.pem", folder / "receiver.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", path],
        check=True, capture_output=True,
    )  # fmt: skip
    return path, key


@contextmanager
def running(receiver: Any) -> Iterator[Any]:
    """Run a receiver until the block ends."""
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()
