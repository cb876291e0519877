"""A real nats-server for one test."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from support.net import free_port
from support.waiting import READY_S

NATS_SERVER = Path(sys.executable).parent / "nats-server"


class NatsServer:
    """A real nats-server with JetStream, on a port of its own; it can be stopped and started."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.log = folder / "nats.log"
        self._command = [
            str(NATS_SERVER), "-a", "127.0.0.1", "-p", str(self.port),
            "-js", "-sd", str(folder / "jetstream"), *flags,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                if probe.recv(4) == b"INFO":
                    return
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def stop(self, *, kill: bool = False) -> None:
        """Stop it and wait."""
        if self._process is not None:
            self._process.kill() if kill else self._process.terminate()
            self._process.wait(READY_S)
            self._process = None
