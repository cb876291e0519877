"""Pauses between reads of the ring: low latency while clients read, else few wake-ups.

Each read costs a wake-up here, several in NATS, and some in the gateway and each client. If tasks
already wait for CPUs, each wake-up preempts a running task, which then has to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# A process that starts and ends within this time is one read. The event loop counts milliseconds.
FIRST_PAUSE_S = 0.002
# On a host that is not busy: at 500 lives a second 4 ms, in a storm 40.
PAUSE_MIN_S = 0.004
PAUSE_S = 0.0035
PAUSE_PER_RECORD_S = 0.0001
PAUSE_MAX_S = 0.040
# While no client reads events live.
UNREAD_PAUSE_S = 0.1
# Each gateway with clients says so every 4 s (gateway/fleet.py, POLL_S). At the start too, until
# the gateways have been heard.
CLIENTS_FOR_S = 15.0
# CPU pressure at which pauses begin to grow, and at which they reach their maximum.
CALM, BUSY = 0.35, 0.70
# The part of the ring that may fill during a pause, at the preceding rate. At a quarter the kernel
# side wakes the reader (bpf/lib/ring.h).
FILL = 1 / 8


class Pace:
    """Chooses each pause from clients, CPU pressure, the rate of records and the ring's size."""

    def __init__(
        self,
        ring_bytes: int,
        longest_s: float,
        pressure: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``pressure``: from 0 to 1, see `Pressure.sample`."""
        self._ring_bytes = ring_bytes
        self._longest_s = longest_s
        self._pressure = pressure
        self._clock = clock
        self._clients_until_s = clock() + CLIENTS_FOR_S

    def clients_read(self) -> bool:
        """Note that clients read events live; return whether none did before."""
        before = self._has_clients()
        self._clients_until_s = self._clock() + CLIENTS_FOR_S
        return not before

    def first_pause_s(self) -> float:
        """Return the delay before the first record after an idle time is read."""
        return self._longer(FIRST_PAUSE_S if self._has_clients() else UNREAD_PAUSE_S)

    def pause_s(self, records: int, read_bytes: int, past_s: float) -> float:
        """Return the pause after ``records`` that came in ``past_s`` seconds."""
        usual_s = UNREAD_PAUSE_S
        if self._has_clients():
            usual_s = min(PAUSE_MAX_S, max(PAUSE_MIN_S, PAUSE_S + PAUSE_PER_RECORD_S * records))
        pause_s = self._longer(usual_s)
        if past_s <= 0 or read_bytes <= 0:
            return pause_s
        return min(pause_s, self._ring_bytes * FILL * past_s / read_bytes)

    def _has_clients(self) -> bool:
        return self._clock() < self._clients_until_s

    def _longer(self, usual_s: float) -> float:
        usual_s = min(usual_s, self._longest_s)
        return usual_s + self._busy() * (self._longest_s - usual_s)

    def _busy(self) -> float:
        return min(1.0, max(0.0, (self._pressure() - CALM) / (BUSY - CALM)))
