"""Parents and children: parents that exit or exec while children run, reused pids."""

import os
from pathlib import Path

import pytest

from kernel.conftest import execs_of, exits_of
from kernel.test_lives import TRUE, decoded, only

pytestmark = pytest.mark.kernel


def test_an_orphan_that_execs_has_its_new_parent(plain, lives):
    pid, (middle, orphan), events = plain.run(lives, "orphan-exec")
    reaper = only(execs_of(events, pid)).process
    reported = only(execs_of(events, orphan))
    assert reported.process.arguments == "adopted"
    assert reported.process.flags == "execve clone"
    assert reported.parent == reaper
    assert reported.process.parent_exec_id == reaper.exec_id
    assert only(exits_of(events, orphan)).parent == reaper
    assert only(exits_of(events, middle)).parent == reaper


def test_a_child_keeps_the_image_that_forked_it(plain, lives):
    pid, (child,), events = plain.run(lives, "parent-execs")
    before, after = execs_of(events, pid)
    assert after.process.arguments == f"hold {child}"
    ended = only(exits_of(events, child))
    assert ended.status == 2
    assert ended.process.arguments == "parent-execs"
    assert ended.process.parent_exec_id == before.process.exec_id
    assert ended.parent == before.process
    assert only(exits_of(events, pid)).process == after.process


def test_a_reused_pid_is_another_process(plain, lives):
    for _ in range(5):  # the pid may be taken by another process meanwhile
        pid, (twice,), events = plain.run(lives, "reuse")
        if execs_of(events, twice):
            break
    first, second = exits_of(events, twice)
    reported = only(execs_of(events, twice)).process
    assert (first.status, second.status) == (3, 0)
    assert first.process.arguments == "reuse"
    assert second.process == reported
    assert (reported.binary, reported.arguments, reported.flags) == (TRUE, "again", "execve clone")
    assert decoded(first.process.exec_id)[2] == decoded(reported.exec_id)[2] == twice
    assert decoded(first.process.exec_id)[1] < decoded(reported.exec_id)[1]
    parent = only(execs_of(events, pid)).process
    assert first.parent == second.parent == parent


def test_pids_that_wrap_around(plain):
    """Set the kernel's next pid just below the largest."""
    last = Path("/proc/sys/kernel/ns_last_pid")
    largest = int(Path("/proc/sys/kernel/pid_max").read_text())
    for _ in range(5):  # others start processes, too
        last.write_text(str(largest - 8))
        pids = [plain.run(TRUE, f"{n}")[0] for n in range(30)]
        if pids[0] > largest - 100 and pids[-1] < largest // 2:
            break
    turn = next(n for n in range(1, 30) if pids[n] < pids[n - 1])
    assert turn > 0
    for n, pid in enumerate(pids):
        reported = execs_of(plain.events, pid)[-1]
        assert (reported.process.binary, reported.process.arguments) == (TRUE, f"{n}")
        assert reported.parent.pid.value == os.getpid()
        assert exits_of(plain.events, pid)[-1].process == reported.process
    names = [execs_of(plain.events, pid)[-1].process.exec_id for pid in pids]
    assert len(set(names)) == 30


def test_a_background_job_outlives_its_shell(plain):
    script = f"( {TRUE} first & exec {TRUE} second ) & wait; exit 3"
    pid, _, events = plain.run("/bin/sh", "-c", script)
    assert only(exits_of(events, pid)).status == 3
    ours = [e.process_exec for e in plain.events if e.process_exec.process.binary == TRUE]
    second = next(e for e in ours if e.process.arguments == "second")
    first = next(e for e in ours if e.process.arguments == "first")
    plain.until_exit(first.process.pid.value, second.process.pid.value)
    assert second.parent.pid.value == pid
    # Forked by the subshell before it exec'd: its image or, if that had gone, who took it over.
    assert first.parent.pid.value in (second.process.pid.value, 1, os.getppid(), os.getpid())


def test_kernel_threads_and_the_first_process_have_the_kernel_as_parent(plain):
    started = [event.process_exec for event in plain.bootstrap]
    first = only([one for one in started if one.process.pid.value == 1])
    assert (first.parent.binary, first.parent.pid.value) == ("<kernel>", 0)
    kthreadd = plain.table.living(2)
    assert plain.table.parent_of(kthreadd).image.binary == "<kernel>"
