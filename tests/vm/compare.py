"""Compares the events of two hosts, except for values that differ between all hosts."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# Values that differ between all hosts. An id becomes the number of its first appearance, so that
# parents are still compared.
_IDS = {"exec_id": "image", "parent_exec_id": "image", "pid": "pid", "tid": "pid"}
_TIMES = ("time", "start_time")


def normalized(events: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield each event as text, one field a line."""
    seen: dict[tuple[str, Any], str] = {}

    def normal(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: normal(inner, name) for name, inner in sorted(value.items())}
        if isinstance(value, list):
            return [normal(inner) for inner in value]
        if key in _IDS:
            kind = _IDS[key]
            number = len([known for known in seen if known[0] == kind])
            return seen.setdefault((kind, value), f"{kind} {number}")
        if key in _TIMES:
            return "a time"
        return "a node" if key == "node_name" else value

    for event in events:
        yield json.dumps(normal(event), indent=1, ensure_ascii=False)


def difference(reference: Path, other: Path) -> list[str]:
    """Return the lines in which two folders of results differ; empty: the events are equal."""
    here, there = _texts(reference), _texts(other)
    if not here or not there:
        return ["no events"]
    return list(difflib.unified_diff(here, there, "host", "guest", lineterm="", n=8))


def _texts(folder: Path) -> list[str]:
    events = [json.loads(line) for line in (folder / "events.json").read_text().splitlines()]
    lines = (folder / "lines.txt").read_text().splitlines()
    found = [line for event in normalized(events) for line in event.splitlines()]
    return found + [re.sub(r"^(\S+ \w+) \d+:", r"\1 PID:", line) for line in lines]
