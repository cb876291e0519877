"""ttrpc over one unix socket that carries two connections, as NRI has them: one for each direction.

A trunk frame is the connection's number and a length, both of 32 bits, then bytes of that
connection. A ttrpc frame is a length, a stream's number, a type, flags, then the message.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from struct import Struct

from nri.ttrpc_pb2 import Request, Response, Status

_TRUNK = Struct(">II")
_FRAME = Struct(">IIBB")
_REQUEST, _RESPONSE = 1, 2
_LAST = 1  # flag: nothing follows in this direction
_LARGEST = 4 << 20  # bytes of a message
_UNIMPLEMENTED = 12

# The method's name and the payload -> the answer's payload; None: there is no such method.
Serve = Callable[[str, bytes], bytes | None]


class TtrpcError(ConnectionError):
    """The peer ended the connection, refused a call, or broke the protocol."""


class Trunk:
    """A connection on which this side calls on ``ours`` and is called on ``theirs``."""

    def __init__(self, path: str, *, ours: int, theirs: int, timeout_s: float) -> None:
        """Connect; raise `OSError`."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours, self._theirs = ours, theirs
        self._buffers = {ours: bytearray(), theirs: bytearray()}
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(path)
            self._socket.settimeout(None)
        except OSError:
            self._socket.close()
            raise

    def call(self, service: str, method: str, payload: bytes, serve: Serve) -> bytes:
        """Return the answer; calls that come before it are served. Raise `TtrpcError`."""
        request = Request(service=service, method=method, payload=payload)
        self._send(self._ours, 1, _REQUEST, _LAST, request.SerializeToString())
        while True:
            for connection, stream, kind, message in self._receive():
                if connection == self._theirs:
                    self._serve(stream, kind, message, serve)
                elif kind == _RESPONSE:
                    response = Response.FromString(message)
                    if response.status.code:
                        raise TtrpcError(f"{method}: {response.status.message}")
                    return response.payload

    def serve(self, serve: Serve) -> None:
        """Serve calls until the peer ends the connection; then raise `TtrpcError`."""
        while True:
            for connection, stream, kind, message in self._receive():
                if connection == self._theirs:
                    self._serve(stream, kind, message, serve)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _serve(self, stream: int, kind: int, message: bytes, serve: Serve) -> None:
        if kind != _REQUEST:
            return
        request = Request.FromString(message)
        payload = serve(request.method, request.payload)
        response = Response(payload=payload or b"")
        if payload is None:
            response.status.CopyFrom(Status(code=_UNIMPLEMENTED, message=request.method))
        self._send(self._theirs, stream, _RESPONSE, 0, response.SerializeToString())

    def _send(self, connection: int, stream: int, kind: int, flags: int, message: bytes) -> None:
        frame = _FRAME.pack(len(message), stream, kind, flags) + message
        self._socket.sendall(_TRUNK.pack(connection, len(frame)) + frame)

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        """Read one trunk frame; return the messages that are complete with it."""
        connection, size = _TRUNK.unpack(self._exactly(_TRUNK.size))
        if size > _LARGEST:
            raise TtrpcError(f"trunk frame of {size} bytes")
        data = self._exactly(size)
        buffer = self._buffers.get(connection)
        if buffer is None:
            return []
        buffer += data
        found = []
        while len(buffer) >= _FRAME.size:
            length, stream, kind, _ = _FRAME.unpack_from(buffer)
            if length > _LARGEST:
                raise TtrpcError(f"message of {length} bytes")
            end = _FRAME.size + length
            if len(buffer) < end:
                break
            found.append((connection, stream, kind, bytes(buffer[_FRAME.size : end])))
            del buffer[:end]
        return found

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise TtrpcError("connection ended")
            data += part
        return bytes(data)
