"""Records of a Kafka topic, by librdkafka. An event counts as delivered when the broker has
acknowledged it.

A record's key is the node, so the events of a node stay in their order in one partition. Its header
``id`` is the event's id: a record that was sent again after a failure has an equal one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from exporter.config import KafkaSink
from exporter.errors import DeliveryError, SinkError
from exporter.sinks.base import PART_BYTES, Line, Refusals
from exporter.sinks.tls import check_ca, read

_MESSAGE_BYTES = 8 << 20  # the topic's own limit applies
_POLL_S = 0.1
# The record itself is at fault.
_REFUSED = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD})


class Kafka:
    """Produces to one topic."""

    part_bytes = PART_BYTES
    settle_s = 0.0

    def __init__(self, sink: KafkaSink) -> None:
        self._sink = sink
        self.max_batch = sink.max_batch
        self._fault = ""  # what the client reported last of its connections
        self._refusals = Refusals(sink.name)
        self._producer = self._connect()

    def _connect(self) -> Producer:
        # A thread of the library's own connects, now and again after a failure.
        try:
            return Producer(_properties(self._sink) | {"error_cb": self._note})
        except (KafkaException, ValueError) as error:
            reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            raise SinkError(f"sink {self._sink.name}: kafka: {reason}") from None

    def _note(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN or not self._fault:
            self._fault = error.str()

    async def open(self, mark: dict[str, Any]) -> None:
        """Nothing to open."""

    async def deliver(self, lines: Sequence[Line]) -> int:
        """Produce the lines and wait until the broker has acknowledged each."""
        ended = threading.Event()
        try:
            return await asyncio.to_thread(self._send, lines, ended)
        finally:
            ended.set()

    async def mark(self) -> dict[str, Any]:
        """Nothing to keep: the broker acknowledges each record."""
        return {}

    async def close(self) -> None:
        """Discard what was not acknowledged."""
        self._producer.purge()

    def _send(self, lines: Sequence[Line], ended: threading.Event) -> int:
        producer, failed = self._producer, list[KafkaError]()
        refused = 0

        def on_delivery(event: str, error: KafkaError | None, _message: object) -> None:
            nonlocal refused
            if error is None:
                return
            if error.code() in _REFUSED:
                refused += 1
                self._refusals.note(error.str(), event)
            else:
                failed.append(error)

        for line in lines:
            try:
                self._produce(line, partial(on_delivery, line.event.id), ended)
            except KafkaException as error:
                on_delivery(line.event.id, error.args[0], None)
        # The library ends each record after the sink's time.
        while producer.flush(_POLL_S) and not ended.is_set():
            pass
        if failed:
            self._recover(failed[0])
        self._fault = ""
        return refused

    def _produce(self, line: Line, on_delivery: Any, ended: threading.Event) -> None:
        event = line.event
        while not ended.is_set():
            try:
                self._producer.produce(
                    self._sink.topic, line.text.encode(), event.message.node_name.encode(),
                    timestamp=event.time_ns // 1_000_000, headers={"id": event.id},
                    on_delivery=on_delivery,
                )  # fmt: skip
            except BufferError:
                self._producer.poll(_POLL_S)
            else:
                return

    def _recover(self, error: KafkaError) -> None:
        """Leave a client that can send again; raise `DeliveryError`."""
        self._producer.purge()
        self._producer.flush(_POLL_S)
        if error.fatal():
            self._producer = self._connect()
        about = f": {self._fault}" if self._fault and self._fault != error.str() else ""
        address = ",".join(self._sink.brokers)
        raise DeliveryError(f"{address}: topic {self._sink.topic}: {error.str()}{about}")


def _properties(sink: KafkaSink) -> dict[str, Any]:
    """Return the configuration of librdkafka (its CONFIGURATION.md)."""
    found: dict[str, Any] = {
        "bootstrap.servers": ",".join(sink.brokers),
        "client.id": "tetra-exporter",
        "acks": "all",
        "enable.idempotence": True,  # its own repeats are neither doubled nor out of order
        "compression.type": sink.compression,
        "message.max.bytes": _MESSAGE_BYTES,
        "message.timeout.ms": int(sink.timeout * 1000),
        "log_level": 0,  # `error_cb` has what it would log
    }
    if sink.transport == "tls":
        check_ca(sink.name, sink.ca_file)
        for name, kind in (
            ("ca_file", "ca"),
            ("certificate_file", "certificate"),
            ("key_file", "key"),
        ):
            path = getattr(sink, name)
            if path is not None:
                read(sink.name, name, path)  # the library's own error names no file
                found[f"ssl.{kind}.location"] = str(path)
    protocol = {"tls": "SSL", "tcp": "PLAINTEXT"}[sink.transport]
    if sink.password_file is not None:
        protocol = f"SASL_{protocol}"
        found |= {
            "sasl.mechanism": sink.mechanism,
            "sasl.username": sink.user,
            "sasl.password": read(sink.name, "password_file", sink.password_file).decode().strip(),
        }
    return found | {"security.protocol": protocol} | sink.properties
