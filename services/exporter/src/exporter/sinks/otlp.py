"""OpenTelemetry log records, by OpenTelemetry's own exporters, over gRPC or HTTP.

A node is a resource. An event is a record: its time, the attributes of its process by the semantic
conventions, and the whole event as JSON in the body. Events count as delivered when the receiver
has acknowledged them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import grpc
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from eventfilters import Event
from exporter.config import OtlpSink
from exporter.errors import DeliveryError
from exporter.formats.parts import container, user_name
from exporter.sinks.base import PART_BYTES, Line
from exporter.sinks.tls import check_ca

_SCOPE = InstrumentationScope("tetra-exporter")
_REQUEST_CHARACTERS = 2 << 20  # receivers take 4 MiB by default
_BODY_CHARACTERS = 3 << 20
_MAX_NODES = 10_000

# It logs each failed attempt with a traceback; we log the first, and count.
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)


class Otlp:
    """Exports to one endpoint."""

    settle_s = 0.0
    part_bytes = PART_BYTES

    def __init__(self, sink: OtlpSink) -> None:
        self._sink = sink
        self.max_batch = sink.max_batch
        self._exporter = _exporter(sink)
        self._resources: dict[str, Resource] = {}

    async def open(self, mark: dict[str, Any]) -> None:
        """Nothing to open."""

    async def deliver(self, lines: Sequence[Line]) -> int:
        """Export the lines, in requests of a size that receivers accept."""
        part: list[ReadableLogRecord] = []
        size = 0
        for line in lines:
            if part and size + len(line.text) > _REQUEST_CHARACTERS:
                await self._send(part)
                part, size = [], 0
            part.append(self._record(line))
            size += len(line.text)
        await self._send(part)
        return 0

    async def mark(self) -> dict[str, Any]:
        """Nothing to keep: an answer is the acknowledgement."""
        return {}

    async def close(self) -> None:
        """End the exporter."""
        await asyncio.to_thread(self._exporter.shutdown)

    async def _send(self, records: list[ReadableLogRecord]) -> None:
        # It tries again inside for a while, and blocks meanwhile.
        result = await asyncio.to_thread(self._exporter.export, records)
        if result is not LogRecordExportResult.SUCCESS:
            raise DeliveryError(f"{self._sink.endpoint}: not acknowledged")

    def _record(self, line: Line) -> ReadableLogRecord:
        event = line.event
        body = line.text
        attributes = {"event.id": event.id, **_attributes(Event(None, event.message))}
        if len(body) > _BODY_CHARACTERS:
            body = body[:_BODY_CHARACTERS]
            attributes["tetra.body.truncated"] = True
        record = LogRecord(
            timestamp=event.time_ns,
            observed_timestamp=event.time_ns,
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body=body,
            attributes=attributes,
            event_name=f"tetra.{event.message.WhichOneof('event') or 'event'}",
        )
        return ReadableLogRecord(record, self._resource(event.message.node_name), _SCOPE)

    def _resource(self, node: str) -> Resource:
        found = self._resources.get(node)
        if found is None:
            if len(self._resources) >= _MAX_NODES:
                self._resources.clear()
            found = Resource({"host.name": node, "service.name": "tetra", "os.type": "linux"})
            self._resources[node] = found
        return found


# https://opentelemetry.io/docs/specs/semconv/resource/process/, container/ and k8s/
def _attributes(event: Event) -> dict[str, Any]:
    process: Any = event.process
    if process is None:
        return {}
    found: dict[str, Any] = {
        "process.pid": process.pid.value,
        "process.executable.path": process.binary,
        "process.command_line": f"{process.binary} {process.arguments}".rstrip(),
        "process.working_directory": process.cwd,
        "process.user.id": process.uid.value,
        "tetra.exec_id": process.exec_id,
        "tetra.unit": process.host_unit.unit,
    }
    parent: Any = event.parent
    if parent is not None:
        found["process.parent_pid"] = parent.pid.value
    known = container(process)
    found |= {
        "process.user.name": user_name(process),
        "container.id": known.get("id", ""),
        "container.name": known.get("name", ""),
        "container.image.name": known.get("image", ""),
    }
    if process.HasField("pod"):
        pod = process.pod
        found |= {
            "k8s.namespace.name": pod.namespace,
            "k8s.pod.name": pod.name,
            "k8s.pod.uid": pod.uid,
            "k8s.container.name": pod.container.name,
        }
    inner: Any = event.inner
    if "policy_name" in inner.DESCRIPTOR.fields_by_name and inner.policy_name:
        found["tetra.policy.name"] = inner.policy_name
    return {name: value for name, value in found.items() if value != ""}


def _exporter(sink: OtlpSink) -> LogRecordExporter:
    certificates = check_ca(sink.name, sink.ca_file)
    headers = {name.lower(): value.get_secret_value() for name, value in sink.headers.items()}
    if sink.protocol == "http":
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

        endpoint = sink.endpoint.rstrip("/")
        return OTLPLogExporter(
            endpoint=endpoint if endpoint.endswith("/v1/logs") else f"{endpoint}/v1/logs",
            certificate_file=str(sink.ca_file) if sink.ca_file else None,
            headers=headers,
            timeout=sink.timeout,
            compression=Compression.Gzip if sink.compress else Compression.NoCompression,
        )
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import (
        OTLPLogExporter as GrpcLogExporter,
    )

    insecure = sink.endpoint.startswith("http://")
    return GrpcLogExporter(
        endpoint=sink.endpoint,
        insecure=insecure,
        credentials=None if insecure else grpc.ssl_channel_credentials(certificates),
        headers=headers,
        timeout=sink.timeout,
        compression=grpc.Compression.Gzip if sink.compress else grpc.Compression.NoCompression,
    )
