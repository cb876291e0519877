"""``-o json``: one event a line in the public JSON form."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from eventjson.encoder import JsonEncoder
from tetragon.events_pb2 import GetEventsResponse

_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


class JsonRenderer:
    """``-o json``: one event a line."""

    def __init__(self, *, extensions: bool = False, ascii: bool = False) -> None:
        encoder = JsonEncoder(extensions=extensions)
        self._encode = encoder.compiled(GetEventsResponse)
        self._ascii = ascii  # JSON is UTF-8; other locales get escapes

    def render(self, events: Iterable[GetEventsResponse]) -> str:
        """Return a line for each event."""
        encode = self._encode
        text = "".join([encode(event) + "\n" for event in events])
        return _NOT_ASCII.sub(lambda m: json.dumps(m.group())[1:-1], text) if self._ascii else text

    def finish(self) -> str:
        """Return nothing: no text follows the last event."""
        return ""
