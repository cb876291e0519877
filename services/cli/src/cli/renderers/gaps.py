"""Notices about missing events, as text."""

from __future__ import annotations

from cli.words import counted
from eventjson.times import rfc3339
from tetra.v1.stream_pb2 import GapNotice

_CAUSES = {
    GapNotice.CAUSE_AGED_OUT: "the stream no longer has them",
    GapNotice.CAUSE_MISSING_SEQUENCE: "lost between collector and gateway",
    GapNotice.CAUSE_COLLECTOR_DOWN: "no collector ran",
    GapNotice.CAUSE_STREAM_DAMAGED: "the stream had them but no longer has them; NATS reports no "
    "cause",
    GapNotice.CAUSE_MALFORMED: "malformed and skipped: which program publishes on this subject?",
}


COPIES = frozenset(
    {GapNotice.CAUSE_COPY_DAMAGED, GapNotice.CAUSE_COPY_UNSEEN}
)  # of one copy: no event is missing


def gap_text(gap: GapNotice) -> str:
    """Return one line about ``gap``."""
    if gap.cause in COPIES:
        return _copy_text(gap)
    if gap.cause == GapNotice.CAUSE_NAME_SHARED:
        since = rfc3339(getattr(gap, "from"))
        return (
            f"clash: node {gap.node_name}: two hosts publish in its name, at least since {since}: "
            "set NODE_NAME on one of them; until then nothing proves that its events are complete"
        )
    cause = _CAUSES.get(gap.cause, "cause unknown")
    where, unit = (f"node {gap.node_name}", "event") if gap.node_name else ("stream", "message")
    count = (
        f"{counted(gap.count, unit)} missing" if gap.count else f"{unit}s missing, number unknown"
    )
    text = f"gap: {where}: {count}{_span(gap)}: {cause}"
    if gap.HasField("from") and gap.HasField("to"):
        text += f", {rfc3339(getattr(gap, 'from'))} to {rfc3339(gap.to)}"
    return text


def _copy_text(gap: GapNotice) -> str:
    where = f"NATS server {gap.server}" if gap.server else "a NATS server"
    if gap.cause == GapNotice.CAUSE_COPY_UNSEEN:
        return f"copy: {where}: its copy of the stream could not be read"
    return (
        f"damage: {where}: its copy of the stream lacks {counted(gap.count, 'message')}"
        f"{_span(gap)}; "
        "another copy has them, nothing is missing; to repair it, stop that server, remove its "
        "jetstream folder, start it"
    )


def _span(gap: GapNotice) -> str:
    return f" (number {gap.first} to {gap.last})" if gap.first else ""
