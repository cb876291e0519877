"""A collector that starts again: what was told keeps its exec_id and is not told again."""

import subprocess

import pytest

from collector import state
from collector.kernel import boot_id
from kernel.conftest import NODE, PROCFS, execs_of, is_exit, process_of

pytestmark = pytest.mark.kernel


def restart(watch, folder):
    """Return the images that a next collector would find, saved as at a clean stop."""
    state.save(folder, NODE, boot_id(), watch.cache, watch.pipeline.encoder)
    return state.load(folder, NODE, boot_id(), PROCFS)


def started(watch, *argv):
    """Start a process and return it with its exec's message, once that is told."""
    child = subprocess.Popen(argv, stdin=subprocess.PIPE)
    for _ in range(1000):
        watch.pump()
        if found := [
            e.process_exec.process
            for e in watch.events
            if not is_exit(e) and process_of(e).pid.value == child.pid
        ]:
            return child, found[-1]
    raise AssertionError("no exec")


def end(*children):
    for child in children:
        child.communicate()


def test_processes_alike_in_all_keep_their_own_ids(plain, tmp_path):
    first, told_first = started(plain, "/usr/bin/cat", "-")
    second, told_second = started(plain, "/usr/bin/cat", "-")
    try:
        saved = {p.pid: p for p in restart(plain, tmp_path)}
        encoder = plain.pipeline.encoder
        for child, told in ((first, told_first), (second, told_second)):
            process = saved[child.pid]
            assert encoder.exec_id(process.key).decode() == told.exec_id
            assert type(told).FromString(encoder.process(process)) == told
    finally:
        end(first, second)


def test_an_exec_that_nobody_saw_is_a_new_image(plain, tmp_path):
    child = subprocess.Popen(
        ["/bin/sh", "-c", "read line; exec /usr/bin/cat"], stdin=subprocess.PIPE
    )
    try:
        for _ in range(1000):
            plain.pump()
            if execs_of(plain.events, child.pid):
                break
        state.save(tmp_path, NODE, boot_id(), plain.cache, plain.pipeline.encoder)
        assert child.pid in {p.pid for p in state.load(tmp_path, NODE, boot_id(), PROCFS)}
        child.stdin.write(b"go\n")
        child.stdin.flush()
        plain_comm = PROCFS / str(child.pid) / "comm"
        while plain_comm.read_text() != "cat\n":
            pass
        kept = state.load(tmp_path, NODE, boot_id(), PROCFS)
        assert child.pid not in {p.pid for p in kept if not p.ended}
    finally:
        end(child)


def test_another_boot_or_node_begins_anew(plain, tmp_path):
    state.save(tmp_path, NODE, boot_id(), plain.cache, plain.pipeline.encoder)
    assert state.load(tmp_path, NODE, "another-boot", PROCFS) == []
    assert state.load(tmp_path, "another-node", boot_id(), PROCFS) == []
    (tmp_path / "processes.pb").write_bytes(b"\xff\xff\xff")
    assert state.load(tmp_path, NODE, boot_id(), PROCFS) == []
