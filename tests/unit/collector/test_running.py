"""Processes older than the probes: what the kernel's map gets, and which are in a container."""

import struct

import pytest

from collector import running
from collector.metadata.enricher import Enricher
from collector.processes.procfs import ProcfsProcess
from collector.processes.table import KERNEL_KEY, Process
from collector.records.layouts import Credentials
from collector.records.process import FLAG_IN_INIT_TREE
from support.stages import Stages
from tetragon.events_pb2 import GetEventsResponse
from unit.collector.synthetic import HOST_NS

CONTAINER = f"0::/docker/{'c' * 64}\n"


def found(pid, parent, start_ns, *, nspid=None, cgroup="0::/\n", cmdline=b"any\0"):
    return ProcfsProcess(
        pid=pid, parent_pid=parent, start_ns=start_ns, arg_start=0, comm="any", exe=b"/bin/any",
        cmdline=cmdline, cwd=b"/", euid=0, credentials=Credentials(*[0] * 8), auid=0,
        cgroup=cgroup, nspid=pid if nspid is None else nspid, namespaces=HOST_NS, environ=b"",
    )  # fmt: skip


class KernelMap:
    """The kernel's process map; ``taken`` pids are in it already."""

    def __init__(self, taken=()):
        self.entries = dict.fromkeys(taken, b"")

    def insert(self, key, value):
        (pid,) = struct.unpack("<I", key)
        return self.entries.setdefault(pid, value) is value

    def delete(self, key):
        (pid,) = struct.unpack("<I", key)
        return self.entries.pop(pid, None) is not None


@pytest.fixture
def bootstrapped(monkeypatch):
    """Return a function that enters processes and returns the map, the table and the events."""

    def run(processes, *, known=None, saved=(), ended=()):
        alive = {p.pid: (p.start_ns, 0) for p in processes if p.pid not in ended}
        monkeypatch.setattr(running, "start_and_args", lambda _procfs, pid: alive.get(pid))
        stages, known = Stages(Enricher(HOST_NS)), known or KernelMap()
        bootstrap = running.Bootstrap(
            stages.table, stages.enricher, stages.encoder, known, "/proc", 1000
        )
        events = bootstrap.run(processes, saved, 0.0)
        return known, stages.table, [GetEventsResponse.FromString(e).process_exec for e in events]

    return run


INIT = found(1, 0, 50)
SHIM = found(20, 1, 70)
FIRST = found(30, 20, 90, nspid=1, cgroup=CONTAINER)
INSIDE = found(40, 30, 110, nspid=2, cgroup=CONTAINER)


def test_kernel_map_gets_each_field_of_a_process(bootstrapped):
    known, _, _ = bootstrapped([INIT, SHIM, FIRST])
    # struct process_value of bpf/lib/values.h
    fields = {pid: struct.unpack("<QQIIQ", value) for pid, value in known.entries.items()}
    assert fields == {
        1: (50, KERNEL_KEY[1], KERNEL_KEY[0], 0, 50),
        20: (70, 50, 1, 0, 70),
        30: (90, 70, 20, FLAG_IN_INIT_TREE, 90),
    }


def test_kernel_map_gets_the_image_of_a_saved_process(bootstrapped):
    image = running.kernel_process(0).image
    saved = Process(20, 75, (1, 50), FLAG_IN_INIT_TREE | 0x4001, 7, True, image)
    known, table, events = bootstrapped([INIT, SHIM], saved=[saved])
    # Its start is /proc's, its image younger.
    assert struct.unpack("<QQIIQ", known.entries[20]) == (75, 50, 1, FLAG_IN_INIT_TREE, 70)
    assert table.living(20) is saved
    assert [e.process.pid.value for e in events] == [1]  # <kernel> was reported with the others


def test_processes_are_reported_with_their_parents(bootstrapped):
    _, _, events = bootstrapped([INIT, SHIM, found(21, 1, 80, cmdline=b"")])
    assert [(e.process.pid.value, e.parent.pid.value) for e in events][1:] == [(1, 0), (20, 1)]


def test_process_in_the_kernel_map_is_reported_from_its_records(bootstrapped):
    known, table, events = bootstrapped([INIT, SHIM], known=KernelMap([20]))
    assert known.entries[20] == b""
    assert table.living(20) is None
    assert [e.process.pid.value for e in events] == [0, 1]


def test_process_that_ended_meanwhile_leaves_the_map(bootstrapped):
    known, table, events = bootstrapped([INIT, SHIM], ended=[20])
    assert set(known.entries) == {1}
    assert table.living(20) is None
    assert [e.process.pid.value for e in events] == [0, 1]


def test_full_map_is_logged_and_the_process_reported(bootstrapped, capsys):
    class Full(KernelMap):
        def insert(self, key, value):
            raise OSError(7, "Argument list too long")

    _, table, events = bootstrapped([INIT, SHIM], known=Full())
    assert table.living(20) is not None
    assert [e.process.pid.value for e in events] == [0, 1, 20]
    assert capsys.readouterr().out.count("process map full") == 2


@pytest.mark.parametrize(
    ("processes", "inside"),
    [
        ([INIT, SHIM, FIRST, INSIDE], {30, 40}),
        # The first process of a pid namespace without a container, and the other way round.
        ([INIT, found(30, 1, 90, nspid=1), found(40, 30, 110)], set()),
        ([INIT, SHIM, found(30, 20, 90, cgroup=CONTAINER)], set()),
        # Entered from outside: its parent is not in the tree.
        ([INIT, SHIM, FIRST, found(41, 20, 95, nspid=3, cgroup=CONTAINER)], {30}),
        # A descendant needs no cgroup and no namespace of its own.
        ([INIT, SHIM, FIRST, INSIDE, found(50, 40, 120)], {30, 40, 50}),
        # In the order of names, 100 comes before its parent 30.
        ([INIT, SHIM, FIRST, found(100, 30, 120, nspid=4, cgroup=CONTAINER)], {30}),
    ],
)
def test_process_of_an_init_tree_descends_from_the_first_of_a_container(processes, inside):
    marked = running.in_init_trees(reversed(processes))
    assert {pid for pid, is_inside in marked.items() if is_inside} == inside
    assert set(marked) == {p.pid for p in processes}


def test_event_marks_a_process_in_an_init_tree(bootstrapped):
    _, table, events = bootstrapped([INIT, SHIM, FIRST])
    assert {e.process.pid.value: e.process.in_init_tree.value for e in events} == {
        0: False, 1: False, 20: False, 30: True,
    }  # fmt: skip
    assert table.living(30).in_init_tree
