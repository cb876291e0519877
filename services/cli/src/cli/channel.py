"""A gRPC channel to one server."""

from __future__ import annotations

from typing import Any

import grpc
from grpc.experimental import ChannelOptions

from cli.address import Address, ServerOptions

# Many servers close a connection that pings more often than every five minutes.
_KEEPALIVE_MS = 310_000
# Enough for 25,000 events a second over a path of 50 ms.
_WINDOW_BYTES = 512 * 1024


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
        # Streams are read in the caller's thread, with no thread that polls ten times a second.
        (ChannelOptions.SingleThreadedUnaryStream, 1),
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
