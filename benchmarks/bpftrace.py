"""bpftrace with a program, while a measurement runs."""

from __future__ import annotations

import os
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
        wait_for(lambda: _is_attached(process.pid, probes), "bpftrace")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # it waits for an event; its end detaches all the same
            process.kill()
            process.wait()


def _is_attached(pid: int, probes: int) -> bool:
    """Whether a process has attached so many tracepoints: their events are there then."""
    links = []
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(one))
        except OSError:
            continue
    events = sum("perf_event" in link for link in links)
    cpus = os.cpu_count() or 1
    return events >= cpus + probes  # one for each CPU's buffer, then those of the tracepoints
