"""Rate limits, and places on disk."""

import pytest

from exporter.errors import SinkError
from exporter.place import Place, PlaceFile
from exporter.selection import RateLimit

MINUTE_NS = 60_000_000_000


def test_rate_limit_counts_and_reports_what_it_withholds():
    limit = RateLimit(3, {})
    assert [limit.passes() for _ in range(5)] == [True] * 3 + [False] * 2
    assert limit.advance(MINUTE_NS) == 2
    assert limit.passes()
    assert limit.advance(MINUTE_NS + 1) == 0  # still the same minute
    assert limit.withheld_total == 2


def test_rate_limit_continues_from_its_saved_state():
    limit = RateLimit(3, {})
    limit.advance(MINUTE_NS)
    for _ in range(4):
        limit.passes()
    restored = RateLimit(3, limit.state())
    assert not restored.passes()
    assert restored.advance(2 * MINUTE_NS) == 2


def test_no_rate_limit_withholds_nothing():
    limit = RateLimit(-1, {})
    assert all(limit.passes() for _ in range(1000))
    assert limit.advance(MINUTE_NS) == 0
    assert limit.state() == {}


def test_place_survives_a_restart(tmp_path):
    place = Place(7, 123, {"size": 5}, {"minute": 1})
    PlaceFile(tmp_path, "one").write(place)
    assert PlaceFile(tmp_path, "one").read() == place
    assert PlaceFile(tmp_path, "two").read() is None


def test_unreadable_place_names_its_file(tmp_path):
    (tmp_path / "one.place").write_text("{}")
    with pytest.raises(SinkError, match=r"one\.place.*delete it"):
        PlaceFile(tmp_path, "one").read()
