"""Policies from their documents into the kernel: compiled, from the cache; memory; first event.

Loading is measured in a process of its own, as a collector starts: nothing is read yet. The first
event is that of the collector: from the moment at which the file is in the folder to the time that
the kernel gave the first call which the policy reports.
"""

from __future__ import annotations

import gc
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from benchmarks import policy_documents as documents
from benchmarks.harness import BIN, CACHE, Report, Services, resident_mb, services, wait_for

ROUNDS = 5
_FOLDER = CACHE / "policies"
_OBJECTS = CACHE / "headers"


def run(report: Report, quick: bool) -> None:
    """Load sixty, then start collectors with none, with sixty, and with one policy more."""
    rounds = 2 if quick else ROUNDS
    _write(documents.sixty())
    compiled, cached = [], []
    for _ in range(1 if quick else 3):
        shutil.rmtree(_OBJECTS, ignore_errors=True)
        compiled.append(_load())
        cached += [_load() for _ in range(rounds)]
    report.add(
        "sixty policies: compile and load, CPU", [one["cpu_s"] for one in compiled], "s", ("<=", 5)
    )
    report.add("sixty policies: compile and load", [one["wall_s"] for one in compiled], "s")
    report.add(
        "sixty policies: load from cache, CPU", [1000 * one["cpu_s"] for one in cached], "ms"
    )
    report.add(
        "sixty policies: load from cache",
        [1000 * one["wall_s"] for one in cached],
        "ms",
        ("<=", 50),
    )
    report.add(
        "sixty policies: read and check the documents",
        [1000 * one["parse_s"] for one in cached],
        "ms",
    )
    _memory(report, [one["memory_mb"] for one in cached])
    _first_event(report, rounds)


def _write(texts: list[str]) -> None:
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir(parents=True)
    for number, text in enumerate(texts):
        (_FOLDER / f"{number:02}.yaml").write_text(text)


def _load() -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.policy_loads"],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _memory(report: Report, quiet_mb: list[float]) -> None:
    """Measure collectors, whose events are in it; ``quiet_mb``: of processes that report none."""
    used = {}
    for name, texts in (("none", []), ("sixty", documents.sixty())):
        _write(texts)
        with services(f"policies-{name}") as running:
            running.start_nats()
            running.start_collector(TETRA_TRACING_POLICY_DIR=str(_FOLDER))
            _wait_for_loaded(running, len(texts))
            used[name] = _memory_mb(running.processes["collector"].pid)
    own, kernel = (used["sixty"][n] - used["none"][n] for n in (0, 1))
    report.add("sixty policies: memory of the collector", own, "MB")
    report.add("sixty policies: memory of programs and maps", kernel, "MB")
    report.add("sixty policies: memory above none, with events", own + kernel, "MB")
    report.add("sixty policies: memory of the collector, without events", quiet_mb, "MB")
    quiet = [one + kernel for one in quiet_mb]
    report.add("sixty policies: memory above none", quiet, "MB", ("<=", 10))


def _wait_for_loaded(running: Services, policies: int) -> None:
    name = 'tetragon_tracingpolicy_loaded{state="enabled"}'
    wait_for(lambda: running.metrics("collector")[name] == policies, "policies loaded")


def _memory_mb(pid: int) -> tuple[float, float]:
    """Return the resident size of a process, and what the kernel charges to its BPF objects."""
    charged: dict[str, int] = {}
    for one in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            lines = one.read_text().splitlines()
        except OSError:  # closed meanwhile
            continue
        rows = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        for key in ("map_id", "prog_id"):
            if key in rows and "memlock" in rows:
                charged[key + rows[key]] = int(rows["memlock"])
    return resident_mb(pid), sum(charged.values()) / 1e6


def _first_event(report: Report, rounds: int) -> None:
    _write([])
    found: dict[str, list[float]] = {"compiled": [], "from the cache": []}
    with services("policies-first") as running:
        running.start_nats()
        running.start_gateway()
        running.start_collector(TETRA_TRACING_POLICY_DIR=str(_FOLDER))
        for number in range(rounds):
            # Another value: another text, so the first is compiled and the second is cached.
            body = documents.FLAGS.replace("values: [", f'values: ["{1 << 30 | number:#x}", ')
            for how in found:
                text = documents.document("bench-first", "openat", body)
                found[how].append(_seconds_to_event(running, text))
    for how, limit in (("compiled", 1.0), ("from the cache", 0.1)):
        name = f"one policy more, from file to first event, {how}"
        report.add(name, found[how], "s", ("<=", limit))


def _seconds_to_event(running: Services, text: str) -> float:
    path = _FOLDER / "one.yaml"
    with _kprobes(running.addresses[0]) as first, _opening():
        start = time.time()
        path.write_text(text)
        event = first()
        path.unlink()
        _wait_for_loaded(running, 0)
    return datetime.fromisoformat(event["time"][:26] + "+00:00").timestamp() - start


@contextmanager
def _kprobes(address: str) -> Iterator[Callable[[], dict[str, str]]]:
    """Yield what waits for the first process_kprobe event of a client."""
    out = CACHE / "kprobes.json"
    command = [str(BIN / "tetra"), "getevents", "-o", "json", "--server-address", address]
    with out.open("wb") as file:
        client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file)

    def lines(word: str) -> list[str]:
        return [line for line in out.read_text().splitlines(keepends=True) if word in line]

    def seen() -> bool:
        subprocess.run(["/usr/bin/true"], check=True)
        return bool(lines("process_exec"))

    def first() -> dict[str, str]:
        wait_for(lambda: any(x.endswith("\n") for x in lines('"process_kprobe"')), "an event")
        event: dict[str, str] = json.loads(lines('"process_kprobe"')[0])
        return event

    try:
        wait_for(seen, "client sees events")
        yield first
    finally:
        client.terminate()
        client.wait()


@contextmanager
def _opening() -> Iterator[None]:
    """Open a file with O_CLOEXEC every millisecond."""
    opening = "os.close(os.open('/etc/passwd', os.O_RDONLY))"
    code = f"import os, time\nwhile True: {opening}; time.sleep(.001)"
    process = subprocess.Popen([sys.executable, "-S", "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Load what is in the folder, as a collector does at its start; print seconds."""
    import collector.main  # noqa: F401 - what every collector has in memory

    none_mb = private_mb()
    from benchmarks.policy_kernel import PolicyKernel
    from collector.policies.files import Document
    from collector.policies.manager import PolicyManager
    from collector.policies.table import PolicyTable
    from tracingpolicy import parse

    found = [Document(path, path.read_text()) for path in sorted(_FOLDER.iterdir())]
    start = time.process_time()
    policies = [parse(one.text, str(one.path)) for one in found]
    parse_s = time.process_time() - start
    start_s, start_cpu_s = time.monotonic(), _cpu_s()
    with PolicyKernel.opened() as kernel:
        manager = PolicyManager(kernel.backend, PolicyTable(), lambda _, name: by_file[name])
        by_file = {policy.file: policy for policy in policies}
        kernel.runner.run(manager.set_documents(found))
        took = {"wall_s": time.monotonic() - start_s, "cpu_s": _cpu_s() - start_cpu_s}
        failed = [one.error for one in manager.entries if one.error]
        if failed:
            sys.exit(f"not loaded: {failed[0]}")
        gc.collect()
        took["memory_mb"] = private_mb() - none_mb
        kernel.runner.run(manager.close())
    print(json.dumps(took | {"parse_s": parse_s}))


def private_mb() -> float:
    """Return the memory of this process that it shares with no other."""
    rows = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(row[1]) for row in rows if row[0].startswith("Private_")) / 1000


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
