"""Wait for a condition, with a time limit; never for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

READY_S = 30.0  # much more than it takes: a machine may be busy with something else


async def eventually(
    condition: Callable[[], Any], timeout_s: float = READY_S, every_s: float = 0.02
) -> Any:
    """Return the condition's value as soon as it is true; fail after ``timeout_s``."""
    async with asyncio.timeout(timeout_s):
        while True:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            await asyncio.sleep(every_s)


def wait_until(
    condition: Callable[[], Any],
    timeout_s: float,
    what: Callable[[], object],
    every_s: float = 0.02,
) -> Any:
    """Return the first true value of ``condition``; fail with the text of ``what``."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what()}"
        time.sleep(every_s)
    return value
