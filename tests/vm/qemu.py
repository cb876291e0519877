"""Boot a machine in QEMU and wait until it powers off."""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from vm.compiler import PORT
from vm.images import ImageError, Kernel, run
from vm.kernels import Machine

TIMEOUT_S = int(os.environ.get("KERNEL_TIMEOUT_S", "2400"))
ONLY = os.environ.get("KERNEL_TESTS", "").split()  # files of tests; empty: everything
_RESULTS_BYTES = 64 << 20
# By architecture: emulator, console. Always emulated, so that hosts without /dev/kvm can run it.
_EMULATORS = {
    "amd64": (("qemu-system-x86_64", "-machine", "q35", "-cpu", "max"), "ttyS0"),
    "arm64": (("qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a76"), "ttyAMA0"),
}
_FAST = ("-accel", "tcg,thread=multi", "-smp", "2")
# A clock that advances by one nanosecond an instruction: times are counts of instructions, which
# do not depend on what else this host does. Idle time is skipped. QEMU counts on one thread only.
_COUNTED = ("-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-smp", "1")
_PROGRESS = re.compile(rb"^## (.*?)\r?$")


class VmError(Exception):
    """The guest did not power off; the text has the console's last lines."""


def boot(
    machine: Machine,
    kernel: Kernel,
    root: Path,
    source: Path,
    folder: Path,
    compiler: Path | None,
    progress: Callable[[str], None],
    bench: str = "",
) -> Path:
    """Run the guest until it powers off; return the folder with its results.

    ``compiler`` is the socket at which orders are answered. With ``bench`` ("full" or
    "quick") the guest measures policies instead of running tests, by the clock of `_COUNTED`.
    Raise `VmError` if the guest does not power off within `TIMEOUT_S`, or panics.
    """
    answer = folder / "results.tar"
    with answer.open("wb") as file:
        file.truncate(_RESULTS_BYTES)
    emulator, console = _EMULATORS[machine.arch]
    command = [
        *emulator, *(_COUNTED if bench else _FAST), "-m", "2048",
        "-kernel", str(kernel.image), "-initrd", str(kernel.initramfs),
        "-append",
        f"console={console} panic=-1 quiet tetra.cgroup={machine.cgroup} "
        f"tetra.left_out={','.join(machine.left_out)} tetra.only={','.join(ONLY)} "
        f"tetra.bench={bench}",
        "-drive", f"if=virtio,format=raw,snapshot=on,file={root}",
        "-drive", f"if=virtio,format=raw,readonly=on,file={source}",
        "-drive", f"if=virtio,format=raw,file={answer}",
        "-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none", "-no-reboot",
    ]  # fmt: skip
    if compiler is not None:
        command += [
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=compiler,path={compiler}",
            "-device", f"virtserialport,chardev=compiler,name={PORT}",
        ]  # fmt: skip
    log = folder / "console.log"
    with log.open("wb", buffering=0) as console_log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            _follow(process, console_log.write, progress)
        finally:
            process.kill()
            process.wait()
    results = folder / "results"
    results.mkdir()
    try:
        run("results", "tar", "-x", "--no-same-owner", "-f", answer, "-C", results)
    except ImageError:
        last = log.read_text(errors="replace").splitlines()[-8:]
        raise VmError("the guest ended without results:\n    " + "\n    ".join(last)) from None
    answer.unlink()
    return results


def _follow(
    process: subprocess.Popen[bytes],
    write: Callable[[bytes], object],
    progress: Callable[[str], None],
) -> None:
    assert process.stdout
    deadline = time.monotonic() + TIMEOUT_S
    rest = b""
    with process.stdout as output, selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise VmError(f"not finished within {TIMEOUT_S} s")
            data = output.read1(65536)  # type: ignore[attr-defined]  # a BufferedReader
            if not data:
                return
            write(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if match := _PROGRESS.match(line):
                    progress(match[1].decode(errors="replace"))
