"""The cache of compiled objects: with any content of the folder, a blob is either correct or
missing."""

import os

import pytest
from structlog.testing import capture_logs

from collector.bpf.cache import BlobCache, key_of

KEY, OTHER = key_of(["one"]), key_of(["other"])
CONTENT = b"bytecode" * 100


@pytest.fixture
def cache(tmp_path):
    return BlobCache(tmp_path / "cache")


def files(cache):
    return sorted(cache.folder.iterdir())


def test_blob_is_read_back(cache):
    assert cache.read(KEY) is None
    cache.write(KEY, CONTENT)
    assert cache.read(KEY) == CONTENT
    assert cache.read(OTHER) is None
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    cache.write(KEY, b"")
    assert cache.read(KEY) == b""


def test_parts_of_a_key_do_not_run_into_each_other():
    assert key_of(["ab", "c"]) != key_of(["a", "bc"]) != key_of(["abc"])
    assert key_of(["a", b"b"]) == key_of(["a", "b"])


def test_damaged_blob_counts_as_missing(cache):
    cache.write(KEY, CONTENT)
    [file] = files(cache)
    whole = file.read_bytes()
    for at in (*range(96), len(whole) - 1):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert cache.read(KEY) is None, at
    for size in (0, 1, 79, 80, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert cache.read(KEY) is None, size
    file.write_bytes(whole + b"\0")
    assert cache.read(KEY) is None
    file.write_bytes(whole)
    assert cache.read(KEY) == CONTENT


def test_blob_under_another_name_is_missing(cache):
    cache.write(KEY, CONTENT)
    [file] = files(cache)
    file.rename(file.with_name(OTHER.hex()[:40] + ".obj"))
    assert cache.read(OTHER) is None


def test_link_is_not_followed(cache, tmp_path):
    cache.write(KEY, CONTENT)
    [file] = files(cache)
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert cache.read(KEY) is None
    cache.write(KEY, b"new")  # takes the link's place
    assert not file.is_symlink()
    assert elsewhere.read_bytes().endswith(CONTENT)
    assert cache.read(KEY) == b"new"


@pytest.mark.parametrize("which", ["folder", "file"])
def test_blob_that_others_can_write_is_not_used(cache, which):
    cache.write(KEY, CONTENT)
    target = cache.folder if which == "folder" else files(cache)[0]
    target.chmod(0o777)
    with capture_logs() as logs:
        assert cache.read(KEY) is None
        assert cache.read(KEY) is None
    [entry] = logs  # once, not at each read
    assert entry["event"] == "object cache not used"
    assert "others can write" in entry["error"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("which", ["folder", "file"])
def test_files_of_another_user_are_not_trusted(cache, which):
    cache.write(KEY, CONTENT)
    target = cache.folder if which == "folder" else files(cache)[0]
    os.chown(target, 1, 1)
    with capture_logs() as logs:
        assert cache.read(KEY) is None
        if which == "folder":
            cache.write(OTHER, CONTENT)
            assert len(files(cache)) == 1
    assert "belongs to user 1" in logs[0]["error"]


def test_folder_that_cannot_be_created_is_logged_once(tmp_path):
    (tmp_path / "file").touch()
    cache = BlobCache(tmp_path / "file" / "cache")
    with capture_logs() as logs:
        for _ in range(2):
            assert cache.read(KEY) is None
            cache.write(KEY, CONTENT)
    assert [entry["event"] for entry in logs] == ["object cache not used"]


def test_blobs_unused_for_longest_are_dropped_first(cache):
    cache.limit_bytes = 4 * (len(CONTENT) + 80)
    keys = [key_of([str(number)]) for number in range(4)]
    for age, key in enumerate(reversed(keys)):
        cache.write(key, CONTENT)
        os.utime(cache.folder / f"{key.hex()[:40]}.obj", (age, age))
    assert cache.read(keys[3]) == CONTENT  # the oldest: used now
    cache.limit_bytes = 2 * (len(CONTENT) + 80)
    cache.write(OTHER, CONTENT)
    kept = [key for key in (*keys, OTHER) if cache.read(key)]
    assert kept == [keys[0], keys[3], OTHER]


def test_leftovers_of_a_killed_writer_are_deleted(cache):
    cache.write(KEY, CONTENT)
    left, recent = cache.folder / "a.partial", cache.folder / "b.partial"
    left.touch()
    recent.touch()
    os.utime(left, (1, 1))
    cache.write(OTHER, CONTENT)
    assert recent.exists()
    assert not left.exists()
