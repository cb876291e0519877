"""RFC 3339 as the public JSON form writes it.

The calendar is computed once per second, not once per event: thousands of events share one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799  # of the years 1 to 9999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    if not _FIRST_S <= seconds <= _LAST_S:  # outside of the calendar: Unix seconds
        return f"@{seconds}"
    # timedelta, not fromtimestamp(): years before 1970 and after 2038 on every platform.
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")


def rfc3339(timestamp: Timestamp) -> str:
    """Return RFC 3339 in UTC with 0, 3, 6 or 9 digits, the fewest that are exact."""
    nanos = timestamp.nanos
    if not nanos:
        return _second(timestamp.seconds) + "Z"
    if nanos % 1000:
        return f"{_second(timestamp.seconds)}.{nanos:09d}Z"
    if nanos % 1_000_000:
        return f"{_second(timestamp.seconds)}.{nanos // 1000:06d}Z"
    return f"{_second(timestamp.seconds)}.{nanos // 1_000_000:03d}Z"


def rfc3339_nanos(timestamp: Timestamp) -> str:
    """Return RFC 3339 in UTC, always with nine digits: columns stay aligned."""
    return f"{_second(timestamp.seconds)}.{timestamp.nanos:09d}Z"
