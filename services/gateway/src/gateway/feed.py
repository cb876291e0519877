"""One client's position in the stream: it reads from the window if it keeps up, else from NATS."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from chassis.backoff import Backoff
from eventstream.batch import Batch
from eventstream.continuity import Continuity
from eventstream.copies import Damage
from eventstream.ending import Attempts, Ending
from eventstream.errors import BusError
from eventstream.history import History
from eventstream.notices import EVER, Window
from gateway.broadcaster import Behind, Broadcaster
from gateway.turn import Turn
from tetra.v1 import stream_pb2

RETRY_MIN_S, RETRY_MAX_S = 0.25, 1.0  # between attempts while NATS cannot answer
_ATTEMPTS = Attempts(alone=3, copies=20)


class Feed:
    """Batches from a position on, in order, each once."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        history: History,
        turn: Turn,
        start: int | None = None,
    ) -> None:
        self._broadcaster = broadcaster
        self._history = history
        self._generation = broadcaster.generation
        self._fetched: deque[Batch] = deque()
        self._continuity = Continuity()
        self.position = broadcaster.head + 1 if start is None else start  # wanted next
        self.catching_up = False
        self._turn = turn
        self._ending = Ending(self._continuity, _ATTEMPTS)
        self._waits = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        self._stored_ns = 0  # when NATS stored the last batch

    @property
    def lag(self) -> int:
        """How many messages this client is behind."""
        return max(0, self._broadcaster.head + 1 - self.position)

    async def next(self) -> tuple[Batch, int]:
        """Wait for the next batch; return it and how many of its first events are duplicates."""
        await self._turn.rest()
        while (found := self.next_nowait()) is None:
            await self.wait()
        return found

    async def wait(self) -> None:
        """Return when the next batch may be in memory."""
        if self._fetched:
            return
        try:
            there = self._broadcaster.get(self.position) is not None
        except Behind:
            await self._fetch()
            return
        if not there and self._generation == self._broadcaster.generation:
            await self._broadcaster.wait_beyond(self.position - 1)

    def next_nowait(self) -> tuple[Batch, int] | None:
        """Return the next batch if it is in memory."""
        if self._generation != self._broadcaster.generation:
            self._start_over()
        if not self._fetched:
            try:
                batch = self._broadcaster.get(self.position)
                self.catching_up = False
            except Behind:
                self.catching_up = True
                return None
            if batch is None:
                return None
        else:
            batch = self._fetched.popleft()
            if batch.stream_sequence > self.position:
                self._note_damage(self.position, batch.stream_sequence - 1, batch)
        self.position = batch.stream_sequence + 1
        self._stored_ns = batch.stored_ns
        return batch, self._continuity.check(batch)

    def remember(self, batches: Iterable[Batch]) -> None:
        """Compare the next numbers with those of ``batches``, which were read elsewhere."""
        for batch in batches:
            self._continuity.check(batch)
        self._continuity.notices.take()

    @property
    def has_notices(self) -> bool:
        """Whether something was found missing since `take_notices`."""
        return bool(self._continuity.notices)

    def take_notices(
        self, window: Window = EVER
    ) -> tuple[list[stream_pb2.LossNotice], list[stream_pb2.GapNotice]]:
        """Return what was found missing in ``window`` since the last call."""
        return self._continuity.notices.take(window)

    async def _fetch(self) -> None:
        bounds = None
        try:
            batches, damage = await self._history.fetch(self.position)
            if not batches or batches[0].stream_sequence > self.position:
                bounds = await self._history.bounds()
        except BusError:
            await self._waits.wait()
            return
        for one in damage:
            self.note_copy(one)
        if bounds is not None:
            position = self._ending.next_position(
                self.position, batches, bounds, self._history.replicas, self._stored_ns
            )
            if position == self.position and not batches:
                await self._waits.wait()
                return
            self.position = position
        self._waits.reset()
        self._fetched.extend(batches)

    def _note_damage(self, first: int, last: int, behind: Batch | None) -> None:
        """Note that messages are missing in every copy; ``behind``: the next message."""
        self._continuity.note_damage(
            first, last, self._stored_ns, behind.stored_ns if behind else 0
        )

    def note_copy(self, damage: Damage) -> None:
        """Note that a copy lacks messages that another has."""
        self._continuity.notices.add_gap(
            stream_pb2.GapNotice(
                cause=stream_pb2.GapNotice.CAUSE_COPY_DAMAGED,
                count=damage.last - damage.first + 1,
                first=damage.first,
                last=damage.last,
                server=damage.server,
            )
        )

    def note_unseen_copy(self, server: str) -> None:
        """Note that the copy on ``server`` could not be read."""
        cause = stream_pb2.GapNotice.CAUSE_COPY_UNSEEN
        self._continuity.notices.add_gap(stream_pb2.GapNotice(cause=cause, server=server))

    def note_cut(self) -> None:
        """Note that NATS cut off a damaged file; it does not report how much that had."""
        self._continuity.note_damage(0, 0, 0, 0)

    def note_aged_out(self, count: int, first: Batch | None = None) -> None:
        """Note that ``count`` messages of the stream are no longer there."""
        self._continuity.note_aged_out(count, first)

    def _start_over(self) -> None:
        self._generation = self._broadcaster.generation
        self._fetched.clear()
        if self._broadcaster.lost_end is not None:
            first, last = self._broadcaster.lost_end
            if self.position > first:
                self._note_damage(first, min(last, self.position - 1), None)
                self.position = first
            return
        # The stream was replaced: positions in the old one have no meaning in the new one.
        self.note_aged_out(0)
        self.position = 1
