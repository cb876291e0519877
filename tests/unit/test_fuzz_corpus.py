"""The inputs that fuzzing kept pass their checks; `make fuzz` adds to them."""

import importlib
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from google.protobuf.message import DecodeError

from fuzz import inputs

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def replay(target, name):
    """Check the seeds and all that is kept; return how many inputs that are."""
    kept = [path.read_bytes() for path in inputs.kept(name)]
    for data in [*target.seeds(), *kept]:
        target.check(*inputs.split(data))
    return len(kept)


@pytest.mark.parametrize("name", inputs.TARGETS)
def test_kept_inputs_hold(name):
    target = importlib.import_module(f"fuzz.targets.{name}")
    assert replay(target, name) >= 5


@pytest.mark.parametrize("name", inputs.TARGETS)
def test_mutated_inputs_hold(name):
    target = importlib.import_module(f"fuzz.targets.{name}")
    changed = set()
    for seed in range(50):
        for data in target.seeds()[:3]:
            other = inputs.mutate(data, target, inputs.MAX_BYTES, seed)
            assert len(other) <= inputs.MAX_BYTES
            assert inputs.join(*inputs.split(other)) == other
            target.check(*inputs.split(other))
            changed.add(other)
    assert len(changed) > 50


def test_any_bytes_are_an_input():
    assert inputs.split(b"") == (0, [])
    assert inputs.split(b"\x07\xff\xffab") == (7, [b"ab"])
    assert inputs.split(inputs.join(3, [b"a", b"", b"bc"])) == (3, [b"a", b"", b"bc"])


class Agreeable(int):
    """A checksum that is never wrong."""

    def __ne__(self, other):
        return False

    __hash__ = int.__hash__


# Target, what is broken in the code that it checks, and how the target fails then.
BREAKAGES = [
    ("records", "collector.records.text.utf8", lambda raw: raw.decode(errors="surrogateescape"),
     UnicodeEncodeError),
    ("ring", "collector.bpf.ring._HEADER", 0, AssertionError),
    ("spool", "collector.delivery.segments._MAX_INT64", 1 << 80, AssertionError),
    ("spool", "collector.delivery.spool.Spool._torn", lambda spool, segment, offset: None,
     AssertionError),
    ("spool", "collector.delivery.segments.zlib", SimpleNamespace(crc32=lambda data: Agreeable()),
     AssertionError),
    ("table", "collector.recovery.state._has_image", lambda saved: True, DecodeError),
    ("batches", "eventstream.batch.without_malformed", lambda payloads, *_: payloads, DecodeError),
    ("batches", "eventstream.batch._MAX_UINT64", 1 << 80, ValueError),
    ("requests", "eventfilters.fields.labels.FilterError", KeyError, KeyError),
    ("rendered", "cli.renderers.lifecycle.visible", str, AssertionError),
    ("rendered", "cli.renderers.template.visible", str, AssertionError),
    ("rendered", "cli.process_tree.visible", str, AssertionError),
    ("policies", "tracingpolicy.reading.values.whole_number", int, ValueError),
    ("policies", "tracingpolicy.reading.filters.kind_of", lambda argument: argument.type,
     AttributeError),
    ("rendered", "eventjson.times._second", lambda seconds: str(EPOCH + timedelta(0, seconds)),
     OverflowError),
]  # fmt: skip


@pytest.mark.parametrize(("name", "place", "broken", "failure"), BREAKAGES)
def test_kept_inputs_find_what_is_broken(name, place, broken, failure, monkeypatch):
    target = importlib.import_module(f"fuzz.targets.{name}")
    monkeypatch.setattr(place, broken)
    with pytest.raises(failure) as caught:
        replay(target, name)
    assert caught.type is failure
