"""The systemd units of the packages leave their service what it writes to."""

from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "debian").glob("*.service"))


def settings(unit):
    """Return the values of each key."""
    found = {}
    for line in unit.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).extend(value.split())
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_service_has_a_temporary_folder(unit):
    found = settings(unit)
    assert found["ProtectSystem"] == ["strict"]  # /tmp and /var/tmp are read-only
    caches = [f"TMPDIR=/var/cache/{name}" for name in found.get("CacheDirectory", [])]
    assert found.get("PrivateTmp") == ["yes"] or set(caches) & set(found["Environment"])


def test_there_are_units():
    assert len(UNITS) == 3
