"""The check on this host: by the collector's own program, where that is installed.

The command line has no planner and no kernel types; `tetra-collector --check-policy` has both, and
needs no rights.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from shutil import which
from typing import NamedTuple

from cli.errors import TetraError
from cli.policies.documents import Document, text_of
from tracingpolicy import Mistake, PolicyErrors

BTF = Path("/sys/kernel/btf/vmlinux")
_PROGRAM = "tetra-collector"
_TIMEOUT_S = 120.0
_MISTAKE = re.compile(r"(?P<file>.*?):(?P<line>\d+):(?P<column>\d+): (?P<message>.*)")


class Checked(NamedTuple):
    """What a check found in one document; ``hooks``: ``call by mechanism; ...``, where known."""

    document: Document
    policy: str
    mistakes: tuple[Mistake, ...]
    hooks: str = ""


def checker() -> Path | None:
    """Return the collector's program, if it is installed and this kernel's types can be read."""
    try:
        BTF.open("rb").close()
    except OSError:
        return None
    beside = Path(sys.executable).parent / _PROGRAM
    found = str(beside) if beside.exists() else which(_PROGRAM)
    return Path(found) if found else None


def check_here(program: Path, alone: Checked) -> Checked:
    """Return the findings of ``alone`` and those of the collector; raise `TetraError`."""
    document = alone.document
    text_of(document)  # in other text the collector would name its own standard input
    try:
        done = subprocess.run(
            [program, "--check-policy", "/dev/stdin"],
            input=document.text,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TetraError(f"check: {program}: {error}") from None
    output, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    found = _mistakes(errors.splitlines(), document.name)
    if done.returncode not in (0, 1) or (done.returncode and not found):
        last = errors.strip().splitlines()[-1:] or [f"ended with code {done.returncode}"]
        raise TetraError(f"check: {document.name}: {program}: {last[0]}")
    return with_more(alone, found, output.strip().partition(f"policy {alone.policy}: ")[2])


def with_more(alone: Checked, found: Iterable[Mistake], hooks: str = "") -> Checked:
    """Add the collector's new mistakes, and the hooks of a plan, to ``alone``."""
    known = {str(mistake) for mistake in alone.mistakes}
    more = [mistake for mistake in found if str(mistake) not in known]
    mistakes = PolicyErrors([*alone.mistakes, *more]).mistakes
    return Checked(alone.document, alone.policy, mistakes, hooks)


def _mistakes(lines: Sequence[str], file: str) -> list[Mistake]:
    found = (_MISTAKE.fullmatch(line) for line in lines)
    return [
        Mistake(file, int(one["line"]), int(one["column"]), one["message"]) for one in found if one
    ]
