"""Account for a stream: how many events each node published, and which are missing."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from cli.renderers.gaps import COPIES, gap_text
from cli.resume import Batch
from eventjson.times import rfc3339
from tetra.v1.stream_pb2 import GapNotice
from tetragon.events_pb2 import GetEventsResponse


def withheld_text(counts: Mapping[str, int]) -> str:
    """Return ``3 exec, 2 exit, 7 of policy files`` for counts by kind."""
    return ", ".join(
        f"{count} {kind.replace('policy:', 'of policy ')}" for kind, count in sorted(counts.items())
    )


@dataclass(slots=True)
class Account:
    """The events of one node."""

    events: int = 0
    duplicates: int = 0
    missing: int = 0
    lost: int = 0
    withheld: dict[str, int] = field(default_factory=dict)  # by kind
    first: Timestamp | None = None
    last: Timestamp | None = None
    seen: set[int] = field(default_factory=set, repr=False)


@dataclass(slots=True)
class Book:
    """Accounts by node, and the gaps in the order of the stream."""

    accounts: dict[str, Account] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)  # of single copies: no event is missing
    unread_copies: list[str] = field(default_factory=list)
    aged_out: int = 0
    # Lines about times without a collector, by node and end.
    _down: dict[tuple[str, int], str] = field(default_factory=dict, repr=False)

    def enter(self, batch: Batch) -> None:
        """Account for one response."""
        for gap in batch.gaps:
            self._enter_gap(gap)
        for loss in batch.losses:
            account = self._account(loss.node_name)
            for kind, count in loss.lost.withheld.items():
                account.withheld[kind] = account.withheld.get(kind, 0) + count
            counts = dict(loss.lost.by_cause)
            if not counts:
                continue
            account.lost += sum(counts.values())
            causes = ", ".join(f"{count} {name}" for name, count in counts.items())
            when = rfc3339(loss.time)
            self.gaps.append(f"loss: node {loss.node_name}: {causes}, reported at {when}")
        for event in batch.events:
            self._enter_event(event)

    def lines(self) -> list[str]:
        """Return one line for each finding."""
        withheld = [
            f"withheld: node {node}: {withheld_text(account.withheld)}, by throttling"
            for node, account in sorted(self.accounts.items())
            if account.withheld
        ]
        return [*self.gaps, *self.damage, *self.unread_copies, *withheld]

    @property
    def is_complete(self) -> bool:
        """Whether no event is missing or duplicated."""
        return not self.gaps and not any(a.duplicates for a in self.accounts.values())

    @property
    def withheld(self) -> int:
        """The number of events that throttling withheld: they are accounted for."""
        return sum(sum(account.withheld.values()) for account in self.accounts.values())

    @property
    def events(self) -> int:
        """The number of events."""
        return sum(account.events for account in self.accounts.values())

    def _account(self, node: str) -> Account:
        return self.accounts.setdefault(node, Account())

    def _enter_gap(self, gap: GapNotice) -> None:
        if gap.cause == GapNotice.CAUSE_AGED_OUT and not self.events:
            self.aged_out += gap.count  # before the beginning of the stream: not a gap in it
        elif gap.cause in COPIES:
            is_damage = gap.cause == GapNotice.CAUSE_COPY_DAMAGED
            texts = self.damage if is_damage else self.unread_copies
            if (text := gap_text(gap)) not in texts:
                texts.append(text)
        else:
            self._account(gap.node_name).missing += gap.count
            self._correct_down(gap)
            self.gaps.append(gap_text(gap))

    # Where a second host of the same name appeared, it first looked as if the first had restarted.
    def _correct_down(self, gap: GapNotice) -> None:
        if gap.cause == GapNotice.CAUSE_COLLECTOR_DOWN:
            self._down[gap.node_name, gap.to.ToNanoseconds()] = gap_text(gap)
        elif gap.cause == GapNotice.CAUSE_NAME_SHARED:
            begin = gap.node_name, getattr(gap, "from").ToNanoseconds()
            if (text := self._down.pop(begin, None)) in self.gaps:
                self.gaps.remove(str(text))

    def _enter_event(self, event: GetEventsResponse) -> None:
        account = self._account(event.node_name)
        account.events += 1
        account.first = account.first or event.time
        account.last = event.time
        kind = event.WhichOneof("event")
        if kind in ("process_exec", "process_exit"):
            exec_id = getattr(event, kind).process.exec_id
            if exec_id:  # an exit without a known process has none
                name = hash((kind, exec_id))  # a tenth of the memory of the names
                if name in account.seen and not _is_kernel(exec_id):
                    account.duplicates += 1
                account.seen.add(name)


# The process that stands for the kernel, whose id is the same on every boot.
def _is_kernel(exec_id: str) -> bool:
    try:
        return base64.b64decode(exec_id).endswith(b":0")
    except ValueError:
        return False
