"""Login sessions of real processes: by the kernel's number, and by a session's cgroup."""

import os
from pathlib import Path

import pytest

import eventfilters
from collector.bpf import kernel
from eventfilters.event import Event
from kernel.conftest import execs_of
from kernel.test_lives import TRUE
from support.cgroups import cgroup
from support.waiting import wait_until
from tetragon.events_pb2 import Filter

pytestmark = pytest.mark.kernel

NOBODY = 0xFFFFFFFF
LOGIN = Path("/proc/self/loginuid")


def last(watch, pid):
    """Return the last image of ``pid`` and the event of its end."""
    (event,) = [e for e in watch.until_exit(pid) if e.HasField("process_exit")]
    return event.process_exit.process, event


def login_of(uid, note):
    """Return a script that logs in as pam_loginuid does, and notes its session."""
    return f"echo {uid} > /proc/self/loginuid && cat /proc/self/sessionid > {note} && exec {TRUE}"


@pytest.mark.skipif(not LOGIN.exists(), reason="a kernel without CONFIG_AUDIT")
def test_login_has_its_session_and_user(plain, tmp_path):
    if int(LOGIN.read_text()) != NOBODY:  # pragma: no cover  # it can be set once
        pytest.skip("these tests run in a login session")
    pid, _, _ = plain.run("sh", "-c", login_of(0, tmp_path / "session"))
    session = int((tmp_path / "session").read_text())
    process, event = last(plain, pid)
    assert process.auid.value == 0
    assert (process.host_unit.session, process.host_unit.session_user) == (str(session), "root")
    assert process.host_unit.unit == ""
    ended = Event(event.SerializeToString())
    for name, passes in ((str(session), True), ("no-such", False)):
        filters = eventfilters.compile([Filter(session=[name])], [], [])
        assert (filters.apply_parsed(ended) is not None) == passes


@pytest.mark.skipif(not LOGIN.exists(), reason="a kernel without CONFIG_AUDIT")
def test_process_without_a_login_has_no_session(plain):
    if int(LOGIN.read_text()) != NOBODY:  # pragma: no cover
        pytest.skip("these tests run in a login session")
    pid, _, _ = plain.run(TRUE)
    assert not last(plain, pid)[0].HasField("host_unit")


def test_session_of_systemd_is_named_by_its_cgroup(plain, headers, monkeypatch):
    info = kernel.detect(headers)
    # No systemd runs here: its cgroups are made by hand.
    monkeypatch.setattr(plain.stages.enricher._cgroups, "_has_systemd", True)
    own, name = f"t{os.getpid()}", f"session-t{os.getpid()}.scope"
    with (
        cgroup(info, f"{own}.slice", unique=False) as outer,
        cgroup(info, "user-0.slice", below=outer, unique=False) as of_user,
        cgroup(info, name, below=of_user, unique=False) as session,
        session.running(["sleep", "600"]) as child,
    ):
        wait_until(lambda: in_unit(plain, child.pid), 20, lambda: plain.events[-3:])
        unit = in_unit(plain, child.pid)[0].host_unit
    assert (unit.unit, unit.slice) == (name, "user-0.slice")
    assert (unit.session, unit.session_user) == (own, "root")


def in_unit(watch, pid):
    """Return the images of ``pid`` that have a unit."""
    watch.pump()
    return [e.process for e in execs_of(watch.events, pid) if e.process.host_unit.unit]
