"""Cgroups that a test makes by hand, in the hierarchy that the collector looks at."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from collector.bpf.kernel import KernelInfo

_CGROUPS = Path("/sys/fs/cgroup")


class Cgroup:
    """A cgroup in which a test runs processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name

    @contextlib.contextmanager
    def running(self, argv: Sequence[str]) -> Generator[subprocess.Popen[bytes], None, None]:
        """Run a command whose own exec is in the cgroup; it is killed at the end."""
        # The shell moves itself: its own exec was outside.
        script = f'echo $$ > {self.folder}/cgroup.procs && exec "$@"'
        child = subprocess.Popen(["sh", "-c", script, "sh", *argv])
        try:
            yield child
        finally:
            child.kill()
            child.wait()

    def run(self, argv: Sequence[str]) -> int:
        """Run a command in the cgroup to its end; return its pid."""
        with self.running(argv) as child:
            assert child.wait(60) == 0
        return child.pid


@contextlib.contextmanager
def cgroup(
    info: KernelInfo, name: str, *, below: Cgroup | None = None, unique: bool = True
) -> Generator[Cgroup, None, None]:
    """Make a cgroup; it is removed when its processes have ended.

    ``unique``: its name ends with the number of this process.
    """
    root = _CGROUPS / info.cgroup.removeprefix("v1:") if ":" in info.cgroup else _CGROUPS
    folder = (below.folder if below else root) / (f"{name}-{os.getpid()}" if unique else name)
    folder.mkdir()
    try:
        yield Cgroup(folder)
    finally:
        deadline = time.monotonic() + 20
        while True:
            try:
                folder.rmdir()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
