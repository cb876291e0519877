"""A small HTTP server for /metrics, /healthz and /readyz."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from chassis.errors import ServiceError

_REQUEST_BYTES = 8192
_REQUEST_S = 5.0


class HttpServer:
    """Serves what ``metrics`` collects; /readyz answers 200 while ``why_not`` is empty."""

    def __init__(self, metrics: Collector, why_not: Callable[[], str]) -> None:
        self._why_not = why_not
        self._registry = CollectorRegistry()
        self._registry.register(metrics)
        PlatformCollector(self._registry)
        ProcessCollector(registry=self._registry)

    async def start(self, address: str) -> asyncio.Server:
        """Listen on ``host:port``, an empty host being every address; raise `ServiceError`."""
        host, _, port = address.rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            raise ServiceError(f"listen: {address}: expected HOST:PORT: set TETRA_METRICS_ADDRESS")
        try:
            return await asyncio.start_server(
                self._serve, host.strip("[]") or None, int(port), limit=_REQUEST_BYTES
            )
        except OSError as error:
            # asyncio's text for an address in use repeats the address.
            cause = (error.strerror or str(error)).rpartition(": ")[2]
            raise ServiceError(
                f"listen: {address}: {cause}: set TETRA_METRICS_ADDRESS to another"
            ) from None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
            words = head.split(b" ", 2)
            path = words[1].partition(b"?")[0].decode("latin-1") if len(words) > 2 else ""
            status, body = self._answer(path)
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            async with asyncio.timeout(_REQUEST_S):
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def _answer(self, path: str) -> tuple[str, bytes]:
        if path == "/metrics":
            return "200 OK", generate_latest(self._registry)
        if path == "/healthz":
            return "200 OK", b"ok\n"
        if path == "/readyz":
            if why_not := self._why_not():
                return "503 Service Unavailable", f"{why_not}\n".encode()
            return "200 OK", b"ok\n"
        return "404 Not Found", b"not found\n"
