"""Times that people type, and times as they are printed."""

from datetime import datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cli.errors import UsageError
from cli.timestamps import (
    duration_text,
    parse_duration_s,
    parse_time,
    unix_ns,
)
from eventjson.times import rfc3339, rfc3339_nanos

NOW = datetime(2026, 5, 4, 12, 0, 0).timestamp()


@pytest.mark.parametrize(
    ("nanos", "text"),
    [(0, ""), (5_000_000, ".005"), (5_000, ".000005"), (5, ".000000005"), (120_000_000, ".120")],
)
def test_fraction_has_the_fewest_digits_that_are_exact(nanos, text):
    moment = Timestamp(seconds=1_767_225_600, nanos=nanos)
    assert rfc3339(moment) == f"2026-01-01T00:00:00{text}Z"
    assert rfc3339_nanos(moment) == f"2026-01-01T00:00:00.{nanos:09d}Z"


def test_no_time_is_the_epoch():
    assert rfc3339_nanos(Timestamp()) == "1970-01-01T00:00:00.000000000Z"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("2h30m", 9000), ("1.5s", 1.5), ("7d", 604800), ("250ms", 0.25), ("0", 0)],
)
def test_durations(text, seconds):
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", NOW - 600),
        ("now", NOW),
        ("today", NOW - 12 * 3600),
        ("yesterday", NOW - 36 * 3600),
        ("@1767225600.5", 1767225600.5),
        ("11:30", NOW - 1800),
        ("9:30:15", NOW - 8985),
        ("2026-01-01T00:00:00Z", 1767225600),
        ("2026-01-01T01:00:00+01:00", 1767225600),
        ("2026-05-04 12:00:00", NOW),
        ("2026-05-04", NOW - 12 * 3600),
    ],
)
def test_times(text, expected):
    assert parse_time(text, NOW).ToNanoseconds() / 1e9 == pytest.approx(expected)


def test_nanoseconds_are_kept():
    assert parse_time("2026-01-01T00:00:00.123456789Z").ToNanoseconds() % 10**9 == 123456789


@pytest.mark.parametrize("text", ["soon", "10", "10x", "25:00", "2026-13-01", "", "@x"])
def test_wrong_time_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="for example: 10m"):
        parse_time(text, NOW)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0034, "3ms"), (1.25, "1.2s"), (245, "4m05s"), (11220, "3h07m"), (187200, "2d04h")],
)
def test_durations_for_people(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize("seconds", [1 << 62, -(1 << 62), 253402300800])
def test_time_outside_the_calendar_is_in_seconds(seconds):
    moment = Timestamp(seconds=seconds, nanos=5)
    assert rfc3339_nanos(moment) == f"@{seconds}.000000005Z"
    assert rfc3339(moment) == f"@{seconds}.000000005Z"
    assert unix_ns(moment) == seconds * 10**9 + 5


@pytest.mark.parametrize("text", ["@99999999999999", "@1e18", "99999999999d", "@-1e12"])
def test_a_time_beyond_what_a_timestamp_holds_is_refused(text):
    with pytest.raises(UsageError, match="not in the years 1 to 9999"):
        parse_time(text, NOW)
