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
from tempfile import TemporaryDirectory
from typing import NamedTuple

from cli.errors import TetraError
from cli.policies.documents import Document, text_of
from tracingpolicy import Mistake, PolicyErrors

BTF = Path("/sys/kernel/btf/vmlinux")
_PROGRAM = "tetra-collector"
_TIMEOUT_S, _DOCUMENT_TIMEOUT_S = 120.0, 10.0
_WARNING = "warning: "  # before what is no mistake
_MISTAKE = re.compile(r"(?P<file>.*?):(?P<line>\d+):(?P<column>\d+): (?P<message>.*)")


class Checked(NamedTuple):
    """What a check found in one document; ``hooks``: ``call by mechanism; ...``, where known."""

    document: Document
    policy: str
    mistakes: tuple[Mistake, ...]
    hooks: str = ""
    notices: tuple[str, ...] = ()  # no mistakes, and hardly what the author meant


def checker() -> Path | None:
    """Return the collector's program, if it is installed and this kernel's types can be read."""
    try:
        BTF.open("rb").close()
    except OSError:
        return None
    beside = Path(sys.executable).parent / _PROGRAM
    found = str(beside) if beside.exists() else which(_PROGRAM)
    return Path(found) if found else None


def check_here(program: Path, documents: Sequence[Checked]) -> list[Checked]:
    """Return the findings of each and those of the collector; one process checks all of them.

    Raises `TetraError`.
    """
    for alone in documents:
        text_of(alone.document)
    with TemporaryDirectory(prefix="tetra-check-") as folder:
        # As they were read: standard input is no file, and a file may have changed since.
        copies = [Path(folder, f"{number}.yaml") for number in range(len(documents))]
        for copy, alone in zip(copies, documents, strict=True):
            copy.write_bytes(alone.document.text)
        answer = _ask(program, copies)
    return [
        _with_answer(alone, str(copy), answer)
        for alone, copy in zip(documents, copies, strict=True)
    ]


class _Answer(NamedTuple):
    """What the collector's program printed."""

    output: list[str]
    errors: list[str]
    cause: str  # of a document without an answer


def _ask(program: Path, copies: Sequence[Path]) -> _Answer:
    timeout_s = _TIMEOUT_S + _DOCUMENT_TIMEOUT_S * len(copies)
    try:
        done = subprocess.run(
            [program, "--check-policy", *copies],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TetraError(f"check: {program}: {error}") from None
    output, errors = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    cause = errors.strip().splitlines()[-1:] or [f"ended with code {done.returncode}"]
    return _Answer(output.splitlines(), errors.splitlines(), f"{program}: {cause[0]}")


def _with_answer(alone: Checked, copy: str, answer: _Answer) -> Checked:
    name, policy = alone.document.name, alone.policy
    head = f"{copy}: policy {policy}"
    planned = next((line for line in answer.output if line.startswith(head)), None)
    found = _mistakes([line for line in answer.errors if line.startswith(f"{copy}:")], name)
    if planned is None and not found:
        raise TetraError(f"check: {name}: {answer.cause}")
    marker = f"{_WARNING}{copy}: "
    notices = [line.removeprefix(marker) for line in answer.errors if line.startswith(marker)]
    more = with_more(alone, found, (planned or "").removeprefix(head).removeprefix(": "))
    return more._replace(notices=tuple(dict.fromkeys([*alone.notices, *notices])))


def with_more(alone: Checked, found: Iterable[Mistake], hooks: str = "") -> Checked:
    """Add the collector's new mistakes, and the hooks of a plan, to ``alone``."""
    known = {str(mistake) for mistake in alone.mistakes}
    more = [mistake for mistake in found if str(mistake) not in known]
    mistakes = PolicyErrors([*alone.mistakes, *more]).mistakes
    return alone._replace(mistakes=mistakes, hooks=hooks)


def _mistakes(lines: Sequence[str], file: str) -> list[Mistake]:
    found = (_MISTAKE.fullmatch(line) for line in lines)
    return [
        Mistake(file, int(one["line"]), int(one["column"]), one["message"]) for one in found if one
    ]
