"""Questions to the columns beside the stream, each answered by a process of its own.

A query takes memory and CPU time that the event loop must not share: it ends with its process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import grpc
import structlog

from eventstream.errors import BusError
from gateway.errors import RequestError
from gateway.settings import Settings
from tetra.v1.stream_pb2 import CountEventsRequest, StreamEventsRequest

_HEAD = Struct("<cI")
_QUERIES = 2  # at once, others wait
_UNREAD_BYTES = 4 << 20

_log = structlog.get_logger()


class Reach(NamedTuple):
    """The range that the columns cover."""

    first: int  # messages of the stream
    last: int
    last_stored_ns: int
    oldest_first: int  # number of the first message, of this stream or of one before
    oldest_s: int  # when NATS stored it


class Answers:
    """The answers to one question."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.reach: Reach | None = None  # known when the first answer is there; None: no columns

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield serialized responses; raise `RequestError` where there is no answer."""
        out = self._process.stdout
        assert out is not None
        while head := await _read(out, _HEAD.size):
            kind, size = _HEAD.unpack(head)
            data = await out.readexactly(size)
            if kind == b"E":
                raise RequestError(data.decode(), grpc.StatusCode.FAILED_PRECONDITION)
            if kind == b"R":
                found = json.loads(data)
                self.reach = Reach(*(found[name] for name in Reach._fields)) if found else None
            else:
                yield data
        if await self._process.wait():
            _log.error("query of the columns failed", code=self._process.returncode)
            raise BusError("columns: the query ended without an answer: see the gateway's log")


class Columns:
    """Answers questions from one folder."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(_QUERIES)

    @property
    def folder(self) -> Path | None:
        """Where they are; None: there are none."""
        folder = self._settings.columns_dir
        return folder if folder is not None and folder.is_dir() else None

    @asynccontextmanager
    async def ask(
        self, request: CountEventsRequest | StreamEventsRequest
    ) -> AsyncIterator[Answers]:
        """Give the answers to ``request``, whose nodes are those that the client may see."""
        kind = "count" if isinstance(request, CountEventsRequest) else "find"
        settings = self._settings
        async with self._slots:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "eventcolumns", kind, str(settings.columns_dir),
                str(settings.columns_memory_bytes), str(settings.columns_threads),
                stdin=PIPE, stdout=PIPE, stderr=None if sys.stderr else DEVNULL,
                limit=_UNREAD_BYTES, start_new_session=True,
            )  # fmt: skip
            try:
                assert process.stdin is not None
                with suppress(BrokenPipeError, ConnectionResetError):
                    process.stdin.write(request.SerializeToString())
                    await process.stdin.drain()
                process.stdin.close()
                yield Answers(process)
            finally:
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()


async def _read(out: asyncio.StreamReader, size: int) -> bytes:
    try:
        return await out.readexactly(size)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise BusError("columns: the query ended during its answer") from None
        return b""
