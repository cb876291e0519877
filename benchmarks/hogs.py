"""What makes a host busy: programs that want all of its CPUs, stopped until they are needed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.harness import CACHE, need

WARM_S = 2.0  # a busy host has been busy for a while
_FUNCTIONS = 4000

KINDS = {"stress-ng": "stress-ng", "gcc": "gcc", "qemu": "qemu-system-x86_64"}


def installed() -> list[str]:
    """Return the kinds of hogs that can run here."""
    return [kind for kind, command in KINDS.items() if shutil.which(command)]


class Hogs:
    """One kind of hog on every CPU."""

    def __init__(self, processes: list[subprocess.Popen[bytes]]) -> None:
        self._processes = processes
        self._signal(signal.SIGSTOP)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Let them work, from some time before the block on."""
        self._signal(signal.SIGCONT)
        try:
            time.sleep(WARM_S)
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def stop(self) -> None:
        """End them."""
        self._signal(signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            os.killpg(process.pid, number)


@contextmanager
def hogs(kind: str) -> Iterator[Hogs]:
    """Start hogs of one kind, as many as there are CPUs; end them."""
    CACHE.mkdir(parents=True, exist_ok=True)
    commands = {"stress-ng": _stress, "gcc": _build, "qemu": _guest}[kind]()
    found = Hogs(
        [
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )
            for command in commands
        ]
    )  # fmt: skip
    try:
        yield found
    finally:
        found.stop()


def _cpus() -> int:
    return os.cpu_count() or 1


def _stress() -> list[list[str]]:
    return [["stress-ng", "--quiet", "--cpu", str(_cpus())]]


def _build() -> list[list[str]]:
    """A parallel build: compilers that take seconds for each file."""
    source = CACHE / "hog.c"
    bodies = (
        f"double f{n}(double x) {{ for (int i = 0; i < {n}; i++) x = x * x + i; return x; }}"
        for n in range(_FUNCTIONS)
    )
    source.write_text("\n".join(bodies))
    script = f"while :; do {need('gcc', 'gcc')} -O2 -S -o /dev/null {source}; done"
    return [["/bin/sh", "-c", script]] * _cpus()


def _guest() -> list[list[str]]:
    """Emulated machines whose boot sector is an endless loop."""
    disk = CACHE / "hog.img"
    disk.write_bytes(b"\xeb\xfe".ljust(510, b"\0") + b"\x55\xaa")
    command = [
        "qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-monitor", "none",
        "-serial", "none", "-m", "16", "-snapshot", "-drive", f"format=raw,file={disk}",
    ]  # fmt: skip
    return [command] * _cpus()
