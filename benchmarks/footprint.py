"""Memory, start-up, idle CPU, image sizes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

from benchmarks.harness import CACHE, Report, cpu_s, need_root, resident_mb, services
from benchmarks.path import pipeline, record
from benchmarks.storm import storm
from collector.records import layouts

IMAGES = {"tetra-cli": 90, "tetra-gateway": 170, "tetra-collector": None}


def run(report: Report, quick: bool) -> None:
    """Start, rest, run real lives, and a million through the decoder."""
    report.begin("footprint", "memory, start-up, idle CPU")
    need_root()
    shutil.rmtree(CACHE / "headers", ignore_errors=True)
    with services("footprint") as running:
        running.start_nats()
        running.start_gateway()
        first = running.start_collector()
        report.add("collector ready, first time", first, "s", ("<=", 4.0))
        running.stop("collector")
        again = []
        for _ in range(3):
            again.append(running.start_collector())
            running.stop("collector")
        report.add("collector ready, compiled before", again, "s", ("<=", 1.5))
        running.start_collector()
        idle_s = 5 if quick else 20
        report.say(f"idle for {idle_s} s")
        time.sleep(2)
        pids = {name: process.pid for name, process in running.processes.items()}
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        start = time.monotonic()
        time.sleep(idle_s)
        took_s = time.monotonic() - start
        for name, pid in pids.items():
            share = (cpu_s(pid) - before[name]) / took_s * 100
            limit = None if name == "nats" else ("<=", 0.3)
            report.add(f"idle CPU of {name}", share, "%", limit)
        for name, limit_mb in (("collector", 180), ("gateway0", 90), ("nats", None)):
            limit = ("<=", float(limit_mb)) if limit_mb else None
            report.add(f"resident, idle, {name}", resident_mb(pids[name]), "MB", limit)
        lives = 10_000 if quick else 100_000
        report.say(f"{lives:,} real lives")
        storm(lives)
        running.settle()
        for name, limit_mb in (("collector", 180), ("gateway0", 90), ("nats", None)):
            limit = ("<=", float(limit_mb)) if limit_mb else None
            size = resident_mb(pids[name])
            report.add(f"resident, after {lives:,} real lives, {name}", size, "MB", limit)
    _million(report, 100_000 if quick else 1_000_000)
    _images(report)


def _million(report: Report, lives: int) -> None:
    """In a process of its own: recorded records through the collector's stages."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.footprint", str(lives)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    early, late = json.loads(done.stdout.splitlines()[-1])  # the probes log before it
    report.add("collector's stages after 50,000 lives", early, "MB")
    report.add(f"the same after {lives:,} lives", late, "MB")
    report.add("growth between", late / early, "x", ("<=", 1.05))


def _images(report: Report) -> None:
    if shutil.which("docker") is None:
        report.say("image sizes: no docker here")
        return
    base = _size("debian:trixie-slim")
    for name, most_mb in IMAGES.items():
        size = _size(name)
        if base is None or size is None:
            report.say(f"image sizes: {name} is not built: make test-containers")
            continue
        limit = ("<=", float(most_mb)) if most_mb else None
        report.add(f"image {name}, over its base", (size - base) / 1e6, "MB", limit)


def _size(image: str) -> int | None:
    done = subprocess.run(
        ["docker", "image", "inspect", image, "-f", "{{.Size}}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return int(done.stdout) if done.returncode == 0 else None


def lives_through_the_stages(lives: int) -> tuple[float, float]:
    """Replay real records, each life under a pid and time of its own; return sizes in MB."""
    import os
    from struct import pack_into, unpack_from

    recorded = [r for r in record(1000) if len(r) > 30]
    staged = pipeline()
    early = 0.0
    done = 0
    round_ = 0
    # Offsets of ktime_ns and of the other time of the same life.
    times = {
        1: [layouts.EXEC.offsets()[name] for name in ("ktime_ns", "replaced_ktime_ns")],
        2: [layouts.FORK.offsets()["ktime_ns"]],
        3: [layouts.EXIT.offsets()[name] for name in ("ktime_ns", "image_ktime_ns")],
    }
    while done < lives:
        shift = round_ * 10**10
        moved = []
        for data in recorded:
            (kind,) = unpack_from("<I", data)
            copy = bytearray(data)
            for offset in times.get(kind, ()):
                (value,) = unpack_from("<Q", data, offset)
                if value:
                    pack_into("<Q", copy, offset, value + shift)
            moved.append(bytes(copy))
            done += kind == 3
        for at in range(0, len(moved), 100):
            staged.handle(moved[at : at + 100])
        round_ += 1
        if not early and done >= 50_000:
            early = resident_mb(os.getpid())
    return early, resident_mb(os.getpid())


if __name__ == "__main__":
    print(json.dumps(lives_through_the_stages(int(sys.argv[1]))))
