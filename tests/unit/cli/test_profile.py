"""Profiles from events: whose they are, what is counted, what is written."""

import json
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from cli.commands.profile.diff import differences
from cli.profiles.forms import seccomp, systemd, tracing_policy
from cli.profiles.model import Profile
from cli.profiles.subject import Subject
from cli.profiles.text import text
from cli.resume import Batch
from tetragon.events_pb2 import GetEventsResponse
from tracingpolicy import parse

NGINX = {"exec_id": "a", "pid": 7, "binary": "/usr/sbin/nginx", "docker": "0123456789abcdef"}


def event(kind, at, process=NGINX, **body):
    made = {"time": f"2026-01-01T{at}Z", "node_name": "n", kind: {"process": process, **body}}
    return ParseDict(made, GetEventsResponse())


def fact(at, number, process=NGINX):
    return event("process_tracepoint", at, process, policy_name="syscalls", tags=["ready/syscalls"],
                 message="syscall", args=[{"size_arg": number},
                 {"syscall_id": {"id": number, "abi": "x64"}}])  # fmt: skip


def opened(at, path, flags):
    return event("process_kprobe", at, policy_name="files", tags=["ready/files"], message="open",
                 function_name="__x64_sys_openat", args=[{"int_arg": flags, "label": "flags"}],
                 **{"return": {"file_arg": {"path": path}}})  # fmt: skip


EVENTS = [
    event("process_exec", "01:00:00"),
    fact("01:00:00", 257),
    fact("02:00:00", 0),
    fact("02:00:00", 1, {"exec_id": "b", "binary": "/bin/other"}),
    opened("02:00:00", "/etc/nginx/nginx.conf", 0),
    opened("02:30:00", "/var/log/nginx/access.log", 0o2001),
    event("process_exec", "03:00:00", {"exec_id": "c", "binary": "/bin/sh"}, parent=NGINX),
    event("process_tracepoint", "04:00:00", policy_name="network", tags=["ready/network"],
          message="connect", args=[{"sock_arg": {"family": "AF_INET", "daddr": "10.0.0.1",
          "dport": 53}}, {"int_arg": 2}, {"int_arg": 1}, {"int_arg": 0}]),
    event("process_kprobe", "04:00:00", policy_name="capabilities", tags=["ready/capabilities"],
          message="capability", args=[{"capability_arg": {"name": "CAP_NET_BIND_SERVICE"}}]),
]  # fmt: skip


@pytest.fixture
def profile():
    made = Profile(Subject("/usr/sbin/nginx"))
    made.take(Batch(EVENTS))
    return made


def test_only_what_the_subject_did_counts(profile):
    assert profile.syscalls == {"openat", "read"}
    assert dict(profile.started) == {"/bin/sh": 1}
    assert dict(profile.read) == {"/etc/nginx": 1}
    assert dict(profile.written) == {"/var/log/nginx": 1}
    assert dict(profile.connected) == {"10.0.0.1:53": 1}
    assert profile.capabilities == {"CAP_NET_BIND_SERVICE"}
    assert (profile.hours, profile.nodes, profile.instances) == (3.0, {"n"}, {"a"})


@pytest.mark.parametrize("name", ["0123456789ab", "web", "shop/web-0", "sidecar"])
def test_containers_are_found_by_name_id_and_pod(name):
    where: Any = {
        "0123456789ab": {"docker": "0123456789abcdef"},
        "web": {"container_info": {"name": "web"}},
    }.get(name, {"pod": {"namespace": "shop", "name": "web-0", "container": {"name": "sidecar"}}})
    process: Any = {"exec_id": "a", "binary": "/x"} | where
    found = Profile(Subject(name))
    found.take(Batch([fact("01:00:00", 0, process), fact("01:00:00", 1)]))
    assert found.syscalls == ({"read", "write"} if name == "0123456789ab" else {"read"})
    assert found.subject.filters()


def test_text_has_every_section_and_its_certainty(profile):
    shown = text(profile)
    for part in ("/bin/sh", "/etc/nginx", "10.0.0.1:53", "CAP_NET_BIND_SERVICE", "openat read",
                 "3.0 hours between its first and last event, 1 instance on 1 node",
                 "no event was lost"):  # fmt: skip
        assert part in shown
    assert "is the name complete?" in text(Profile(Subject("/x")))


def test_forms_have_what_was_used(profile):
    document = json.loads(seccomp([profile]))
    (allowed,) = document["syscalls"]
    assert {"openat", "read", "execve", "exit_group"} <= set(allowed["names"])
    assert "ptrace" not in allowed["names"]
    assert document["architectures"] == ["SCMP_ARCH_X86_64"]
    unit = systemd([profile])
    assert "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n" in unit
    assert "ReadWritePaths=-/var/log/nginx\n" in unit
    policy = parse(tracing_policy([profile]), "p")
    assert policy.name == "outside-nginx"
    container = Profile(Subject("web"), syscalls={"read"})
    assert parse(tracing_policy([container]), "p").tracepoints[0].selectors[0].containers


def test_difference_is_what_is_new(profile):
    later = Profile(Subject("/usr/sbin/nginx"))
    later.take(Batch([fact("05:00:00", 101), fact("05:00:00", 0), opened("05:00:00", "/tmp/x", 1)]))
    assert list(differences(profile, later)) == ["+ writes in /tmp", "+ system call ptrace"]
    assert list(differences(profile, profile)) == []
