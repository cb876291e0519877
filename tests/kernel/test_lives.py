"""Lives of real processes, seen by real probes: whole messages."""

import base64
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kernel.conftest import NODE, PROCFS, _watch, execs_of, exits_of, is_exit, process_of

pytestmark = pytest.mark.kernel

TRUE = "/usr/bin/true"
UNSET = 0xFFFFFFFF


def decoded(exec_id):
    """Return (node, ktime, pid) of an exec_id."""
    node, ktime, pid = base64.b64decode(exec_id).decode().rsplit(":", 2)
    return node, int(ktime), int(pid)


def only(items):
    """Return the one item."""
    assert len(items) == 1, items
    return items[0]


def test_an_exec_has_every_field(plain, tmp_path):
    pid, _, events = plain.run(TRUE, "one", "two words", "", cwd=tmp_path)
    reported = only(execs_of(events, pid))
    process = reported.process
    assert decoded(process.exec_id)[0::2] == (NODE, pid)
    assert process.pid.value == process.tid.value == pid
    assert process.uid.value == 0
    assert process.binary == TRUE
    assert process.arguments == 'one "two words" '
    assert process.cwd == str(tmp_path)
    assert process.flags == "execve clone"
    assert process.auid.value == int((PROCFS / "self/loginuid").read_text())
    assert process.in_init_tree.value is False
    assert process.HasField("in_init_tree")
    assert process.refcnt == 0
    assert process.user_name == "root"
    assert reported.parent.pid.value == os.getpid()
    assert process.parent_exec_id == reported.parent.exec_id
    assert not process.HasField("cap")
    assert not process.HasField("ns")
    assert not process.HasField("user")
    assert not process.argv
    ended = only(exits_of(events, pid))
    assert ended.process == process
    assert ended.parent == reported.parent
    assert (ended.signal, ended.status) == ("", 0)
    assert ended.time.ToNanoseconds() > process.start_time.ToNanoseconds()


def test_times_are_those_of_the_calendar(plain):

    before = time.time_ns()
    pid, _, events = plain.run(TRUE)
    after = time.time_ns()
    exec_event = next(e for e in events if not is_exit(e) and process_of(e).pid.value == pid)
    assert before - 2_000_000 <= exec_event.time.ToNanoseconds() <= after + 2_000_000
    assert exec_event.time == exec_event.process_exec.process.start_time


@pytest.mark.parametrize(("code", "status"), [("0", 0), ("7", 7), ("255", 255)])
def test_exit_status_is_reported(plain, code, status):
    pid, _, events = plain.run("/bin/sh", "-c", f"exit {code}")
    ended = only(exits_of(events, pid))
    assert (ended.status, ended.signal) == (status, "")


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGKILL, "SIGKILL"),
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGSEGV, "SIGSEGV"),
        (34, ""),
    ],
)
def test_signal_is_reported_by_name(plain, lives, number, name):
    pid, _, events = plain.run(lives, "signal", str(int(number)))
    ended = only(exits_of(events, pid))
    assert (ended.status, ended.signal) == (0, name)


def test_a_failed_exec_is_not_reported(plain, lives):
    pid, _, events = plain.run(lives, "no-exec")
    assert only(execs_of(events, pid)).process.binary == lives
    assert only(exits_of(events, pid)).status == 8


def test_a_fork_without_exec_ends_as_its_parent(plain, lives):
    pid, (child,), events = plain.run(lives, "fork")
    assert execs_of(events, child) == []
    parent = only(execs_of(events, pid)).process
    ended = only(exits_of(events, child))
    process = ended.process
    assert (process.binary, process.arguments) == (lives, "fork")
    assert process.flags == "execve"
    assert process.refcnt == 1
    assert process.pid.value == process.tid.value == child
    assert process.exec_id != parent.exec_id
    assert process.parent_exec_id == parent.exec_id
    assert ended.parent == parent
    assert ended.status == 3


def test_vfork_and_exec(plain, lives):
    pid, (child,), events = plain.run(lives, "vfork")
    reported = only(execs_of(events, child))
    assert (reported.process.binary, reported.process.arguments) == (TRUE, "vforked")
    assert reported.parent.exec_id == only(execs_of(events, pid)).process.exec_id


def test_each_exec_of_a_chain_has_the_previous_one_as_parent(plain, lives):
    pid, _, events = plain.run(lives, "chain")
    first, second, third = execs_of(events, pid)
    assert first.process.flags == "execve clone"
    assert second.process.flags == third.process.flags == "execve"
    assert second.process.parent_exec_id == first.process.exec_id
    assert second.parent == first.process
    assert third.process.parent_exec_id == second.process.exec_id
    assert third.parent == second.process
    assert third.process.arguments == "chain-3"
    assert only(exits_of(events, pid)).process == third.process


def test_an_orphan_keeps_its_parent(plain, lives):
    pid, (middle, orphan), events = plain.run(lives, "orphan", "0")
    assert only(exits_of(events, middle)).process.pid.value == middle
    ended = only(exits_of(events, orphan))
    assert ended.parent.pid.value == middle
    assert ended.parent.parent_exec_id == only(execs_of(events, pid)).process.exec_id


def test_a_clone_with_the_same_parent_is_a_sibling(plain, lives):
    pid, (sibling,), events = plain.run(lives, "clone-parent")
    reported = only(execs_of(events, sibling))
    assert reported.parent.pid.value == os.getpid()
    assert reported.process.arguments == "sibling"
    assert only(execs_of(events, pid)).process.pid.value == pid


@pytest.mark.parametrize(
    ("life", "status"), [("threads", 0), ("exit-group", 5), ("leader-first", 6)]
)
def test_the_last_thread_ends_the_process_once(plain, lives, life, status):
    for _ in range(5):
        pid, _, events = plain.run(lives, life)
        ended = only(exits_of(events, pid))
        assert ended.status == status
        assert ended.process.tid.value == pid


def test_an_exec_from_another_thread_belongs_to_the_leader(plain, lives):
    pid, _, events = plain.run(lives, "thread-exec")
    first, second = execs_of(events, pid)
    assert second.process.arguments == "from-thread"
    assert second.process.tid.value == pid
    assert second.parent == first.process
    assert only(exits_of(events, pid)).process == second.process


def test_a_fork_from_a_thread_has_the_process_as_parent(plain, lives):
    pid, (child,), events = plain.run(lives, "thread-fork")
    assert only(execs_of(events, child)).parent.pid.value == pid


def test_a_shebang_script_is_reported_by_its_own_path(plain, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh -e\nexit 0\n")
    script.chmod(0o755)
    pid, _, events = plain.run("./script", "x", cwd=tmp_path)
    process = only(execs_of(events, pid)).process
    assert process.binary == str(script)
    assert process.arguments == "-e ./script x"


def test_an_exec_by_file_descriptor(plain, lives):
    pid, _, events = plain.run(lives, "fexecve")
    process = execs_of(events, pid)[-1].process
    assert process.binary.startswith("/dev/fd/")
    assert process.arguments == "by-fd"


def test_bytes_that_are_not_text(plain):
    pid, _, events = plain.run(TRUE, b"a\xff\xfeb", b"\xe2\x82\xac", b"x\ty\n")
    assert only(execs_of(events, pid)).process.arguments == "a\ufffdb \u20ac x\ty\n"


@pytest.mark.parametrize("size", [1, 900, 5000, 120_000])
def test_long_arguments_are_not_cut(full, size):
    many = ["y" * 1000] * 3 if size < 100_000 else ["z" * 130_000] * 15
    pid, _, events = full.run(TRUE, "x" * size, *many)
    process = only(execs_of(events, pid)).process
    assert process.arguments == " ".join(["x" * size, *many])
    assert list(process.argv) == [a.encode() for a in (TRUE, "x" * size, *many)]
    assert "dataArgs" in process.flags
    assert "truncArgs" not in process.flags


def test_long_names_and_deep_directories(plain, tmp_path):
    deep = tmp_path
    fd = os.open(tmp_path, os.O_RDONLY)
    for index in range(250):
        name = f"{index:014d}"
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd, deep = inner, deep / name
    path = str(deep)
    assert 3000 < len(path) < 4096
    pid, _, events = plain.run(TRUE, cwd=f"/proc/self/fd/{fd}", pass_fds=(fd,))
    process = only(execs_of(events, pid)).process
    assert process.cwd == path
    assert process.flags == "execve clone"
    os.symlink(TRUE, "link", dir_fd=fd)
    pid, _, events = plain.run(f"{path}/link", "far")
    process = only(execs_of(events, pid)).process
    assert process.binary == f"{path}/link"
    assert "dataFilename" in process.flags
    pid, _, events = plain.run("./link", "near", cwd=f"/proc/self/fd/{fd}", pass_fds=(fd,))
    assert only(execs_of(events, pid)).process.binary == f"{path}/link"
    os.close(fd)


def test_the_root_as_directory(plain):
    pid, _, events = plain.run(TRUE, cwd="/")
    process = only(execs_of(events, pid)).process
    assert (process.cwd, process.flags) == ("/", "execve rootcwd clone")


def test_a_deleted_directory_is_marked(plain, lives, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    pid, _, events = plain.run(lives, "deleted-cwd", str(gone))
    assert execs_of(events, pid)[-1].process.cwd == f"{gone} (deleted)"


def test_a_directory_behind_a_mount(plain, tmp_path):
    (tmp_path / "mnt").mkdir()
    command = (
        f"mount -t tmpfs none {tmp_path}/mnt && mkdir {tmp_path}/mnt/sub && cd {tmp_path}/mnt/sub"
    )
    pid, _, events = plain.run("unshare", "-m", "sh", "-c", f"{command} && exec {TRUE} mounted")
    process = execs_of(events, pid)[-1].process
    assert (process.arguments, process.cwd) == ("mounted", f"{tmp_path}/mnt/sub")


def test_paths_begin_at_the_changed_root(plain, lives, tmp_path):
    busybox = tmp_path / "true"
    source = tmp_path / "true.c"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-static", "-o", busybox, source], check=True)
    (tmp_path / "inside").mkdir()
    pid, _, events = plain.run(lives, "chroot", str(tmp_path))
    process = execs_of(events, pid)[-1].process
    assert (process.binary, process.cwd) == ("/true", "/inside")


def test_the_first_of_a_pid_namespace_is_in_its_init_tree(plain, lives):
    _, (first,), events = plain.run(lives, "pid-namespace")
    reported = only(execs_of(events, first)).process
    assert reported.pid.value == first
    assert reported.in_init_tree.value is True
    assert reported.flags.endswith("clone inInitTree")


def test_a_later_setuid_does_not_change_what_was_reported(plain, lives):
    pid, _, events = plain.run(lives, "setuid")
    assert only(exits_of(events, pid)).process.uid.value == 0


def test_a_set_uid_binary(full, tmp_path):
    copy = tmp_path / "set-uid"
    copy.write_bytes(Path(TRUE).read_bytes())
    os.chown(copy, 0, 0)
    copy.chmod(0o4755)
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    pid, _, events = full.run("setpriv", "--reuid=1", "--clear-groups", str(copy))
    reported = execs_of(events, pid)[-1].process
    assert reported.uid.value == 0
    assert reported.process_credentials.uid.value == 1
    assert reported.process_credentials.euid.value == 0
    assert reported.binary_properties.setuid.value == 0
    assert reported.binary_properties.HasField("setuid")
    assert list(reported.binary_properties.privileges_changed) == [2]
    assert reported.refcnt == 1
    assert not only(exits_of(events, pid)).process.HasField("binary_properties")


def test_file_without_a_directory_entry(full, lives):
    pid, _, events = full.run(lives, "memfd")
    reported = execs_of(events, pid)[-1].process
    assert reported.arguments == "in-memory"
    assert reported.binary_properties.file.inode.number > 0
    assert reported.binary_properties.file.inode.links.value == 0
    assert reported.binary_properties.file.inode.HasField("links")


def test_every_option_enabled(full):
    environment = {"A": "1", "PASS": "--password=hush", "EMPTY": ""}
    pid, _, events = full.run(TRUE, "--password=hush", env=environment)
    reported = only(execs_of(events, pid))
    process = reported.process
    assert process.arguments == "--password=*****"
    assert list(process.argv) == [TRUE.encode(), b"--password=*****"]
    variables = {v.Key: v.Value for v in process.environment_variables}
    assert variables == {"A": "1", "PASS": "--password=*****", "EMPTY": ""}
    status = dict(
        line.split(":\t", 1) for line in (PROCFS / "self/status").read_text().splitlines()
    )
    mask = int(status["CapEff"], 16)
    assert list(process.cap.effective) == [bit for bit in range(41) if mask >> bit & 1]
    assert process.process_credentials.fsgid.value == os.getgid()
    for name in ("uts", "ipc", "mnt", "pid", "net", "cgroup", "user"):
        inode = int(os.readlink(f"/proc/self/ns/{name}").split("[")[1].rstrip("]"))
        assert getattr(process.ns, name).inum == inode
        assert getattr(process.ns, name).is_host
    assert process.user.name == process.user_name == "root"
    chain = [a.pid.value for a in reported.ancestors]
    assert chain
    assert chain[0] == os.getppid()
    assert chain[-1] in (1, 2)


def test_processes_started_before_are_known(plain):
    first, second = plain.bootstrap[0].process_exec, plain.bootstrap[1:]
    assert (first.process.binary, first.process.flags) == ("<kernel>", "procFS")
    assert first.process.pid.value == 0
    ours = next(e.process_exec for e in second if process_of(e).pid.value == os.getpid())
    assert ours.process.flags.startswith("procFS")
    assert ours.process.binary == os.readlink("/proc/self/exe")
    assert ours.parent.pid.value == os.getppid()
    assert plain.table.living(2).image.binary == "[kthreadd]"


@pytest.mark.timeout(300)
def test_a_thousand_lives_two_at_a_time(plain):
    script = (
        f"for i in $(seq 500); do {TRUE} a$i & {TRUE} b$i & wait; done; "  # two at a time
        "echo done > /dev/null"
    )
    shell = subprocess.Popen(["/bin/bash", "-c", script])
    shell.wait(timeout=240)  # emulated, on a busy machine
    plain.until_exit(shell.pid)
    execs = [e for e in plain.events if process_of(e).binary == TRUE and not is_exit(e)]
    ours = [e for e in execs if e.process_exec.parent.pid.value == shell.pid]
    assert sorted(process_of(e).arguments for e in ours) == sorted(
        f"{side}{n}" for side in "ab" for n in range(1, 501)
    )
    ids = [process_of(e).exec_id for e in ours]
    assert len(set(ids)) == 1000
    place = {process_of(e).exec_id: n for n, e in enumerate(plain.events) if not is_exit(e)}
    exits = [
        (n, e)
        for n, e in enumerate(plain.events)
        if is_exit(e) and process_of(e).exec_id in set(ids)
    ]
    assert len(exits) == 1000
    assert all(n > place[process_of(e).exec_id] for n, e in exits)


def test_exits_of_two_hundred_earlier_processes_have_their_names(headers):

    sleepers = [subprocess.Popen(["/usr/bin/sleep", f"10{n:03d}"]) for n in range(200)]
    watch = next(iterator := _watch(headers, ()))
    for sleeper in sleepers:
        sleeper.kill()
        sleeper.wait()
    events = watch.until_exit(*(s.pid for s in sleepers))
    exits = {process_of(e).pid.value: e.process_exit for e in events if is_exit(e)}
    for n, sleeper in enumerate(sleepers):
        ended = exits[sleeper.pid]
        assert ended.process.binary == os.path.realpath("/usr/bin/sleep")
        assert ended.process.arguments == f"10{n:03d}"
        assert ended.signal == "SIGKILL"
        assert ended.parent.pid.value == os.getpid()
    iterator.close()


def test_strace_agrees(plain, tmp_path):
    if not os.path.exists("/usr/bin/strace"):
        pytest.skip("strace is not installed")
    log = tmp_path / "log"
    script = f"for i in 1 2 3 4 5 6 7; do {TRUE} n$i; done; exec {TRUE} last"
    command = ["strace", "-f", "-o", str(log), "-e", "trace=execve", "/bin/sh", "-c", script]
    subprocess.run(command, check=True)
    lines = [line for line in log.read_text().splitlines() if "= 0" in line and TRUE in line]
    pids = [int(line.split()[0]) for line in lines if f'execve("{TRUE}"' in line]
    events = plain.until_exit(*pids)
    # On a busy machine a pid may have had another process before: the last exec counts.
    reported = [[e for e in execs_of(events, pid) if e.process.binary == TRUE][-1] for pid in pids]
    assert [e.process.arguments for e in reported] == [f"n{i}" for i in range(1, 8)] + ["last"]


def test_no_record_was_lost(plain, full):
    for watch in (plain, full):
        lost = [watch.opened.lost.lookup(slot.to_bytes(4, sys.byteorder)) for slot in range(5)]
        assert all(set(value) == {0} for value in lost)
        assert watch.stages.pipeline.statistics.malformed == 0
