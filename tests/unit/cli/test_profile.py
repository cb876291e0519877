"""Profiles from events: whose they are, what is counted, what is written."""

import json
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from cli.commands.profile.diff import differences
from cli.profiles.forms import seccomp, system_calls, systemd, tracing_policy
from cli.profiles.model import Profile
from cli.profiles.subject import Subject
from cli.profiles.text import text
from cli.resume import Batch
from tetragon.events_pb2 import GetEventsResponse
from tracingpolicy import parse
from tracingpolicy.ordinary import ORDINARY

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
    return profile_of(EVENTS)


def profile_of(events):
    """Return the profile of these events alone."""
    made = Profile(Subject("/usr/sbin/nginx"))
    made.take(Batch(events))
    return made


def test_only_what_the_subject_did_counts(profile):
    assert profile.syscalls == {"openat", "read"}
    assert dict(profile.started) == {"/bin/sh": 1}
    assert dict(profile.read) == {"/etc/nginx": 1}
    assert dict(profile.written) == {"/var/log/nginx": 1}
    assert dict(profile.connected) == {"10.0.0.1:53": 1}
    assert profile.capabilities == {"CAP_NET_BIND_SERVICE"}
    assert (profile.span_s, profile.nodes, profile.instances) == (10_800, {"n"}, 1)


def test_ids_are_kept_only_while_no_exec_was_seen():
    forks = [fact("01:00:00", 0, NGINX | {"exec_id": f"f{number}"}) for number in range(23)]
    assert profile_of(forks).instances == 23
    seen = profile_of([*forks, EVENTS[0], *forks])
    assert (seen.instances, seen.processes) == (1, set())


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


def test_text_has_every_section_and_its_evidence(profile):
    shown = text(profile, 1_767_229_200 * 10**9)
    assert "from events since 2026-01-01T01:00:00Z" in shown
    for part in ("/bin/sh", "/etc/nginx", "10.0.0.1:53", "CAP_NET_BIND_SERVICE", "openat read",
                 "3h00m between its first and last event, 1 instance on 1 node",
                 "no event was lost"):  # fmt: skip
        assert part in shown
    assert "was started" not in shown
    assert "single uses may be missing where they are frequent" in shown
    assert "none was started in that time" in text(profile_of([EVENTS[1]]))
    assert "is the name complete?" in text(Profile(Subject("/x")))


def test_forms_have_what_was_used(profile):
    document = json.loads(seccomp([profile]))
    (allowed,) = document["syscalls"]
    assert {"openat", "read", "execve", "exit_group"} <= set(allowed["names"])
    assert "ptrace" not in allowed["names"]
    assert set(allowed["names"]) >= ORDINARY  # single uses of these may have been left out
    assert document["architectures"] == ["SCMP_ARCH_X86_64"]
    unit = systemd([profile])
    assert "CapabilityBoundingSet=\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n" in unit
    assert "ProtectSystem" not in unit  # it would replace a stricter one of the unit
    assert 'ReadWritePaths="-/var/log/nginx"\n' in unit
    policy = parse(tracing_policy([profile]), "p")
    assert policy.name == "outside-nginx"
    container = Profile(Subject("web"), syscalls={"read"})
    assert parse(tracing_policy([container]), "p").tracepoints[0].selectors[0].containers


def test_call_that_a_filter_hid_is_allowed_beside_its_older_form():
    """Under RestrictNamespaces= the C library falls back to clone; clone3 is not reported."""
    assert "clone3" in system_calls([Profile(Subject("/x"), syscalls={"clone"})])
    assert "clone3" not in system_calls([Profile(Subject("/x"), syscalls={"read"})])


UNIT = {"unit": "nginx.service"}


def test_unit_has_all_its_commands_but_not_the_one_that_starts_them():
    """systemd-executor becomes the command: what it calls comes before the filter."""
    executor = {"exec_id": "x", "binary": "/proc/self/fd/8", "arguments": "--deserialize 43",
                "host_unit": UNIT}  # fmt: skip
    stop = {"exec_id": "s", "binary": "/sbin/start-stop-daemon", "host_unit": UNIT}
    unit = Profile(Subject("nginx.service"))
    events = [
        event("process_exec", "01:00:00", executor), fact("01:00:00", 165, executor),
        event("process_exec", "01:00:00", NGINX | {"host_unit": UNIT}, parent=executor),
        fact("01:00:00", 257, NGINX | {"host_unit": UNIT}), fact("01:00:00", 101),
        event("process_exec", "02:00:00", stop, parent=executor), fact("02:00:00", 62, stop),
    ]  # fmt: skip
    unit.take(Batch(events))
    assert unit.syscalls == {"openat", "kill"}
    assert unit.commands == {"/usr/sbin/nginx", "/sbin/start-stop-daemon"}
    (selector,) = parse(tracing_policy([unit]), "p").tracepoints[0].selectors
    assert selector.binaries[0].follow_children
    assert "nginx.service" in str(unit.subject.filters())


def test_policy_follows_what_the_named_ones_start(profile):
    started = Profile(Subject("/bin/sh"), syscalls={"read"})
    container = Profile(Subject("web"), syscalls={"read"})
    named, web = (
        parse(tracing_policy([profile, container, started], 2), "p").tracepoints[0].selectors
    )
    assert named.binaries[0].values == (b"/usr/sbin/nginx",)  # not every shell of the host
    assert web.containers


def test_difference_is_what_is_new(profile):
    later = profile_of([
        fact("05:00:00", 101), fact("05:00:00", 0), opened("05:00:00", "/tmp/x", 1)
    ])  # fmt: skip
    assert list(differences(profile, later)) == ["+ writes in /tmp", "+ system call ptrace"]
    assert list(differences(profile, profile)) == []
