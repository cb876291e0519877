"""A restarted collector: reported processes keep their exec_ids and are not repeated."""

import subprocess
import time
from contextlib import contextmanager

import pytest

from collector.recovery import state
from collector.running import kernel_process
from kernel.conftest import NODE, PROCFS
from tetra.v1.state_pb2 import SavedTable

pytestmark = pytest.mark.kernel


def restart(watch, folder):
    """Return the images that a next collector would find, saved as at a clean stop."""
    state.save(folder, SavedTable(node_name=NODE), watch.table, watch.stages.encoder)
    return found(folder)


def found(folder):
    """Return the images in a saved table that are alive."""
    return state.still_alive(state.processes(state.read(folder, NODE), kernel_process(0)), PROCFS)


@contextmanager
def waiting(*argv):
    """A process that waits for its stdin, ended and reaped in any case."""
    child = subprocess.Popen(argv, stdin=subprocess.PIPE)
    try:
        yield child
    finally:
        child.communicate(timeout=60)


def test_identical_processes_keep_their_own_ids(plain, tmp_path):
    with waiting("/usr/bin/cat", "-") as first, waiting("/usr/bin/cat", "-") as second:
        reported = {child.pid: plain.until_exec(child.pid) for child in (first, second)}
        kept = {p.pid: p for p in restart(plain, tmp_path)}
        encoder = plain.stages.encoder
        for pid, process in reported.items():
            assert encoder.exec_id(kept[pid].key).decode() == process.exec_id
            assert type(process).FromString(encoder.process(kept[pid])) == process


def test_unseen_exec_is_a_new_image(plain, tmp_path):
    with waiting("/bin/sh", "-c", "read line; exec /usr/bin/cat") as child:
        plain.until_exec(child.pid)
        assert child.pid in {p.pid for p in restart(plain, tmp_path)}
        child.stdin.write(b"go\n")
        child.stdin.flush()
        deadline = time.monotonic() + 10
        while (PROCFS / str(child.pid) / "comm").read_text() != "cat\n":
            assert time.monotonic() < deadline
            time.sleep(0.002)
        assert child.pid not in {p.pid for p in found(tmp_path) if not p.ended}


def test_state_of_another_node_or_damaged_state_is_not_used(plain, tmp_path):
    assert restart(plain, tmp_path)
    assert state.read(tmp_path, "another-node") is None
    (tmp_path / "processes.pb").write_bytes(b"\xff\xff\xff")
    assert state.read(tmp_path, NODE) is None
