"""Entry point of ``tetra``: Ctrl-C never prints a traceback, also while Python imports it."""

from __future__ import annotations

import os
import signal
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    """Import ``tetra``, run it and return its exit code."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    from cli.main import main as run  # a signal may come meanwhile

    try:
        return run()
    except KeyboardInterrupt:  # a second one, while the first was handled
        return 0
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # nothing is printed yet
