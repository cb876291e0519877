"""The offset between the clocks: records carry the boot clock, events the calendar clock."""

from __future__ import annotations

import time


def wall_offset_ns() -> int:
    """Return what to add to the boot clock to get the calendar clock, as of now."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
