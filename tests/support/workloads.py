"""The programs of tests/workloads, compiled for the test that runs them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "workloads"


def built(name: str, folder: Path, *options: str) -> str:
    """Return the compiled workload ``name``; every user may run it."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: make setup")
    target = folder / name
    source = SOURCES / f"{name}.c"
    subprocess.run(["gcc", "-O1", "-pthread", *options, "-o", target, source], check=True)
    for parent in (folder, folder.parent):
        parent.chmod(0o755)
    return str(target)
