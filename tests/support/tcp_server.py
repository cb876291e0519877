"""A TCP server in threads that leaves no connection behind, also none in the middle of TLS.

With servers of asyncio, a connection whose handshake was under way could outlive its test, and its
warning failed another one. `ssl.SSLContext.wrap_socket` of Python 3.11.2 leaves a socket open where
the other side has reset the connection, so TLS runs over buffers here.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

THREAD = "tcp_server"  # the name of its threads


class Connection:
    """One connection, with TLS or without; ``server_name``: of a client's TLS."""

    def __init__(
        self, raw: socket.socket, tls: ssl.SSLContext | None, server_name: str | None = None
    ) -> None:
        self._raw = raw
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        if tls is not None:
            self._tls = tls.wrap_bio(
                self._incoming,
                self._outgoing,
                server_side=server_name is None,
                server_hostname=server_name,
            )
            self._step(self._tls.do_handshake)

    def recv(self, size: int) -> bytes:
        """Return at most ``size`` bytes, none at the end; raise `OSError` if it breaks."""
        if self._tls is None:
            return self._raw.recv(size)
        try:
            return bytes(self._step(self._tls.read, size))
        except ssl.SSLZeroReturnError:
            return b""

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        if self._tls is None:
            self._raw.sendall(data)
        else:
            self._step(self._tls.write, data)

    def finish(self) -> None:
        """Send TLS's word that nothing follows; without TLS, closing is enough."""
        if self._tls is not None:
            with suppress(ssl.SSLError):  # the other side's own is not awaited
                self._tls.unwrap()
            self._raw.sendall(self._outgoing.read())

    def reset(self) -> None:
        """Make its end an RST in place of a FIN."""
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _step(self, call: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            needs_more = False
            try:
                result = call(*arguments)
            except ssl.SSLWantReadError:
                needs_more = True
            self._raw.sendall(self._outgoing.read())
            if not needs_more:
                return result
            if not (data := self._raw.recv(1 << 16)):
                raise ConnectionError("the other side closed the connection")
            self._incoming.write(data)


class _Connections:
    """The threads that serve, and a second handle of each connection, to end it by."""

    def __init__(
        self,
        listening: socket.socket,
        serve: Callable[[Connection], None],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._listening = listening
        self._serve = serve
        self._tls = tls
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._handles: set[socket.socket] = set()  # of the connections that are open

    def accept(self) -> None:
        """Start a thread for each connection, until the listening socket is shut down."""
        with suppress(OSError):
            while True:
                raw, _ = self._listening.accept()
                handle = raw.dup()
                with self._lock:
                    self._handles.add(handle)
                self._threads.append(
                    threading.Thread(target=self._run, args=(raw, handle), name=THREAD)
                )
                self._threads[-1].start()

    def _run(self, raw: socket.socket, handle: socket.socket) -> None:
        try:
            with suppress(OSError), raw:  # the other side or `end` broke it
                self._serve(Connection(raw, self._tls))
        finally:
            with self._lock:
                self._handles.remove(handle)
                handle.close()

    def end(self) -> None:
        """Break every connection and wait for its thread; nothing is accepted any more."""
        with self._lock:
            for handle in self._handles:
                with suppress(OSError):  # the other side ended it
                    handle.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


@contextmanager
def tcp_server(
    serve: Callable[[Connection], None], tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Call ``serve`` with each connection, in a thread; yield the port, on loopback.

    ``serve`` waits for nothing but its connection, which is closed when it returns.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connections = _Connections(listening, serve, tls)
        accepting = threading.Thread(target=connections.accept, name=THREAD)
        accepting.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)  # wakes accept()
            accepting.join()
            connections.end()
