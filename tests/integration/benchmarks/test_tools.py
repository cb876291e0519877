"""`make bench` has its tools before the first section runs, or says what is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Debian's apt-get in two lines: "installs" what it is asked for into the folder on PATH.
APT_GET = """#!/bin/sh
echo "$@" >> "{log}"
[ "$1" = update ] || for name in {makes}; do
  printf '#!/bin/sh\\n' > "{bin}/$name"; chmod +x "{bin}/$name"; done
"""
CODE = "import sys; from benchmarks import tools; tools.install(['storm'], sys.argv[1])"


def install(folder, makes):
    """Install where few commands exist; return the run and what apt-get was asked."""
    bin_folder, log = folder / "bin", folder / "log"
    bin_folder.mkdir()
    for name in ("gcc", "bpftool"):
        (bin_folder / name).write_text("#!/bin/sh\n")
        (bin_folder / name).chmod(0o755)
    apt_get = bin_folder / "apt-get"
    apt_get.write_text(APT_GET.format(log=log, bin=bin_folder, makes=" ".join(makes) or "''"))
    apt_get.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", CODE, bin_folder], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"},
    )  # fmt: skip
    return done, log.read_text() if log.exists() else ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_missing_tools_are_installed(tmp_path):
    done, asked = install(tmp_path, ["execsnoop", "exitsnoop", "bpftrace"])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "installing bpftrace, libbpf-tools\n"
    assert asked.splitlines() == [
        "update", "install --yes --no-install-recommends bpftrace libbpf-tools",
    ]  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_tool_that_stays_missing_is_named_before_the_run(tmp_path):
    done, _ = install(tmp_path, ["bpftrace"])
    assert "execsnoop, exitsnoop missing, also behind apt-get install" in done.stderr


def test_section_without_tools_needs_nothing(tmp_path):
    code = "from benchmarks import tools; print(tools.missing(['cli', 'fleet'], ''))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "{}\n"
