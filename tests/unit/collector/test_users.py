"""Names of users come from the host's passwd file, whose first entry of a uid counts."""

import pwd
from types import SimpleNamespace

import pytest

from collector.metadata import users as module
from collector.metadata.users import Users


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it."""
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


@pytest.fixture
def passwd(tmp_path):
    """The passwd file in the root of pid 1."""
    folder = tmp_path / "1/root/etc"
    folder.mkdir(parents=True)
    return folder / "passwd"


def test_first_of_several_names_is_used(tmp_path, passwd):
    passwd.write_text("first:x:7:7::/:\nsecond:x:7:7::/:\nother:x:8:8::/:\n")
    users = Users(tmp_path)
    assert [users.name(uid) for uid in (7, 8, 9)] == ["first", "other", ""]


def test_names_of_the_host_precede_those_of_the_container(tmp_path, passwd):
    passwd.write_text("admin:x:0:0::/:\n")
    assert pwd.getpwuid(0).pw_name != "admin"
    assert Users(tmp_path).name(0) == "admin"


def test_own_file_counts_where_the_hosts_is_unreadable(tmp_path):
    assert Users(tmp_path).name(0) == pwd.getpwuid(0).pw_name


def test_host_file_that_has_no_such_user_is_not_completed_from_ours(tmp_path, passwd):
    passwd.write_text("alice:x:1:1::/:\n")
    assert Users(tmp_path).name(0) == ""


def test_changed_file_is_read_again_after_a_while(tmp_path, passwd, clock):
    passwd.write_text("old:x:7:7::/:\n")
    users = Users(tmp_path)
    assert users.name(7) == "old"
    passwd.write_text("renamed:x:7:7::/:\n")
    clock.s += module._RECHECK_S
    assert users.name(7) == "old"
    clock.s += 0.1
    assert users.name(7) == "renamed"


def test_unchanged_file_is_read_once(tmp_path, passwd, clock, monkeypatch):
    passwd.write_text("old:x:7:7::/:\n")
    users = Users(tmp_path)
    assert users.name(7) == "old"
    monkeypatch.setattr(module, "_parse", None)
    clock.s += 60
    assert users.name(7) == "old"


@pytest.mark.parametrize(
    "line", ["", "#", "+::::::", "bad:x", "bad:x:seven:7::/:", "bad:x:-7:7::/:", "bad:x::7::/:"]
)
def test_malformed_line_is_skipped(tmp_path, passwd, line):
    passwd.write_text(f"{line}\ngood:x:7:7::/:\n")
    assert Users(tmp_path).name(7) == "good"


def test_file_may_hold_any_bytes(tmp_path, passwd):
    passwd.write_bytes(b"\xff\xfe:x:7:7::/:\n\x00\ngood:x:8:8::/:\n")
    assert Users(tmp_path).name(8) == "good"
