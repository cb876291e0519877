"""bpftrace with a program, while a measurement runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import CACHE, need, wait_for


@contextmanager
def bpftrace(program: str) -> Iterator[None]:
    """Run ``program``, attached; its output goes to a file."""
    out = CACHE / "bpftrace.txt"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [need("bpftrace", "bpftrace"), "-e", program],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        probes = program.count("tracepoint:")
        events = probes + _buffers()
        wait_for(lambda: _perf_events(process.pid) >= events, "bpftrace")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # it waits for an event; its end detaches all the same
            process.kill()
            process.wait()


def _perf_events(pid: int) -> int:
    """Return how many perf events a process has: tracepoints that are attached, and buffers."""
    links = []
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(one))
        except OSError:
            continue
    return sum("perf_event" in link for link in links)


def _buffers() -> int:
    """Return how many perf events print: one a CPU, none since it has a ring (bpftrace 0.21)."""
    done = subprocess.run(["bpftrace", "--version"], capture_output=True, text=True, check=True)
    version = re.search(r"v(\d+)\.(\d+)", done.stdout)
    has_ring = version is not None and tuple(map(int, version.groups())) >= (0, 21)
    return 0 if has_ring else os.cpu_count() or 1
