"""Counters of the publisher."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

# Bounds of the histogram of acknowledgement times; it has one more place for larger ones.
LATENCY_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


@dataclass(slots=True)
class PublisherStatistics:
    """Events by what became of them."""

    made: int = 0
    published: int = 0
    dropped: int = 0
    trimmed: int = 0
    oversized: int = 0  # could not be trimmed, and were dropped
    batches: int = 0
    retries: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))
    latency_s: float = 0.0  # sum

    def sent(self, took_s: float) -> None:
        """Count a batch that was acknowledged after ``took_s``."""
        self.latency[bisect.bisect_left(LATENCY_BOUNDS_S, took_s)] += 1
        self.latency_s += took_s
        self.batches += 1
