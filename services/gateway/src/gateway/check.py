"""``tetra-gateway --check``: whether the gateway with these settings serves, for health checks."""

from __future__ import annotations

import socket

import grpc
from grpc_health.v1 import (  # type: ignore[import-untyped]  # has no stubs
    health_pb2,
    health_pb2_grpc,
)

from chassis import listen
from gateway.settings import Settings

_TIMEOUT_S = 3.0


def check(settings: Settings) -> int:
    """Return 0 if it serves (with TLS: if it listens), else 1."""
    address = settings.listen_address
    if not listen.is_unix(address):
        host, port = listen.parse(address)
        host = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        if settings.tls_cert_file:  # a request would need the certificate authority
            return _listens(host, port)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest()
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_TIMEOUT_S)
        except grpc.RpcError:
            return 1
    return int(answer.status != health_pb2.HealthCheckResponse.SERVING)


def _listens(host: str, port: int) -> int:
    try:
        socket.create_connection((host, port), _TIMEOUT_S).close()
    except OSError:
        return 1
    return 0
