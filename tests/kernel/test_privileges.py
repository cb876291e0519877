"""What an exec gains, and from which file: binary_properties, credentials, namespaces."""

import os
import struct
from pathlib import Path

import pytest

from kernel.conftest import execs_of, exits_of
from kernel.test_lives import TRUE, only

pytestmark = pytest.mark.kernel

FILE_CAPS, SETUID_ROOT, SETGID_ROOT = 1, 2, 3  # enum ProcessPrivilegesChanged
NET_RAW = 13


@pytest.fixture
def binary(tmp_path):
    """A copy of `true` that every user can execute."""
    for folder in (tmp_path, *tmp_path.parents):
        if os.access(folder, os.W_OK) and str(folder).count("/") > 1:
            folder.chmod(folder.stat().st_mode | 0o55)
    copy = tmp_path / "copy"
    copy.write_bytes(Path(TRUE).read_bytes())
    copy.chmod(0o755)
    return copy


def as_daemon(full, *argv):
    """Run a command as uid 1, gid 1, without capabilities; return its exec and its end."""
    pid, _, events = full.run(*argv, user=1, group=1, extra_groups=[])
    return execs_of(events, pid)[-1].process, only(exits_of(events, pid)).process


def test_a_plain_binary_has_no_properties(full, binary):
    reported, _ = as_daemon(full, binary)
    assert reported.uid.value == 1
    assert not reported.HasField("binary_properties")
    assert reported.refcnt == 0
    assert not reported.cap.effective


def test_set_gid(full, binary):
    os.chown(binary, 1, 0)
    binary.chmod(0o2755)
    reported, ended = as_daemon(full, binary)
    properties = reported.binary_properties
    assert not properties.HasField("setuid")
    assert properties.HasField("setgid")
    assert properties.setgid.value == 0
    assert list(properties.privileges_changed) == [SETGID_ROOT]
    assert reported.process_credentials.gid.value == 1
    assert reported.process_credentials.egid.value == 0
    assert not ended.HasField("binary_properties")


def test_set_uid_to_another_than_root(full, binary):
    os.chown(binary, 2, 2)
    binary.chmod(0o4755)
    reported, _ = as_daemon(full, binary)
    assert reported.uid.value == 2
    assert reported.user_name == "bin"
    assert reported.binary_properties.setuid.value == 2
    assert list(reported.binary_properties.privileges_changed) == []


def test_capabilities_of_the_file(full, binary):
    # struct vfs_cap_data, revision 2, effective: permitted and inheritable, low and high words.
    attribute = struct.pack("<IIIII", 0x02000001, 1 << NET_RAW, 0, 0, 0)
    os.setxattr(binary, "security.capability", attribute)
    reported, ended = as_daemon(full, binary)
    assert reported.uid.value == 1
    assert list(reported.cap.effective) == list(reported.cap.permitted) == [NET_RAW]
    assert list(reported.binary_properties.privileges_changed) == [FILE_CAPS]
    assert not reported.binary_properties.HasField("setuid")
    assert list(ended.cap.effective) == [NET_RAW]


def test_a_deleted_file(full, lives, binary):
    inode = binary.stat().st_ino
    pid, _, events = full.run(lives, "unlinked", str(binary))
    reported = execs_of(events, pid)[-1].process
    assert reported.arguments == "still-runs"
    assert reported.binary_properties.file.inode.number == inode
    assert reported.binary_properties.file.inode.links.value == 0


def test_ids_are_those_of_the_host_in_a_user_namespace(full):
    pid, _, events = full.run("unshare", "-U", "-r", TRUE, "inside")
    reported = execs_of(events, pid)[-1].process
    assert reported.arguments == "inside"
    assert reported.uid.value == os.getuid()
    assert not reported.ns.user.is_host
    assert reported.ns.mnt.is_host
    assert reported.user_name == ""
    assert not reported.HasField("user")


@pytest.mark.parametrize(
    ("option", "name"),
    [("-u", "uts"), ("-i", "ipc"), ("-n", "net"), ("-m", "mnt"), ("-C", "cgroup")],
)
def test_a_separate_namespace(full, option, name):
    pid, _, events = full.run("unshare", option, TRUE, name)
    reported = execs_of(events, pid)[-1].process
    assert reported.arguments == name
    inside = {kind for kind in ("uts", "ipc", "net", "mnt", "cgroup", "user", "pid")
              if not getattr(reported.ns, kind).is_host}  # fmt: skip
    assert inside == {name}
    assert getattr(reported.ns, name).inum


def test_the_pid_namespace_of_children_is_a_field_of_its_own(full):
    pid, _, events = full.run("unshare", "-p", TRUE, "outside")
    reported = execs_of(events, pid)[-1].process
    assert reported.ns.pid.is_host
    assert not reported.ns.pid_for_children.is_host


def test_secure_bits_are_named(full):
    pid, _, events = full.run("setpriv", "--securebits=+noroot", TRUE, "bits")
    reported = execs_of(events, pid)[-1].process
    assert list(reported.process_credentials.securebits) == [1]


def test_exec_that_dies_past_the_point_of_no_return_leaves_nothing_behind(full, lives, binary):
    """The kernel kills an exec that it cannot go back from; then the pid is another's."""
    image = bytearray(binary.read_bytes())
    table, entry_size, entries = (
        *struct.unpack_from("<Q", image, 32),
        *struct.unpack_from("<HH", image, 54),
    )
    for at in range(table, table + entry_size * entries, entry_size):
        if struct.unpack_from("<I", image, at)[0] == 1:  # PT_LOAD, to where no user memory is
            struct.pack_into("<Q", image, at + 16, 0x7FFF_FFFF_F000)
    binary.write_bytes(image)
    binary.chmod(0o4755)
    for _ in range(5):  # the pid may be taken by another process meanwhile
        _, (twice,), events = full.run(lives, "reuse", str(binary))
        if execs_of(events, twice):
            break
    first, second = exits_of(events, twice)
    assert first.signal in ("SIGSEGV", "SIGKILL")
    assert first.process.arguments == f"reuse {binary}"
    reported = only(execs_of(events, twice)).process
    assert second.process.arguments == reported.arguments == "again"
    assert not reported.HasField("binary_properties")
