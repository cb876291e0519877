"""Test the product on other kernels: boot each in QEMU, run everything, compare with this host.

    KERNELS='6.1 6.12-arm64' KERNEL_TESTS='tests/kernel/test_floor.py' scripts/test-kernels

Logs of each kernel stay in .cache/kernels/logs/. Exit code: 0 all passed, 1 one did not, 2 this
machine or what was asked for is at fault.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vm import compare, compiler, images, qemu
from vm.guest.prove import FLAKY
from vm.kernels import Machine, select

LOGS = images.ROOT / ".cache" / "kernels" / "logs"
_PROVE = images.GUEST / "prove.py"


@dataclass
class Row:
    """The result of one kernel."""

    name: str
    user_space: str
    release: str = "-"
    start: str = "-"
    workload: str = "-"
    container: str = "-"
    tests: str = "-"
    flaky: str = ""  # tests that passed only alone
    seconds: float = 0.0
    why: list[str] = field(default_factory=list)  # empty: passed

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        outcome = "FAILED" if self.why else "passed"
        if self.flaky:
            outcome += f", flaky: {self.flaky}"
        time_s = f"{self.seconds:.0f} s"
        return (
            self.name, self.release, self.user_space, self.start, self.workload, self.container,
            self.tests, time_s, outcome,
        )  # fmt: skip


_HEAD = (
    "KERNEL", "RELEASE", "USER SPACE", "START", "EVENTS", "CONTAINER", "KERNEL TESTS", "TIME",
    "RESULT",
)  # fmt: skip


def say(name: str, text: str) -> None:
    """Print a line of progress."""
    print(f"{time.strftime('%H:%M:%S')}  {name:<12}{text}", flush=True)


def prove_here() -> Path:
    """Run the product and the workload on this host; return the folder of its results."""
    folder = _fresh("host")
    say("host", f"the workload on this host's own kernel, {os.uname().release}")
    with (folder / "console.log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, _PROVE, "--results", folder, "--no-tests"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if done.returncode:
        steps = _result(folder).get("steps", {})
        why = [f"{name}: {step['why']}" for name, step in steps.items() if not step["ok"]]
        raise qemu.VmError("host: " + "; ".join(why or [(folder / "console.log").read_text()]))
    return folder


def prove_there(machine: Machine, reference: Path) -> Row:
    """Boot the machine, run the tests in it, and check their results."""
    row = Row(machine.name, f"{machine.root}, Python {machine.python}, cgroup {machine.cgroup}")
    folder = _fresh(machine.name)
    try:
        say(machine.name, f"kernel of {machine.suite}, user space of {machine.root}")
        kernel = images.kernel(machine)
        row.release = kernel.release
        root = images.root(machine)
        images.checkout(machine, folder / "checkout.tar")
        say(machine.name, f"booting {kernel.release} ({machine.arch}, emulated)")
        began = time.monotonic()
        with compiler.serving(machine) as answering:
            results = qemu.boot(
                machine, kernel, root, folder / "checkout.tar", folder, answering,
                lambda step: say(machine.name, f"{time.monotonic() - began:4.0f} s  {step}"),
            )  # fmt: skip
        row.seconds = time.monotonic() - began
        _judge(row, results, reference)
    except (images.ImageError, qemu.VmError, OSError) as error:
        row.why.append(str(error))
    (folder / "checkout.tar").unlink(missing_ok=True)
    for reason in row.why:
        say(machine.name, f"FAILED: {reason}")
    return row


def _judge(row: Row, results: Path, reference: Path) -> None:
    found = _result(results)
    steps = found.get("steps", {})
    row.release = f"{found.get('release', row.release)} {found.get('machine', '')}"
    row.why += [f"{name}: {step['why']}" for name, step in steps.items() if not step["ok"]]
    if "kernel tests" not in steps:
        row.why.append("the guest ended early: see console.log")
        return
    if "start" in steps:
        row.start = "ok" if steps["start"]["ok"] else "failed"
    says, _, row.flaky = steps["kernel tests"].get("says", "failed").partition(FLAKY)
    row.tests = says.partition(" in ")[0]
    if "container" in steps:
        row.container = steps["container"].get("says", "failed")
    if "client" in steps and steps["client"]["ok"]:
        differences = compare.difference(reference, results)
        count = len((results / "events.json").read_text().splitlines())
        row.workload = "differ" if differences else f"{count} equal"
        if differences:
            report = results.parent / "events.diff"
            report.write_text("\n".join(differences) + "\n")
            row.why.append(f"events differ from the host's: {report}\n    " +
                           "\n    ".join(differences[:30]))  # fmt: skip


def _result(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def _fresh(name: str) -> Path:
    folder = LOGS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _table(rows: list[Row]) -> str:
    cells = [_HEAD, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def main() -> int:
    """Test the kernels that KERNELS names, by default all; return the exit code."""
    try:
        machines = select(os.environ.get("KERNELS", ""))
        if os.geteuid() != 0:
            raise ValueError("not root: the workload on this host's kernel needs it (sudo)")
        reference = prove_here()
    except (ValueError, qemu.VmError) as error:
        print(f"test-kernels: error: {error}", file=sys.stderr)
        return 2
    rows = []
    for machine in machines:
        rows.append(prove_there(machine, reference))
        say(machine.name, "FAILED" if rows[-1].why else f"passed in {rows[-1].seconds:.0f} s")
    failed = sum(bool(row.why) for row in rows)
    print(f"\n{_table(rows)}\n\nlogs: {LOGS.relative_to(images.ROOT)}/")
    print(f"kernels: {len(rows) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
