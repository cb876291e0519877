"""The gRPC server: services, health, reflection, keepalive, address and certificates."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # no stubs
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # no stubs

from chassis import listen
from chassis.errors import ListenError
from gateway import auth, event_stream, service, tls
from gateway.columns import Columns
from gateway.errors import SecurityError
from gateway.event_stream import EventStream
from gateway.fleet import Fleet
from gateway.health import find_fault
from gateway.policies import plans as policy_plans
from gateway.policies import service as policy_service
from gateway.policies.fleet_policies import FleetPolicies
from gateway.policies.plans import PolicyPlans
from gateway.policies.service import Policies
from gateway.policies.tetragon_api import TracingPolicies
from gateway.service import Sensors
from gateway.settings import Settings
from gateway.streams import Streams
from gateway.subscriber import Subscriber
from tetra.v1 import plans_pb2, policies_pb2, stream_pb2
from tetragon import eventlogservice_pb2, sensors_pb2

_LOOK_EVERY_S = 1.0
STOP_S = 0.2  # for requests that are being answered; streams have ended before
_KEEPALIVE_ANSWER_MS = 10_000
_PING_MIN_MS = 5_000  # clients may send keepalive pings this often
# Reflection finds the messages of these in the default pool.
_DESCRIBED = (stream_pb2, policies_pb2, plans_pb2, sensors_pb2, eventlogservice_pb2)
_HEALTH_NAMES = (
    "", "liveness", service.NAME, event_stream.NAME, policy_service.NAME, policy_plans.NAME,
)  # fmt: skip


class Server:
    """Listens from `start` on; its health follows whether events arrive."""

    def __init__(
        self, settings: Settings, streams: Streams, fleet: Fleet, policies: FleetPolicies
    ) -> None:
        """Check certificates, tokens and address; raise `ServiceError` where they do not fit."""
        self._settings = settings
        self._streams = streams
        self._fleet = fleet
        self._serving: bool | None = None
        credentials = tls.load(settings)
        self._interceptor = (
            auth.Interceptor(auth.Tokens(settings.token_file)) if settings.token_file else None
        )
        self._server = grpc.aio.server(
            interceptors=[self._interceptor] if self._interceptor else [],
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", settings.keepalive_s * 1000),
                ("grpc.keepalive_timeout_ms", _KEEPALIVE_ANSWER_MS),
                ("grpc.http2.min_ping_interval_without_data_ms", _PING_MIN_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.max_receive_message_length", settings.max_request_bytes),
                ("grpc.max_send_message_length", -1),
            ],
        )
        sensors = Sensors(streams, fleet, settings, TracingPolicies(policies))
        own = EventStream(streams, fleet, Columns(settings))
        self._server.add_generic_rpc_handlers(
            [
                *sensors.handlers(),
                *own.handlers(),
                *Policies(policies).handlers(),
                *PolicyPlans(fleet).handlers(),
            ]
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [
            found.full_name
            for module in _DESCRIBED
            for found in module.DESCRIPTOR.services_by_name.values()
        ]
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )
        self.address = self._bind(settings.listen_address, credentials)

    async def start(self) -> None:
        """Listen, not serving yet."""
        await self._set_health(False)
        await self._server.start()

    async def follow(self, subscriber: Subscriber) -> None:
        """Set health by whether events arrive, until cancelled."""
        while True:
            await self._set_health(not find_fault(self._streams, self._fleet))
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await subscriber.wait_live(not subscriber.live)

    async def watch_tokens(self) -> None:
        """End streams whose token is removed or changed, until cancelled."""
        if self._interceptor is not None:
            await self._interceptor.watch()

    async def stop(self) -> None:
        """End all streams, so that clients connect to another gateway, and stop."""
        self._streams.stop()
        await self._set_health(False)
        await self._server.stop(STOP_S)

    async def _set_health(self, serving: bool) -> None:
        if serving == self._serving:
            return
        self._serving = serving
        answer = health_pb2.HealthCheckResponse
        status = answer.SERVING if serving else answer.NOT_SERVING
        await asyncio.gather(*(self._health.set(name, status) for name in _HEALTH_NAMES))

    # Returns the address with the port that was found where 0 was asked for.
    def _bind(self, address: str, credentials: grpc.ServerCredentials | None) -> str:
        open_to_all = credentials is None and not self._settings.insecure_listen
        if open_to_all and not listen.is_loopback(address):
            raise SecurityError(
                f"listen: {address}: other hosts can reach it, and without TLS anyone reads "
                "every command line; set TETRA_TLS_CERT_FILE and TETRA_TLS_KEY_FILE, or "
                "TETRA_INSECURE_LISTEN=true to allow it"
            )
        listen.check(address)
        target = address
        if not listen.is_unix(address):
            host, port = listen.parse(address)
            target = f"[{host}]:{port}" if ":" in host else f"{host or '[::]'}:{port}"
        try:
            if credentials is None or listen.is_unix(address):
                port = self._server.add_insecure_port(target)
            else:
                port = self._server.add_secure_port(target, credentials)
        except RuntimeError as error:
            raise ListenError(f"listen: {address}: {error}".splitlines()[0]) from None
        if listen.is_unix(address):
            os.chmod(Path(address.removeprefix("unix:").removeprefix("//")), listen.UNIX_MODE)
            return address
        return f"{target.rpartition(':')[0]}:{port}"
