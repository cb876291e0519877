"""Notices of missing events in a stream, each with its time."""

from __future__ import annotations

from typing import NamedTuple

from tetra.v1 import stream_pb2


class Window(NamedTuple):
    """The time that a client asked for, calendar clock; 0 and None: no limit."""

    since_ns: int = 0
    until_ns: int | None = None

    def includes(self, time_ns: int) -> bool:
        """Return whether an event of this time is wanted."""
        return time_ns >= self.since_ns and (self.until_ns is None or time_ns <= self.until_ns)


EVER = Window()


class _Timed(NamedTuple):
    """A notice and the time between the events before and behind; 0 where that is not known."""

    notice: stream_pb2.LossNotice | stream_pb2.GapNotice
    from_ns: int
    to_ns: int

    def touches(self, window: Window) -> bool:
        starts_late = window.until_ns is not None and self.from_ns > window.until_ns
        return not starts_late and not 0 < self.to_ns < window.since_ns


class Notices:
    """The losses and gaps that a client has not been sent yet."""

    def __init__(self) -> None:
        self._waiting: list[_Timed] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add_loss(self, notice: stream_pb2.LossNotice, from_ns: int, to_ns: int) -> None:
        """Add a loss that a collector counted between these times."""
        self._waiting.append(_Timed(notice, from_ns, to_ns))

    def add_gap(self, notice: stream_pb2.GapNotice) -> None:
        """Add a gap; its own ``from`` and ``to`` say when it was."""
        start = getattr(notice, "from")
        self._waiting.append(_Timed(notice, start.ToNanoseconds(), notice.to.ToNanoseconds()))

    def take(
        self, window: Window = EVER
    ) -> tuple[list[stream_pb2.LossNotice], list[stream_pb2.GapNotice]]:
        """Return the notices that touch ``window`` and forget all."""
        found = [timed.notice for timed in self._waiting if timed.touches(window)]
        self._waiting.clear()
        losses = [one for one in found if isinstance(one, stream_pb2.LossNotice)]
        return losses, [one for one in found if isinstance(one, stream_pb2.GapNotice)]
