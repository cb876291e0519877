"""tetra-exporter as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import yaml

from support.waiting import eventually

_PROGRAM = Path(sys.executable).parent / "tetra-exporter"
_READY_S = 30.0


class Exporter:
    """Exports to sinks until it is stopped; it may be started again."""

    def __init__(self, folder: Path, url: str, *sinks: dict[str, Any], **settings: str) -> None:
        self.folder = folder
        self.log = folder / "exporter.log"
        self._sinks = folder / "sinks.yaml"
        self._sinks.write_text(yaml.safe_dump({"sinks": list(sinks)}))
        self._env = os.environ | {
            "TETRA_NATS_URL": url,
            "TETRA_SINKS_FILE": str(self._sinks),
            "TETRA_STATE_DIR": str(folder / "exporter"),
            "TETRA_LOG_FORMAT": "json",
            **settings,
        }
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *, wait: bool = True) -> None:
        """Start it; wait until each sink's worker runs."""
        before = self.count("exporting")
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                _PROGRAM, stdout=log, stderr=log, env=self._env
            )
        if wait:
            sinks = len(yaml.safe_load(self._sinks.read_text())["sinks"])
            await eventually(lambda: self._alive() and self.count("exporting") >= before + sinks,
                             _READY_S)  # fmt: skip

    def _alive(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, self.log.read_text()
        return True

    def count(self, event: str) -> int:
        """Return how often it logged ``event``."""
        return self.log.read_text().count(f'"event": "{event}"') if self.log.exists() else 0

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal and wait; return the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), _READY_S)
