"""What the exporter takes: the past of the stream into a file, in each format, and into columns."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.gateway import publish, recorded
from benchmarks.harness import BIN, Report, cpu_s, resident_mb, services, wait_for
from eventcolumns import schema

FORMATS = (("tetragon", 50_000.0), ("ocsf", None), ("ecs", None))
COLUMNS = "columns"
PER_BATCH = 100


def run(report: Report, quick: bool) -> None:
    """Export the same events into a file of each format."""
    count = 50_000 if quick else 500_000
    report.begin("export", f"exporter, {count:,} recorded events, {PER_BATCH} a batch, into a file")
    events = recorded(report)
    with services("export") as running:
        running.start_nats()
        running.start_gateway()  # makes the stream
        publish(running, events, count, per_batch=PER_BATCH)
        for name, wanted in FORMATS:
            with tempfile.TemporaryDirectory(prefix="tetra-bench-") as folder:
                # The mapped formats have no target, and are slower.
                part = count if wanted else count // 5
                seconds, cpu, memory = _export(Path(folder), running.nats_url, name, part)
            target = (">=", wanted) if wanted else None
            _add(report, name, part, seconds, cpu, memory, target)
        with tempfile.TemporaryDirectory(prefix="tetra-bench-") as folder:
            seconds, cpu, memory = _export(Path(folder), running.nats_url, COLUMNS, count)
        _add(report, COLUMNS, count, seconds, cpu, memory, (">=", 50_000.0))


def _add(
    report: Report, name: str, events: int, seconds: float, cpu: float, memory: float,
    target: tuple[str, float] | None,
) -> None:  # fmt: skip
    report.add(f"{name}: rate", events / seconds, "events/s")
    report.add(f"{name}: rate of one core", events / cpu, "events/s", target)
    report.add(f"{name}: CPU", cpu / events * 1e6, "us/event")
    report.add(f"{name}: memory", memory, "MB")


def _export(
    folder: Path, nats_url: str, format_name: str, count: int
) -> tuple[float, float, float]:
    """Return the seconds, the CPU seconds and the resident memory of one export."""
    path = folder / ("columns" if format_name == COLUMNS else "events.log")
    sink: dict[str, object] = {"name": "bench", "start": "oldest"}
    if format_name == COLUMNS:
        sink |= {"type": "columns", "folder": str(path), "flush": "1s"}
    else:
        sink |= {"type": "file", "path": str(path), "format": format_name, "max_size": 0}
    (folder / "sinks.yaml").write_text(yaml.safe_dump({"sinks": [sink]}))
    environment = os.environ | {
        "TETRA_NATS_URL": nats_url,
        "TETRA_SINKS_FILE": str(folder / "sinks.yaml"),
        "TETRA_STATE_DIR": str(folder / "state"),
        "TETRA_METRICS_ADDRESS": "",
    }
    with (folder / "log").open("wb") as log:
        exporter = subprocess.Popen([BIN / "tetra-exporter"], env=environment, stderr=log)
    try:
        wait_for(path.exists, "the exporter's file")
        start, before = time.monotonic(), cpu_s(exporter.pid)
        written = _Blocks(path) if format_name == COLUMNS else _Lines(path)
        wait_for(lambda: written.count() >= count, f"{count} events", 300)
        seconds = time.monotonic() - start
        return seconds, cpu_s(exporter.pid) - before, resident_mb(exporter.pid)
    finally:
        exporter.terminate()
        exporter.wait(20)


class _Lines:
    """Counts the lines of a file that grows, each byte once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._count = 0

    def count(self) -> int:
        """Return how many lines there are now."""
        while block := self._file.read(1 << 20):
            self._count += block.count(b"\n")
        return self._count


class _Blocks:
    """Counts the events that finished blocks of a folder cover."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def count(self) -> int:
        """Return how many events there are now."""
        return max((one.last for one in schema.blocks(self._folder)), default=0) * PER_BATCH
