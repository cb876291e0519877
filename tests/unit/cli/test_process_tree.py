"""Processes under their parents."""

import pytest

from cli.process_tree import ProcessTree
from cli.renderers.tree import TreeRenderer
from tetragon.events_pb2 import GetEventsResponse

START_NS = 1_767_225_600_000_000_000


def fill(process, pid, parent, binary, start_ms):
    process.exec_id = f"{pid}:{binary}"
    process.parent_exec_id = parent
    process.pid.value = pid
    process.binary = binary
    process.user_name = "root"
    process.start_time.FromNanoseconds(START_NS + start_ms * 10**6)


def started(pid, binary, *, at=0, parent=None, node="n"):
    event = GetEventsResponse(node_name=node)
    event.time.FromNanoseconds(START_NS + at * 10**6)
    fill(event.process_exec.process, pid, parent[0] if parent else "", binary, at)
    if parent:
        event.process_exec.parent.exec_id = parent[0]
        event.process_exec.parent.pid.value = int(parent[0].split(":")[0])
        event.process_exec.parent.binary = parent[0].split(":")[1]
        event.process_exec.parent.user_name = "root"
    return event


def ended(pid, binary, *, at, status=0, signal="", began=0):
    event = GetEventsResponse(node_name="n")
    event.time.FromNanoseconds(START_NS + at * 10**6)
    fill(event.process_exit.process, pid, "", binary, began)
    event.process_exit.status = status
    event.process_exit.signal = signal
    return event


SH = ("1:/bin/sh",)


def test_golden_tree():
    renderer = TreeRenderer()
    assert (
        renderer.render(
            [
                started(2, "/bin/ls", at=10, parent=SH),
                ended(2, "/bin/ls", at=13),
                started(3, "/bin/make", at=20, parent=SH),
                started(4, "/usr/bin/cc", at=30, parent=("3:/bin/make",)),
                ended(4, "/usr/bin/cc", at=1530, status=1),
                started(5, "/bin/sleep", at=40, parent=("3:/bin/make",)),
                started(6, "/bin/yes", at=50, parent=SH),
                ended(6, "/bin/yes", at=90, signal="SIGKILL"),
            ]
        )
        == ""
    )
    assert renderer.finish() == (
        "1: root: /bin/sh (running)\n"
        "├─ 2: root: /bin/ls (3ms)\n"
        "├─ 3: root: /bin/make (running)\n"
        "│  ├─ 4: root: /usr/bin/cc (exit 1, 1.5s)\n"
        "│  └─ 5: root: /bin/sleep (running)\n"
        "└─ 6: root: /bin/yes (SIGKILL, 40ms)\n"
    )


def test_exec_without_fork_replaces_the_image():
    renderer = TreeRenderer(unicode=False)
    renderer.render([started(1, "/bin/sh"), started(1, "/bin/ls", at=5, parent=SH)])
    renderer.render([ended(1, "/bin/ls", at=9)])
    assert renderer.finish() == ("1: root: /bin/sh (exec, 5ms)\n`- 1: root: /bin/ls (4ms)\n")


def test_kernel_is_its_own_parent_and_runs():
    renderer = TreeRenderer()
    renderer.render([started(0, "<kernel>", parent=("0:<kernel>",))])
    assert renderer.finish() == "0: root: <kernel> (running)\n"


def test_several_nodes_have_headings():
    renderer = TreeRenderer()
    renderer.render([started(1, "/a", node="x"), started(2, "/b", node="y")])
    assert renderer.finish() == "@x\n1: root: /a (running)\n@y\n2: root: /b (running)\n"


def test_ended_processes_stay_while_a_descendant_runs():
    tree = ProcessTree(keeps_ended=100)
    tree.add(started(2, "/a", at=0, parent=SH))
    tree.add(started(3, "/b", at=1, parent=("2:/a",)))
    tree.add(ended(2, "/a", at=2))
    tree.forget_ended()
    assert {entry.pid for entry, _ in tree.walk()} == {1, 2, 3}
    tree.add(ended(3, "/b", at=3))
    tree.forget_ended()
    assert {entry.pid for entry, _ in tree.walk()} == {1}
    assert set(tree.entries) == {"1:/bin/sh"}
    assert tree.running == 1


@pytest.mark.timeout(20)
def test_long_chains_of_execs_are_no_problem():
    tree = ProcessTree(keeps_ended=100)
    tree.add(started(1, "/0"))
    for step in range(1, 3000):
        tree.add(started(1, f"/{step}", at=step, parent=(f"1:/{step - 1}",)))
    assert tree.running == 1
    assert len(tree.entries) < 300
    tree.forget_ended()
    assert [entry.exec_id for entry, _ in tree.walk()] == ["1:/2999"]


def test_following_image_replaces_an_evicted_one_with_its_children():
    tree = ProcessTree(keeps_ended=100)
    tree.add(started(2, "/a", parent=SH))
    tree.add(started(3, "/child", at=1, parent=("2:/a",)))
    tree.add(started(2, "/b", at=2, parent=("2:/a",)))
    tree.add(started(4, "/child", at=3, parent=("2:/b",)))
    tree.forget_ended()
    assert [(entry.exec_id, len(lasts)) for entry, lasts in tree.walk()] == [
        ("1:/bin/sh", 1),
        ("2:/b", 2),
        ("3:/child", 3),
        ("4:/child", 3),
    ]


def test_dropped_processes_are_counted(monkeypatch):
    monkeypatch.setattr("cli.renderers.tree._KEPT_ENDED", 4)
    renderer = TreeRenderer()
    for pid in range(2, 9):
        renderer.render([started(pid, "/a", parent=SH), ended(pid, "/a", at=1)])
    assert renderer.finish() == (
        "1: root: /bin/sh (running)\n"
        "├─ 7: root: /a (1ms)\n"
        "└─ 8: root: /a (1ms)\n"
        "and 5 more that ended\n"
    )
