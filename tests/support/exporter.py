"""tetra-exporter as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from support.feeder import Feeder
from support.waiting import eventually

_PROGRAM = Path(sys.executable).parent / "tetra-exporter"
_READY_S = 30.0
_WAIT_S = 60


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

    async def start(self, *, wait: bool = True, stdout: int | None = None) -> None:
        """Start it; wait until each sink's worker runs. ``stdout``: in place of the log."""
        before = self.count("exporting")
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                _PROGRAM, stdout=stdout or log, stderr=log, env=self._env
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


async def away_and_killed(
    feeder: Feeder, exporter: Exporter, receiver: Any, received: Callable[[], Collection[Any]]
) -> list[int]:
    """Publish while the receiver and the exporter come and go; return the published numbers."""
    published = await feeder.publish(300)
    await exporter.start()
    await eventually(lambda: len(received()) >= 100, _WAIT_S)
    receiver.stop()
    published += await feeder.publish(300)
    await eventually(lambda: exporter.count("sink does not accept events, retrying"), _WAIT_S)
    await exporter.stop(signal.SIGKILL)
    published += await feeder.publish(300)
    await exporter.start(wait=False)
    receiver.start()
    for _ in range(3):
        published += await feeder.publish(200)
        enough = len(published) - 150
        await eventually(partial(_has, received, enough), _WAIT_S)
        await exporter.stop(signal.SIGKILL)
        await exporter.start(wait=False)
    published += await feeder.publish(100)
    await eventually(lambda: len(set(received())) >= len(published), _WAIT_S)
    return published


def _has(received: Callable[[], Collection[Any]], count: int) -> bool:
    """Whether so many events are there, or more."""
    return len(set(received())) >= count
