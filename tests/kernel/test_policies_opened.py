"""Files that are opened, by path and type: what is known before the path is walked hides none."""

import ctypes
import os

import pytest

from support.policies import in_child, plan_of

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

# The function where it can be hooked, otherwise the call, whose return has the file.
OPENED = """\
apiVersion: tetra.io/v1
kind: TracingPolicy
metadata: {name: opened}
spec:
  variants:
  - kprobes:
    - call: security_file_open
      syscall: false
      args: [{index: 0, type: file}]
      selectors: [{matchArgs: [{args: [0], operator: %s, values: [%s]}]}]
  - kprobes:
    - call: sys_openat
      return: true
      returnArg: {index: 0, type: fd}
      selectors: [{matchReturnArgs: [{index: 0, operator: %s, values: [%s]}]}]
"""
NEW_MOUNTS, BIND, PRIVATE_ALL = 0x20000, 0x1000, 0x44000


def opened(policies, folder, operator, value, act):
    """Return the names of the folder's files whose opening by ``act`` was reported."""
    with policies.loaded(plan_of(OPENED % (operator, value, operator, value))) as loaded:
        pid = in_child(act)
        loaded.pump()
        records = loaded.of(pid)
    paths = [one.text.decode() for r in records for one in (*r.args, *r.returned)]
    return [path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/")]


def open_all(*paths):
    for path in paths:
        os.close(os.open(path, os.O_RDONLY))


@pytest.fixture
def folder(tmp_path):
    for name in ("one", "two", "longer"):
        (tmp_path / name).write_text("x")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def test_one_path_is_equal(policies, folder):
    def act():
        open_all(folder / "two", folder / "one", folder / "longer")

    assert opened(policies, folder, "Equal", folder / "one", act) == ["one"]


def test_a_file_that_is_mounted_has_the_path_of_its_mount(policies, folder):
    libc = ctypes.CDLL(None, use_errno=True)

    def act():
        assert libc.unshare(NEW_MOUNTS) == 0
        assert libc.mount(None, b"/", None, PRIVATE_ALL, None) == 0
        assert libc.mount(bytes(folder / "longer"), bytes(folder / "one"), None, BIND, None) == 0
        open_all(folder / "one", folder / "longer")

    assert opened(policies, folder, "Equal", folder / "one", act) == ["one"]


def test_a_deleted_file_has_its_mark(policies, folder):
    def act():
        with (folder / "one").open() as file:
            (folder / "one").unlink()
            open_all(f"/proc/self/fd/{file.fileno()}")

    wanted = f"{folder}/one (deleted)"
    assert opened(policies, folder, "Equal", f'"{wanted}"', act) == ["one (deleted)"]


@pytest.mark.parametrize(
    ("operator", "expected"), [("FileType", ["pipe"]), ("NotFileType", ["one", "two"])]
)
def test_type_of_a_file(policies, folder, operator, expected):
    def act():
        open_all(folder / "one")
        os.close(os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK))
        open_all(folder / "two")

    assert opened(policies, folder, operator, "fifo", act) == expected
