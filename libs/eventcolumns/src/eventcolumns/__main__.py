"""Answers one request from the blocks of a folder: the gateway runs it as a process of its own.

``python -m eventcolumns count|find FOLDER MEMORY_BYTES THREADS`` reads the request from stdin, a
CountEventsRequest or a StreamEventsRequest whose nodes are the ones that the client may see. It
writes frames to stdout: a letter, the length in four bytes, and the content that the letter names.
``R`` is the reach of the blocks, as JSON; ``A`` a CountEventsResponse or StreamEventsResponse;
``E`` an error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from struct import Struct

from eventcolumns.answers import Answers
from eventcolumns.engine import Limits
from eventcolumns.errors import ColumnsError
from eventfilters import CostError, FilterError

_HEAD = Struct("<cI")
_NICE = 10  # incoming events are more urgent


class _Frames:
    """Writes frames, from any thread; ends the process when nobody reads them."""

    def __init__(self) -> None:
        self._out = sys.stdout.buffer
        self._lock = threading.Lock()

    def write(self, kind: bytes, data: bytes) -> None:
        try:
            with self._lock:
                self._out.write(_HEAD.pack(kind, len(data)) + data)
                self._out.flush()
        except BrokenPipeError:
            os._exit(0)


def main() -> None:
    """Answer the request on stdin."""
    kind, folder, memory_bytes, threads = sys.argv[1:]
    with suppress(OSError):  # a service manager may forbid it
        os.nice(_NICE)
    frames = _Frames()
    request = sys.stdin.buffer.read()
    limits = Limits(int(memory_bytes), int(threads))
    try:
        answers = Answers(
            Path(folder),
            limits,
            lambda reach: frames.write(b"R", json.dumps(reach).encode()),
            partial(frames.write, b"A"),
        )
        (answers.count if kind == "count" else answers.find)(request)
    except (ColumnsError, FilterError, CostError) as error:
        frames.write(b"E", str(error).encode())


if __name__ == "__main__":
    main()
