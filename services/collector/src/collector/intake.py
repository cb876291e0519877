"""From the ring to the publisher: handles records when they are read, or after they had to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from collector.clock import wall_offset_ns
from collector.delivery.publisher import Publisher
from collector.pipeline import Pipeline

_RECHECK_S = 0.005  # while records wait for metadata


@dataclass(slots=True)
class Intake:
    """Feeds the pipeline and publishes its events."""

    pipeline: Pipeline
    publisher: Publisher
    _holds: asyncio.Event = field(default_factory=asyncio.Event)

    def handle_made(self, keep: Callable[[int, bytes], None], record: bytes) -> None:
        """Handle a record of the collector's own; ``keep`` gets it first, with the offset."""
        offset_ns = wall_offset_ns()
        keep(offset_ns, record)
        self.handle([record], offset_ns)

    def handle(
        self, records: list[bytes], offset_ns: int | None = None, more: bool = False
    ) -> None:
        """Handle records that were read from the ring; see `Pipeline.handle`.

        ``more``: others follow in a moment, and are published together with these.
        """
        self.publisher.publish(self.pipeline.handle(records, offset_ns), more=more)
        if self.pipeline.holds:
            self._holds.set()

    async def run(self) -> None:
        """Release held records when their metadata arrives, until cancelled."""
        while True:
            await self._holds.wait()
            while self.pipeline.holds:
                self.publisher.publish(self.pipeline.release())
                await asyncio.sleep(_RECHECK_S)
            self._holds.clear()

    def finish(self) -> None:
        """Publish what is held, without waiting any longer."""
        self.publisher.publish(self.pipeline.release(all_of_them=True))
