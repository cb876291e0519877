"""What the collector before this one had read and not told: from its saved table and its journal.

Replaying the journal on the saved table makes the table as it was when that collector ended, and
the same events with the same numbers. Those that are not in the spool yet go there; which of them
the stream has already, the publisher finds out by their numbers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import structlog

from collector.bpf.ring import records_in
from collector.delivery.publisher import spool_events
from collector.delivery.spool import Run, Spool
from collector.pipeline import Pipeline
from collector.recovery import state
from collector.recovery.journal import Records, Replay
from tetra.v1.node_pb2 import LossCounters
from tetra.v1.state_pb2 import SavedTable

log = structlog.get_logger()


@dataclass(slots=True)
class Recovered:
    """How far the collector before this one had come. Its table is in the pipeline's cache."""

    run: Run
    ring_position: int
    loss: LossCounters
    whole: bool  # nothing is missing up to `ring_position`
    made: int  # events, told or not

    def next_base(self, boot_id: str) -> int:
        """Return the number behind the last event, 0 where that is not known.

        What the spool had to drop, or a damaged stream lost, shows as a hole only if nobody else
        gets its numbers.
        """
        if self.run.boot_id != boot_id or self.run.base is None:
            return 0
        return self.run.base + self.made


def records_version(folder: Path) -> str:
    """Return what tells the layout of records from any other; ``folder``: of the C sources."""
    return hashlib.sha256((folder / "lib" / "events.h").read_bytes()).hexdigest()


def recover(
    saved: SavedTable, folder: Path, version: str, pipeline: Pipeline, spool: Spool
) -> Recovered:
    """Replay what is in the journal's ``folder`` through ``pipeline``, which must be new.

    ``version``: of the records that it understands, see `records_version`.
    Where the journal cannot be read or carried out, that is told, and what was made so far counts.
    """
    events = list(saved.untold)
    first = saved.made - len(events)
    base, loss = saved.base or None, saved.loss
    pipeline.publish = events.append
    pipeline.restore(state.processes(saved))
    replay = Replay(folder, saved.journal, saved.ring_position)
    whole = True
    try:
        for entry in replay:
            if saved.records_version != version:
                log.warning("journal of another version of the probes left out")
                whole = False
                break
            if isinstance(entry, Records):
                pipeline.handle(records_in(entry.data), entry.offset_ns)
            elif isinstance(entry, LossCounters):
                loss = entry
            else:
                base = entry
    except Exception:  # whatever it is, it must not happen again at each start
        log.exception("journal not carried out")
        whole = False
    run, told = spool.find(saved.collector_start_ns)
    if run is None:
        run = Run(saved.node_name, saved.boot_id, saved.collector_start_ns)
    run.base = run.base or base
    run.probes_start_ns = saved.probes_start_ns
    untold = events[max(0, told - first) :]
    kept = spool_events(spool, run, first + len(events) - len(untold), untold, loss)
    if kept < len(untold):
        log.warning("events of the last collector lost", events=len(untold) - kept)
    if replay.entries:
        log.info("journal replayed", entries=replay.entries, events=len(events), kept=kept)
    return Recovered(run, replay.position, loss, whole and replay.whole, first + len(events))
