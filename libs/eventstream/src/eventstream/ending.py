"""Decides how to continue when a read of the stream does not begin at the requested message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from eventstream.batch import Batch
from eventstream.continuity import Continuity
from eventstream.history import Bounds


class Attempts(NamedTuple):
    """Reads after which missing messages at the stream's end are skipped."""

    alone: int
    copies: int  # where the stream has several copies: one of them may lag behind


@dataclass(slots=True)
class Ending:
    """Counts the reads at one position, and notes in ``continuity`` what is missing there."""

    continuity: Continuity
    attempts: Attempts
    _position: int = 0
    _reads: int = 0  # at this position, without a message

    def next_position(
        self, position: int, found: list[Batch], bounds: Bounds, replicas: int, stored_ns: int
    ) -> int:
        """Return where to read now that ``position`` gave ``found``, which begins behind it.

        ``stored_ns``: when NATS stored the message before ``position``, 0 if unknown.
        """
        if bounds.first > position:
            self.continuity.note_aged_out(bounds.first - position, found[0] if found else None)
            return bounds.first
        if found or bounds.last < position or self._may_come(position, replicas):
            return position
        self.continuity.note_damage(position, bounds.last, stored_ns, 0)
        return bounds.last + 1

    def _may_come(self, position: int, replicas: int) -> bool:
        if position != self._position:
            self._position, self._reads = position, 0
        self._reads += 1
        most = self.attempts.copies if replicas > 1 else self.attempts.alone
        if self._reads < most:
            return True
        self._reads = 0
        return False
