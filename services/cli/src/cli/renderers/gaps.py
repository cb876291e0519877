"""Notices about events that are missing, as people read them."""

from __future__ import annotations

from cli.timestamps import rfc3339
from tetra.v1.stream_pb2 import GapNotice

_CAUSES = {
    GapNotice.CAUSE_AGED_OUT: ("the stream no longer has them", "messages"),
    GapNotice.CAUSE_MISSING_SEQUENCE: ("lost between collector and gateway", "events"),
    GapNotice.CAUSE_COLLECTOR_DOWN: ("no collector ran", "events"),
}


def gap_text(gap: GapNotice) -> str:
    """Return one line about ``gap``."""
    cause, unit = _CAUSES.get(gap.cause, ("cause unknown", "events"))
    where = f"node {gap.node_name}" if gap.node_name else "stream"
    count = f"{gap.count} {unit} missing" if gap.count else f"{unit} missing, number unknown"
    text = f"gap: {where}: {count}: {cause}"
    if gap.HasField("from") and gap.HasField("to"):
        text += f", {rfc3339(getattr(gap, 'from'))} to {rfc3339(gap.to)}"
    return text
