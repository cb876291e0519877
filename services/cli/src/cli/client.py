"""The client of a gateway, or of a plain Tetragon.

A stream survives its gateway: each response carries a cursor, and after a lost connection the
stream continues after the last one, at the same gateway or at another of the given addresses.
A plain Tetragon has no cursors: events that happen while the client is not connected are missed.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from chassis.backoff import Backoff
from cli.address import Address, ServerOptions
from cli.channel import open_channel
from cli.errors import TetraError, UnreachableError, UsageError
from cli.grpc_errors import code_of, explained, never_sent, refusal
from cli.reconnect import DEFAULT_POLICY, Attempts, ResumePolicy
from cli.resume import Batch, Progress
from tetra.v1.node_pb2 import NodeInfo
from tetra.v1.stream_pb2 import (
    CountEventsRequest,
    CountEventsResponse,
    ListNodesRequest,
    StreamEventsRequest,
)
from tetra.v1.stream_pb2_grpc import EventStreamStub
from tetragon.eventlogservice_pb2 import (
    GetEventLogParamsRequest,
    GetEventLogParamsResponse,
    SetEventLogParamsRequest,
)
from tetragon.eventlogservice_pb2_grpc import EventLogServiceStub
from tetragon.events_pb2 import GetEventsRequest
from tetragon.sensors_pb2 import (
    GetDebugRequest,
    GetInfoRequest,
    GetInfoResponse,
    GetVersionRequest,
    LogLevel,
    SetDebugRequest,
)
from tetragon.sensors_pb2_grpc import FineGuidanceSensorsStub
from tetragon.tetragon_pb2 import GetHealthStatusRequest, HealthStatus

_RETRY_MIN_S, _RETRY_MAX_S = 1.0, 30.0  # of a call; `reconnect` is for streams

_T = TypeVar("_T")


@dataclass(slots=True)
class Client:
    """A connection to one of the gateways in ``options``; a context manager."""

    options: ServerOptions
    notice: Callable[[str], None] = lambda text: None
    # Called with the messages of the past that were read, and their total at most.
    progress: Callable[[int, int], None] = lambda done, total: None
    _channel: grpc.Channel | None = field(default=None, init=False)
    _turn: int = field(default=0, init=False)  # which of the addresses is in use
    _closed: bool = field(default=False, init=False)
    _channel_is_new: bool = field(default=True, init=False)  # no response came over it yet

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed = True
        self._drop()

    @property
    def address(self) -> Address:
        """The address in use."""
        return self.options.addresses[self._turn % len(self.options.addresses)]

    # Unary calls

    def version(self) -> str:
        """Return the server's version."""
        return self._call(lambda stub, with_: stub.GetVersion(GetVersionRequest(), **with_).version)

    def health(self) -> list[HealthStatus]:
        """Return the health of the server."""
        return self._call(
            lambda stub, with_: list(
                stub.GetHealth(GetHealthStatusRequest(), **with_).health_status
            )
        )

    def info(self) -> GetInfoResponse:
        """Return the server's build, probes and settings."""
        return self._call(lambda stub, with_: stub.GetInfo(GetInfoRequest(), **with_))

    def log_level(self) -> LogLevel.ValueType:
        """Return the server's log level."""
        return self._call(lambda stub, with_: stub.GetDebug(GetDebugRequest(), **with_).level)

    def set_log_level(self, level: LogLevel.ValueType) -> LogLevel.ValueType:
        """Set the server's log level; return the level that it reports."""
        request = SetDebugRequest(level=level)
        return self._call(lambda stub, with_: stub.SetDebug(request, **with_).level)

    def event_log_params(self) -> GetEventLogParamsResponse:
        """Return the rotation of the export file."""
        return self._attempt(
            lambda: EventLogServiceStub(self._open()).GetEventLogParams(
                GetEventLogParamsRequest(), **self._with()
            )
        )

    def set_event_log_params(self, request: SetEventLogParamsRequest) -> None:
        """Change the rotation of the export file."""
        self._attempt(
            lambda: EventLogServiceStub(self._open()).SetEventLogParams(request, **self._with())
        )

    def nodes(self) -> list[NodeInfo]:
        """Return every node that the gateway knows."""
        return self._attempt(
            lambda: list(
                EventStreamStub(self._open()).ListNodes(ListNodesRequest(), **self._with()).nodes
            )
        )

    def warn_of_unknown_nodes(self, names: Iterable[str]) -> None:
        """Print a notice for nodes that the gateway does not know: not started yet, or misspelt."""
        wanted = set(names)
        if not wanted:
            return
        try:
            known = {node.node_name for node in self.nodes()}
        except (
            TetraError
        ):  # a plain Tetragon; if the server does not answer, the stream reports that
            return
        for name in sorted(wanted - known):
            others = ", ".join(sorted(known)) or "none"
            self.notice(f"node {name!r} is not known; known nodes: {others}")

    def _call(self, call: Callable[[FineGuidanceSensorsStub, dict[str, Any]], _T]) -> _T:
        return self._attempt(lambda: call(FineGuidanceSensorsStub(self._open()), self._with()))

    def _with(self) -> dict[str, Any]:
        return {"timeout": self.options.timeout_s, "metadata": self._metadata}

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = self.options.token
        return (("authorization", f"Bearer {token}"),) if token else ()

    def _attempt(self, call: Callable[[], _T]) -> _T:
        waits = Backoff(_RETRY_MIN_S, _RETRY_MAX_S)
        attempts = max(self.options.retries + 1, len(self.options.addresses))
        for remaining in range(attempts - 1, -1, -1):
            try:
                return call()
            except grpc.RpcError as error:
                failure = self._explain(error)
                if not isinstance(failure, UnreachableError) or not remaining:
                    raise failure from None
            self.next_address()
            if self._turn % len(self.options.addresses) == 0:
                time.sleep(waits.next_s())
        raise AssertionError("unreachable: the last attempt returns or raises")

    def ask(
        self, call: Callable[[grpc.Channel, dict[str, Any]], _T], *, timeout_s: float = 0.0
    ) -> _T:
        """Make a call about policies; raise `RefusedError` with the server's reason.

        ``timeout_s`` is the time that the server may take, beyond the limit for a call. The call
        is repeated only if it reached no server: a change must not be made twice.
        """
        attempts = max(self.options.retries + 1, len(self.options.addresses))
        for remaining in range(attempts - 1, -1, -1):
            try:
                return call(
                    self._open(),
                    {
                        "timeout": self.options.timeout_s + timeout_s,
                        "metadata": (*self._metadata, ("tetra-user", _claimed_user())),
                    },
                )
            except grpc.RpcError as error:
                refused = refusal(error)
                if refused is not None or not never_sent(error) or not remaining:
                    raise refused or self._explain(error) from None
            self.next_address()
        raise AssertionError("unreachable: the last attempt returns or raises")

    def stream_of(
        self, call: Callable[[grpc.Channel, dict[str, Any]], Iterator[_T]]
    ) -> Iterator[_T]:
        """Yield the answers of a call about policies; raise `RefusedError` as `ask` does."""
        metadata = (*self._metadata, ("tetra-user", _claimed_user()))
        answers = call(self._open(), {"metadata": metadata})
        try:
            yield from answers
        except grpc.RpcError as error:
            if not self._closed:
                raise refusal(error) or self._explain(error) from None
        finally:
            answers.cancel()  # type: ignore[attr-defined]  # a stream's iterator is its call

    # The past and the stream

    def count(self, request: CountEventsRequest) -> list[CountEventsResponse]:
        """Return the answer; raise `UnsupportedError` for a server without such answers."""

        def ask() -> list[CountEventsResponse]:
            found = []
            stub = EventStreamStub(self._open())
            for answer in stub.CountEvents(request, metadata=self._metadata):
                if answer.HasField("progress"):
                    self.progress(answer.progress.done, answer.progress.total)
                else:
                    found.append(answer)
            return found

        return self._attempt(ask)

    def stream(
        self,
        request: StreamEventsRequest,
        policy: ResumePolicy = DEFAULT_POLICY,
        since_ns: int = 0,
    ) -> Iterator[Batch]:
        """Yield batches until the end of the stream; resume after the last one if it breaks.

        ``since_ns``: as in `Progress`.
        Raises `UnreachableError` when no server can be reached for too long, and `UsageError` when
        a server refuses the request.
        """
        progress = Progress(request, since_ns)
        attempts = Attempts(policy, len(self.options.addresses))
        while True:
            try:
                for batch in self._stream_once(progress.request):
                    if attempts.answered():
                        self.notice(f"connected to {self.address} again")
                    news = progress.news(batch)
                    yield news
                    progress.passed(news)
                repeated = progress.repeats
                if progress.ended() or not (policy.always or progress.resumable):
                    return
                if repeated:
                    continue  # the snapshot is complete; the next call returns what followed it
                failure: TetraError = UnreachableError(f"stream: {self.address}: it ended")
            except grpc.RpcError as error:
                if self._closed:
                    return
                failure = self._explain(error)
                if not isinstance(failure, UnreachableError):
                    raise failure from None
            is_first = attempts.failed()
            if attempts.is_given_up(resumable=progress.resumable):
                raise failure
            if is_first:
                where = "nothing is missed" if progress.resumable else "events may be missed"
                self.notice(f"{failure}; connecting again, {where}")
            progress.lost()
            self.next_address()
            attempts.wait()

    def _stream_once(self, request: StreamEventsRequest) -> Iterator[Batch]:
        call = EventStreamStub(self._open()).StreamEvents(request, metadata=self._metadata)
        try:
            for response in call:
                self._channel_is_new = False
                if response.HasField("progress"):
                    self.progress(response.progress.done, response.progress.total)
                if response.HasField("cursor"):  # otherwise it only reports progress
                    yield Batch(response.events, response.cursor, response.losses, response.gaps)
            return
        except grpc.RpcError as error:
            if code_of(error) != grpc.StatusCode.UNIMPLEMENTED:
                raise
        finally:
            call.cancel()
        yield from self._plain_stream(request)

    def _plain_stream(self, request: StreamEventsRequest) -> Iterator[Batch]:
        for wanted in ("last", "since", "after", "until"):
            if request.HasField(wanted):
                raise UsageError(
                    f"--{wanted}: {self.address} is a plain Tetragon, which keeps no past",
                    "tetra getevents",
                )
        if request.no_follow:
            raise UsageError(
                f"--no-follow: {self.address} is a plain Tetragon, which keeps no past",
                "tetra getevents",
            )
        if any(one.unit or one.session for one in request.allow_list):
            raise UsageError(
                f"--unit, --session: {self.address} is a plain Tetragon, which has no such fields",
                "tetra getevents",
            )
        if request.snapshot:
            self.notice(
                f"{self.address} is a plain Tetragon: processes that run already are not reported"
            )
        plain = GetEventsRequest(
            allow_list=request.allow_list,
            deny_list=request.deny_list,
            field_filters=request.field_filters,
        )
        if request.HasField("aggregation_options"):
            plain.aggregation_options.CopyFrom(request.aggregation_options)
        nodes = frozenset(request.nodes)
        call = FineGuidanceSensorsStub(self._open()).GetEvents(plain, metadata=self._metadata)
        try:
            for event in call:
                self._channel_is_new = False
                if not nodes or event.node_name in nodes:
                    yield Batch((event,))
        finally:
            call.cancel()

    # The connection

    def _open(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = open_channel(self.address, self.options)
            self._channel_is_new = True
        return self._channel

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def next_address(self) -> None:
        """Close the connection; the next call goes to the next of the addresses."""
        self._drop()
        self._turn += 1

    def _explain(self, error: grpc.RpcError) -> TetraError:
        return explained(error, self.address, self.options, is_new=self._channel_is_new)


def _claimed_user() -> str:
    """Return ``user@host``, the name that this client reports for the audit."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user has no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}".encode("ascii", "backslashreplace").decode()
