"""How quick and how big ``tetra`` is: start, first line, and output from a batch stream.

    python -m benchmarks.cli_speed [--events N] [--runs N] [--json FILE]

The real command runs in a process of its own against a real gRPC server in another one, which
sends batches that were serialized before. Output goes through a pipe to this process. Wanted:
``tetra version`` within 0.35 s, the first line of ``getevents`` within 0.7 s, 40,000 events a
second as lifecycle lines, 20,000 as JSON, less than 60 MB resident.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import grpc

from tetra.v1.stream_pb2 import StreamEventsResponse
from tetragon.events_pb2 import GetEventsResponse

TETRA = Path(sys.executable).with_name("tetra")
BATCH_EVENTS = 250
START_NS = 1_767_225_600_000_000_000


def life(number: int) -> tuple[GetEventsResponse, GetEventsResponse]:
    """Return exec and exit of one short process, as a collector reports it."""
    started, ended = GetEventsResponse(node_name="bench"), GetEventsResponse(node_name="bench")
    started.time.FromNanoseconds(START_NS + number * 1_000_003)
    ended.time.FromNanoseconds(START_NS + number * 1_000_003 + 700_001)
    process, parent = started.process_exec.process, started.process_exec.parent
    for one, pid, binary, arguments in (
        (process, 1000 + number, "/usr/bin/cc1", f"-quiet -o /tmp/work/unit-{number}.o unit.c"),
        (parent, 900, "/usr/bin/make", "-j 8 all"),
    ):
        one.exec_id = f"YmVuY2g6MTAwMDAwMDAwMDAwOjEw{pid:08d}"
        one.parent_exec_id = "YmVuY2g6MTAwMDAwMDAwOjkwMA=="
        one.pid.value = one.tid.value = pid
        one.uid.value = 1000
        one.auid.value = 4294967295
        one.cwd, one.binary, one.arguments = "/home/alice/src/project", binary, arguments
        one.flags, one.refcnt, one.user_name = "execve clone", 1, "alice"
        one.start_time.FromNanoseconds(START_NS + pid)
        one.in_init_tree.value = False
    ended.process_exit.process.CopyFrom(process)
    ended.process_exit.parent.CopyFrom(parent)
    ended.process_exit.status = number % 2
    return started, ended


def batches(count: int) -> list[bytes]:
    """Return serialized responses that hold ``count`` events together."""
    found = []
    for first in range(0, count, BATCH_EVENTS):
        response = StreamEventsResponse()
        for number in range(first // 2, min(first + BATCH_EVENTS, count) // 2):
            response.events.extend(life(number))
        response.cursor.stream_sequence = first + 1
        found.append(response.SerializeToString())
    return found


def serve(count: int, ready: Connection) -> None:
    """Serve ``count`` events to any client, in a process of its own."""
    responses = batches(count)
    empty = StreamEventsResponse().SerializeToString()

    def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield empty
        yield from responses

    handler = grpc.unary_stream_rpc_method_handler(
        stream, request_deserializer=bytes, response_serializer=bytes
    )
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("tetra.v1.EventStream", {"StreamEvents": handler}),)
    )
    ready.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


class Run(NamedTuple):
    """One run of a command."""

    first_s: float  # from its start to its first output
    flow_s: float  # from there to its end
    peak_mb: float  # resident
    lines: int


def measure(arguments: Sequence[str]) -> Run:
    """Run ``tetra`` and look at its output and its size."""
    began_s = time.monotonic()
    process = subprocess.Popen(
        [TETRA, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdout
    chunk = process.stdout.read(1 << 20)
    first_s = time.monotonic()
    lines, peak_mb = 0, 0.0
    while chunk:
        lines += chunk.count(b"\n")
        peak_mb = max(peak_mb, resident_peak_mb(process.pid))
        chunk = process.stdout.read(1 << 20)
    end_s = time.monotonic()
    process.stdout.close()
    assert process.wait() == 0, f"tetra {' '.join(arguments)}: {process.returncode}"
    return Run(first_s - began_s, end_s - first_s, peak_mb, lines)


def resident_peak_mb(pid: int) -> float:
    """Return a running process's peak; what wait() reports includes ours before the exec."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0  # it is just ending


def results(events: int, runs: int) -> dict[str, float]:
    """Return medians over ``runs`` runs."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(events, there), daemon=True)
    server.start()
    address = f"127.0.0.1:{here.recv()}"
    look_back = ("getevents", "--server-address", address, "--last", "1", "--no-follow")
    found = {}
    try:
        found["version_s"] = statistics.median(
            run.first_s + run.flow_s for run in (measure(["version"]) for _ in range(runs))
        )
        for form in ("lifecycle", "json", "compact"):
            taken = [measure([*look_back, "-o", form]) for _ in range(runs)]
            assert all(run.lines == events for run in taken)
            rates = [events / run.flow_s for run in taken]
            if form == "lifecycle":
                found["first_line_s"] = statistics.median(run.first_s for run in taken)
            found[f"{form}_events_per_s"] = statistics.median(rates)
            found[f"{form}_peak_mb"] = max(run.peak_mb for run in taken)
    finally:
        server.terminate()
        server.join()
    return found


def main() -> None:
    """Print a table, and JSON with --json FILE."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cli_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = results(arguments.events, arguments.runs)
    for name, value in found.items():
        print(f"{name:26} {value:>12,.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
