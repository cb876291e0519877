"""Parquet files for questions about the past: each event exactly once, even if the exporter is
killed at any time.

A block is a file with the events of some messages of the stream; its name says which. It is written
under another name and renamed when it is complete and synced, so the existing blocks show the
sink's position: events that a killed exporter had not finished are read from the stream again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import structlog

from chassis.errors import ServiceError
from chassis.folders import make_own
from eventcolumns import folder as keeping
from eventcolumns import schema
from eventcolumns.errors import DamagedBlock
from eventcolumns.rows import place_of, row_of
from eventcolumns.schema import Block, Footer
from eventcolumns.writer import UNFINISHED, Writer
from eventfilters import Event
from exporter.config import ColumnsSink
from exporter.errors import SinkError
from exporter.place import Place
from exporter.sinks.base import PART_BYTES, Line, in_thread
from tetra.v1.stream_pb2 import GapNotice, LossNotice

R = TypeVar("R")

BLOCK_BYTES = 64 << 20
BLOCK_ROWS = 2_000_000
# Merged blocks are kept this long after the merge: a query may still read them.
_MERGED_STAY_S = 60.0

_log = structlog.get_logger()


class Columns:
    """Writes blocks into one folder, merges small ones and removes old ones."""

    settle_s = 0.0
    part_bytes = PART_BYTES
    max_batch = 4000

    def __init__(self, sink: ColumnsSink, now: Callable[[], float] = time.time) -> None:
        """Raises `SinkError` where the folder cannot be used."""
        self._sink = sink
        self._folder: Path = sink.folder
        self._mode = int(sink.permissions, 8)
        self._now = now
        self._writer: Writer | None = None
        self._footer = Footer()
        self._generation = 1
        self._durable = Place(0, 0)  # behind the last block
        self._began: Place | None = None  # where the block begins; None: not known yet
        self._reached = self._durable  # behind what was delivered
        self._first_ns = 0  # when NATS stored the first message of the block; 0: none yet
        self._opened_s = 0.0  # monotonic, when the block began
        self._tidied_s = float("-inf")
        self._damaged: set[str] = set()  # names of blocks that cannot be read

    def resume(self, kept: Place | None) -> Place | None:
        """Return the place behind the last block; ``kept`` where there is none."""
        try:
            make_own(self._folder)
            for path in self._folder.glob(f"*{UNFINISHED}"):
                path.unlink()
            keeping.remove_superseded(self._folder)
            found = schema.blocks(self._folder)
            place = self._place_behind(found[-1], kept) if found else kept
        except DamagedBlock as error:
            raise SinkError(f"sink {self._sink.name}: {error}: move it away") from None
        except (OSError, ValueError, ServiceError) as error:
            raise SinkError(f"sink {self._sink.name}: {self._folder}: {error}") from None
        self._durable = place or Place(0, 0)
        return place

    def _place_behind(self, last: Block, kept: Place | None) -> Place:
        self._generation = last.generation
        is_removed = (  # by hand: not written again
            kept is not None
            and kept.mark.get("generation") == last.generation
            and kept.sequence > last.last
        )
        if kept is not None and is_removed:
            return kept
        footer = keeping.footer_of(self._folder / last.name)
        return Place(last.last, footer.last_stored_ns, {"generation": last.generation})

    async def open(self, mark: dict[str, Any]) -> None:
        """Begin a new block; what was not finished is discarded."""
        self._discard()
        self._began, self._reached = None, self._durable

    def note(self, losses: Sequence[LossNotice], gaps: Sequence[GapNotice]) -> None:
        """Add what was found missing, for the footer of the block."""
        self._footer.losses += losses
        self._footer.gaps += gaps

    async def deliver(self, lines: Sequence[Line]) -> int:
        """Add the events to the block."""
        first = lines[0].event.batch
        assert first is not None
        if first.stream_sequence <= self._reached.sequence:
            await self._begin_stream()
        self._first_ns = self._first_ns or first.stored_ns
        await self._in_thread(self._append, lines)
        return 0

    async def reach(self, place: Place) -> None:
        """Note that all up to ``place`` was delivered."""
        if place.sequence < self._reached.sequence:
            await self._begin_stream()
        if self._began is None:
            self._began = place
        self._reached = place

    async def mark(self) -> dict[str, Any] | None:
        """Finish the block where it is due; None while it is not."""
        assert self._began is not None
        if self._reached.sequence == self._began.sequence and self._writer is None:
            return {"generation": self._generation}
        if not self._is_due():
            return None
        await self._finish()
        return {"generation": self._generation}

    async def close(self) -> None:
        """Discard the block that is not finished."""
        self._discard()

    def _is_due(self) -> bool:
        writer = self._writer
        if not self._opened_s:
            self._opened_s = time.monotonic()
        if writer and (writer.rows >= BLOCK_ROWS or writer.size_bytes >= BLOCK_BYTES):
            return True
        return time.monotonic() - self._opened_s >= self._sink.flush

    # The stream was replaced: its messages have the same numbers as others before.
    async def _begin_stream(self) -> None:
        if self._began is not None and self._reached.sequence > self._began.sequence:
            await self._finish()
        self._generation += 1
        self._began = self._reached = self._durable = Place(0, 0)

    async def _finish(self) -> None:
        await self._in_thread(self._finish_block)
        self._began, self._opened_s = self._reached, 0.0
        self._durable = self._reached
        if self._now() - self._tidied_s >= _MERGED_STAY_S:
            self._tidied_s = self._now()
            await self._in_thread(self._tidy)

    def _append(self, lines: Sequence[Line]) -> None:
        if self._writer is None:
            self._writer = Writer(self._folder, self._mode)
        rows = []
        for line in lines:
            event = line.event
            assert event.batch is not None
            one = Event(event.batch.payloads[event.at], event.message)
            rows.append(row_of(place_of(event.batch, event.at, one), one))
        self._writer.append(rows)

    def _finish_block(self) -> None:
        assert self._began is not None
        writer = self._writer or Writer(self._folder, self._mode)
        began_ns = self._first_ns or self._began.stored_ns or self._reached.stored_ns
        block = Block(
            self._generation,
            self._began.sequence + 1,
            self._reached.sequence,
            began_ns // 1_000_000_000,
            self._reached.stored_ns // 1_000_000_000 + 1,
        )
        self._footer.last_stored_ns = self._reached.stored_ns
        writer.finish(block, self._footer)
        self._writer, self._footer, self._first_ns = None, Footer(), 0

    def _tidy(self) -> None:
        keeping.remove_superseded(self._folder)
        before_s = self._now() - self._sink.max_age if self._sink.max_age else 0
        removed = keeping.remove_old(self._folder, before_s, self._sink.max_size)
        if removed:
            _log.info("old blocks removed", sink=self._sink.name, blocks=removed)
        try:
            keeping.merge_small(self._folder, BLOCK_BYTES, self._mode, self._damaged)
        except DamagedBlock as error:
            self._damaged.add(error.path.name)
            _log.error(
                "damaged block is not merged, and questions about its time fail: move it away, "
                "answers then report the gap", sink=self._sink.name, path=str(error.path),
                error=error.reason,
            )  # fmt: skip

    def _discard(self) -> None:
        if self._writer is not None:
            self._writer.discard()
        self._writer, self._footer = None, Footer()
        self._first_ns, self._opened_s = 0, 0.0

    async def _in_thread(self, step: Callable[..., R], *args: Any) -> R:
        return await in_thread(self._sink.name, self._folder, step, *args)
