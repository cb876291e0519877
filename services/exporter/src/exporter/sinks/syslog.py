"""RFC 5424 messages over TCP or TLS, framed by their length (RFC 5425, RFC 6587).

Syslog acknowledges nothing. A chunk counts as delivered when the receiver's TCP has acknowledged
all of it and the connection has held for some more seconds; when it breaks, newer chunks are sent
again. The message's structured data has the event's id, so a receiver can detect duplicates.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import ssl
import termios
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from exporter.config import SyslogSink
from exporter.errors import DeliveryError
from exporter.sinks.base import PART_BYTES, Line
from exporter.sinks.tls import make_context

_SEVERITY = 6  # informational
_CONNECT_S = 10.0
_ACKNOWLEDGED_S = 30.0
_POLL_S = 0.01
_ENTERPRISE = 32473  # for examples and private use (RFC 5612)


class Syslog:
    """Writes to one receiver."""

    max_batch = 1000
    part_bytes = PART_BYTES

    def __init__(self, sink: SyslogSink) -> None:
        self._sink = sink
        self.settle_s = max(sink.settle, 0.1)
        self._host, _, port = sink.address.rpartition(":")
        self._port = int(port)
        self._tls: ssl.SSLContext | None = None
        if sink.transport == "tls":
            files = (sink.ca_file, sink.certificate_file, sink.key_file)
            self._tls = make_context(sink.name, *files)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self, mark: dict[str, Any]) -> None:
        """Connect."""
        await self.close()
        try:
            async with asyncio.timeout(_CONNECT_S):
                self._reader, self._writer = await asyncio.open_connection(
                    self._host.strip("[]"), self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise DeliveryError(f"{self._sink.address}: {error or 'timeout'}") from None

    async def deliver(self, lines: Sequence[Line]) -> int:
        """Write the lines and wait until the receiver's TCP has acknowledged them."""
        writer = self._connected()
        data = b"".join([self._frame(line) for line in lines])
        try:
            writer.write(data)
            async with asyncio.timeout(_ACKNOWLEDGED_S):
                await writer.drain()
                await asyncio.sleep(0)  # the event loop sees a connection that is lost
                while self._is_unacknowledged(writer):  # noqa: ASYNC110  # nothing wakes it
                    await asyncio.sleep(_POLL_S)
        except DeliveryError:
            await self.close()
            raise
        except (OSError, TimeoutError) as error:
            await self.close()
            raise DeliveryError(f"{self._sink.address}: {error or 'timeout'}") from None
        return 0

    async def mark(self) -> dict[str, Any]:
        """Check that the connection still holds."""
        self._connected()
        return {}

    async def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()

    def _connected(self) -> asyncio.StreamWriter:
        # A receiver sends nothing; the end of its side is the end of the connection.
        if self._writer is None or self._writer.is_closing() or self._reader is None:
            raise DeliveryError(f"{self._sink.address}: connection lost")
        if self._reader.at_eof():
            raise DeliveryError(f"{self._sink.address}: closed by the receiver")
        return self._writer

    def _is_unacknowledged(self, writer: asyncio.StreamWriter) -> bool:
        # A transport whose connection was lost has no socket, or a closed one.
        self._connected()
        socket = writer.get_extra_info("socket")
        if socket is None or socket.fileno() < 0:
            raise DeliveryError(f"{self._sink.address}: connection lost")
        if writer.transport.get_write_buffer_size():
            return True
        left = array.array("i", [0])
        fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, left)  # SIOCOUTQ: linux/sockios.h
        return left[0] > 0

    def _frame(self, line: Line) -> bytes:
        event = line.event
        time = datetime.fromtimestamp(event.time_ns // 1_000_000_000, UTC)
        stamp = f"{time:%Y-%m-%dT%H:%M:%S}.{event.time_ns // 1000 % 1_000_000:06d}Z"
        kind = event.message.WhichOneof("event") or "event"
        host = _printable(event.message.node_name, 255)
        message = (
            f"<{self._sink.facility * 8 + _SEVERITY}>1 {stamp} {host} {self._sink.app_name} - "
            f'{kind[:32]} [tetra@{_ENTERPRISE} id="{_parameter(event.id)}"] {line.text}'
        ).encode()
        return b"%d %b" % (len(message), message)


def _printable(text: str, most: int) -> str:
    return "".join(c if "!" <= c <= "~" else "_" for c in text)[:most] or "-"


def _parameter(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
