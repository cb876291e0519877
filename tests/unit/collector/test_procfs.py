"""Processes as a made-up /proc shows them: each field has its own value."""

import os

import pytest

from collector.processes.procfs import (
    NO_LOGIN_UID,
    host_namespaces,
    read_all,
    read_process,
    start_and_args,
)
from collector.records.layouts import Credentials, Namespaces

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
NAMES = Namespaces._fields

STATUS = """\
Name:\tany
Uid:\t11\t12\t13\t14
Gid:\t21\t22\t23\t24
NSpid:\t{pid}\t31
CapInh:\t0000000000000005
CapPrm:\t0000000000000003
CapEff:\t0000000000000001
"""


def process(root, pid, *, parent=1, ticks=500, comm="any", cmdline=b"any\0-x\0"):
    """Write a process into ``root`` and return its folder."""
    folder = root / str(pid)
    (folder / "ns").mkdir(parents=True)
    middle = " ".join(str(n) for n in range(5, 22))
    rest = " ".join(str(n) for n in range(23, 48))
    (folder / "stat").write_text(f"{pid} ({comm}) S {parent} {middle} {ticks} {rest} 4080 49 50\n")
    (folder / "comm").write_text(comm + "\n")
    (folder / "cmdline").write_bytes(cmdline)
    (folder / "status").write_text(STATUS.format(pid=pid))
    (folder / "exe").symlink_to("/usr/bin/any")
    (folder / "cwd").symlink_to("/srv")
    (folder / "loginuid").write_text("1000")
    (folder / "cgroup").write_text("0::/any.slice\n")
    (folder / "environ").write_bytes(b"A=1\0")
    for number, name in enumerate(NAMES):
        (folder / "ns" / name).symlink_to(f"{name}:[{40 + number}]")
    return folder


def test_each_field_has_its_source(tmp_path):
    process(tmp_path, 9)
    found = read_process(tmp_path, 9, environment=True)
    assert (found.pid, found.parent_pid, found.comm) == (9, 1, "any")
    assert (found.start_ns, found.arg_start) == (500 * TICK_NS, 4080)
    assert (found.exe, found.cmdline, found.cwd) == (b"/usr/bin/any", b"any\0-x\0", b"/srv")
    assert (found.auid, found.cgroup, found.environ) == (1000, "0::/any.slice\n", b"A=1\0")
    assert (found.euid, found.nspid) == (12, 31)
    assert found.credentials == Credentials(
        uid=11, gid=21, euid=12, egid=22, suid=13, sgid=23, fsuid=14, fsgid=24,
        securebits=0, permitted=3, effective=1, inheritable=5,
    )  # fmt: skip
    assert found.namespaces == Namespaces(*range(40, 50))


def test_environment_is_read_only_where_it_is_wanted(tmp_path):
    process(tmp_path, 9)
    assert read_process(tmp_path, 9).environ == b""


@pytest.mark.parametrize("comm", [") 7 (", "a b c", "(", ")", "", "\\n"])
def test_name_in_parentheses_may_hold_anything(tmp_path, comm):
    process(tmp_path, 9, comm=comm)
    found = read_process(tmp_path, 9)
    assert (found.comm, found.parent_pid, found.start_ns) == (comm, 1, 500 * TICK_NS)
    assert start_and_args(tmp_path, 9) == (500 * TICK_NS, 4080)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("exe", "exe", b""), ("cwd", "cwd", None), ("loginuid", "auid", NO_LOGIN_UID),
     ("cgroup", "cgroup", ""), ("environ", "environ", b"")],
)  # fmt: skip
def test_file_that_is_unreadable_leaves_its_field_empty(tmp_path, name, field, value):
    (process(tmp_path, 9) / name).unlink()
    assert getattr(read_process(tmp_path, 9, environment=True), field) == value


@pytest.mark.parametrize("name", ["stat", "comm", "cmdline", "status"])
def test_process_that_ends_while_it_is_read_is_skipped(tmp_path, name):
    process(tmp_path, 8)
    (process(tmp_path, 9) / name).unlink()
    assert read_process(tmp_path, 9) is None
    assert [p.pid for p in read_all(tmp_path)] == [8]


def test_truncated_stat_is_an_ended_process(tmp_path):
    (process(tmp_path, 9) / "stat").write_text("9 (any) S 1 5 6")
    assert read_process(tmp_path, 9) is None
    assert start_and_args(tmp_path, 9) is None
    assert start_and_args(tmp_path, 10) is None


def test_processes_are_listed_after_their_parents(tmp_path):
    for pid, parent in ((10, 9), (9, 1), (1, 0), (11, 10), (100, 1)):
        process(tmp_path, pid, parent=parent)
    (tmp_path / "self").symlink_to("9")
    (tmp_path / "net").mkdir()
    assert [p.pid for p in read_all(tmp_path)] == [1, 100, 9, 10, 11]


def test_unreadable_namespaces_are_zero_and_replaced_by_ours(tmp_path):
    first, own = process(tmp_path, 1), process(tmp_path, 9)
    (tmp_path / "self").symlink_to("9")
    for name in ("mnt", "user"):
        (first / "ns" / name).unlink()
    (first / "ns" / "net").unlink()
    (first / "ns" / "net").symlink_to("net:damaged")
    found = read_process(tmp_path, 1).namespaces
    assert found.mnt == found.net == 0
    for number, name in enumerate(NAMES):
        (own / "ns" / name).unlink()
        (own / "ns" / name).symlink_to(f"{name}:[{60 + number}]")
    expected = Namespaces(*range(40, 50))._replace(mnt=62, net=65, user=69)
    assert host_namespaces(tmp_path) == expected
