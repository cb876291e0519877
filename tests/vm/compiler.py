"""Compiles for the guests on this host: under emulation LLVM takes ten times as long.

A guest sends an order through a virtio port, with the headers that it includes, and gets what the
compiler's child printed. The compiler is that of the guest's own distribution, so that what its
kernel's verifier judges is what users get; the guest compares the first answer with its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from vm import images
from vm.kernels import Machine

PORT = "tetra.compiler"  # the name of the virtio port
_SIZE = Struct(">I")
_PACKAGES = ("python3", "python3-bpfcc")
_SOURCES = (
    "libs/chassis/src/chassis/__init__.py", "libs/chassis/src/chassis/errors.py",
    "services/collector/src/collector/__init__.py", "services/collector/src/collector/errors.py",
    "services/collector/src/collector/bpf/__init__.py",
    "services/collector/src/collector/bpf/compiler.py",
)  # fmt: skip
_CODE = "opt/tetra-compiler"
_TIMEOUT_S = 300


class Compiler(NamedTuple):
    """A distribution's BCC, in its own root file system or in this host's."""

    root: Path

    def run(self, order: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
        """Return status, output and errors of the compiler's child."""
        (self.root / "tmp").mkdir(exist_ok=True)
        with TemporaryDirectory(dir=self.root / "tmp", prefix="tetra-compile-") as name:
            folder = Path(name)
            for path, text in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text)
            for one in (folder, *folder.rglob("*")):
                one.chmod(0o755 if one.is_dir() else 0o644)
            inside = f"/{folder.relative_to(self.root)}"
            text = json.dumps(order).replace(order["shim"], inside)
            done = subprocess.run(
                self._command(), input=text.encode(), capture_output=True, check=False,
                timeout=_TIMEOUT_S, env=self._environment(),
            )  # fmt: skip
        return {
            "status": done.returncode,
            "output": done.stdout.decode(errors="replace"),
            "errors": done.stderr.decode(errors="replace"),
        }

    def _command(self) -> list[str]:
        if self.root == Path("/"):
            return [sys.executable, "-P", "-m", "collector.bpf.compiler"]
        return ["chroot", str(self.root), "/usr/bin/python3", "-m", "collector.bpf.compiler"]

    def _environment(self) -> dict[str, str]:
        made = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        if self.root != Path("/"):
            made["PYTHONPATH"] = f"/{_CODE}"
        return made


def prepare(machine: Machine) -> Compiler:
    """Return the compiler of the machine's distribution, unpacked if it is not this host's."""
    if machine.root == _codename():
        return Compiler(Path("/"))
    arch = images.host_arch()
    archive = images.Archive(machine.root, arch)
    archive.update()
    packages = archive.fetch_all(_PACKAGES)
    key = images.digest(extra=[package.name for package in packages])
    root = images.CACHE / "compilers" / f"{machine.root}-{key}"
    if not root.exists():
        with TemporaryDirectory(dir=images.CACHE) as name:
            images.unpack(packages, Path(name) / "root")
            root.parent.mkdir(exist_ok=True)
            (Path(name) / "root").rename(root)
        for old in root.parent.glob(f"{machine.root}-*"):
            if old != root:
                shutil.rmtree(old)
    root.chmod(0o755)
    for source in _SOURCES:
        target = root / _CODE / source.partition("/src/")[2]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images.ROOT / source, target)
    return Compiler(root)


def _codename() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return next((line[17:] for line in lines if line.startswith("VERSION_CODENAME=")), "")


@contextlib.contextmanager
def serving(machine: Machine) -> Iterator[Path | None]:
    """Answer requests at a socket until the block ends.

    None for a machine of another architecture: it compiles itself.
    """
    if machine.arch != images.host_arch():
        yield None
        return
    compiler = prepare(machine)
    with TemporaryDirectory(prefix="tetra-vm-") as name:
        path = Path(name) / "compiler"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(1)
            thread = threading.Thread(target=_serve, args=(listener, compiler), daemon=True)
            thread.start()
            yield path
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept(2)
        thread.join(_TIMEOUT_S)


def _serve(listener: socket.socket, compiler: Compiler) -> None:
    try:
        connection, _ = listener.accept()
    except OSError:
        return  # the machine did not boot
    with connection, connection.makefile("rwb") as stream:
        while len(head := stream.read(_SIZE.size)) == _SIZE.size:
            asked = json.loads(stream.read(_SIZE.unpack(head)[0]))
            answer = json.dumps(compiler.run(asked["order"], asked["files"])).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                stream.write(_SIZE.pack(len(answer)) + answer)
                stream.flush()
