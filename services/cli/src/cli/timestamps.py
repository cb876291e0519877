"""Times as they are typed, and durations as they are printed."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from chassis.durations import has_unit, parse_seconds
from cli.errors import UsageError

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp


def unix_ns(timestamp: Timestamp) -> int:
    """Return nanoseconds since 1970, also for an invalid timestamp."""
    return timestamp.seconds * 1_000_000_000 + timestamp.nanos


def parse_duration_s(text: str) -> float:
    """Return the seconds in a duration such as ``2h30m``, ``1.5s`` or ``7d``."""
    try:
        return parse_seconds(text)
    except ValueError:
        allowed = "10m, 2h30m, 1.5s, 7d"
        raise UsageError(
            f"duration {text!r}: not a number with a unit (allowed: {allowed})"
        ) from None


def parse_time(text: str, now: float | None = None) -> Timestamp:
    """Return the time in ``text``.

    It may be a duration (so long ago), RFC 3339 or ISO 8601 (local time where no zone is
    given), ``HH:MM[:SS]`` (today), ``now``, ``today``, ``yesterday`` and ``@`` with Unix seconds.
    """
    from google.protobuf.timestamp_pb2 import Timestamp

    now = time.time() if now is None else now
    moment = Timestamp()
    text = text.strip()
    if text.startswith("-") and has_unit(text[1:]):
        raise UsageError(f"time {text!r}: durations count back from now without a sign", text[1:])
    nanos = _unix_ns(text, now)
    try:
        moment.FromNanoseconds(nanos)
    except ValueError:
        raise UsageError(f"time {text!r}: not in the years 1 to 9999", "10m") from None
    return moment


def _unix_ns(text: str, now: float) -> int:
    midnight = (
        datetime.fromtimestamp(now).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    )
    try:
        if text == "now":
            return int(now * 1e9)
        if text == "today":
            return int(midnight.timestamp()) * 10**9
        if text == "yesterday":
            return int((midnight - timedelta(days=1)).timestamp()) * 10**9
        if text.startswith("@"):
            return int(float(text[1:]) * 1e9)
        if has_unit(text):
            return int((now - parse_duration_s(text)) * 1e9)
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
            text = f"{midnight:%Y-%m-%d}T{text.rjust(8 if text.count(':') == 2 else 5, '0')}"
        return _iso_ns(text)
    except (ValueError, OverflowError, UsageError):
        raise UsageError(
            f"time {text!r}: not understood (allowed: 10m (ago), 14:30, 2026-01-31T14:30:00Z, "
            "yesterday, @1767225600)",
            "10m",
        ) from None


def _iso_ns(text: str) -> int:
    # datetime keeps microseconds; the digits behind them are kept by hand.
    fraction = re.search(r"\.(\d{1,9})", text)
    nanos = int(fraction.group(1).ljust(9, "0")) if fraction else 0
    whole = text[: fraction.start()] + text[fraction.end() :] if fraction else text
    return int(datetime.fromisoformat(whole).astimezone(UTC).timestamp()) * 10**9 + nanos


def duration_text(seconds: float) -> str:
    """Return a duration as ``3ms``, ``1.2s``, ``4m05s``, ``3h07m`` or ``2d04h``."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"
    if seconds < 86400:
        return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"
    return f"{int(seconds // 86400)}d{int(seconds % 86400 // 3600):02d}h"
