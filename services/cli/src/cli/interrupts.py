"""Ctrl-C and SIGTERM raise `KeyboardInterrupt`, also where Python would drop it."""

from __future__ import annotations

import signal
from types import FrameType

_AGAIN_S = 0.005


def enable() -> None:
    """Raise `KeyboardInterrupt` at both signals from now on; an ignored signal stays ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if frame is not None and frame.f_code.co_filename == "<frozen importlib._bootstrap>":
        # The callbacks of its locks drop exceptions: raise this one when the import is further.
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        return
    raise KeyboardInterrupt
