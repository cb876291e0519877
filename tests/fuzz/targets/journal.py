"""What a killed collector left: the first part is its saved table, the next two are its journal.

The next collector starts with any content. Its process table keeps its bound, the numbers that it
resumes from are valid, and what it puts into the spool are events of that run.
"""

from __future__ import annotations

import shutil
import tempfile
import zlib
from pathlib import Path
from random import Random
from struct import Struct, pack

from collector.delivery.spool import Spool
from collector.metadata.enricher import Enricher
from collector.recovery import state
from collector.recovery.replay import recover
from collector.running import kernel_process
from fuzz.inputs import flipped, join
from fuzz.messages import changed
from fuzz.targets import records
from support.stages import Stages
from tetra.v1.bus_pb2 import EventBatch
from tetra.v1.node_pb2 import LossCounters
from tetra.v1.state_pb2 import SavedTable
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process
from unit.collector.synthetic import HOST_NS, exec_record, exit_record

# Options.
ANCESTORS = 1
RAW = 2  # the table unchanged; else node, boot and version are set to this host's

_NODE, _BOOT, _VERSION = "node-1", "boot-1", "v1"
_OURS = SavedTable(
    node_name=_NODE, boot_id=_BOOT, journal=1, records_version=_VERSION
).SerializeToString()
_CAPACITY = 12
_START_NS = 1_767_225_600_000_000_000
_FILE = pack("<4sI", b"TJRN", 2)
_HEADER, _ENTRY = Struct("<I"), Struct("<4sIqQ")
_KINDS = (_RECORDS, _BASE, _LOSS) = (b"RECS", b"BASE", b"LOSS")
_MEMORY = Path("/dev/shm")


def check(options: int, parts: list[bytes]) -> None:
    """Start as the next collector does, up to where its own probes come in."""
    folder = Path(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None, prefix="journal-"))
    try:
        table = parts[0] if parts else b""
        (folder / "processes.pb").write_bytes(table if options & RAW else table + _OURS)
        (folder / "journal").mkdir()
        for number, part in enumerate(parts[1:3], start=1):
            (folder / "journal" / f"{number:08d}").write_bytes(part)
        saved = state.read(folder, _NODE)
        if saved is not None:
            _check(saved, folder, with_ancestors=bool(options & ANCESTORS))
    finally:
        shutil.rmtree(folder)


def _check(saved: SavedTable, folder: Path, *, with_ancestors: bool) -> None:
    stages = Stages(
        Enricher(HOST_NS), _NODE, capacity=_CAPACITY, released_max=4, with_ancestors=with_ancestors
    )
    stages.table.restore(state.processes(saved, kernel_process(0)), 0.0)
    spool = Spool(folder / "spool", 1 << 30, "never")
    spool.open(_NODE)
    recovered = recover(saved, folder / "journal", _VERSION, stages.pipeline, stages.table, spool)
    assert len(stages.table) <= _CAPACITY
    assert 0 <= recovered.next_base(_BOOT) < 1 << 63
    assert recovered.made >= spool.events
    recovered.loss.SerializeToString()
    unreported = set(saved.unreported)
    while (record := spool.peek()) is not None:
        assert record.run.node_name == _NODE
        batch = EventBatch.FromString(record.payload)
        assert len(batch.events) == record.events
        for event in batch.events:
            if event not in unreported:
                assert GetEventsResponse.FromString(event).node_name == _NODE
        spool.pop()
    spool.close()


def mutate(part: bytes, rng: Random) -> bytes:
    """Another table by the schema, or another entry behind the others, with its checksum right."""
    if rng.random() < 0.15:
        return flipped(part, rng)
    if not part.startswith(_FILE) and rng.random() < 0.8:
        inside = {"image": Process, "unreported": GetEventsResponse}
        return changed(part, SavedTable, rng, inside)
    position = rng.choice((_end(part), _end(part), 0, 40, 1 << 63))
    match rng.randrange(4):
        case 0:
            return part + _entry(_BASE, 0, rng.choice((0, 1, 41, 1 << 62)))
        case 1:
            return part + _entry(
                _LOSS, 0, 0, LossCounters(by_cause={"spool": 7}).SerializeToString()
            )
        case 2:
            return part + _entry(
                rng.choice((*_KINDS, b"NEWS")), rng.choice((-1, 5)), 0, rng.randbytes(9)
            )
        case _:
            data = _framed([records.mutate(b"", rng) for _ in range(rng.randrange(1, 4))])
            offset_ns = rng.choice((0, _START_NS, -(1 << 63), (1 << 63) - 1))
            return part + _entry(_RECORDS, offset_ns, (position + len(data)) % (1 << 64), data)


# Position in the ring behind the last part of it.
def _end(journal: bytes) -> int:
    at, found = len(_FILE), 0
    while at + _HEADER.size + _ENTRY.size <= len(journal):
        kind, length, _, position = _ENTRY.unpack_from(journal, at + _HEADER.size)
        at += _HEADER.size + _ENTRY.size + length
        found = position if kind == _RECORDS else found
    return int(found)


def _framed(parts: list[bytes]) -> bytes:
    return b"".join(pack("<II", len(one), 0) + one + bytes(-len(one) % 8) for one in parts)


def _entry(kind: bytes, first: int, second: int, data: bytes = b"") -> bytes:
    entry = _ENTRY.pack(kind, len(data), first, second) + data
    return _HEADER.pack(zlib.crc32(entry)) + entry


def seeds() -> list[bytes]:
    """A table with some events that were in memory, and what came behind it."""
    table = SavedTable(collector_start_ns=_START_NS - 5, base=41, made=3, ring_position=0)
    event = GetEventsResponse(node_name=_NODE)
    event.process_exec.process.pid.value = 4
    table.unreported.append(event.SerializeToString())
    content = table.SerializeToString()
    data = _framed([exec_record(5, 20), exit_record(5, 20, 30)])
    first = _FILE + _entry(_BASE, 0, 41) + _entry(_RECORDS, _START_NS, len(data), data)
    second = _FILE + _entry(_LOSS, 0, 0, LossCounters(by_cause={"spool": 7}).SerializeToString())
    second += _entry(_RECORDS, _START_NS, 2 * len(data), data)
    return [
        join(0, [content, first, second]),
        join(ANCESTORS, [content, first[:-3], second]),
        join(RAW, [content + _OURS, second]),
    ]
