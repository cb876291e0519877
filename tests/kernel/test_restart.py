"""A collector that starts again: what was told keeps its exec_id and is not told again."""

import subprocess
import time
from contextlib import contextmanager

import pytest

from collector import state
from collector.kernel import boot_id
from kernel.conftest import NODE, PROCFS

pytestmark = pytest.mark.kernel


def restart(watch, folder):
    """Return the images that a next collector would find, saved as at a clean stop."""
    state.save(folder, NODE, boot_id(), watch.cache, watch.pipeline.encoder)
    return state.load(folder, NODE, boot_id(), PROCFS)


@contextmanager
def waiting(*argv):
    """A process that waits for its stdin, ended and reaped whatever happens."""
    child = subprocess.Popen(argv, stdin=subprocess.PIPE)
    try:
        yield child
    finally:
        child.communicate(timeout=10)


def test_processes_alike_in_all_keep_their_own_ids(plain, tmp_path):
    with waiting("/usr/bin/cat", "-") as first, waiting("/usr/bin/cat", "-") as second:
        told = {child.pid: plain.until_exec(child.pid) for child in (first, second)}
        kept = {p.pid: p for p in restart(plain, tmp_path)}
        encoder = plain.pipeline.encoder
        for pid, process in told.items():
            assert encoder.exec_id(kept[pid].key).decode() == process.exec_id
            assert type(process).FromString(encoder.process(kept[pid])) == process


def test_an_exec_that_nobody_saw_is_a_new_image(plain, tmp_path):
    with waiting("/bin/sh", "-c", "read line; exec /usr/bin/cat") as child:
        plain.until_exec(child.pid)
        assert child.pid in {p.pid for p in restart(plain, tmp_path)}
        child.stdin.write(b"go\n")
        child.stdin.flush()
        deadline = time.monotonic() + 10
        while (PROCFS / str(child.pid) / "comm").read_text() != "cat\n":
            assert time.monotonic() < deadline
            time.sleep(0.002)
        kept = state.load(tmp_path, NODE, boot_id(), PROCFS)
        assert child.pid not in {p.pid for p in kept if not p.ended}


def test_another_boot_or_node_begins_anew(plain, tmp_path):
    assert restart(plain, tmp_path)
    assert state.load(tmp_path, NODE, "another-boot", PROCFS) == []
    assert state.load(tmp_path, "another-node", boot_id(), PROCFS) == []
    (tmp_path / "processes.pb").write_bytes(b"\xff\xff\xff")
    assert state.load(tmp_path, NODE, boot_id(), PROCFS) == []
