"""CPU pressure of the host: the part of the time in which a task waited for a CPU.

Pressure stall information reports it. Where the kernel has none (``CONFIG_PSI`` off, or
``psi=0``), it is estimated from the run queue and the time that a hypervisor gave to other guests.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# A value follows a change within about this time; a longer interval counts in full.
MEMORY_S = 0.5
PSI_EVERY_S = 0.1
STAT_EVERY_S = 1.0  # the file has a line for each CPU, and takes the kernel longer
_READ_BYTES = 1 << 16


class _Times(NamedTuple):
    """The first line of /proc/stat, in clock ticks, and what it says about the run queue."""

    total: int
    idle: int
    steal: int
    queued: bool  # more tasks can run than there are CPUs


class Pressure:
    """Samples the pressure, at most every `PSI_EVERY_S` or `STAT_EVERY_S`."""

    def __init__(self, procfs: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._value = 0.0
        self._at_s = clock()
        self._psi = _open(procfs / "pressure/cpu")
        self._stat = _open(procfs / "stat")
        self._stalled_us = self._read_psi() if self._psi is not None else None
        self._times = self._read_stat() if self._stalled_us is None else None

    def sample(self) -> float:
        """Return the pressure of the last half second, from 0 to 1; 0 where it is not known."""
        now_s = self._clock()
        past_s = now_s - self._at_s
        if past_s < (PSI_EVERY_S if self._stalled_us is not None else STAT_EVERY_S):
            return self._value
        self._at_s = now_s
        found = self._since_psi(past_s) if self._stalled_us is not None else self._since_stat()
        self._value += (min(1.0, max(0.0, found)) - self._value) * min(1.0, past_s / MEMORY_S)
        return self._value

    def close(self) -> None:
        """Close the files."""
        for fd in (self._psi, self._stat):
            if fd is not None:
                os.close(fd)
        self._psi = self._stat = None

    def _since_psi(self, past_s: float) -> float:
        stalled_us = self._read_psi()
        if stalled_us is None or self._stalled_us is None:
            return 0.0
        grown_us, self._stalled_us = stalled_us - self._stalled_us, stalled_us
        return grown_us / past_s / 1e6

    def _since_stat(self) -> float:
        before, self._times = self._times, self._read_stat()
        if before is None or self._times is None or self._times.total <= before.total:
            return 0.0
        total = self._times.total - before.total
        steal = (self._times.steal - before.steal) / total
        busy = 1 - (self._times.idle - before.idle) / total
        return steal + (busy - steal if self._times.queued else 0.0)

    def _read_psi(self) -> int | None:
        """Return the microseconds in which some task waited ("some ... total=N")."""
        line = _read(self._psi).partition(b"\n")[0]
        total = line.rpartition(b"total=")[2]
        return int(total) if line.startswith(b"some ") and total.isdigit() else None

    def _read_stat(self) -> _Times | None:
        lines = _read(self._stat).split(b"\n")
        words = lines[0].split()
        if len(words) < 9 or words[0] != b"cpu":
            return None
        # user nice system idle iowait irq softirq steal; guest time is part of user time.
        ticks = [int(word) for word in words[1:9]]
        cpus = sum(line.startswith(b"cpu") for line in lines) - 1
        running = next((int(n[14:]) for n in lines if n.startswith(b"procs_running ")), 0)
        return _Times(sum(ticks), ticks[3] + ticks[4], ticks[7], running > cpus)


def _open(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return None


def _read(fd: int | None) -> bytes:
    """Return the file's current content; nothing where the kernel refuses it (``psi=0``)."""
    with contextlib.suppress(OSError):
        return os.pread(fd, _READ_BYTES, 0) if fd is not None else b""
    return b""
