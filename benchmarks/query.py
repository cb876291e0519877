"""Questions about the past: the columns, beside the stream, and jq and DuckDB on exported JSON.

``EVENTS=100000000`` asks about so many events; the columns of more than 4 million are copies of
the first ones under other names. JSON is read for a million at most, and its seconds are scaled:
the file of 100 million would have 75 GB.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from benchmarks import past
from benchmarks.harness import CACHE, Report, need
from tetra.v1.stream_pb2 import CountEventsRequest, StreamEventsRequest
from tetragon.events_pb2 import EventType, Filter

_TIMES = 3
_JSON_EVENTS = 1_000_000
_MEMORY_BYTES, _THREADS = 512 << 20, 2  # as a gateway's defaults
# A profile reads what one program did, and what it started.
_PROFILE_S_OF_10_MILLION = 10.0


def run(report: Report, quick: bool) -> None:
    """Ask each question several times."""
    count = int(os.environ.get("EVENTS", 100_000 if quick else 2_000_000))
    report.begin("query", f"questions about {count:,} events of 3 nodes, {_THREADS} threads")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="past-", dir=CACHE) as place:
        folder = Path(place) / "columns"
        report.say("writing the columns")
        past.write_columns(folder, count)
        size = sum(path.stat().st_size for path in folder.iterdir())
        report.add("columns", size / count, "bytes/event")
        for name, request in _questions(count):
            _ask(report, name, folder, request)
        target = ("<=", _PROFILE_S_OF_10_MILLION) if count <= 10_000_000 else None
        _ask(report, "events of one program", folder, _profile(past.SUBJECT), target)
        _ask(report, "events of a rare program", folder, _profile(past.RARE))
        shutil.rmtree(folder)
        _json(report, Path(place), count)


def _questions(count: int) -> list[tuple[str, CountEventsRequest]]:
    last_tenth = past.BEGIN_S + count * 3 // 1000 * 9 // 10
    rare = [Filter(binary_regex=["^/usr/bin/tool-29[0-9]$"])]
    asked: list[tuple[str, dict[str, Any]]] = [
        ("--count-by binary", {"by": ["binary"]}),
        ("--count-by user", {"by": ["user"]}),
        ("--count-by container", {"by": ["container"]}),
        ("--count-by policy", {"by": ["policy"]}),
        ("--count-by binary,user,node", {"by": ["binary", "user", "node"]}),
        ("--count-by file --process 'tool-29.'", {"by": ["file"], "allow_list": rare}),
        ("--first-seen binary", {"by": ["binary"], "first_seen": True}),
        ("--count-by binary, the last tenth", {"by": ["binary"]}),
    ]
    requests = [(name, CountEventsRequest(**settings)) for name, settings in asked]
    requests[-1][1].since.FromSeconds(last_tenth)
    requests[-2][1].since.FromSeconds(last_tenth)
    return requests


def _profile(binary: str) -> StreamEventsRequest:
    request = StreamEventsRequest(no_follow=True)
    exact = [f"^{re.escape(binary)}$"]
    request.allow_list.add(binary_regex=exact)
    request.allow_list.add(parent_binary_regex=exact, event_set=[EventType.PROCESS_EXEC])
    request.since.FromSeconds(1)
    return request


# As the gateway asks, with the start of the process.
def _ask(
    report: Report,
    name: str,
    folder: Path,
    request: Message,
    target: tuple[str, float] | None = None,
) -> None:
    kind = "count" if isinstance(request, CountEventsRequest) else "find"
    command = [
        sys.executable, "-m", "eventcolumns", kind, str(folder), str(_MEMORY_BYTES), str(_THREADS),
    ]  # fmt: skip
    seconds, cpus, memory = [], [], 0.0
    for _ in range(_TIMES):
        began = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stdin is not None
        process.stdin.write(request.SerializeToString())
        process.stdin.close()
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            memory = max(memory, _most_mb(process.pid))
            time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        assert process.returncode == 0
        seconds.append(time.monotonic() - began)
        cpus.append(ended[2].ru_utime + ended[2].ru_stime)
    report.add(name, seconds, "s", target)
    report.add(f"{name}: CPU", cpus, "s")
    report.add(f"{name}: memory", memory, "MB")


# What wait4() says includes the memory of this process, before the other began.
def _most_mb(pid: int) -> float:
    found = re.search(r"^VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found[1]) / 1024 if found else 0.0


def _json(report: Report, place: Path, count: int) -> None:
    import duckdb

    events = min(count, _JSON_EVENTS)
    path = place / "events.json"
    report.say(f"writing {events:,} events as JSON")
    past.write_json(path, events)
    report.add("JSON", path.stat().st_size / events, "bytes/event")
    scale = count / events
    note = "" if scale == 1 else f", {events:,} events scaled"
    jq = need("jq", "jq")
    wanted = "(.process_exec // .process_exit // .process_kprobe).process.binary"
    began = time.monotonic()
    pipe = f"'{jq}' -r '{wanted}' '{path}' | LC_ALL=C sort | uniq -c | sort -rn"
    subprocess.run(["sh", "-c", pipe], stdout=subprocess.DEVNULL, check=True)
    report.add(f"jq | sort | uniq -c{note}", (time.monotonic() - began) * scale, "s")
    connection = duckdb.connect(config={"threads": _THREADS})
    process = 'STRUCT("process" STRUCT("binary" VARCHAR))'
    columns = ", ".join(
        f"{kind}: '{process}'" for kind in ("process_exec", "process_exit", "process_kprobe")
    )
    sql = (
        'SELECT coalesce(process_exec, process_exit, process_kprobe).process."binary" AS name, '
        "count(*) "
        f"FROM read_ndjson('{path}', columns={{{columns}}}) GROUP BY 1 ORDER BY 2 DESC"
    )
    began = time.monotonic()
    assert connection.execute(sql).fetchall()
    report.add(f"DuckDB on the JSON{note}", (time.monotonic() - began) * scale, "s")
