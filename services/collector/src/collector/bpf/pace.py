"""Pauses between reads of the ring: few wake-ups on a busy host, low latency on others.

Each read costs a wake-up here, several in NATS, and some in the gateway and each client. If tasks
already wait for CPUs, each wake-up preempts a running task, which then has to wait.
"""

from __future__ import annotations

from collections.abc import Callable

# On a host that is not busy: at 500 lives a second 4 ms, in a storm 40.
PAUSE_S = 0.003
PAUSE_PER_RECORD_S = 0.0001
PAUSE_MAX_S = 0.040
# CPU pressure at which pauses begin to grow, and at which they reach their maximum.
CALM, BUSY = 0.35, 0.70
# The part of the ring that may fill during a pause, at the preceding rate. At a quarter the kernel
# side wakes the reader (bpf/lib/ring.h).
FILL = 1 / 8


class Pace:
    """Chooses each pause from the CPU pressure, the rate of records and the size of the ring."""

    def __init__(self, ring_bytes: int, longest_s: float, pressure: Callable[[], float]) -> None:
        """``pressure``: from 0 to 1, see `Pressure.sample`."""
        self._ring_bytes = ring_bytes
        self._longest_s = longest_s
        self._pressure = pressure

    def first_pause_s(self) -> float:
        """Return the delay before the first record after an idle time is read."""
        return self._busy() * self._longest_s

    def pause_s(self, records: int, read_bytes: int, past_s: float) -> float:
        """Return the pause after ``records`` that came in ``past_s`` seconds."""
        usual_s = min(PAUSE_MAX_S, PAUSE_S + PAUSE_PER_RECORD_S * records, self._longest_s)
        pause_s = usual_s + self._busy() * (self._longest_s - usual_s)
        if past_s <= 0 or read_bytes <= 0:
            return pause_s
        return min(pause_s, self._ring_bytes * FILL * past_s / read_bytes)

    def _busy(self) -> float:
        return min(1.0, max(0.0, (self._pressure() - CALM) / (BUSY - CALM)))
