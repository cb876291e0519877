"""A real Podman with its API on a socket of its own, and all of its state in one folder."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from support.containerd import IMAGE, image_archive
from support.waiting import wait_until

_START_S = 120
_STOP_S = 60


class Podman:
    """Podman's service, from `start` to `stop`."""

    def __init__(self, parts: Path, state: Path) -> None:
        """``parts``: the folder of `.ci/kubernetes-parts`."""
        self._state = state
        self._busybox = parts / "busybox/bin/busybox"
        self.socket = state / "podman.sock"
        self._command: list[str | Path] = [
            "podman", "--root", state / "root", "--runroot", state / "run",
            "--tmpdir", state / "tmp", "--storage-driver", "vfs", "--events-backend", "file",
            "--cgroup-manager", "cgroupfs", "--runtime", parts / "runc/usr/sbin/runc",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the service and import the image."""
        self._state.mkdir(parents=True, exist_ok=True)
        with (self._state / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "system", "service", "--time=0", f"unix://{self.socket}"],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_until(self.socket.is_socket, _START_S, (self._state / "log").read_text)
        archive = self._state / "image.tar"
        archive.write_bytes(image_archive(self._busybox.read_bytes()))
        self.call("load", "--input", str(archive))

    def run(self, name: str, *command: str) -> str:
        """Run a container to its end; return its id."""
        # Without CAP_SYS_RESOURCE a higher limit than one's own is refused.
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
        self.call("run", "--name", name, "--network", "host", *limits, IMAGE, *command)
        return self.call("inspect", "--format", "{{.Id}}", name).strip()

    def call(self, *arguments: str) -> str:
        """Run a command of Podman; return what it printed."""
        done = subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, timeout=_START_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        """Remove all containers and everything else."""
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.call("rm", "--all", "--force", "--time", "0")
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            mounted = line.split()[4]
            if mounted.startswith(f"{self._state}/"):
                subprocess.run(["umount", "--lazy", mounted], check=False)
        shutil.rmtree(self._state, ignore_errors=True)
        roots = Path("/sys/fs/cgroup")
        for root in (roots, *roots.iterdir()):
            _remove_cgroups(root / "libpod_parent")


def _remove_cgroups(folder: Path) -> None:
    """Remove what Podman leaves there."""
    if not folder.is_dir():
        return
    for child in folder.iterdir():
        if child.is_dir():
            _remove_cgroups(child)
    for attempt in range(20):
        with suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.01 * attempt)  # until the kernel has removed the last process
