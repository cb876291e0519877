"""From the kernel's time stamp to the printed line."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from datetime import datetime

from benchmarks.harness import BIN, TRUE, Report, need_root, whole_stack
from benchmarks.storm import storm


def run(report: Report, quick: bool) -> None:
    """Idle, at 500 lives a second, and at the highest rate."""
    report.begin("latency", "kernel time stamp to printed line, `tetra getevents`")
    need_root()
    with whole_stack("latency", client=False) as running:
        reader = Reader(running.addresses[0])
        try:
            for name, load, wanted in (
                ("idle", lambda: paced(20, 5 if quick else 100), True),
                ("500 lives a second", lambda: paced(500, 1000 if quick else 5000), True),
                ("highest rate", lambda: storm(5000 if quick else 20_000), False),
            ):
                reader.times_ms.clear()
                load()
                running.settle()
                reader.wait_quiet()
                times = sorted(reader.times_ms)
                for label, share, limit in (
                    ("p50", 0.5, 5.0),
                    ("p99", 0.99, 25.0),
                    ("max", 1, 0.0),
                ):
                    value = times[min(len(times) - 1, int(share * len(times)))]
                    target = ("<=", limit) if wanted and limit else None
                    report.add(f"{name}, {label} of {len(times):,}", value, "ms", target)
        finally:
            reader.stop()


def paced(per_second: int, lives: int) -> None:
    """Run short lives at a steady rate."""
    start = time.monotonic()
    for n in range(lives):
        pause = start + n / per_second - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        pid = os.posix_spawn(TRUE, [TRUE], {})
        os.waitpid(pid, 0)


class Reader:
    """A client whose lines are stamped as they come through its pipe."""

    def __init__(self, address: str) -> None:
        self.times_ms: list[float] = []
        self._at = time.monotonic()
        self._process = subprocess.Popen(
            [str(BIN / "tetra"), "getevents", "-o", "json", "--server-address", address],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        while not self.times_ms:
            subprocess.run([TRUE], check=True)
            time.sleep(0.02)

    def _read(self) -> None:
        assert self._process.stdout is not None
        fd, rest = self._process.stdout.fileno(), b""
        while chunk := os.read(fd, 1 << 20):
            now_ns = time.time_ns()
            self._at = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                reported_ns = _nanoseconds(json.loads(line)["time"])
                self.times_ms.append((now_ns - reported_ns) / 1e6)

    def wait_quiet(self) -> None:
        """Wait until nothing has come for a second."""
        while time.monotonic() - self._at < 1.0:
            time.sleep(0.05)

    def stop(self) -> None:
        """End the client."""
        self._process.terminate()
        self._process.wait(10)


def _nanoseconds(text: str) -> int:
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)
