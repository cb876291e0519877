"""Keeps a folder of blocks small: merges small blocks, removes blocks by age and total size."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from eventcolumns.errors import DamagedBlock
from eventcolumns.schema import FOOTER_KEY, Block, Footer, blocks
from eventcolumns.writer import Writer

_LEAST = 8  # small blocks side by side that are worth a merge
_MOST = 64


def footer_of(path: Path) -> Footer:
    """Return the footer of a block's file; raise `OSError` or `DamagedBlock`."""
    with _reading(path), pq.ParquetFile(path) as file:
        metadata = file.metadata.metadata or {}
        found = metadata.get(FOOTER_KEY.encode())
        if found is None:
            raise ValueError("not written by tetra-exporter")
        return Footer.decode(found)


# What pyarrow raises on damaged bytes: ValueError, or OSError without a number.
@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise DamagedBlock(path, " ".join(str(error).split())) from error


def remove_superseded(folder: Path) -> None:
    """Remove blocks that a merged one contains; raise `OSError`."""
    kept = set(blocks(folder))
    for path in folder.iterdir():
        block = Block.parse(path.name)
        if block is not None and block not in kept:
            path.unlink(missing_ok=True)


def remove_old(folder: Path, before_s: float, max_bytes: int) -> int:
    """Remove the oldest blocks: stored before ``before_s``, or above ``max_bytes`` together.

    ``max_bytes`` 0: no limit. Returns how many were removed; raises `OSError`.
    """
    found = blocks(folder)
    sizes = {block: (folder / block.name).stat().st_size for block in found}
    total, removed = sum(sizes.values()), 0
    for block in found[:-1]:  # the last one says how far the columns reach
        if block.to_s >= before_s and not (max_bytes and total > max_bytes):
            break
        (folder / block.name).unlink(missing_ok=True)
        total -= sizes[block]
        removed += 1
    return removed


def merge_small(
    folder: Path, max_bytes: int, mode: int = 0o600, damaged: Collection[str] = ()
) -> Block | None:
    """Merge a run of small blocks side by side; return the new block, None where none is due.

    A block is small below a quarter of ``max_bytes``. The small ones stay until
    `remove_superseded`: a query may be reading them. ``damaged``: names of blocks that are left
    alone. Raises `OSError`, and `DamagedBlock` where one of the others cannot be read.
    """
    run = _small_run(folder, blocks(folder), max_bytes, damaged)
    if len(run) < _LEAST:
        return None
    first, last = run[0], run[-1]
    merged = Block(first.generation, first.first, last.last, first.from_s, last.to_s)
    footer = Footer()
    writer = Writer(folder, mode, "merged")
    try:
        for block in run:
            path = folder / block.name
            one = footer_of(path)
            footer.losses += one.losses
            footer.gaps += one.gaps
            footer.last_stored_ns = one.last_stored_ns
            for batch in _batches(path):
                writer.append_batch(batch)
        writer.finish(merged, footer)
    except BaseException:
        writer.discard()
        raise
    return merged


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with _reading(path):
        file = pq.ParquetFile(path)
    with file:
        batches = file.iter_batches()
        while True:
            with _reading(path):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def _small_run(
    folder: Path, found: Sequence[Block], max_bytes: int, damaged: Collection[str]
) -> list[Block]:
    run: list[Block] = []
    total = 0
    for block in found:
        size = max_bytes if block.name in damaged else (folder / block.name).stat().st_size
        joins = bool(run) and (run[-1].generation, run[-1].last + 1) == block[:2]
        if size < max_bytes // 4 and joins and total + size <= max_bytes and len(run) < _MOST:
            run.append(block)
            total += size
            continue
        if len(run) >= _LEAST:
            break
        run, total = ([block], size) if size < max_bytes // 4 else ([], 0)
    return run
