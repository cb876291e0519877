"""Saves the process table, so that the next collector can continue after a crash."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from collector.bpf.ring import Ring
from collector.delivery.publisher import Publisher
from collector.events.encoder import Encoder
from collector.losses import Losses
from collector.pipeline import Pipeline
from collector.policies.saved import to_message
from collector.policies.table import PolicyTable
from collector.processes.table import ProcessTable
from collector.recovery import state
from collector.recovery.journal import Journal
from collector.recovery.versions import records_version
from collector.sensors.throttle import Throttled
from tetra.v1.state_pb2 import SavedTable

SAVE_EVERY_S = 5.0
SAVE_SHARE = 200  # a large table less often: saving takes at most this part of the time
SAVE_AT_BYTES = 32 << 20  # of journal; after a crash it is replayed in 10 us a record
_LOOK_EVERY_S = 1.0
_WAIT_UNFINISHED_S = 1.0


@dataclass(slots=True)
class Saver:
    """Writes the table and all that belongs to it, as of now, and begins a new journal file."""

    folder: Path
    keep_events: bool  # whether events that are in memory only are saved too
    publisher: Publisher
    pipeline: Pipeline
    table: ProcessTable
    encoder: Encoder
    losses: Losses
    ring: Ring
    journal: Journal
    policies: PolicyTable = field(default_factory=PolicyTable)
    throttled: Throttled = field(default_factory=Throttled)

    def save(self) -> None:
        """Save now. If the disk fails, that is logged and the journal continues."""
        own = self.publisher.own
        about = SavedTable(
            node_name=own.node_name,
            boot_id=own.boot_id,
            collector_start_ns=own.start_time_ns,
            base=own.base or 0,
            made=self.publisher.statistics.made,
            probes_start_ns=own.probes_start_ns,
            loss=self.losses.counters(),
            ring_position=self.ring.position,
            journal=self.journal.next_number,
            records_version=records_version(),
            policies=map(to_message, self.policies),
            throttled=self.throttled.saved(),
            unreported=self.publisher.held() if self.keep_events else (),
        )
        if state.save(self.folder, about, self.table, self.encoder):
            self.journal.begin()

    async def run(self) -> None:
        """Save at intervals, until cancelled."""
        due_s = time.monotonic() + SAVE_EVERY_S
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            start_s = time.monotonic()
            if start_s < due_s and self.journal.size_bytes < SAVE_AT_BYTES:
                continue
            # No table holds records that wait, or whose remaining parts have not arrived.
            if self.pipeline.unfinished and start_s < due_s + _WAIT_UNFINISHED_S:
                continue
            self.save()
            due_s = start_s + max(SAVE_EVERY_S, (time.monotonic() - start_s) * SAVE_SHARE)
