"""Kernel modules that a guest brings for tests."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.waiting import wait_until

DUMMY = Path("/spare-modules/dummy.ko")
_LOADED = Path("/proc/modules")


def is_loaded(name: str) -> bool:
    """Return whether a module is loaded."""
    lines = _LOADED.read_text().splitlines() if _LOADED.exists() else []
    return any(line.split()[0] == name for line in lines)


def unload(name: str) -> None:
    """Unload a module, as soon as the programs that were attached to it are freed."""

    def done() -> bool:
        return subprocess.run(["rmmod", name], check=False).returncode == 0

    wait_until(done, 60, lambda: f"{name} is in use")


@contextmanager
def loaded_module(path: Path, *options: str) -> Iterator[None]:
    """Have a module loaded in the block."""
    subprocess.run(["insmod", path, *options], check=True)
    try:
        yield
    finally:
        unload(path.stem)
