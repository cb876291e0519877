"""A sink's position in the stream, kept on disk: the sink has every event before it."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chassis.folders import make_own, open_own, replace_durably
from exporter.errors import SinkError

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Place:
    """A position after one message of the stream."""

    sequence: int  # of the last message that the sink has
    stored_ns: int  # when NATS stored it, calendar clock; another in a replaced stream
    mark: dict[str, Any] = field(default_factory=dict)  # the sink's own
    withheld: dict[str, Any] = field(default_factory=dict)  # the rate limit's


class PlaceFile:
    """Keeps the place of one sink; written whole or not at all."""

    def __init__(self, folder: Path, sink: str) -> None:
        self._path = folder / f"{sink}.place"

    def read(self) -> Place | None:
        """Return the place, None where there is none yet; raise `SinkError` where unreadable."""
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SinkError(f"place: {self._path}: {error.strerror}") from None
        try:
            found = json.loads(text)
            if found["version"] != _VERSION:
                raise ValueError(f"version {found['version']}, of another tetra-exporter")
            return Place(
                int(found["sequence"]), int(found["stored_ns"]), found["mark"], found["withheld"]
            )
        except (ValueError, KeyError, TypeError) as error:
            raise SinkError(
                f"place: {self._path}: {error}: delete it to begin at the setting `start`"
            ) from None

    def write(self, place: Place) -> None:
        """Replace the place on disk, synced; raise `OSError`."""
        text = json.dumps(
            {
                "version": _VERSION,
                "sequence": place.sequence,
                "stored_ns": place.stored_ns,
                "mark": place.mark,
                "withheld": place.withheld,
            }
        )
        replace_durably(self._path, f"{text}\n".encode())


def lock(folder: Path) -> int:
    """Lock ``folder`` for this exporter; return the descriptor that holds the lock.

    Raises `SinkError` where another exporter has it: two would write every event twice.
    """
    try:
        make_own(folder)
        held = open_own(folder / "lock")
    except OSError as error:
        raise SinkError(f"state: {folder}: {error.strerror}: set TETRA_STATE_DIR") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise SinkError(
            f"state: {folder}: another tetra-exporter uses it: use a separate folder for each"
        ) from None
    return held
