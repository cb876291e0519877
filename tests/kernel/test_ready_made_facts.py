"""Ready-made policies syscalls and capabilities: one use in many ways, seen or named as missed."""

import itertools
import os
import shutil
import subprocess

import pytest

from support.ready_made import watching
from support.workloads import built
from tracingpolicy import PolicyErrors

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

BOTH = ("plain", "raw", "thread", "handler", "child", "vfork", "mounts", "compat", "memfd")
CALLS = (*BOTH, "tracer", "filter", "x32")
# Named in the head: refused before the tracepoint, or with a number that it has no place for.
CALLS_MISSED = {"filter", "x32"}
SETGID, DAC_OVERRIDE, NET_RAW, SYS_ADMIN = 6, 1, 13, 21  # include/uapi/linux/capability.h
CAPABILITIES = dict.fromkeys((*BOTH, "fsgid", "groups", "refused"), SETGID) | {
    "file": DAC_OVERRIDE,
    "ring": NET_RAW,
    "namespace": SYS_ADMIN,
}
X86 = os.uname().machine == "x86_64"
GETSID, GETSID_COMPAT = (124, 147) if X86 else (156, None)
NO_SUCH_WAY = 77
COPIES = itertools.count()


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return built("facts", tmp_path_factory.mktemp("facts"))


def used(watch, program, *words, value):
    """Run a fresh copy, for which nothing is reported yet; return whether a use was reported."""

    watch.loaded.records.clear()
    acting = run_copy(program, *words)
    mark(watch, program, words[0])
    return any(value_of(one, value, acting) for one in watch.loaded.pump())


def run_copy(program, *words):
    copy = f"{program}-{next(COPIES)}"
    shutil.copy(program, copy)
    found = run(copy, *words)
    os.unlink(copy)
    return found


def run(program, *words):
    """Return the ids of the process and its children."""
    with subprocess.Popen([program, *words], stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate(timeout=60)
    if process.returncode == NO_SUCH_WAY:
        pytest.skip(f"no such way here: {words[1]}")
    assert process.returncode == 0
    return {process.pid, *map(int, output.split())}


def mark(watch, program, what):
    """Wait for the use by one more copy; all that was used before has been reported then."""
    marking = run_copy(program, what, "plain")
    known = GETSID if what == "call" else SETGID
    watch.wait_for(lambda: any(value_of(one, known, marking) for one in watch.loaded.pump()))


def value_of(record, value, pids):
    """Return whether a record is of the value and of one of the processes."""
    values = [getattr(one, "id", one) for one in record.args]
    return record.pid in pids and value in values


@pytest.fixture(scope="module")
def syscalls(policies):
    with watching(policies, "syscalls") as watch:
        yield watch


@pytest.fixture(scope="module")
def capabilities(policies):
    try:
        with watching(policies, "capabilities") as watch:
            yield watch
    except PolicyErrors:
        pytest.skip("this kernel has neither the function in reach nor the tracepoint (6.14)")


@pytest.mark.parametrize("way", CALLS)
def test_ways_to_use_a_system_call(syscalls, program, way):
    value = GETSID_COMPAT if way == "compat" else GETSID
    assert used(syscalls, program, "call", way, value=value) is (way not in CALLS_MISSED)


def test_each_name_of_an_executable_has_its_own_facts(syscalls, program, tmp_path):
    """As the commands of busybox, and scripts with one interpreter; the names differ at the end."""
    folder = tmp_path / "long-name" / ("x" * 40)
    folder.mkdir(parents=True)
    one, other = folder / "one", folder / "other"
    shutil.copy(program, one)
    other.symlink_to(one)
    syscalls.loaded.records.clear()
    acting = [run(path, "call", "plain") for path in (one, other, one, other)]
    mark(syscalls, program, "call")
    records = syscalls.loaded.pump()
    found = [sum(value_of(one, GETSID, pids) for one in records) for pids in acting]
    assert found == [1, 1, 0, 0]


@pytest.mark.parametrize("way", CAPABILITIES)
def test_ways_to_use_a_capability(capabilities, program, way):
    # The function sees what was refused too, the tracepoint's policy leaves that out.
    missed = way == "refused" and not by_function(capabilities)
    found = used(capabilities, program, "capability", way, value=CAPABILITIES[way])
    assert found is not missed


def by_function(watch):
    return hasattr(watch.hooks[0].hook, "call")
