"""A receiver of syslog that breaks the connection while the sink waits for its acknowledgement."""

import asyncio
import socket
import ssl
import struct
from contextlib import asynccontextmanager, suppress

import pytest

from exporter.config import SyslogSink
from exporter.errors import DeliveryError
from exporter.selection import Selected
from exporter.sinks.base import Line
from exporter.sinks.syslog import Syslog
from support.receivers import make_certificate
from tetragon.events_pb2 import GetEventsResponse


def lines(count, size):
    event = Selected("n1:boot:1", 1_700_000_000_000_000_000, GetEventsResponse(node_name="n1"))
    return [Line(event, "x" * size) for _ in range(count)]


@asynccontextmanager
async def broken_receiver(context, how):
    """Listen; read a little of each connection, then break it; yields the port."""
    writers = []

    async def broken(reader, writer):
        writers.append(writer)
        await reader.read(1)
        if how == "reset":
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            writer.close()

    server = await asyncio.start_server(broken, "127.0.0.1", 0, ssl=context, limit=1)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for one in writers:  # TLS waits for the other side's end
            one.transport.abort()
            with suppress(OSError):
                await one.wait_closed()


async def deliver_for_ever(sink, size):
    """Deliver; what the kernel has taken counts as delivered until the break is seen."""
    while True:
        async with asyncio.timeout(10):
            await sink.deliver(lines(100, size))
        await sink.mark()


@pytest.mark.parametrize("size", [100, 20_000])
@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_a_lost_connection_is_a_failed_delivery(tmp_path, transport, how, size):
    context, certificate = None, {}
    if transport == "tls":
        path, key = make_certificate(tmp_path)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(path, key)
        certificate = {"ca_file": path}
    async with broken_receiver(context, how) as port:
        sink = Syslog(SyslogSink(name="s", type="syslog", address=f"127.0.0.1:{port}",
                                 transport=transport, **certificate))  # fmt: skip
        for _ in range(3):
            await sink.open({})
            with pytest.raises(DeliveryError):
                await deliver_for_ever(sink, size)
            await sink.close()
