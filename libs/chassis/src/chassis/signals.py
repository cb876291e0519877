"""Signals of a service before its event loop handles them, and after."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import TYPE_CHECKING

from chassis.imports import load_structlog

if TYPE_CHECKING:
    import asyncio


def begin() -> None:
    """Let Ctrl-C and SIGTERM end this process at once: nothing has been started.

    A Ctrl-C in an import is a traceback otherwise, and is lost in a callback of `importlib`. As the
    first process of a container, a process without handlers cannot be stopped at all.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell ignores it for its jobs
        signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)
    load_structlog()


def ignore(loop: asyncio.AbstractEventLoop) -> None:
    """Ignore Ctrl-C and SIGTERM from now on: the process is ending."""
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)  # the loop would restore Python's own when it closes
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # as after a signal later
