"""What a sink is."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import structlog

from exporter.errors import DeliveryError, SinkError
from exporter.place import Place
from exporter.selection import Selected
from tetra.v1.stream_pb2 import GapNotice, LossNotice

_log = structlog.get_logger()

R = TypeVar("R")

PART_BYTES = 1 << 20
# Errors that an operator or time repairs without a change of the settings.
_TEMPORARY = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)


class Line(NamedTuple):
    """An event in the sink's format."""

    event: Selected
    text: str  # one line of JSON, without its end


class Sink(Protocol):
    """Delivers lines. Each method raises `DeliveryError` if the receiver cannot accept them now."""

    #: Seconds after which delivered lines count as accepted; 0: at once. Where it is not 0, the
    #: exporter reads again from the last place that counts as taken when a delivery fails.
    settle_s: float
    #: The position is saved after about this many bytes of the stream.
    part_bytes: int
    #: The most lines that `deliver` takes at once.
    max_batch: int

    async def open(self, mark: dict[str, Any]) -> None:
        """Begin where `mark` was, with what it had returned."""

    async def deliver(self, lines: Sequence[Line]) -> int:
        """Deliver ``lines``; return how many the receiver refused permanently."""

    async def mark(self) -> dict[str, Any] | None:
        """Make durable what was delivered; return what `open` needs, as JSON.

        None: it is not durable yet, and is delivered again after a restart.
        """

    async def close(self) -> None:
        """End; nothing that `mark` has returned is lost."""


@runtime_checkable
class Archive(Sink, Protocol):
    """A sink whose own content shows where to continue; it also stores notices of missing events.

    When a delivery fails, the exporter reads again from the last place that was durable.
    """

    def resume(self, kept: Place | None) -> Place | None:
        """Return the position after all stored events; ``kept``: the saved position."""

    def note(self, losses: Sequence[LossNotice], gaps: Sequence[GapNotice]) -> None:
        """Note missing events before the next delivery."""

    async def reach(self, place: Place) -> None:
        """Note that all events up to ``place`` were delivered, before `mark`."""


class Refusals:
    """Logs the first event that a receiver refuses permanently; further ones are only counted."""

    def __init__(self, sink: str) -> None:
        self._sink = sink
        self._logged = False

    def note(self, answer: str, event: str) -> None:
        """Log the ``answer`` for an event's id, once."""
        if not self._logged:
            _log.error(
                "receiver refuses an event permanently: it is counted and skipped; further ones "
                "are not logged", sink=self._sink, event_id=event, answer=answer,
            )  # fmt: skip
            self._logged = True


async def in_thread(name: str, path: Path, step: Callable[..., R], *args: Any) -> R:
    """Run a ``step`` of sink ``name`` that blocks on ``path``, in a thread.

    Raises `DeliveryError` where the file system may accept the same later, else `SinkError`.
    """
    try:
        return await asyncio.to_thread(step, *args)
    except OSError as error:
        text = f"{path}: {error.strerror or error}"
        if error.errno in _TEMPORARY:
            raise DeliveryError(text) from None
        raise SinkError(f"sink {name}: {text}") from None
