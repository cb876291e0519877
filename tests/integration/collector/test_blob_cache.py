"""Processes that share the cache of compiled objects never read half a blob."""

import subprocess
import sys


def test_concurrent_readers_get_complete_blobs_only(tmp_path):
    folder = tmp_path / "cache"
    script = """
import sys
from pathlib import Path
from collector.bpf.cache import BlobCache, key_of
cache, key, size = BlobCache(Path(sys.argv[1]), 1 << 16), key_of(["one"]), 20_000
seen = 0
for turn in range(30):
    cache.write(key, bytes([turn]) * size)
    cache.write(key_of([sys.argv[2], str(turn)]), b"x" * size)
    found = cache.read(key)
    if found is not None:
        assert len(found) == size and len(set(found)) == 1, len(found)
        seen += 1
assert seen > 15, seen
"""
    command = [sys.executable, "-c", script, str(folder)]
    writers = [
        subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    assert not [file for file in folder.iterdir() if file.suffix == ".partial"]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 6 * 20_080
