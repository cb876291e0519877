"""Batches of events by HTTP POST. An answer from 200 to 299 acknowledges a batch.

Until then it is sent again, so a receiver may get an event twice, with the same id (Elasticsearch
keeps one document an id, Loki one line of a time and text).
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from exporter.config import HttpSink
from exporter.errors import DeliveryError
from exporter.sinks.base import PART_BYTES, Line, Refusals
from exporter.sinks.tls import make_context

# The request itself is at fault; 401 and 403 are not here: a token can be replaced.
_REFUSED = frozenset({400, 413, 415, 422})
logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each request
_SHOWN = 200  # characters of an answer in a log line


class _Preset(NamedTuple):
    path: str  # behind the url, where the url has none
    content_type: str
    body: Callable[[HttpSink, Sequence[Line]], bytes]
    scheme: str = "Bearer"


class Http:
    """Posts to one address."""

    settle_s = 0.0
    part_bytes = PART_BYTES

    def __init__(self, sink: HttpSink) -> None:
        self._sink = sink
        self._preset = _PRESETS[sink.preset]
        self.max_batch = sink.max_batch
        url = httpx.URL(sink.url)
        self._url = url.copy_with(path=self._preset.path) if url.path in ("", "/") else url
        verify = make_context(sink.name, sink.ca_file)
        self._client = httpx.AsyncClient(timeout=sink.timeout, verify=verify)
        self._refusals = Refusals(sink.name)

    async def open(self, mark: dict[str, Any]) -> None:
        """Nothing to open."""

    async def deliver(self, lines: Sequence[Line]) -> int:
        """Post the lines; where the receiver refuses the request, in halves."""
        body = self._preset.body(self._sink, lines)
        headers = {
            "Content-Type": self._preset.content_type,
            **{name: value.get_secret_value() for name, value in self._sink.headers.items()},
        }
        if self._sink.token_file is not None:
            token = _read(self._sink.token_file)
            headers["Authorization"] = f"{self._preset.scheme} {token}"
        if self._sink.compress:
            body = gzip.compress(body, 5)
            headers["Content-Encoding"] = "gzip"
        try:
            answer = await self._client.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise DeliveryError(f"{self._url}: {str(error) or type(error).__name__}") from None
        if answer.is_success:
            return self._refused(answer) if self._sink.preset == "elasticsearch" else 0
        if answer.status_code not in _REFUSED:
            raise DeliveryError(f"{self._url}: {answer.status_code} {answer.reason_phrase}")
        if len(lines) > 1:
            middle = len(lines) // 2
            return await self.deliver(lines[:middle]) + await self.deliver(lines[middle:])
        self._refusals.note(f"{answer.status_code} {answer.text[:_SHOWN]}", lines[0].event.id)
        return 1

    async def mark(self) -> dict[str, Any]:
        """Nothing to keep: an answer is the acknowledgement."""
        return {}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    # Elasticsearch answers 200 and a status for each document.
    def _refused(self, answer: httpx.Response) -> int:
        try:
            found = answer.json()
        except ValueError:
            raise DeliveryError(
                f"{self._url}: answer is not JSON: {answer.text[:_SHOWN]}"
            ) from None
        if not found.get("errors"):
            return 0
        refused = 0
        for item in found.get("items", ()):
            (result,) = item.values()
            status = result.get("status", 200)
            if status == 409 or status < 300:  # 409: it has the document from an earlier attempt
                continue
            if status == 429 or status >= 500:
                raise DeliveryError(f"{self._url}: document {result.get('_id')}: {status}")
            refused += 1
            self._refusals.note(
                f"{status} {json.dumps(result.get('error'))[:_SHOWN]}", result.get("_id")
            )
        return refused


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise DeliveryError(f"{path}: {error.strerror}") from None


def _json_lines(sink: HttpSink, lines: Sequence[Line]) -> bytes:
    return "".join([f"{line.text}\n" for line in lines]).encode()


def _json_array(sink: HttpSink, lines: Sequence[Line]) -> bytes:
    return f"[{','.join([line.text for line in lines])}]".encode()


def _elasticsearch(sink: HttpSink, lines: Sequence[Line]) -> bytes:
    index = json.dumps(sink.index)
    parts = [
        f'{{"create":{{"_index":{index},"_id":{json.dumps(line.event.id)}}}}}\n{line.text}\n'
        for line in lines
    ]
    return "".join(parts).encode()


def _loki(sink: HttpSink, lines: Sequence[Line]) -> bytes:
    streams: dict[str, list[list[str]]] = {}
    for line in lines:
        node = line.event.message.node_name
        streams.setdefault(node, []).append([str(line.event.time_ns), line.text])
    body = {
        "streams": [
            {"stream": dict({"job": "tetra"} | sink.labels, node=node), "values": values}
            for node, values in streams.items()
        ]
    }
    return json.dumps(body, separators=(",", ":")).encode()


def _splunk(sink: HttpSink, lines: Sequence[Line]) -> bytes:
    parts = [
        json.dumps(
            {
                "time": line.event.time_ns / 1e9,
                "host": line.event.message.node_name,
                "source": "tetra",
                "sourcetype": "tetra:event",
                "fields": {"event_id": line.event.id},
            }
        )[:-1]
        + f',"event":{line.text}}}'
        for line in lines
    ]
    return "".join(parts).encode()


_NDJSON = "application/x-ndjson"
_JSON = "application/json"
_PRESETS = {
    "json-lines": _Preset("/", _NDJSON, _json_lines),
    "json-array": _Preset("/", _JSON, _json_array),
    "elasticsearch": _Preset("/_bulk", _NDJSON, _elasticsearch),
    "loki": _Preset("/loki/api/v1/push", _JSON, _loki),
    "splunk-hec": _Preset("/services/collector/event", _JSON, _splunk, "Splunk"),
}
