"""The connection to NATS: before there is one, and where it is lost."""

import asyncio
import socket
import struct
from contextlib import AsyncExitStack, suppress

import pytest
import uvloop
from nats.aio.msg import Msg
from nats.errors import Error

from bus import connection
from bus.settings import BusSettings
from chassis.settings import ServiceSettings, load
from support.tcp_server import tcp_server
from support.waiting import eventually


class Settings(ServiceSettings, BusSettings):
    """As a service has them."""


@pytest.mark.parametrize("turns", range(12))
async def test_a_first_connect_ends_when_it_is_cancelled(turns):
    # Port 9 refuses at once: a cancellation after any number of turns of the loop must hold.
    settings = load(Settings, "test", ["--nats-url", "nats://127.0.0.1:9"])
    task = asyncio.create_task(connection.connect(settings, "test"))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,), timeout=20)
    assert task.cancelled()


class _Resetting:
    """Speaks NATS; of its first connections it resets ``resets`` in the middle of the handshake."""

    def __init__(self, resets: int) -> None:
        self.resets = resets
        self.port = 0
        self.subscriptions: set[bytes] = set()  # of the newest connection
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for writer in list(self._connections):
            _reset(writer)
        await eventually(lambda: not self._connections)

    def reset_all(self, resets: int) -> None:
        """Reset what is connected, and the next ``resets`` connections."""
        self.resets = resets
        for writer in self._connections:
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines_before_reset = (0, 2)[self.resets % 2] if self.resets else None
        self.resets = max(0, self.resets - 1)
        self._connections.add(writer)
        self.subscriptions.clear()
        writer.write(b'INFO {"server_id":"x","version":"2.11.0","max_payload":1048576}\r\n')
        lines = 0
        with suppress(OSError):
            while lines != lines_before_reset and (line := await reader.readline()):
                lines += 1
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
                if line.startswith(b"SUB"):
                    self.subscriptions.add(line)
        await asyncio.sleep(0)  # the client has read what was sent
        _reset(writer)
        self._connections.discard(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)  # RST in place of FIN
    with suppress(OSError, ValueError):  # it is closed already
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


def test_a_connection_that_is_lost_in_the_handshake_is_made_again(monkeypatch):
    """uvloop, which services use, raises RuntimeError where such a connection is written to."""
    monkeypatch.setattr(connection, "RETRY_MIN_S", 0.001)
    monkeypatch.setattr(connection, "RETRY_MAX_S", 0.002)

    async def receive(message: Msg) -> None:
        pass

    async def connect_and_reconnect() -> None:
        server = _Resetting(resets=30)
        async with AsyncExitStack() as stack:
            await server.start()
            stack.push_async_callback(server.stop)
            settings = load(Settings, "test", ["--nats-url", f"nats://127.0.0.1:{server.port}"])
            nc = await connection.connect(settings, "test")
            stack.push_async_callback(nc.close)
            for number in range(20):
                await nc.subscribe(f"subject.{number}", cb=receive)
            for _ in range(3):
                await eventually(lambda: not server.resets and len(server.subscriptions) == 20)
                server.reset_all(30)
            await eventually(lambda: not server.resets and len(server.subscriptions) == 20)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(connect_and_reconnect())


async def test_password_is_not_sent_to_a_server_without_tls(monkeypatch):
    received, errors = list[bytes](), list[str]()

    def serve(client):
        client.sendall(b'INFO {"server_id":"x","version":"2.11.0","max_payload":1048576}\r\n')
        received.append(client.recv(1000))

    async def note(self, error):
        errors.append(connection.describe(error))
        await asyncio.sleep(0.01)

    monkeypatch.setattr(connection._Watch, "on_error", note)
    login = ["--nats-user", "u", "--nats-password", "s3cret"]
    with tcp_server(serve) as port:
        settings = load(Settings, "test", ["--nats-url", f"tls://127.0.0.1:{port}", *login])
        task = asyncio.create_task(connection.connect(settings, "test"))
        await eventually(lambda: len(errors) > 2 and len(received) > 2)
        task.cancel()
        await asyncio.wait((task,))
    assert set(errors) == {"the server offers no TLS, which the settings ask for"}
    assert set(received) == {b""}


async def test_refused_password_names_the_settings():
    error = Error("nats: 'Authorization Violation'")
    assert connection.describe(error).endswith("check TETRA_NATS_USER and TETRA_NATS_PASSWORD_FILE")
