"""The form of the files: types of the columns, names of the files, and what a footer says."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from google.protobuf.message import DecodeError

from tetra.v1.stream_pb2 import GapNotice, LossNotice

N = TypeVar("N", GapNotice, LossNotice)

FOOTER_KEY = "tetra"
VERSION = 1
SUFFIX = ".parquet"
# Columns that are not text.
TYPES = {
    "stream_sequence": "uint64",
    "batch_index": "uint32",
    "sequence": "uint64",
    "time": "time",
    "uid": "uint32",
    "pid": "uint32",
    "parent_pid": "uint32",
    "peer_port": "uint32",
    "status": "uint32",
    "event": "binary",
}
_FIELDS = 5  # of a file's name


class Block(NamedTuple):
    """A file with the events of some messages of the stream, by its name."""

    generation: int  # of the stream: 1 more when the stream is replaced
    first: int  # numbers of the messages that it covers
    last: int
    from_s: int  # when NATS stored the first and the last of them; the last is rounded up
    to_s: int

    @property
    def name(self) -> str:
        """The name of the file; names sort as the stream."""
        return (
            f"{self.generation:06d}_{self.first:016d}_{self.last:016d}"
            f"_{self.from_s}_{self.to_s}{SUFFIX}"
        )

    @classmethod
    def parse(cls, name: str) -> Block | None:
        """Return the block; None where the name is no block's."""
        parts = name.removesuffix(SUFFIX).split("_")
        if not name.endswith(SUFFIX) or len(parts) != _FIELDS or not all(map(str.isdigit, parts)):
            return None
        return cls(*map(int, parts))

    def covers(self, other: Block) -> bool:
        """Return whether all of ``other`` is in this block, and more."""
        same = self.generation == other.generation
        return same and self != other and self.first <= other.first and other.last <= self.last


def blocks(folder: Path) -> list[Block]:
    """Return the blocks in the order of the stream, each event in one of them; raise `OSError`.

    While small blocks are merged, they and the merged one are there together: they are left out.
    """
    found = sorted(one for path in folder.iterdir() if (one := Block.parse(path.name)) is not None)
    kept: list[Block] = []
    for block in found:
        if kept and kept[-1].covers(block):
            continue
        while kept and block.covers(kept[-1]):
            kept.pop()
        kept.append(block)
    return kept


@dataclass(slots=True)
class Footer:
    """What a block says beside its events."""

    last_stored_ns: int = 0
    losses: list[LossNotice] = field(default_factory=list)
    gaps: list[GapNotice] = field(default_factory=list)

    def encode(self) -> str:
        """Return the value of `FOOTER_KEY`."""
        return json.dumps(
            {
                "version": VERSION,
                "last_stored_ns": self.last_stored_ns,
                "losses": _texts(self.losses),
                "gaps": _texts(self.gaps),
            }
        )

    @classmethod
    def decode(cls, text: str | bytes) -> Footer:
        """Return the footer; raise `ValueError` where it is malformed or of another version."""
        found = json.loads(text)
        if found.get("version") != VERSION:
            raise ValueError(f"version {found.get('version')}, this reads version {VERSION}")
        return cls(
            int(found["last_stored_ns"]),
            _messages(found["losses"], LossNotice),
            _messages(found["gaps"], GapNotice),
        )


def _texts(notices: Iterable[GapNotice | LossNotice]) -> list[str]:
    return [base64.b64encode(one.SerializeToString()).decode() for one in notices]


def _messages(texts: list[str], kind: type[N]) -> list[N]:
    try:
        return [kind.FromString(base64.b64decode(text)) for text in texts]
    except DecodeError as error:
        raise ValueError(str(error)) from None
