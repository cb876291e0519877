"""``tetra-collector --check-policy``: mistakes with their positions, without rights."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails

pytestmark = pytest.mark.kernel

COLLECTOR = Path(sys.executable).parent / "tetra-collector"
GOOD = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata:
  name: files
spec:
  kprobes:
  - call: sys_openat
    args:
    - index: 1
      type: string
"""
BAD = GOOD.replace("sys_openat", "sys_openit").replace("string", "strung")


def check(*names, **options):
    return subprocess.run(
        [COLLECTOR, "--check-policy", *names],
        capture_output=True, text=True, timeout=60, check=False, **options,
    )  # fmt: skip


@pytest.fixture
def files(tmp_path):
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    return tmp_path


def test_valid_documents_list_their_hooks(files):
    done = check(files / "good.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{files}/good.yaml: policy files: ")
    assert "sys_openat by " in done.stdout


def test_every_mistake_has_its_position(files):
    done = check(files / "bad.yaml", files / "good.yaml")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        f"{files}/bad.yaml:7:11",
        f"{files}/bad.yaml:10:13",
    ]
    assert "strung" in lines[1]
    assert "good.yaml: policy files" in done.stdout


def test_a_folder_is_all_of_its_files(files):
    done = check(files)
    assert done.returncode == 1
    assert "bad.yaml:7:11" in done.stderr
    assert "good.yaml: policy files" in done.stdout


def test_unreadable_document_is_named(tmp_path):
    done = check(tmp_path / "missing.yaml")
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/missing.yaml: no such file or directory\n"
    assert check().returncode == 2


def test_no_rights_are_needed(files):
    for path in (files, *files.parents):
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o005)
    code = "import os; os.setgroups([]); os.setresgid(*3*[65534]); os.setresuid(*3*[65534]); "
    code += f"os.execv({str(COLLECTOR)!r}, ['x', '--check-policy', {str(files / 'good.yaml')!r}])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "sys_openat by " in done.stdout
