"""A sustained stream of events of one policy through a collector: its CPU, and what is lost."""

from __future__ import annotations

import subprocess
from typing import NamedTuple

from benchmarks import policy_documents as documents
from benchmarks.harness import CACHE, Report, Services, build_static, cpu_s, services, wait_for

PACED_C = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* paced RATE CALLS: so many calls, so many a second, in pieces of a millisecond. */
int main(int argc, char **argv)
{
	long rate = atol(argv[1]), calls = atol(argv[2]), made = 0;
	struct timespec next;

	clock_gettime(CLOCK_MONOTONIC, &next);
	while (made < calls) {
		for (long n = 0; n < rate / 1000 && made < calls; n++, made++)
			syscall(SYS_openat, -1, "usr/share/misc/none", O_RDONLY | O_CLOEXEC);
		next.tv_nsec += 1000000;
		if (next.tv_nsec >= 1000000000) {
			next.tv_nsec -= 1000000000;
			next.tv_sec++;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
	return 0;
}
"""
RATE = 100_000
SECONDS = 30
ROUNDS = 5
# Nothing else has a directory descriptor of -1.
_BODY = """    args:
    - {index: 0, type: int}
    - {index: 2, type: int}
    selectors:
    - matchArgs:
      - {index: 0, operator: Equal, values: ["-1"]}
"""
_EVENTS = "tetragon_policy_events_total{"
_LOST = "tetra_collector_policy_lost_records_total{"  # in the kernel
_DROPPED = "tetra_collector_dropped_events_total"  # of the events: spool full


def run(report: Report, quick: bool) -> None:
    """Rounds for the cost of an event, then the highest rate for long."""
    folder = CACHE / "policies"
    for old in folder.glob("*.yaml"):
        old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stream.yaml").write_text(documents.document("bench-stream", "openat", _BODY))
    with services("policies-stream") as running:
        running.start_nats()
        running.start_gateway()  # makes the stream
        running.start_collector(
            TETRA_TRACING_POLICY_DIR=str(folder), TETRA_RING_SIZE_BYTES=str(64 << 20)
        )
        loaded = 'tetragon_tracingpolicy_loaded{state="enabled"}'
        wait_for(lambda: running.metrics("collector")[loaded] == 1, "policy loaded")
        costs = []
        for _ in range(2 if quick else ROUNDS):
            used_s, found = _storm(running, RATE // 4, RATE)
            costs.append(used_s / found.events * 1e6)
        report.add("collector: CPU of a policy event, ring to bus", costs, "us", ("<=", 8))
        seconds = 5 if quick else SECONDS
        used_s, found = _storm(running, RATE, RATE * seconds)
    what = f"{RATE:,} calls/s for {seconds} s"
    report.add(f"{what}: events published", found.events - found.dropped)
    report.add(f"{what}: lost in the kernel, counted", found.lost)
    report.add(f"{what}: dropped by a full spool, counted", found.dropped)
    uncounted = abs(RATE * seconds - found.events - found.lost)
    report.add(f"{what}: lost and not counted", uncounted, "", ("<=", 0))
    report.add("collector: CPU of an event at that rate", used_s / max(found.events, 1) * 1e6, "us")


class Counted(NamedTuple):
    """What the collector made of the calls."""

    events: int
    lost: int
    dropped: int


def _storm(running: Services, rate: int, calls: int) -> tuple[float, Counted]:
    """Make the calls; return the collector's CPU, and what it counted."""
    program = build_static("paced", PACED_C)
    pid = running.processes["collector"].pid
    before_s, before = cpu_s(pid), _counted(running)
    subprocess.run([program, str(rate), str(calls)], check=True)
    reported = before.events + before.lost + calls

    def all_reported() -> bool:
        now = _counted(running)
        return now.events + now.lost >= reported

    wait_for(all_reported, "all calls counted", 120)
    running.settle()
    now = _counted(running)
    return cpu_s(pid) - before_s, Counted(*(a - b for a, b in zip(now, before, strict=True)))


def _counted(running: Services) -> Counted:
    found = running.metrics("collector")
    return Counted(
        *(
            int(sum(value for name, value in found.items() if name.startswith(prefix)))
            for prefix in (_EVENTS, _LOST, _DROPPED)
        )
    )
