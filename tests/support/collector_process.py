"""A collector as a process, on the machine's real kernel, that publishes to a test's NATS."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from support.waiting import eventually

_BIN = Path(sys.executable).parent
READY_S, STOP_S = 180.0, 60.0


class CollectorProcess:
    """tetra-collector with settings of the test's choice, from `start` to `stop`."""

    def __init__(self, folder: Path, cache: Path, url: str, **settings: str) -> None:
        self.log = folder / "collector.log"
        self._environment = os.environ | {
            "NODE_NAME": f"test-{os.getpid()}",  # a host has one collector of each name
            "TETRA_NATS_URL": url,
            "TETRA_STATE_DIR": str(folder / "state"),
            "TETRA_CACHE_DIR": str(cache),
            "TETRA_TRACING_POLICY_DIR": str(folder / "policies"),
            "TETRA_DOCKER_SOCKET": "",
            "TETRA_PODMAN_SOCKET": "",
            "TETRA_CRI_SOCKET": "",
            "TETRA_LOG_FORMAT": "json",
            **settings,
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and return when its probes are attached and NATS is connected."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                _BIN / "tetra-collector", stdout=log, stderr=log, env=self._environment
            )
        await self.logged("ready")

    async def logged(self, event: str, timeout_s: float = READY_S, **facts: Any) -> dict[str, Any]:
        """Return the first line of the log about ``event`` with these facts."""

        def found() -> dict[str, Any] | None:
            assert self._process
            assert self._process.returncode is None, self.log.read_text()[-4000:]
            for line in self.log.read_text().splitlines():
                if line.startswith("{") and line.endswith("}"):
                    entry: dict[str, Any] = json.loads(line)
                    if entry.get("event") == event and facts.items() <= entry.items():
                        return entry
            return None

        result: dict[str, Any] = await eventually(found, timeout_s)
        return result

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process
        return self._process.pid

    async def stop(self) -> None:
        """Stop it cleanly."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), STOP_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
                raise
