"""How a handler ends: with a status for a refusal, quietly for a client that is gone."""

import asyncio

import grpc
import pytest

from gateway.errors import RequestError
from gateway.streams import refusing
from tetra.v1 import stream_pb2

REQUEST = stream_pb2.StreamEventsRequest()


class RecordedContext:
    """Records the status that a handler ends with."""

    def __init__(self):
        self.aborted = []

    async def abort(self, code, details):
        self.aborted.append((code, details))


def handle(error, context):
    """Run a handler that raises ``error``."""

    async def handler(request, context):
        raise error

    wrapped = refusing(handler, stream_pb2.StreamEventsRequest)
    return asyncio.run(wrapped(REQUEST.SerializeToString(), context))


def test_refusal_becomes_a_status():
    context = RecordedContext()
    handle(RequestError("no such thing"), context)
    assert context.aborted == [(grpc.StatusCode.INVALID_ARGUMENT, "no such thing")]


def test_write_to_a_disconnected_client_cancels_the_call():
    """Anything else is logged as an error of the gateway, with a traceback."""
    context = RecordedContext()
    with pytest.raises(asyncio.CancelledError):
        handle(grpc.aio.InternalError("Failed execute_batch"), context)
    assert context.aborted == []
