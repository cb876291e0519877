"""Which processes a subject started: by exec ids, not by names."""

from google.protobuf.json_format import ParseDict

from cli.profiles.family import Family
from cli.profiles.subject import Subject
from tetragon.events_pb2 import GetEventsResponse


def process(exec_id, binary, parent="", **more):
    return {"exec_id": exec_id, "binary": binary, "parent_exec_id": parent, **more}


def event(of, parent, kind="process_exec"):
    made = {"node_name": "n", kind: {"process": of, "parent": parent}}
    return ParseDict(made, GetEventsResponse())


WEB, BACKUP = process("w", "/usr/sbin/web"), process("b", "/usr/sbin/backup")
WEB_SHELL = process("ws", "/bin/sh", "w")
BACKUP_SHELL = process("bs", "/bin/sh", "b")


def test_services_that_share_a_shell_do_not_mix():
    family = Family([Subject("/usr/sbin/web")])
    assert family.has(event(WEB_SHELL, WEB))
    assert not family.has(event(BACKUP_SHELL, BACKUP))
    assert family.has(event(process("c", "/usr/bin/curl", "ws"), WEB_SHELL))
    assert not family.has(event(process("r", "/usr/bin/rsync", "bs"), BACKUP_SHELL))


def test_fork_between_two_execs_belongs_to_its_parent():
    family = Family([Subject("/usr/sbin/web")])
    assert family.has(event(WEB_SHELL, WEB))
    fork = process("f", "/bin/sh", "ws")
    assert family.has(event(process("c", "/usr/bin/curl", "f"), fork))


def test_facts_are_shared_within_a_container():
    family = Family([Subject("/usr/sbin/web")])
    inside = WEB_SHELL | {"docker": "c1"}
    assert family.has(event(inside, WEB))
    other = process("x", "/bin/sh", "b", docker="c1")
    assert family.shares_facts(event(other, BACKUP))
    assert not family.shares_facts(event(BACKUP_SHELL, BACKUP))


def test_memory_is_bounded():
    family = Family([Subject("/usr/sbin/web")], most=5)
    for number in range(23):
        assert family.has(event(process(f"s{number}", "/bin/sh", "w"), WEB))
    assert len(family._ids) == 5
    assert family.has(event(process("c", "/bin/x", "s22"), process("s22", "/bin/sh", "w")))
