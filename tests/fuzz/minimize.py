"""Keeps of all inputs the small ones that together do all that was done.

Done is: one line behind another, once or more often.
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, cast

import structlog

from fuzz import inputs

Step = tuple[str, int, int]  # file, line, next line
Done = tuple[Step, int]  # and whether more than once: 1 or 2


def minimize(name: str, working: Path) -> None:
    """Replace the corpus of a target by those of its and the ``working`` inputs that cover more."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    target = cast(inputs.Target, importlib.import_module(f"fuzz.targets.{name}"))
    home = f"/{inputs.TARGETS[name]}/src/{inputs.TARGETS[name]}/"
    candidates = {path.read_bytes() for path in inputs.kept(name)} | set(target.seeds())
    if working.is_dir():
        candidates |= {path.read_bytes() for path in working.iterdir() if path.is_file()}
    was = inputs.kept(name)
    covered: set[Done] = set()
    chosen = []
    for data in sorted(candidates, key=lambda data: (len(data), data)):
        new = _done(target, data, home) - covered
        if new:
            covered |= new
            chosen.append(data)
    paths = {inputs.keep(name, data) for data in chosen}
    for path in was:
        # What broke something once covers nothing new any more, and stays.
        if path not in paths and not path.name.endswith("-broke"):
            path.unlink()
    size = sum(path.stat().st_size for path in inputs.kept(name))
    print(
        f"{name}: {len(candidates)} inputs, {len(inputs.kept(name))} kept ({size} bytes), "
        f"{len({(file, line) for (file, _, line), _ in covered})} lines"
    )


def _done(target: inputs.Target, data: bytes, home: str) -> set[Done]:
    found: Counter[Step] = Counter()

    def enter(frame: FrameType, event: str, arg: Any) -> Any:
        file = frame.f_code.co_filename
        if home not in file:
            return None
        last = 0

        def follow(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal last
            if event == "line":
                found[file, last, frame.f_lineno] += 1
                last = frame.f_lineno
            return follow

        return follow

    sys.settrace(enter)
    try:
        target.check(*inputs.split(data))
    finally:
        sys.settrace(None)
    return {(step, min(count, 2)) for step, count in found.items()}
