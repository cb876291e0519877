"""The spool from the event loop: every call runs in one thread, one at a time.

A disk may take seconds for a sync; the event loop also drains the ring and must not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DiskThread:
    """Runs blocking calls in order. `lock` keeps several calls of one caller together."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="spool")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what ``function`` returns.

        A cancellation waits until the call has ended, so that the caller can note what it did, and
        takes effect at the caller's next await.
        """
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))
        cancelled = False
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError:
                cancelled = True
        if cancelled and (task := asyncio.current_task()):
            task.cancel()
        return future.result()

    def close(self) -> None:
        """Wait for the last call and end the thread."""
        self._executor.shutdown()
