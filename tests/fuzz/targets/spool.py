"""The spool's folder: parts are files of two runs, as `_FILES` has them; an empty one is no file.

Nothing in it stops the spool. What it gives out stands in a file with its checksum; what was found
is given out or counted as dropped; what could not be read on is counted as torn; and it works on.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from pathlib import Path
from random import Random
from struct import Struct

from collector.delivery.segments import Run
from collector.delivery.spool import Spool
from fuzz.inputs import flipped, join

_FILES = tuple(
    f"{run}/{name}"
    for run in ("5", "7")
    for name in ("run.json", "base", "00000001.seg", "00000002.seg")
)
_HEADER = Struct("<IIIIQ")  # magic, checksum, payload bytes, events, first index
_SUMMED = Struct("<IIQ")
_MAGIC = 0x54535031
_NODE, _BOOT = "node-1", "b"
# Options.
FULL = 1  # so small that what is written next drives the oldest out
NUMBERED = 2  # the runs get their numbers while they are read
STRAY = 8  # another file exists where this run writes
FOLDER = 4  # one of the files, chosen by the upper bits, is a folder

_MEMORY = Path("/dev/shm")


def check(options: int, parts: list[bytes]) -> None:
    """Open the folder, read all of it, write, and open it once more."""
    folder = Path(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None, prefix="spool-"))
    try:
        for name, part in zip(_FILES, parts, strict=False):
            if part:
                path = folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(part)
        if options & STRAY:
            (folder / "9").mkdir()
            (folder / "9" / "x.seg").write_bytes(b"mine")
        if options & FOLDER:
            path = folder / _FILES[options >> 5]
            path.unlink(missing_ok=True)
            path.mkdir(parents=True)
        _check(folder, parts, options)
    finally:
        shutil.rmtree(folder)


def _check(folder: Path, parts: list[bytes], options: int) -> None:
    full = bool(options & FULL)
    spool = Spool(folder, 200 if full else 1 << 30, "never")
    spool.open(_NODE)
    own = Run(_NODE, _BOOT, 9)
    found, given = spool.events, 0
    if full:
        assert spool.append(own, 0, 2, b"new")
    while (record := spool.peek()) is not None:
        assert spool.peek() is record
        assert record.run.node_name == _NODE
        # What becomes a number of an event, or a time, on the bus.
        assert 0 <= record.run.start_time_ns < 1 << 63
        assert record.run.base is None or 0 <= record.run.base < 1 << 63
        if record.payload != b"new":
            sealed = _sealed(record.first, record.events, record.payload)
            assert any(sealed in part for part in parts), "not as it was written"
            given += record.events
        if options & NUMBERED:
            spool.number(record.run, 41)
        before = spool.events
        spool.pop()
        assert spool.events <= before
    assert (spool.events, spool.size_bytes) == (0, 0)
    dropped = spool.statistics.dropped
    assert given + dropped == found, f"{found} found, {given} given, {dropped} dropped"
    assert dropped == 0 or spool.statistics.torn or full
    assert spool.append(own, 7, 1, b"and on")
    spool.close()
    again = Spool(folder, 1 << 30, "never")
    again.open(_NODE)
    last = again.peek()
    assert last is not None
    assert (last.first, last.events, last.payload) == (7, 1, b"and on")


def _sealed(first: int, events: int, payload: bytes) -> bytes:
    summed = _SUMMED.pack(len(payload), events, first) + payload
    return _HEADER.pack(_MAGIC, zlib.crc32(summed), len(payload), events, first) + payload


def mutate(part: bytes, rng: Random) -> bytes:
    """Records whose checksum is right again, JSON that is still some, or other bytes."""
    if part.startswith(b"{"):
        return _about(rng)
    if part.isdigit():
        return rng.choice((b"0", b"41", b"-5", b"1e9", b" 7 ", b"9" * 30, b"9" * 5000, b"\xff"))
    if rng.random() < 0.3:
        return flipped(part, rng)
    counts = (0, 1, 2, 1000, 0xFFFFFFFF)
    record = _sealed(
        rng.choice((0, 1, 2, (1 << 64) - 1)), rng.choice(counts), rng.randbytes(rng.randrange(20))
    )
    if rng.random() < 0.3:
        record = flipped(record, rng)
    return part + record if rng.random() < 0.5 else record + part


def _about(rng: Random) -> bytes:
    odd = ("5", 5, 5.5, -1, 1 << 63, 1 << 70, None, [], {}, True, "x", float("inf"), float("nan"))
    about = {
        "node_name": _NODE if rng.random() < 0.8 else rng.choice(odd),
        "boot_id": _BOOT if rng.random() < 0.6 else rng.choice(odd),
        "start_time_ns": rng.choice(odd),
    }
    if rng.random() < 0.2:
        del about[rng.choice(tuple(about))]
    if rng.random() < 0.1:
        return b"[" * rng.choice((1, 4000)) + json.dumps(about).encode()
    return json.dumps(about).encode()


def _run(start: int) -> bytes:
    return json.dumps({"node_name": _NODE, "boot_id": _BOOT, "start_time_ns": start}).encode()


def seeds() -> list[bytes]:
    """Two runs with whole segments, one with a torn tail, one without its run's description."""
    segment = b"".join(_sealed(n, 1, b"payload %d" % n) for n in range(3))
    bad = segment[:-5] + b"\0" + segment[-4:]
    return [
        join(0, [_run(5), b"41", segment, segment, _run(7), b"", segment[:-4]]),
        join(0, [_run(5), b"", bad, segment, b"", b"3", segment]),
        join(NUMBERED | FOLDER | 2 << 5, [_run(5), b"0", segment, segment]),
        join(STRAY, [_run(5), b"0", segment]),
        join(FULL, [_run(5), b"0", segment, bad, _run(7), b"", segment, segment]),
    ]
