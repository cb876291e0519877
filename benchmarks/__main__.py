"""``make bench``: what a life costs the collector, whether its memory stays flat, and the CLI.

Records of short lives (fork, exec, exit) go through decoder, process table, enricher and encoder,
without a kernel or a bus. What is measured of the CLI stands in ``cli_speed.py``. More sections
follow with the performance work.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from struct import pack

from benchmarks import cli_speed
from collector.enricher import Enricher
from collector.events import Encoder
from collector.pipeline import Pipeline
from collector.process_cache import ProcessCache
from collector.procfs import host_namespaces, read_process
from collector.records import FLAG_CLONE, FLAG_EXECVE

FILENAME, ARGS, CWD = b"/usr/bin/true", b"true\0%d\0", b"/srv/work"


def resident_mb() -> float:
    """Return this process's resident size."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def life(number: int, parent: tuple[int, int], namespaces: tuple[int, ...]) -> list[bytes]:
    """Return the records of one short life, as bpf/events.h lays them out."""
    pid, ktime = 1000 + number % 32000, 10**12 + number * 1_000_000
    args = ARGS % number
    fork = pack("<IIQIIQII", 2, FLAG_CLONE, ktime, pid, pid, parent[1], parent[0], 0)
    exec_ = pack(
        "<IIQIIQIIQQQQQQ8I8I10IQQ",
        1, FLAG_EXECVE | FLAG_CLONE, ktime + 1000, pid, pid, parent[1], parent[0], 0xFFFFFFFF,
        ktime, 1, 1, 0, 0, 0, *(0,) * 8, 0, 0, 1, len(FILENAME), 0, len(args), 0, len(CWD),
        *namespaces, ktime, 0x7FFF0000,
    )  # fmt: skip
    end = pack("<IIQQII", 3, 0, ktime + 2000, ktime + 1000, pid, pid)
    return [fork + pack("<Q", ktime), exec_ + FILENAME + args + CWD, end]


def million(lives: int) -> dict[str, float]:
    """Run ``lives`` through the collector's stages; return costs and sizes."""
    namespaces = host_namespaces(Path("/proc"))
    told = 0

    def publish(_event: bytes) -> None:
        nonlocal told
        told += 1

    cache = ProcessCache()
    pipeline = Pipeline(
        cache=cache, enricher=Enricher(namespaces), encoder=Encoder("bench"), publish=publish
    )
    found = read_process(Path("/proc"), 1)
    assert found
    parent = pipeline._from_procfs(found, {}, False)
    cache.add(parent, 0.0)
    early = 0.0
    spent = 0.0
    for start in range(0, lives, 1000):
        records = [r for n in range(start, start + 1000) for r in life(n, parent.key, namespaces)]
        begin = time.process_time()
        pipeline.handle(records)
        spent += time.process_time() - begin
        if start == 50_000:
            early = resident_mb()
    assert told == 2 * lives
    return {
        "lives": lives,
        "us_per_life": spent / lives * 1e6,
        "resident_mb_after_50000": early,
        "resident_mb_at_end": resident_mb(),
        "images_in_table": len(cache),
    }


def main() -> None:
    """Print a table, and JSON with --json FILE."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--lives", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = million(arguments.lives)
    client = cli_speed.results(events=200_000, runs=5)
    result |= {f"cli_{name}": value for name, value in client.items()}
    for name, value in result.items():
        print(f"{name:26} {value:>12,.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
