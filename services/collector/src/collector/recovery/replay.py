"""Events that the previous collector had read but not delivered, from its saved table and journal.

Replaying the journal on the saved table restores the table as it was when that collector ended,
and makes the same events with the same numbers. Those that are not in the spool yet are put there.
By their numbers the publisher knows which of them are in the stream already.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import structlog

from collector.bpf.ring import records_in
from collector.delivery.segments import Run
from collector.delivery.spool import Spool
from collector.delivery.stored import spool_events
from collector.pipeline import Pipeline
from collector.policies.saved import from_bytes as policy_from_bytes
from collector.policies.table import PolicyTable
from collector.processes.table import ProcessTable
from collector.recovery import journal
from collector.recovery.journal import Replay
from tetra.v1.node_pb2 import LossCounters
from tetra.v1.state_pb2 import SavedTable

log = structlog.get_logger()


@dataclass(slots=True)
class Recovered:
    """The state of the previous collector; ``pipeline`` and ``table`` are restored to it."""

    run: Run
    pipeline: Pipeline
    table: ProcessTable
    ring_position: int
    loss: LossCounters
    complete: bool  # whether no record is missing up to `ring_position`
    made: int  # events, delivered or not

    def next_base(self, boot_id: str) -> int:
        """Return the number after the last event, 0 if that is unknown.

        Events that the spool dropped or a damaged stream lost appear as a gap only if no other
        event gets their numbers.
        """
        if self.run.boot_id != boot_id or self.run.base is None:
            return 0
        return self.run.base + self.made


@dataclass(slots=True)
class _Progress:
    events: list[bytes]
    base: int | None
    loss: LossCounters
    stopped: str = ""
    entries: int = 0
    position: int = field(default=0)


def recover(
    saved: SavedTable,
    folder: Path,
    version: str,
    pipeline: Pipeline,
    table: ProcessTable,
    spool: Spool,
    policies: PolicyTable | None = None,
) -> Recovered:
    """Replay the journal in ``folder`` through ``pipeline``, whose ``table`` has the saved images.

    ``version``: of the record layouts, see `versions.records_version`. ``policies`` has the saved
    revisions and gets those of the journal. If the journal cannot be read to its
    end, the reason is logged, and the events made so far count.
    """
    known = policies if policies is not None else PolicyTable()  # an empty table is false
    done = _replay(saved, folder, version, pipeline, known)
    first = saved.made - len(saved.unreported)  # index of the first event in memory
    run, spooled_to = spool.find(saved.collector_start_ns)
    if run is None:
        run = Run(saved.node_name, saved.boot_id, saved.collector_start_ns)
    run.base = run.base or done.base
    run.probes_start_ns = saved.probes_start_ns
    undelivered = done.events[max(0, spooled_to - first) :]
    start = first + len(done.events) - len(undelivered)
    kept = spool_events(spool, run, start, undelivered, done.loss)
    if kept < len(undelivered):
        log.warning("events of the previous collector lost", events=len(undelivered) - kept)
    if done.stopped:
        log.warning("journal replay stopped", reason=done.stopped, entries=done.entries)
    elif done.entries:
        log.info("journal replayed", entries=done.entries, events=len(done.events), kept=kept)
    table.statistics.evictions = 0  # the loss counters include them
    return Recovered(
        run, pipeline, table, done.position, done.loss, not done.stopped, first + len(done.events)
    )


def _replay(
    saved: SavedTable, folder: Path, version: str, pipeline: Pipeline, policies: PolicyTable
) -> _Progress:
    done = _Progress(list(saved.unreported), saved.base or None, saved.loss)
    replay = Replay(folder, saved.journal, saved.ring_position)
    try:
        for entry in replay:
            if saved.records_version != version:
                done.stopped = "records of another version of the probes"
                break
            if entry.kind == journal.RECORDS:
                done.events += pipeline.handle(records_in(entry.payload), entry.first)
                done.events += pipeline.release(all_of_them=True)
            elif entry.kind == journal.MADE:
                done.events += pipeline.handle([entry.payload], entry.first)
                done.events += pipeline.release(all_of_them=True)
            elif entry.kind == journal.POLICY:
                policies.add(policy_from_bytes(entry.payload))
            elif entry.kind == journal.LOSS:
                done.loss = LossCounters.FromString(entry.payload)
            elif entry.kind == journal.BASE:
                done.base = entry.second
    except Exception as error:  # an error here must not repeat at each start
        log.exception("journal replay failed")
        done.stopped = f"entry {replay.entries}: {error!r}"
    done.stopped = done.stopped or replay.stopped
    done.entries, done.position = replay.entries, replay.position
    return done
