"""``process_throttle``: a control group sends more events than it may, or no longer does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.renderers.kinds.base import Kind, Line
from tetragon.events_pb2 import THROTTLE_START, THROTTLE_STOP, GetEventsResponse

if TYPE_CHECKING:
    from cli.renderers.pen import Pen


def lifecycle(event: GetEventsResponse) -> Line:
    """Return ``🧬 throttle start CGROUP``; at the stop with what was withheld."""
    body = event.process_throttle
    action = "start" if body.type == THROTTLE_START else "stop"
    policy = f", policy {body.policy_name}" if body.policy_name else ""
    counts = ", ".join(f"{count} {kind.name}" for kind, count in body.withheld.ListFields())
    withheld = f": withheld {counts}" if counts else ""
    return Line("🧬", "throttle", detail=f"{action} {body.cgroup}{policy}{withheld}")


def compact(event: GetEventsResponse, pen: Pen) -> str:
    """Return ``🧬 throttle START CGROUP``, the label in red."""
    body = event.process_throttle
    actions = {THROTTLE_START: pen.red("START"), THROTTLE_STOP: pen.green("STOP ")}
    label = pen.red(pen.label_text("🧬", "throttle"))
    return f"{label} {actions.get(body.type, '')} {pen.quote(body.cgroup)}\n"


KIND = Kind(lifecycle, compact)
