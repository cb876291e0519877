"""tetragon.EventLogService: the rotation of the export file, read and changed while it is written.

As in Tetragon, a change lasts until the exporter ends, and concerns one file: the first file sink.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
import structlog
from pydantic import TypeAdapter, ValidationError

from chassis import listen
from chassis.errors import ListenError
from exporter.callers import Callers, listen_address
from exporter.config import Bytes, FileSink, Seconds
from exporter.sinks.file import File
from tetragon.eventlogservice_pb2 import (
    GetEventLogParamsRequest,
    GetEventLogParamsResponse,
    SetEventLogParamsRequest,
    SetEventLogParamsResponse,
)

NAME = "tetragon.EventLogService"
_MB = 1 << 20
_UNIX_MODE = 0o660
_INTERVAL: TypeAdapter[float] = TypeAdapter(Seconds)
_SIZE: TypeAdapter[int] = TypeAdapter(Bytes)

Context = grpc.aio.ServicerContext[Any, Any]
R = TypeVar("R")

_log = structlog.get_logger()


class EventLog:
    """The service."""

    def __init__(self, file: File | None, callers: Callers) -> None:
        """``file``: None where no sink is a file."""
        self._file = file
        self._callers = callers

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server needs."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "GetEventLogParams": grpc.unary_unary_rpc_method_handler(
                self._allowed("read", self._get),
                request_deserializer=GetEventLogParamsRequest.FromString,
                response_serializer=GetEventLogParamsResponse.SerializeToString,
            ),
            "SetEventLogParams": grpc.unary_unary_rpc_method_handler(
                self._allowed("control", self._set),
                request_deserializer=SetEventLogParamsRequest.FromString,
                response_serializer=SetEventLogParamsResponse.SerializeToString,
            ),
        }
        return grpc.method_handlers_generic_handler(NAME, methods)

    def _allowed(
        self, right: str, method: Callable[[Any, File, Context], Awaitable[R]]
    ) -> Callable[[Any, Context], Awaitable[R]]:
        async def call(request: Any, context: Context) -> R:
            if refusal := self._callers.refusal(right, context.invocation_metadata() or ()):
                await context.abort(*refusal)
            if self._file is None:
                await context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "no log params setters available: no sink of this exporter is a file",
                )
            assert self._file is not None
            return await method(request, self._file, context)

        return call

    async def _get(
        self, _request: GetEventLogParamsRequest, file: File, _context: Context
    ) -> GetEventLogParamsResponse:
        now = file.settings
        return GetEventLogParamsResponse(
            max_size=now.max_size // _MB,
            rotation_interval=duration_text(now.rotation_interval),
            max_backups=now.max_backups,
        )

    async def _set(
        self, request: SetEventLogParamsRequest, file: File, context: Context
    ) -> SetEventLogParamsResponse:
        try:
            file.configure(_changed(file.settings, request))
        except ValidationError as error:
            found = error.errors()[0]
            text = str(found["msg"]).removeprefix("Value error, ")
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"set log params: {text}")
        now = file.settings
        _log.info(
            "rotation of the export file set",
            file=str(now.path),
            max_size=now.max_size,
            rotation_interval_s=now.rotation_interval,
            max_backups=now.max_backups,
        )
        return SetEventLogParamsResponse()


def _changed(now: FileSink, request: SetEventLogParamsRequest) -> FileSink:
    """Return the settings with what ``request`` gives; raise `ValidationError`."""
    changes = dict[str, Any]()
    if request.HasField("max_size"):
        changes["max_size"] = _SIZE.validate_python(request.max_size) * _MB
    if request.HasField("rotation_interval"):
        changes["rotation_interval"] = _INTERVAL.validate_python(request.rotation_interval)
    if request.HasField("max_backups"):
        changes["max_backups"] = request.max_backups
    return FileSink.model_validate(now.model_dump() | changes)


def duration_text(seconds: float) -> str:
    """Return a duration as Go writes it: ``1h0m0s``, ``1m30s``, ``0s``."""
    whole, rest = divmod(round(seconds * 1000), 1000)
    hours, minutes, last = whole // 3600, whole // 60 % 60, whole % 60
    text = f"{last}.{rest:03d}".rstrip("0") if rest else str(last)
    if hours:
        return f"{hours}h{minutes}m{text}s"
    return f"{minutes}m{text}s" if minutes else f"{text}s"


def check(address: str) -> None:
    """Raise `ConfigError` or `ListenError` where `serving` could not listen at ``address``."""
    listen.check(listen_address(address))


@asynccontextmanager
async def serving(address: str, service: EventLog) -> AsyncIterator[str]:
    """Serve at ``address`` until the block ends; raise `ListenError`. Returns the bound address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((service.handler(),))
    wanted = listen_address(address)
    try:
        port = server.add_insecure_port(wanted)
    except RuntimeError:  # taken since `check`
        raise ListenError(f"listen: {address}: cannot be listened on") from None
    await server.start()
    bound = wanted
    if wanted.startswith("unix:"):
        os.chmod(wanted.removeprefix("unix:"), _UNIX_MODE)
    else:
        bound = f"{wanted.rpartition(':')[0]}:{port}"
    _log.info("serving", address=bound)
    try:
        yield bound
    finally:
        await server.stop(0)
