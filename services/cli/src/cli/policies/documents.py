"""Policy documents that the command line names: files, folders and standard input."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cli.errors import RefusedError, TetraError, UsageError
from cli.terminal import notice
from cli.values import Value
from cli.words import counted

if TYPE_CHECKING:
    from tracingpolicy import Mistake
    from tracingpolicy.model import Policy

STDIN = "-"
LARGEST_BYTES = 1 << 20  # a collector refuses larger ones
_SUFFIXES = (".yaml", ".yml")

DOCUMENT = Value("FILE", example="policy.yaml", is_file=True)


class Document(NamedTuple):
    """One text and the name that its mistakes carry."""

    name: str
    text: bytes


def read_document(name: str) -> Document:
    """Return a file, or standard input for ``-``; raise `TetraError`."""
    if name == STDIN:
        text = sys.stdin.buffer.read(LARGEST_BYTES + 1)
        return Document("stdin", _limited("stdin", text))
    try:
        with Path(name).open("rb") as file:
            return Document(name, _limited(name, file.read(LARGEST_BYTES + 1)))
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise TetraError(f"read: {name}: {cause}") from None


def read_documents(names: Iterable[str]) -> Iterator[Document]:
    """Return files; of a folder the YAML files in it and in its sub-folders, by name."""
    for name in names:
        if not Path(name).is_dir():
            yield read_document(name)
            continue
        found = sorted(
            path
            for path in Path(name).rglob("*")
            if path.suffix in _SUFFIXES and path.is_file() and not _is_hidden(path, Path(name))
        )
        if not found:
            raise UsageError(
                f"{name}: the folder has no .yaml file", "tetra tracingpolicy check policy.yaml"
            )
        yield from (read_document(str(path)) for path in found)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _limited(name: str, text: bytes) -> bytes:
    if len(text) > LARGEST_BYTES:
        raise TetraError(
            f"read: {name}: larger than {LARGEST_BYTES} bytes, the limit for a policy document"
        )
    return text


def text_of(document: Document) -> str:
    """Return the text of a document; raise `TetraError` if it is none."""
    try:
        return document.text.decode()
    except UnicodeDecodeError as error:
        raise TetraError(f"read: {document.name}: not UTF-8 at byte {error.start}") from None


@lru_cache(maxsize=1)
def parsed(document: Document) -> tuple[Policy | None, tuple[Mistake, ...]]:
    """Return the readable part of a document, and every mistake."""
    from tracingpolicy import read

    return read(document.text, document.name)


def print_notices(document: Document) -> None:
    """Print warnings on stderr: what is allowed in a document, but probably not intended."""
    policy, mistakes = parsed(document)
    if policy is not None and not mistakes:
        for text in policy.notices():
            notice(f"{document.name}: policy {policy.name}: {text}")


def with_mistakes(error: RefusedError, document: Document, step: str) -> RefusedError:
    """Return a refusal with the mistakes of the document, if it was refused for those."""
    from cli.policies.mistakes import mistake_line

    if error.status == "INVALID_ARGUMENT":
        _, mistakes = parsed(document)
        if mistakes:
            count = counted(len(mistakes), "mistake")
            details = [mistake_line(mistake) for mistake in mistakes]
            return RefusedError(f"{step}: {document.name}: {count}", error.status, details)
    return error.under(step).map(lambda line: with_file_name(line, document))


def with_file_name(text: str, document: Document) -> str:
    """Return a text of nodes, which name the policy in positions, with the file in its place."""
    policy, _ = parsed(document)
    if policy is None or not policy.name:
        return text
    place = rf"(?<![^\s]){re.escape(policy.name)}(?:\.try-\w+)?:(\d+:\d+: )"
    return re.sub(place, lambda found: f"{document.name}:{found[1]}", text)
