"""Complete messages of unusual processes: no field missing, no field too many."""

import os

import pytest
from google.protobuf.json_format import MessageToDict

from kernel.conftest import NODE, PROCFS, execs_of, process_of
from kernel.test_lives import TRUE, decoded

pytestmark = pytest.mark.kernel

ENVIRONMENT = {"PATH": "/usr/bin", "EMPTY": "", "EQUALS": "a=b"}
AUID = int((PROCFS / "self/loginuid").read_text())


class Names:
    """Stands in for what differs from run to run: ids, pids and times become names."""

    def __init__(self, **pids):
        self._pids = {pid: name for name, pid in pids.items()}
        self._images = {}

    def plain(self, message):
        """Return the message as a dict in which each image is ``<who>-<n>``, n from 1."""
        return self._walk(MessageToDict(message, preserving_proto_field_name=True))

    def _walk(self, value, key=""):
        if isinstance(value, dict):
            return {k: self._walk(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [self._walk(v, key) for v in value]
        if key in ("exec_id", "parent_exec_id"):
            node, ktime, pid = decoded(value)
            assert node == NODE
            who = self._pids.get(pid, "other")
            images = self._images.setdefault(who, [])
            if ktime not in images:
                images.append(ktime)
            return f"{who}-{images.index(ktime) + 1}"
        if key in ("pid", "tid"):
            return self._pids.get(value, "other")
        if key in ("start_time", "time"):
            assert value.endswith("Z")
            return "time"
        return value


def process(who, number, parent, **more):
    """Return the fields that every image of these tests has."""
    expected = {
        "exec_id": f"{who}-{number}",
        "pid": who,
        "tid": who,
        "uid": os.geteuid(),
        "cwd": "/usr",
        "flags": "execve clone",
        "start_time": "time",
        "auid": AUID,
        "parent_exec_id": parent,
        "in_init_tree": False,
        "user_name": "root",
    }
    return {k: v for k, v in (expected | more).items() if v is not None}


def events_of(watch, *argv, **pids):
    """Run a command below /usr; return the plain forms of all its events, and of its parent."""
    pid, printed, events = watch.run(*argv, cwd="/usr", env=ENVIRONMENT)
    names = Names(test=os.getpid(), main=pid, **dict(zip(pids, printed, strict=True)))
    parent = names.plain(execs_of(events, pid)[0].parent)
    reported = []
    for event in events:
        plain = names.plain(event)
        assert plain.pop("node_name") == NODE
        assert plain.pop("time") == "time"
        ((kind, body),) = plain.items()
        who = names.plain(process_of(event))["pid"]
        reported.append((who, kind.removeprefix("process_"), body))
    return reported, parent


def test_plain_process(plain):
    reported, test = events_of(plain, TRUE, "a b", "c")
    image = process("main", 1, test["exec_id"], binary=TRUE, arguments=' "a b" c')
    assert reported == [
        ("main", "exec", {"process": image, "parent": test}),
        ("main", "exit", {"process": image, "parent": test, "time": "time"}),
    ]


def test_a_fork_without_exec(plain, lives):
    reported, test = events_of(plain, lives, "fork", child=True)
    image = process("main", 1, test["exec_id"], binary=lives, arguments="fork")
    child = process("child", 1, "main-1", binary=lives, arguments="fork", flags="execve", refcnt=1)
    assert sorted(reported, key=lambda t: t[:2]) == [
        ("child", "exit", {"process": child, "parent": image, "status": 3, "time": "time"}),
        ("main", "exec", {"process": image, "parent": test}),
        ("main", "exit", {"process": image, "parent": test, "time": "time"}),
    ]


def test_a_chain_of_execs(plain, lives):
    reported, test = events_of(plain, lives, "chain")
    first = process("main", 1, test["exec_id"], binary=lives, arguments="chain")
    second = process(
        "main", 2, "main-1", binary="/proc/self/exe", arguments="chain-2", flags="execve"
    )
    third = process("main", 3, "main-2", binary=TRUE, arguments="chain-3", flags="execve")
    assert reported == [
        ("main", "exec", {"process": first, "parent": test}),
        ("main", "exec", {"process": second, "parent": first}),
        ("main", "exec", {"process": third, "parent": second}),
        ("main", "exit", {"process": third, "parent": second, "time": "time"}),
    ]


def test_an_exec_from_a_thread(plain, lives):
    reported, test = events_of(plain, lives, "thread-exec")
    first = process("main", 1, test["exec_id"], binary=lives, arguments="thread-exec")
    second = process("main", 2, "main-1", binary=TRUE, arguments="from-thread", flags="execve")
    assert reported == [
        ("main", "exec", {"process": first, "parent": test}),
        ("main", "exec", {"process": second, "parent": first}),
        ("main", "exit", {"process": second, "parent": first, "time": "time"}),
    ]


def test_process_killed_by_a_signal(plain, lives):
    reported, test = events_of(plain, lives, "signal", "9")
    image = process("main", 1, test["exec_id"], binary=lives, arguments="signal 9")
    assert reported[1:] == [
        ("main", "exit", {"process": image, "parent": test, "signal": "SIGKILL", "time": "time"})
    ]


def test_the_first_process_of_a_pid_namespace(plain, lives):
    reported, test = events_of(plain, lives, "pid-namespace", first=True)
    outer = process("main", 1, test["exec_id"], binary=lives, arguments="pid-namespace")
    first = process(
        "first", 1, "main-1", binary=TRUE, arguments="first-of-its-own",
        flags="execve clone inInitTree", in_init_tree=True,
    )  # fmt: skip
    assert [(who, kind, body) for who, kind, body in reported if who == "first"] == [
        ("first", "exec", {"process": first, "parent": outer}),
        ("first", "exit", {"process": first, "parent": outer, "time": "time"}),
    ]


def test_full_life_with_every_option(full):
    reported, test = events_of(full, TRUE, "x")
    (_, _, exec_), (_, _, exit_) = reported
    image = exec_["process"]
    heavy = ("cap", "ns", "process_credentials", "user", "environment_variables", "argv")
    assert {k: v for k, v in image.items() if k not in heavy} == process(
        "main", 1, test["exec_id"], binary=TRUE, arguments="x"
    )
    assert all(image[name] for name in heavy)
    assert image["user"] == {"name": "root"}
    kinds = {"uts", "ipc", "mnt", "pid", "pid_for_children", "net", "cgroup", "user"}
    assert set(image["ns"]) >= kinds
    ids = ("uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid")
    assert image["process_credentials"] == dict.fromkeys(ids, 0)
    assert image["environment_variables"] == [
        {"Key": "PATH", "Value": "/usr/bin"},
        {"Key": "EMPTY"},
        {"Key": "EQUALS", "Value": "a=b"},
    ]
    assert exec_.keys() == {"process", "parent", "ancestors"}
    assert exit_ == {**exec_, "time": "time"}
