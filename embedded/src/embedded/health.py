"""Whether a child answers over HTTP, and the health that it reports."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket

# Below the ports that the kernel gives to connections: none takes one of these before the server
# listens.
_PORTS = range(10_000, 30_000)
_ANSWER_S = 2.0
_ANSWER_BYTES = 1 << 16


def free_port() -> int:
    """Return a port of the loopback address that nothing listens on."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


async def ask(port: int, path: str) -> str | None:
    """Return what is wrong, empty if nothing is; None if there is no answer."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                answer = b""  # head and body may arrive apart; HTTP/1.0 ends with the connection
                while len(answer) < _ANSWER_BYTES and (part := await reader.read(_ANSWER_BYTES)):
                    answer += part
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2:
        return None
    return "" if words[1] == b"200" else _cause(body.decode(errors="replace"))


# nats-server answers JSON, our services one line.
def _cause(body: str) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.strip() or "not healthy"
