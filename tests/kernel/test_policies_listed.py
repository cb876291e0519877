"""What programs keep of the lists that a process is in: it must never be that of another moment."""

import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.policies import opens_of, plan_of

pytestmark = pytest.mark.kernel

CELLS = 1024  # LISTS_CELLS of bpf/tracing/image.h


@pytest.fixture
def shell(tmp_path):
    """A shell that no other process runs."""
    path = tmp_path / "shell"
    shutil.copy("/bin/sh", path)
    return path


def opens(path: Path, binary: object, operator: str = "In", follow: bool = False):
    filters = f"""
matchBinaries:
- operator: {operator}
  values: ["{binary}"]
  followChildren: {str(follow).lower()}
"""
    return plan_of(opens_of(path, filters))


class Reader:
    """A shell that opens a file itself, whenever it is asked to."""

    def __init__(self, shell: Path | str, opened: Path) -> None:
        script = f"while read -r _; do read -r _ < {opened}; echo; done"
        self._process = subprocess.Popen(
            [shell, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.pid = self._process.pid

    def open_file(self) -> None:
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"\n"

    def end(self) -> None:
        self._process.communicate(timeout=60)


@contextmanager
def reader(shell, opened):
    running = Reader(shell, opened)
    try:
        yield running
    finally:
        running.end()


@pytest.mark.parametrize(
    ("operator", "follow", "expected"),
    [("In", False, 1), ("NotIn", False, 2), ("In", True, 1)],
)
def test_exec_changes_what_a_process_matches(policies, opened, shell, operator, follow, expected):
    """Two opens by the shell, one by what it executes, which is in the list."""
    other = shell.with_name("other")
    shutil.copy("/bin/cat", other)
    script = f"read -r _ < {opened}; read -r _ < {opened}; exec {other} {opened}"
    with policies.loaded(opens(opened, other, operator, follow)) as loaded:
        child = subprocess.Popen([shell, "-c", script], stdout=subprocess.DEVNULL)
        assert child.wait(60) == 0
        assert len(loaded.of(child.pid)) == expected


def test_child_of_a_process_that_matched_matches(policies, opened, shell):
    script = f"read -r _ < {opened}; (read -r _ < {opened}); read -r _ < {opened}"
    with policies.loaded(opens(opened, shell)) as loaded:
        child = subprocess.Popen([shell, "-c", script])
        assert child.wait(60) == 0
        found = [record.pid for record in loaded.pump()]
    assert found.count(child.pid) == 2
    assert len(found) == 3


@pytest.mark.parametrize("follow", [False, True])
def test_list_that_is_added_later_holds_for_a_process_that_runs(policies, opened, shell, follow):
    with (
        policies.loaded(opens(opened, "/none", follow=follow)) as before,
        reader(shell, opened) as running,
    ):
        running.open_file()
        assert before.of(running.pid) == []
        with policies.loaded(opens(opened, shell, follow=follow)) as later:
            running.open_file()
            assert len(later.of(running.pid)) == 1


def test_processes_that_share_a_cell_are_distinguished(policies, opened, shell):
    with policies.loaded(opens(opened, shell)) as loaded, reader(shell, opened) as listed:
        with _reader_in_same_cell("/bin/sh", opened, listed.pid) as other:
            for _ in range(5):
                listed.open_file()
                other.open_file()
        assert len(loaded.of(listed.pid)) == 5
        assert loaded.of(other.pid) == []


@contextmanager
def _reader_in_same_cell(shell, opened, pid):
    """Start readers just before the next id that shares the cell, until one has it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        while not CELLS - 4 <= (_next_id() - pid) % CELLS <= CELLS - 2:
            pass
        for _ in range(4):
            with reader(shell, opened) as running:
                if (running.pid - pid) % CELLS == 0:
                    yield running
                    return
    pytest.fail(f"no process shares the cell of {pid}")


def _next_id():
    """Use up a process id, with a thread, and return it."""
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    return thread.native_id
