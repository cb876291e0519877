"""``-o compact``: Tetragon's compact form, byte for byte, colours included.

The lines of each kind are in `cli.renderers.kinds`. An event without a process, or of a kind that
Tetragon cannot show, gets a general line here; Tetragon ends with an error.
"""

from __future__ import annotations

from collections.abc import Iterable

from cli.processes import count_text
from cli.renderers.kinds import kind_of
from cli.renderers.pen import CompactOptions, Pen
from eventjson.times import rfc3339_nanos
from tetragon.events_pb2 import GetEventsResponse


class CompactRenderer:
    """``-o compact``."""

    def __init__(self, options: CompactOptions) -> None:
        """Write lines by ``options``."""
        self._timestamps = options.timestamps
        self._pen = Pen(options)

    def render(self, events: Iterable[GetEventsResponse]) -> str:
        """Return a line for each event."""
        lines = []
        for event in events:
            if self._timestamps:
                lines.append(f"{rfc3339_nanos(event.time)} ")
            text = kind_of(event.WhichOneof("event")).compact(event, self._pen)
            if count := count_text(event):  # behind the first line: stacks follow it
                first, end, rest = text.partition("\n")
                text = f"{first} {count}{end}{rest}"
            lines.append(text)
        return "".join(lines)

    def finish(self) -> str:
        """Return nothing: each line is complete."""
        return ""


class TtyRenderer:
    """``--tty-encode PATH``: what was written to one terminal, unchanged."""

    def __init__(self, path: str) -> None:
        """Look for writes to ``path``."""
        self._path = path

    def render(self, events: Iterable[GetEventsResponse]) -> bytes:
        """Return the bytes that kprobe events wrote to the path; ignore all else."""
        return b"".join(
            event.process_kprobe.args[1].bytes_arg
            for event in events
            if len(event.process_kprobe.args) > 1
            and event.process_kprobe.args[0].file_arg.path == self._path
        )

    def finish(self) -> str:
        """Return nothing."""
        return ""
