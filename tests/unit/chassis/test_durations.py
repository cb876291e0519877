"""Durations of settings, sinks and the command line."""

import pytest

from chassis.durations import has_unit, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1m30s", 90),
        ("1h30m", 5400),
        ("24h", 86400),
        ("30d", 2592000),
        ("2w", 1209600),
        (" 1.5s ", 1.5),
        ("100ms", 0.1),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("5ns", 5e-9),
        ("0", 0),
    ],
)
def test_units_add_up(text, seconds):
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "1 hour", "10", "10x", "-1s", "1h30", "h", "1,5s"])
def test_a_malformed_duration_is_rejected(text):
    with pytest.raises(ValueError, match="is not a duration: write it as 90s, 24h or 1h30m"):
        parse_seconds(text)


def test_a_plain_number_is_seconds_only_where_that_is_allowed():
    assert parse_seconds("30", plain=True) == 30
    assert parse_seconds("0.5", plain=True) == 0.5
    with pytest.raises(ValueError, match="not a duration"):
        parse_seconds("1h30", plain=True)


def test_a_clock_time_has_no_unit():
    assert has_unit("10m")
    assert not has_unit("10:30")
