"""A real build: alone, beside the collector, and beside other tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from benchmarks.harness import CACHE, ROOT, Report, Unavailable, need, need_root, peers, whole_stack

PACKAGE = "lua5.4"
VARIANTS = ("nothing", "tetra", "libbpf-tools", "bpftrace")


def run(report: Report, quick: bool) -> None:
    """Build again and again, each variant in turn."""
    report.begin("build", f"{PACKAGE} with make -j2, {'2' if quick else '7'} rounds")
    need_root()
    need("make", "make")
    folder = source(report)
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    build(folder)  # the page cache is warm
    for number in range(2 if quick else 7):
        for name in VARIANTS:
            with beside(name):
                times[name].append(build(folder))
        report.say(
            f"round {number + 1}: " + ", ".join(f"{n} {t[-1]:.2f} s" for n, t in times.items())
        )
    report.add("nothing beside it", times["nothing"], "s")
    for name in VARIANTS[1:]:
        pairs = zip(times[name], times["nothing"], strict=True)
        ratios = [with_it / without for with_it, without in pairs]
        report.add(f"slowed by {name}", ratios, "x", ("<=", 1.02) if name == "tetra" else None)


def beside(name: str) -> AbstractContextManager[object]:
    """Return what runs while the build does."""
    if name == "nothing":
        return nullcontext()
    if name == "tetra":
        return whole_stack("build", client=True)
    return peers(name)


def build(folder: Path) -> float:
    """Return how long a build from nothing takes."""
    subprocess.run(["make", "-C", folder, "clean"], check=True, stdout=subprocess.DEVNULL)
    start = time.monotonic()
    subprocess.run(["make", "-C", folder, "-j2", "linux"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def source(report: Report) -> Path:
    """Return the unpacked source, fetched from the distribution's archive the first time."""
    unpacked = CACHE / PACKAGE
    if (unpacked / "src" / "Makefile").exists():
        return unpacked / "src"
    report.say(f"fetching the source of {PACKAGE}")
    lists = CACHE / "apt"
    for folder in ("sources", "lists/partial"):
        (lists / folder).mkdir(parents=True, exist_ok=True)
    codename = next(
        line.partition("=")[2].strip('"')
        for line in Path("/etc/os-release").read_text().splitlines()
        if line.startswith("VERSION_CODENAME=")
    )
    entry = subprocess.run(
        [ROOT / ".ci" / "apt-suite", codename], capture_output=True, text=True, check=False
    )
    if entry.returncode:
        raise Unavailable(f"sources: {entry.stderr.strip()}")
    text = "\n".join(
        "Types: deb-src" if line.startswith("Types:") else line
        for line in entry.stdout.splitlines()
    )
    (lists / "sources" / "bench.sources").write_text(text + "\n")
    options = [
        "-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={lists}/sources",
        "-o", f"Dir::State::lists={lists}/lists", "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
    for command in (["update"], ["source", "--download-only", PACKAGE]):
        done = subprocess.run(
            ["apt-get", "-qq", *options, *command], cwd=lists, capture_output=True, text=True,
            check=False, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip
        if done.returncode:
            raise Unavailable(f"apt-get {command[0]}: {done.stderr.strip().splitlines()[-1]}")
    (archive,) = lists.glob(f"{PACKAGE}_*.orig.tar.*")
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", unpacked, "--strip-components=1"], check=True)
    return unpacked / "src"
