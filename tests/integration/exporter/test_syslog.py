"""A receiver of syslog that breaks the connection while the sink waits for its acknowledgement."""

import asyncio
import ssl

import pytest

from exporter.config import SyslogSink
from exporter.errors import DeliveryError
from exporter.selection import Selected
from exporter.sinks.base import Line
from exporter.sinks.syslog import Syslog
from support.receivers import make_certificate
from support.tcp_server import tcp_server
from tetragon.events_pb2 import GetEventsResponse


def lines(count, size):
    event = Selected("n1:boot:1", 1_700_000_000_000_000_000, GetEventsResponse(node_name="n1"))
    return [Line(event, "x" * size) for _ in range(count)]


def breaker(how):
    """Return what reads a little of a connection, then breaks it."""

    def serve(connection):
        connection.recv(1)
        if how == "reset":
            connection.reset()
        else:
            connection.finish()

    return serve


async def deliver_for_ever(sink, size):
    """Deliver; what the kernel has taken counts as delivered until the break is seen."""
    while True:
        async with asyncio.timeout(30):
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
    with tcp_server(breaker(how), context) as port:
        sink = Syslog(SyslogSink(name="s", type="syslog", address=f"127.0.0.1:{port}",
                                 transport=transport, **certificate))  # fmt: skip
        for _ in range(3):
            await sink.open({})
            with pytest.raises(DeliveryError):
                await deliver_for_ever(sink, size)
            await sink.close()
