"""The event stream fits the disk, or the launcher says which setting does not."""

import pytest

from embedded import room
from embedded.errors import EmbeddedError

MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture
def free(monkeypatch):
    def set_free(size):
        monkeypatch.setattr(room, "free_bytes", lambda _: size)

    return set_free


def test_large_disk_leaves_the_stream_at_its_default(free, tmp_path):
    free(100 * GIB)
    assert room.fit_stream(tmp_path, {}) == (4 * GIB, "")


def test_small_disk_limits_the_stream_with_a_notice(free, tmp_path):
    free(3 * GIB)
    size, text = room.fit_stream(tmp_path, {})
    assert size == 3 * GIB // 2
    assert text == (
        f"the event stream is limited to 1.5 GiB: {tmp_path} has room for 3.0 GiB "
        "(TETRA_STREAM_MAX_BYTES)"
    )


def test_space_of_the_existing_stream_counts_as_free(free, tmp_path):
    (tmp_path / "jetstream").mkdir()
    (tmp_path / "jetstream/1.blk").write_bytes(bytes(100 * MIB))
    free(100 * MIB)
    size, _ = room.fit_stream(tmp_path, {})
    assert size == 100 * MIB


def test_a_stream_on_a_disk_of_its_own_is_fitted_to_that_disk(monkeypatch, tmp_path):
    stream = tmp_path / "jetstream"
    stream.mkdir()
    monkeypatch.setattr(room, "free_bytes", lambda path: GIB if path == stream else 100 * GIB)
    assert room.fit_stream(tmp_path, {})[0] == GIB // 2


def test_full_disk_is_refused_at_once(free, tmp_path):
    free(100 * MIB)
    with pytest.raises(EmbeddedError, match=r"has room for 100 MiB, and needs 128 MiB") as caught:
        room.fit_stream(tmp_path, {})
    assert "TETRA_STREAM_MAX_BYTES" in str(caught.value)


def test_stream_that_was_set_larger_than_the_disk_is_refused_by_its_setting(free, tmp_path):
    free(1 * GIB)
    asked = {"TETRA_STREAM_MAX_BYTES": str(2 * GIB)}
    with pytest.raises(EmbeddedError, match=r"^stream: TETRA_STREAM_MAX_BYTES is 2.0 GiB"):
        room.fit_stream(tmp_path, asked)
    assert room.fit_stream(tmp_path, {"TETRA_STREAM_MAX_BYTES": "1000000"}) == (1000000, "")
    assert room.fit_stream(tmp_path, {"TETRA_STREAM_MAX_BYTES": "-1"}) == (-1, "")
