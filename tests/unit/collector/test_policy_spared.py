"""Which processes no policy acts on."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from collector.policies.spared import Spared, nothing_spared, numbers_of

NAMES = frozenset({"nats-server", "tetra-gateway"})
OWN = frozenset({os.geteuid()})


def start_ticks(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@pytest.fixture
def running(tmp_path):
    """Start a program under a name of the stack; return what starts it."""
    started = []

    def start(name, *arguments):
        program = tmp_path / name
        shutil.copy("/bin/sleep", program)
        started.append(subprocess.Popen([program, *arguments]))
        return started[-1].pid

    yield start
    for one in started:
        one.kill()
        one.wait()


def test_first_process_and_collector_are_spared():
    found = Spared(frozenset(), OWN).find()
    assert found == {1: start_ticks(1), os.getpid(): start_ticks(os.getpid())}


def test_programs_of_the_stack_are_spared(running):
    pid = running("nats-server", "60")
    other = running("nats-serve", "60")
    found = Spared(NAMES, OWN).find()
    assert found[pid] == start_ticks(pid)
    assert other not in found


def test_scripts_of_the_stack_are_spared(tmp_path):
    script = tmp_path / "tetra-gateway"
    script.write_text("import sys\nprint('on', flush=True)\nsys.stdin.read()\n")
    with subprocess.Popen(
        ["python3", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"on\n"
        assert child.pid in Spared(NAMES, OWN).find()
        child.stdin.close()


def test_program_that_another_user_runs_is_not_spared(running):
    pid = running("nats-server", "60")
    assert pid not in Spared(NAMES, frozenset({os.geteuid() + 1})).find()


def test_program_that_was_replaced_on_disk_is_still_known(running, tmp_path):
    pid = running("nats-server", "60")
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/exe").resolve() != tmp_path / "nats-server":
        assert time.monotonic() < deadline
    (tmp_path / "nats-server").unlink()
    assert pid in Spared(NAMES, OWN).find()


def test_setting_can_spare_nothing():
    assert nothing_spared() == {}


def test_users_are_known_by_number_and_by_name():
    assert numbers_of(["0", "65532", "daemon", "no-such-user", ""]) == {0, 65532, 1}
