"""The kind of event that docs/extending.md adds is attached to this kernel and reported."""

import os
import shutil
import subprocess
import sys

import pytest

from support.extending_page import ROOT, apply_to

# The copy is compiled: on a machine with other work that takes a minute.
pytestmark = [pytest.mark.kernel, pytest.mark.timeout(400)]

# What the copy needs to make the code of the contract and to run a kernel test.
FOLDERS = ("bpf", "libs", "proto", "scripts", "services", "tests")


@pytest.fixture
def tree(tmp_path):
    """Return a copy of the tree with all diffs of the page, its code generated again."""
    top = tmp_path / "tree"
    skipped = shutil.ignore_patterns("__pycache__", "node_modules", ".*", "build")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, top / name, ignore=skipped)
    shutil.copyfile(ROOT / "pyproject.toml", top / "pyproject.toml")
    (top / ".venv").symlink_to(sys.prefix)
    apply_to(top)
    subprocess.run([top / "scripts/proto"], check=True, timeout=120)
    return top


def test_event_of_the_page_is_reported(tree):
    sources = [str(source) for source in (*tree.glob("*/src"), *tree.glob("*/*/src"))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         "tests/kernel/test_rename.py"],
        cwd=tree, env={**os.environ, "PYTHONPATH": os.pathsep.join(sources)},
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
