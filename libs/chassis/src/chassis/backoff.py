"""Growing waits between attempts: one way to retry, for all services."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Waits that double from ``least_s`` to ``most_s``.

    Each wait is shortened at random by up to half, so that many clients do not retry at once.
    """

    def __init__(self, least_s: float, most_s: float) -> None:
        self._least_s = least_s
        self._most_s = most_s
        self._random = random.Random()  # not the one that others may have seeded
        self.attempts = 0  # since the last success

    def next_s(self) -> float:
        """Count a failed attempt; return how long to wait before the next."""
        longest = min(self._most_s, self._least_s * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        return self._random.uniform(longest / 2, longest)

    async def wait(self) -> None:
        """Count a failed attempt and wait."""
        await asyncio.sleep(self.next_s())

    def reset(self) -> None:
        """Begin again with the shortest wait: an attempt has succeeded."""
        self.attempts = 0

    @property
    def is_longest(self) -> bool:
        """Whether the waits have stopped growing."""
        return self._least_s * 2.0 ** min(self.attempts, 30) >= self._most_s
