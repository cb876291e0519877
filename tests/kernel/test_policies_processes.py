"""Filters on the process: binaries, parents, ancestors, ids, namespaces, capabilities, users."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.policies import opens_of, plan_of

pytestmark = pytest.mark.kernel


def cat(path: Path, *before: str) -> int:
    """Open the file in another process; return its pid."""
    child = subprocess.Popen([*before, "/bin/cat", path], stdout=subprocess.DEVNULL)
    assert child.wait(60) == 0
    return child.pid


def pids(loaded) -> list[int]:
    return [record.pid for record in loaded.pump()]


def matched(policies, opened, filters, *commands, api="cilium.io/v1alpha1"):
    """Return whether each way to open the file is reported; the last thing is always."""
    with policies.loaded(plan_of(opens_of(opened, filters, api))) as loaded:
        made = [command() for command in commands]
        return [pid in pids(loaded) for pid in made]


REAL_CAT = os.path.realpath("/bin/cat")


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("In", REAL_CAT, [True, False]),
        ("NotIn", REAL_CAT, [False, True]),
        ("Prefix", REAL_CAT[:-1], [True, False]),
        ("NotPrefix", REAL_CAT[:-1], [False, True]),
        ("Postfix", "bin/cat", [True, False]),
        ("NotPostfix", "bin/cat", [False, True]),
        ("Postfix", "a-name-of-23-characters", [False, True]),
        ("Postfix", "a-fame-of-23-characters", [False, False]),
    ],
)
def test_match_binaries(policies, opened, tmp_path, operator, value, expected):
    other = tmp_path / "a-name-of-23-characters"
    shutil.copy("/bin/cat", other)

    def run_other() -> int:
        child = subprocess.Popen([other, opened], stdout=subprocess.DEVNULL)
        assert child.wait(60) == 0
        return child.pid

    filters = f'matchBinaries:\n- operator: {operator}\n  values: ["{value}"]'
    assert matched(policies, opened, filters, lambda: cat(opened), run_other) == expected


def test_renamed_binary_is_known_by_its_path_at_exec(policies, opened, tmp_path):
    moved = tmp_path / "moved"
    shutil.copy("/bin/cat", moved)
    filters = f'matchBinaries:\n- operator: In\n  values: ["{moved}"]'
    link = tmp_path / "link"
    link.symlink_to(moved)

    def by_link() -> int:
        child = subprocess.Popen([link, opened], stdout=subprocess.DEVNULL)
        assert child.wait(60) == 0
        return child.pid

    assert matched(policies, opened, filters, by_link, lambda: cat(opened)) == [True, False]


def test_script_is_known_by_its_interpreter(policies, opened, tmp_path):
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\nread line < {opened}\n")
    script.chmod(0o755)
    shell = os.path.realpath("/bin/sh")
    filters = f'matchBinaries:\n- operator: In\n  values: ["{shell}"]'

    def run() -> int:
        child = subprocess.Popen([script])
        assert child.wait(60) == 0
        return child.pid

    assert matched(policies, opened, filters, run, lambda: cat(opened)) == [True, False]


def test_process_that_ran_before_is_known(policies, opened):
    """Its executable is read from /proc when the policy is loaded."""
    ready, go = os.pipe()
    python = os.readlink("/proc/self/exe")
    pid = os.fork()
    if pid == 0:
        os.read(ready, 1)
        os.close(os.open(opened, os.O_RDONLY))
        os._exit(0)
    filters = f'matchBinaries:\n- operator: In\n  values: ["{python}"]'
    with policies.loaded(plan_of(opens_of(opened, filters))) as loaded:
        os.write(go, b"x")
        os.waitpid(pid, 0)
        assert pids(loaded) == [pid]


def test_follow_children_includes_what_a_binary_started(policies, opened, tmp_path):
    shell = tmp_path / "shell"  # the tests may run below a /bin/sh themselves
    shutil.copy("/bin/sh", shell)
    filters = f'matchBinaries:\n- operator: In\n  values: ["{shell}"]\n  followChildren: true'

    def from_shell() -> int:
        script = f"/bin/cat {opened} > /dev/null & echo $!; wait"
        return int(subprocess.check_output([shell, "-c", script]))

    assert matched(policies, opened, filters, from_shell, lambda: cat(opened)) == [True, False]


def test_match_parent_binaries(policies, opened):
    shell = os.path.realpath("/bin/sh")
    filters = f'matchParentBinaries:\n- operator: In\n  values: ["{shell}"]'

    def from_shell() -> int:
        script = f"/bin/cat {opened} > /dev/null & echo $!; wait"
        return int(subprocess.check_output(["/bin/sh", "-c", script]))

    assert matched(policies, opened, filters, from_shell, lambda: cat(opened)) == [True, False]


def test_match_pids_by_ancestor(policies, opened):
    own = f"matchPIDs:\n- operator: In\n  followForks: true\n  values: [{os.getpid()}]"
    none = f"matchPIDs:\n- operator: NotIn\n  followForks: true\n  values: [{os.getpid()}]"
    exact = f"matchPIDs:\n- operator: In\n  values: [{os.getpid()}]"
    assert matched(policies, opened, own, lambda: cat(opened)) == [True]
    assert matched(policies, opened, none, lambda: cat(opened)) == [False]
    assert matched(policies, opened, exact, lambda: cat(opened)) == [False]


def test_match_namespace_pids(policies, opened):
    """In a pid namespace of its own the process is 1, on the host it has no such number."""
    inside = "matchPIDs:\n- operator: In\n  isNamespacePID: true\n  values: [1]"
    with policies.loaded(plan_of(opens_of(opened, inside))) as loaded:
        cat(opened)
        assert pids(loaded) == []
        subprocess.run(["unshare", "--fork", "--pid", "/bin/cat", opened], check=True, stdout=-3)
        assert len(pids(loaded)) == 1


def test_match_namespaces(policies, opened):
    inum = os.stat("/proc/self/ns/uts").st_ino
    same = f'matchNamespaces:\n- namespace: Uts\n  operator: In\n  values: ["{inum}"]'
    other = 'matchNamespaces:\n- namespace: Uts\n  operator: NotIn\n  values: ["host_ns"]'

    def unshared() -> int:
        return cat(opened, "unshare", "--uts")

    assert matched(policies, opened, same, lambda: cat(opened), unshared) == [True, False]
    assert matched(policies, opened, other, lambda: cat(opened), unshared) == [False, True]


@pytest.mark.parametrize("namespace", ["Uts", "Ipc", "Mnt", "Pid", "Net", "Cgroup", "User"])
def test_every_namespace_can_be_compared(policies, opened, namespace):
    inum = os.stat(f"/proc/self/ns/{namespace.lower()}").st_ino
    filters = f'matchNamespaces:\n- namespace: {namespace}\n  operator: In\n  values: ["{inum}"]'
    assert matched(policies, opened, filters, lambda: cat(opened)) == [True]


def test_namespace_change_is_reported_once(policies, opened):
    filters = "matchNamespaceChanges:\n- operator: In\n  values: [Uts]"
    script = f"""
import os, ctypes
os.close(os.open({str(opened)!r}, os.O_RDONLY))
ctypes.CDLL(None).unshare(0x04000000)
for _ in range(3):
    os.close(os.open({str(opened)!r}, os.O_RDONLY))
"""
    with policies.loaded(plan_of(opens_of(opened, filters))) as loaded:
        subprocess.run(["python3", "-c", script], check=True)
        assert len(pids(loaded)) == 1


def test_match_capabilities(policies, opened):
    held = "matchCapabilities:\n- type: Effective\n  operator: In\n  values: [CAP_CHOWN]"
    lacks = "matchCapabilities:\n- type: Effective\n  operator: NotIn\n  values: [CAP_CHOWN]"
    opened.chmod(0o644)

    def without() -> int:
        return cat(opened, "setpriv", "--bounding-set=-chown", "--inh-caps=-chown")

    assert matched(policies, opened, held, lambda: cat(opened), without) == [True, False]
    assert matched(policies, opened, lacks, lambda: cat(opened), without) == [False, True]


def test_capability_change_is_reported_once(policies, opened):
    filters = (
        "matchCapabilityChanges:\n- type: Effective\n  operator: In\n  values: [CAP_SYS_ADMIN]"
    )
    for folder in (*opened.parents[:3],):
        folder.chmod(0o755)
    script = f"""
import os
os.close(os.open({str(opened)!r}, os.O_RDONLY))
os.setresuid(65534, 65534, 65534)
for _ in range(3):
    os.close(os.open({str(opened)!r}, os.O_RDONLY))
"""
    with policies.loaded(plan_of(opens_of(opened, filters))) as loaded:
        subprocess.run(["python3", "-c", script], check=True)
        assert len(pids(loaded)) == 1


def test_match_users(policies, opened):
    for folder in (*opened.parents[:3],):
        folder.chmod(0o755)
    nobody = 'matchUsers:\n- type: uid\n  operator: In\n  values: ["65534", "100:200"]'
    others = 'matchUsers:\n- type: euid\n  operator: NotIn\n  values: ["65534"]'

    def as_nobody() -> int:
        return cat(opened, "setpriv", "--reuid=65534", "--clear-groups")

    own = "tetra.io/v1"
    ways = (lambda: cat(opened), as_nobody)
    assert matched(policies, opened, nobody, *ways, api=own) == [False, True]
    assert matched(policies, opened, others, *ways, api=own) == [True, False]
