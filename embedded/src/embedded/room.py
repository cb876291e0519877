"""How large the event stream may grow on the disk of the state folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from embedded.errors import EmbeddedError

SETTING = "TETRA_STREAM_MAX_BYTES"
DEFAULT_BYTES = 4 << 30  # what the gateway has
LEAST_BYTES = 64 << 20  # of a stream
_MIB = 1 << 20


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that ``folder`` is on."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def stream_folder(folder: Path) -> Path:
    """Return the folder of the stream, which may be on a disk of its own."""
    own = folder / "jetstream"
    return own if own.is_dir() else folder


def fit_stream(folder: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Return the bytes that the stream may have, and a text where the disk limits them.

    Half of the room is left to the rest: events that wait, the process table, logs. Raises
    `EmbeddedError` where there is too little room.
    """
    room = free_bytes(stream_folder(folder)) + _size(folder / "jetstream")
    has = f"{folder} has room for {_text(room)}"
    chosen = env.get(SETTING)
    if chosen is not None:
        try:
            wanted = int(chosen)
        except ValueError:
            raise EmbeddedError(f"settings: {SETTING}: {chosen!r} is not a number") from None
        if wanted > room:
            raise EmbeddedError(
                f"stream: {SETTING} is {_text(wanted)}, and {has}: set it lower, or TETRA_STATE_DIR"
                " to a folder on another disk"
            )
        return wanted, ""
    if room // 2 >= DEFAULT_BYTES:
        return DEFAULT_BYTES, ""
    fitted = room // 2 // _MIB * _MIB
    if fitted < LEAST_BYTES:
        raise EmbeddedError(
            f"stream: {has}, and needs {_text(2 * LEAST_BYTES)}: make room, or set TETRA_STATE_DIR"
            f" to a folder on another disk, or {SETTING} to less"
        )
    return fitted, f"the event stream is limited to {_text(fitted)}: {has} ({SETTING})"


def _size(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _text(size: int) -> str:
    if size >= 1 << 30:
        return f"{size / (1 << 30):.1f} GiB"
    return f"{size // _MIB} MiB"
