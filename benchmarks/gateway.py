"""What one gateway serves: one stream and many, both APIs, with and without filters."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import CACHE, Report, Services, cpu_s, resident_mb, services
from benchmarks.path import NODE, pipeline, record

EVENTS = CACHE / f"events-of-{NODE}.pkl"
PER_BATCH = 500


def recorded(report: Report) -> Path:
    """Return a file of recorded events, made once."""
    if not EVENTS.exists():
        report.say("recording real events")
        events = pipeline().handle(record(1000))
        CACHE.mkdir(parents=True, exist_ok=True)
        EVENTS.write_bytes(pickle.dumps(events[-2000:]))
    return EVENTS


def feed(*arguments: object) -> subprocess.Popen[str]:
    """Start one side of the load."""
    command = [sys.executable, "-m", "benchmarks.feed", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def report_of(process: subprocess.Popen[str], timeout_s: float = 120) -> dict[str, float]:
    """Return what it measured."""
    out, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, out
    result: dict[str, float] = json.loads(out.strip().splitlines()[-1])
    return result


def publish(running: Services, events: Path, count: int, **options: object) -> dict[str, float]:
    """Put ``count`` events on the bus."""
    flags = [word for k, v in options.items() for word in (f"--{k.replace('_', '-')}", v)]
    return report_of(
        feed("publish", "--events", events, "--nats", running.nats_url, "--count", count, *flags)
    )


def run(report: Report, quick: bool) -> None:
    """Replay from memory, live streams, many clients."""
    count = 50_000 if quick else 100_000
    report.begin("gateway", f"one gateway, {count:,} recorded events, clients that count bytes")
    events = recorded(report)
    part = pickle.loads(events.read_bytes())[:PER_BATCH]
    stream_bytes = sum(len(event) + 3 for event in part) * (count // PER_BATCH)
    with services("gateway") as running:
        running.start_nats()
        address = running.start_gateway()
        publish(running, events, count)
        pid = running.processes["gateway0"].pid
        rounds = 3 if quick else 5
        for name, flags, wanted in (
            ("own API, one stream", [], 250_000),
            ("own API, one stream, binary regex", ["--regex", "^/usr"], 60_000),
        ):
            rates = []
            for _ in range(rounds):
                reader = feed("read", "--address", address, "--past", *flags)
                rates.append(count / report_of(reader)["seconds"])
            report.add(name, rates, "events/s", (">=", wanted))
        for streams in (1, 10, 50) if quick else (1, 10, 50, 200):
            before, start = cpu_s(pid), time.monotonic()
            report_of(feed("read", "--address", address, "--past", "--streams", streams))
            seconds = time.monotonic() - start
            report.add(
                f"own API, {streams} streams together", streams * count / seconds, "events/s"
            )
            spent = (cpu_s(pid) - before) / (streams * count) * 1e6
            report.add(f"   CPU of the gateway, {streams} streams", spent, "us/event")
        _public(report, running, events, count // 2, len(part), rounds)
        _fifty(report, running, events, 5 if quick else 15)
        report.add("resident, after all of that", resident_mb(pid), "MB")
        report.say(f"a stream of {count:,} events has {stream_bytes / 1e6:.1f} MB")


def _public(
    report: Report, running: Services, events: Path, count: int, per_batch: int, rounds: int
) -> None:
    """One event a message, live."""
    part = pickle.loads(events.read_bytes())[:per_batch]
    size = sum(map(len, part)) * (count // per_batch)
    for name, flags in (("public API, one stream", []), ("public API, regex", ["--regex", "^/"])):
        rates = []
        for _ in range(rounds):
            reader = feed(
                "read",
                "--address",
                running.addresses[0],
                "--api",
                "public",
                "--bytes",
                size,
                *flags,
            )
            assert reader.stdout
            reader.stdout.readline()  # open
            publish(running, events, count)
            rates.append(count / report_of(reader)["seconds"])
        report.add(name, rates, "events/s", (">=", 15_000) if not flags else None)


def _fifty(report: Report, running: Services, events: Path, seconds: int) -> None:
    """Fifty streams of 2,000 events a second each."""
    reader = feed(
        "read", "--address", running.addresses[0], "--streams", 50, "--seconds", seconds + 3
    )
    assert reader.stdout
    reader.stdout.readline()
    pid = running.processes["gateway0"].pid
    before, start = cpu_s(pid), time.monotonic()
    publish(running, events, 2000 * seconds, per_batch=100, per_second=2000)
    share = (cpu_s(pid) - before) / (time.monotonic() - start)
    report_of(reader)
    report.add("50 streams of 2,000 events/s, own API", share, "cores", ("<=", 1.0))
