"""What a policy on trial has seen: counts by process, by call with its arguments, by action."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cli.policies.results import failed, reasons
from cli.policies.table import columns
from cli.processes import process_of
from cli.renderers.kinds import kind_of
from cli.renderers.kinds.calls import short_name
from cli.resume import Batch
from cli.terminal import visible
from cli.words import counted, grouped
from tetra.v1.policies_pb2 import NodePolicy, TryPolicyUpdate
from tetragon.events_pb2 import GetEventsResponse

_MOST_KEYS = 10_000  # of each count; later entries are counted together
_OTHERS = "(others)"
_PASSIVE = ("POST", "UNKNOWN", "NOPOST")
_TITLES = ("PROCESS", "CALL", "WOULD HAVE DONE")


@dataclass(slots=True)
class Trial:
    """The counts of one trial."""

    name: str  # of the document
    events: int = 0
    lost: int = 0
    processes: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    update: TryPolicyUpdate = field(default_factory=TryPolicyUpdate)

    def take(self, batch: Batch) -> None:
        """Count the events of a batch."""
        for event in batch.events:
            self.count(event)
        self.lost += sum(count for loss in batch.losses for count in loss.lost.by_cause.values())

    def count(self, event: GetEventsResponse) -> None:
        """Count one event."""
        self.events += 1
        process = process_of(event)
        words = kind_of(event.WhichOneof("event")).words
        _add(self.processes, process.binary if process is not None else "(no process)")
        if "function" in words:
            _add(self.calls, f"{short_name(words['function'](event))}({words['args'](event)})")
            action = words["action"](event)
            if action not in _PASSIVE:
                _add(self.actions, action)

    @property
    def posted(self) -> int:
        """The events that the nodes have posted; some may not have arrived yet."""
        return sum(node.hits for node in self.update.nodes)

    @property
    def nodes_lost(self) -> int:
        """The events that the nodes have lost."""
        return sum(count for node in self.update.nodes for count in node.lost.values())

    def title(self, left_s: float | None) -> str:
        """Return the first line; ``left_s``: the time that is left, None after the end."""
        nodes = self.update.nodes
        bad = len(failed(nodes))
        loaded = sum(1 for node in nodes if node.revision or node.hits) if nodes else 0
        parts = [f"monitor mode on {loaded} of {counted(len(nodes), 'node')}"]
        if bad:
            parts.append(f"{bad} failed")
        parts.append(grouped(self.events, "event"))
        if self.posted > self.events:
            parts.append(f"{self.posted - self.events:,} more in transit")
        parts.append(f"{self.nodes_lost:,} lost")
        if left_s is not None:
            parts.append(f"{max(0, left_s):.0f} s left")
        return f"try {self.name}: {', '.join(parts)}"

    def lines(self, left_s: float | None, most_lines: int) -> list[str]:
        """Return the title, the highest counts, and why nodes failed."""
        errors = [visible(line) for line in reasons(failed(self.update.nodes))]
        errors = errors[: max(1, most_lines // 4)]
        counts = (self.processes, self.calls, self.actions)
        shown = [(title, one) for title, one in zip(_TITLES, counts, strict=True) if one]
        room = max(1, (most_lines - 1 - len(errors)) // max(1, len(shown)) - 2)
        lines = [visible(self.title(left_s))]
        for title, one in shown:
            rows = [("COUNT", title), *((str(n), visible(key)) for key, n in one.most_common(room))]
            lines += ["", *_right_aligned(rows)]
        return [*lines, *errors]

    def as_json(self) -> dict[str, Any]:
        """Return everything that was counted, the highest first."""
        return {
            "policy": self.name,
            "events": self.events,
            "posted": self.posted,
            "lost": self.nodes_lost,
            "reason": self.update.reason,
            "nodes": [_node(node) for node in self.update.nodes],
            "processes": dict(self.processes.most_common()),
            "calls": dict(self.calls.most_common()),
            "actions": dict(self.actions.most_common()),
        }


def _add(counter: Counter[str], key: str) -> None:
    counter[key if key in counter or len(counter) < _MOST_KEYS else _OTHERS] += 1


def _right_aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(count) for count, _ in rows)
    return columns([(f"{count:>{width}}", text) for count, text in rows], 2)


def _node(node: NodePolicy) -> dict[str, Any]:
    return {
        "node_name": node.node_name,
        "hits": node.hits,
        "lost": sum(node.lost.values()),
        "error": node.error,
    }
