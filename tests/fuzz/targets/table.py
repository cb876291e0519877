"""The saved process table: the first part is the file's content.

The collector starts with any content; what it takes over can be entered into the process table
and reported: events built from it can be parsed.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from random import Random

from collector.events.encoder import Encoder
from collector.events.process import exec_event, exit_event
from collector.processes.table import ProcessTable
from collector.records.layouts import ExitRecord
from collector.recovery import state
from collector.running import kernel_process
from fuzz.inputs import flipped, join
from fuzz.messages import changed
from tetra.v1.state_pb2 import SavedTable
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process

# Options.
RAW = 1  # unchanged; else node and boot are set to this host's
ANCESTORS = 2

_NODE, _BOOT = "node-1", "boot-1"
_OURS = SavedTable(node_name=_NODE, boot_id=_BOOT).SerializeToString()
_CAPACITY = 8
_PIDS = range(1, 6)
_START_NS, _ARGS = 10_000_000, 4096  # of each of them


def _procfs() -> Path:
    root = Path(tempfile.mkdtemp(prefix="proc-"))
    for pid in _PIDS:
        fields = ["0"] * 52
        fields[0], fields[1], fields[2] = str(pid), "(a) b)", "S"
        fields[21], fields[47] = "1", str(_ARGS)
        (root / str(pid)).mkdir()
        (root / str(pid) / "stat").write_text(" ".join(fields))
    return root


_proc, _folder = _procfs(), Path(tempfile.mkdtemp(prefix="state-"))
for _path in (_proc, _folder):
    atexit.register(shutil.rmtree, _path, ignore_errors=True)


def check(options: int, parts: list[bytes]) -> None:
    """Load the file and build an exec and an exit of each process in it."""
    content = parts[0] if parts else b""
    (_folder / "processes.pb").write_bytes(content if options & RAW else content + _OURS)
    saved = state.read(_folder, _NODE)
    processes = state.still_alive(state.processes(saved, kernel_process(0)), _proc) if saved else []
    cache = ProcessTable(_CAPACITY, with_ancestors=bool(options & ANCESTORS))
    encoder = Encoder(_NODE)
    assert all(process.pid in _PIDS or process.ended for process in processes)
    for process in processes:
        if process.ended:
            process.references = 0
        cache.add(process, 0.0)
    for process in processes:
        if not process.ended:
            cache.adopt(process)
        parent, ancestors = cache.parent_of(process), cache.reported_ancestors(process)
        record = ExitRecord(3, 0, 1, process.ktime_ns, process.pid, process.pid)
        for event in (
            exec_event(encoder, process, parent, ancestors),
            exit_event(encoder, record, 5, process, parent, ancestors),
        ):
            parsed = GetEventsResponse.FromString(event)
            body = getattr(parsed, parsed.WhichOneof("event") or "")
            if not Process.FromString(process.image.saved).HasField("pid"):
                assert body.process.pid.value == process.pid
    for process in processes:
        cache.exit(process.key, 1.0)
    assert len(cache) <= _CAPACITY


def mutate(part: bytes, rng: Random) -> bytes:
    """Another table by the schema, or other bytes."""
    if rng.random() < 0.2:
        return flipped(part, rng)
    if rng.random() < 0.3:  # related to each other
        table = SavedTable()
        for _ in range(rng.randrange(1, 6)):
            table.processes.add(
                pid=rng.choice(_PIDS),
                ktime_ns=rng.randrange(3),
                parent_pid=rng.choice(_PIDS),
                parent_ktime_ns=rng.randrange(3),
                ended=rng.random() < 0.5,
                start_boottime_ns=_START_NS,
                arg_start=_ARGS,
                binary="/bin/x",
            )
        return table.SerializeToString()
    return changed(part, SavedTable, rng, {"image": Process})


def seeds() -> list[bytes]:
    """A living process under one that ended, and a table of another node."""
    table = SavedTable()
    image = Process(binary="/bin/sh", arguments="-c x", cwd="/").SerializeToString()
    table.processes.add(pid=9, ktime_ns=3, parent_pid=1, parent_ktime_ns=1, ended=True, image=image)
    table.processes.add(
        pid=3,
        ktime_ns=4,
        parent_pid=9,
        parent_ktime_ns=3,
        flags=0x4001,
        start_time_ns=1_767_225_600_000_000_000,
        is_clone=True,
        start_boottime_ns=_START_NS,
        arg_start=_ARGS,
        binary="/bin/sh",
        image=image,
    )
    content = table.SerializeToString()
    return [join(0, [content]), join(ANCESTORS, [content]), join(RAW, [content + _OURS])]
