"""The client of a gateway, or of a plain Tetragon: the only module that knows gRPC.

A stream survives its gateway: each response carries a cursor, and after a lost connection the
stream goes on behind the last one, at the same gateway or at another of the given addresses.
A plain Tetragon has no cursors: there, what happens while nobody is connected is not seen.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from cli.address import Address, ServerOptions
from cli.errors import ServerError, TetraError, UnreachableError, UnsupportedError, UsageError
from cli.resume import Batch, Progress
from tetra.v1.node_pb2 import NodeInfo
from tetra.v1.stream_pb2 import ListNodesRequest, StreamEventsRequest
from tetra.v1.stream_pb2_grpc import EventStreamStub
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

_T = TypeVar("_T")

# Many servers close a connection that pings more often than every five minutes.
_KEEPALIVE_MS = 310_000
# Enough for 25,000 events a second over a path of 50 ms.
_WINDOW_BYTES = 512 * 1024
_RESUME_FIRST_WAIT_S = 0.1

_LOST = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)

# What gRPC's accounts contain, and what it means to the one who called.
_CAUSES = {
    "certificate has expired": "TLS: the server's certificate has expired; it needs a new one",
    "certificate is not yet valid": "TLS: the server's certificate is not valid yet; are the "
    "clocks right?",
    "Hostname Verification": "TLS: the certificate is for another name; give it with "
    "--tls-server-name gateway.example",
    "CERTIFICATE_VERIFY_FAILED": "TLS: the certificate is from an unknown authority; give it with "
    "--tls-ca-cert-files ca.pem",
    "WRONG_VERSION_NUMBER": "TLS: the server does not speak it; leave the --tls flags out",
    "SSL_ERROR": "TLS: the handshake failed; does the server want --tls-cert-file client.pem "
    "--tls-key-file client-key.pem?",
    "No such file or directory": "there is no such socket; is the gateway running there?",
    "Failed parsing HTTP/2": "what answers there does not speak gRPC; is it the gateway's port?",
    "before receiving SETTINGS": "what answers there says nothing; is it the gateway's port?",
    "Connection refused": "connection refused; is the gateway running there?",
    "Name or service not known": "the host name is not known",
    "Domain name not found": "the host name is not known",
    "DNS": "the host name is not known",
}


# What is right instead of what a gateway refuses, by the field that it names.
_EXAMPLES = {
    "binary_regex": "--process '^/usr/bin/'",
    "parent_binary_regex": "--parent-process 'sh$'",
    "arguments_regex": "--arguments '^-l '",
    "pod_regex": "--pod '^web-'",
    "namespace_regex": "--namespace-regex '^shop'",
    "container_name_regex": "--containers '^web'",
    "container_id": "--container-id '^0123'",
    "labels": "--labels 'app=web,tier in (a,b)'",
    "cel_expression": "--cel-expression 'process_exec.process.pid > uint(1)'",
    "field_filters": "--include-fields process.pid,parent",
}


@dataclass(frozen=True, slots=True)
class ResumePolicy:
    """What happens when a stream breaks."""

    # Connect again for ever, also after a clean end and to a server without cursors.
    always: bool = False
    # Longest wait between two attempts.
    wait_s: float = 2.0
    # How long to go on trying while a cursor lets nothing be missed; 0 gives up at once.
    give_up_s: float = 60.0


@dataclass(slots=True)
class Client:
    """One gateway at a time out of those named in ``options``; a context manager."""

    options: ServerOptions
    notice: Callable[[str], None] = lambda text: None
    # Called with the messages of the past that were read, and their total at most.
    progress: Callable[[int, int], None] = lambda done, total: None
    _channel: grpc.Channel | None = field(default=None, init=False)
    _turn: int = field(default=0, init=False)  # which of the addresses is in use
    _closed: bool = field(default=False, init=False)
    _channel_is_new: bool = field(default=True, init=False)  # nothing has come over it yet

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
        """Return what the server says about itself."""
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
        """Set the server's log level and return what it answered."""
        request = SetDebugRequest(level=level)
        return self._call(lambda stub, with_: stub.SetDebug(request, **with_).level)

    def nodes(self) -> list[NodeInfo]:
        """Return every node that the gateway heard of."""
        return self._attempt(
            lambda: list(
                EventStreamStub(self._open()).ListNodes(ListNodesRequest(), **self._with()).nodes
            )
        )

    def warn_of_unknown_nodes(self, names: Iterable[str]) -> None:
        """Notice nodes that the gateway never heard of: they may come yet, or be misspelt."""
        wanted = set(names)
        if not wanted:
            return
        try:
            known = {node.node_name for node in self.nodes()}
        except TetraError:  # a plain Tetragon; where nobody answers, the stream says so
            return
        for name in sorted(wanted - known):
            told = ", ".join(sorted(known)) or "none"
            self.notice(f"node {name!r} was never heard of; known: {told}")

    def _call(self, call: Callable[[FineGuidanceSensorsStub, dict[str, Any]], _T]) -> _T:
        return self._attempt(lambda: call(FineGuidanceSensorsStub(self._open()), self._with()))

    def _with(self) -> dict[str, Any]:
        return {"timeout": self.options.timeout_s, "metadata": self._metadata}

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = self.options.token
        return (("authorization", f"Bearer {token}"),) if token else ()

    def _attempt(self, call: Callable[[], _T]) -> _T:
        wait_s = 1.0
        attempts = max(self.options.retries + 1, len(self.options.addresses))
        for remaining in range(attempts - 1, -1, -1):
            try:
                return call()
            except grpc.RpcError as error:
                failure = self._explain(error)
                if not isinstance(failure, UnreachableError) or not remaining:
                    raise failure from None
            self._drop()
            self._turn += 1
            if self._turn % len(self.options.addresses) == 0:
                time.sleep(wait_s)
                wait_s *= 2
        raise AssertionError("unreachable: the last attempt returns or raises")

    # The stream

    def stream(
        self, request: StreamEventsRequest, policy: ResumePolicy, since_ns: int = 0
    ) -> Iterator[Batch]:
        """Yield batches until the end of the stream; resume behind the last one if it breaks.

        ``since_ns``: as in `Progress`.
        Raises `UnreachableError` when the server cannot be reached or stays away, and
        `UsageError` when it refuses the request.
        """
        progress = Progress(request, since_ns)
        connected = False  # this server answered once: from now on a failure is an interruption
        failing_since: float | None = None
        wait_s = _RESUME_FIRST_WAIT_S
        tried = 0
        while True:
            failure: TetraError | None = None
            try:
                for batch in self._stream_once(progress.request):
                    if failing_since is not None and (connected or policy.always):
                        self.notice(f"connected to {self.address} again")
                    connected, failing_since, wait_s, tried = True, None, _RESUME_FIRST_WAIT_S, 0
                    news = progress.news(batch)
                    yield news
                    progress.passed(news)
                repeated = progress.repeats
                if progress.ended() or not (policy.always or progress.resumable):
                    return
                if repeated:
                    continue  # the snapshot is whole; what followed it comes from the next call
            except grpc.RpcError as error:
                if self._closed:
                    return
                failure = self._explain(error)
                if not isinstance(failure, UnreachableError):
                    raise failure from None
            now = time.monotonic()
            tried += 1
            if not policy.always:
                if not connected and tried >= len(self.options.addresses):
                    raise failure or UnreachableError(f"stream: {self.address}: it ended")
                lost_s = 0.0 if failing_since is None else now - failing_since
                if connected and (not progress.resumable or lost_s >= policy.give_up_s):
                    raise failure or UnreachableError(f"stream: {self.address}: it ended")
            if failing_since is None:
                failing_since = now
                if connected or policy.always:
                    where = "nothing is missed" if progress.resumable else "events may be missed"
                    cause = failure or f"stream: {self.address}: it ended"
                    self.notice(f"{cause}; connecting again, {where}")
            progress.lost()
            self._drop()
            self._turn += 1
            if connected or policy.always:
                # Jitter: a thousand clients of one lost gateway must not come back in step.
                time.sleep(min(wait_s, policy.wait_s) * random.uniform(0.5, 1.0))
                wait_s *= 2

    def _stream_once(self, request: StreamEventsRequest) -> Iterator[Batch]:
        call = EventStreamStub(self._open()).StreamEvents(request, metadata=self._metadata)
        try:
            for response in call:
                self._channel_is_new = False
                if response.HasField("progress"):
                    self.progress(response.progress.done, response.progress.total)
                if response.HasField("cursor"):  # else it has progress only
                    yield Batch(response.events, response.cursor, response.losses, response.gaps)
            return
        except grpc.RpcError as error:
            if _code(error) != grpc.StatusCode.UNIMPLEMENTED:
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
                f"without --follow: {self.address} is a plain Tetragon, which keeps no past",
                "tetra getevents",
            )
        if request.snapshot:
            self.notice(f"{self.address} is a plain Tetragon: what runs already is not told")
        plain = GetEventsRequest(
            allow_list=request.allow_list,
            deny_list=request.deny_list,
            field_filters=request.field_filters,
        )
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

    def _explain(self, error: grpc.RpcError) -> TetraError:
        code, details = _code(error), _details(error)
        address = self.address
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return UnreachableError(
                f"call: {address}: no answer within {self.options.timeout_s:g} s (--timeout)"
            )
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return UnsupportedError(f"call: {address}: the server does not offer it")
        if code == grpc.StatusCode.UNAUTHENTICATED:
            return ServerError(f"call: {address}: {details}; for example: --token-file token.txt")
        if code == grpc.StatusCode.INVALID_ARGUMENT:
            return UsageError(
                f"request: {address}: {details}", _EXAMPLES.get(details.partition(":")[0], "")
            )
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
            return UsageError(f"receive: {address}: {details}", "--max-recv-size 67108864")
        if code in _LOST:
            cause = _cause(details)
            if "Socket closed" in cause and self._channel_is_new:
                cause = _refused(self.options)
            return UnreachableError(f"connect: {address}: {cause}")
        return ServerError(f"call: {address}: {code.name.lower()}: {details}")


def open_channel(address: Address, options: ServerOptions) -> grpc.Channel:
    """Return a channel to ``address``; it connects with the first call."""
    settings: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", options.max_recv_size_bytes),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.enable_http_proxy", 0),
        # A fixed window instead of one that grows with the bandwidth: as quick, and bounded.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
        ("grpc.primary_user_agent", "tetra"),
    ]
    if address.target.startswith("dns:///"):
        settings.append(("grpc.service_config", '{"loadBalancingConfig":[{"round_robin":{}}]}'))
    if options.tls is None:
        return grpc.insecure_channel(address.target, options=settings)
    credentials, override = options.tls.load(address)
    if override:
        settings.append(("grpc.ssl_target_name_override", override))
    return grpc.secure_channel(
        address.target,
        grpc.ssl_channel_credentials(
            credentials.roots, credentials.private_key, credentials.certificate
        ),
        options=settings,
    )


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    return error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN


def _details(error: grpc.RpcError) -> str:
    text = error.details() if isinstance(error, grpc.Call) else str(error)
    return " ".join((text or "").split()).rstrip(".")


def _refused(options: ServerOptions) -> str:
    """Return what may be wrong where the server hangs up before it has answered."""
    if options.tls is None:
        return "the server hangs up; does it want TLS? --tls-ca-cert-files ca.pem"
    if options.tls.cert_file:
        return "the server hangs up; does it know the authority of --tls-cert-file?"
    return (
        "the server hangs up; does it want a certificate of ours? "
        "--tls-cert-file client.pem --tls-key-file client-key.pem"
    )


def _cause(details: str) -> str:
    """Return the part of gRPC's account that says why: its last cause."""
    for sign, cause in _CAUSES.items():
        if sign in details:
            return cause
    last = details.rpartition("last error: ")[2] or "connection lost"
    return re.sub(r"^[A-Z_]+: (?:ipv[46]:\S+: |unix:\S+: )?", "", last)
