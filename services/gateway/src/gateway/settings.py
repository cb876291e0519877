"""Settings of the gateway."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bus.settings import BusSettings
from chassis.settings import ServiceSettings

_MIB = 1 << 20


class Settings(ServiceSettings, BusSettings):
    """Settings of the gateway."""

    listen_address: str = Field(
        "localhost:54321", description="gRPC address, host:port or unix:///path"
    )
    insecure_listen: bool = Field(
        False,
        description="listen without TLS on an address that other hosts can reach: anyone on the "
        "network can read the command lines of all nodes",
    )
    tls_cert_file: Path | None = Field(None, description="server certificate chain (PEM)")
    tls_key_file: Path | None = Field(None, description="private key of the certificate (PEM)")
    tls_client_ca_file: Path | None = Field(
        None, description="require client certificates signed by these authorities (PEM)"
    )
    token_file: Path | None = Field(
        None,
        description="bearer tokens, one a line: TOKEN RIGHT[,RIGHT] [NODE,...]; rights: read, "
        "control, policies",
    )
    metrics_address: str = Field(
        "", description="HTTP address of /metrics, /healthz and /readyz; empty: none"
    )

    stream_max_age_s: int = Field(24 * 3600, ge=0, description="keep events this long; 0: no limit")
    stream_max_bytes: int = Field(
        4 << 30,
        ge=-1,
        description="largest size of the stream; beyond it the oldest events are dropped. NATS "
        "requires a third more free space when it creates the stream; -1: no limit",
    )
    stream_replicas: int = Field(1, ge=1, le=5, description="copies of the stream; 3 on a cluster")

    columns_dir: Path | None = Field(
        None,
        description="folder of the exporter's columns: questions about the past are answered from "
        "it, and newer events from the stream",
    )
    columns_memory_bytes: int = Field(
        512 * _MIB, ge=64 * _MIB, description="memory of one query of the columns"
    )
    columns_threads: int = Field(2, ge=1, description="threads of one query of the columns")

    max_clients: int = Field(200, ge=1, description="event streams open at once")
    read_without_clients: bool = Field(
        False,
        description="read all events even while no client has a stream open, so that /metrics "
        "counts them by type",
    )
    max_catch_up: int = Field(
        16, ge=1, description="streams that read from the past at once; others wait"
    )
    window_bytes: int = Field(
        8 * _MIB,
        ge=_MIB,
        description="newest events kept in memory; a stream further behind reads from NATS",
    )
    max_request_bytes: int = Field(4 * _MIB, ge=1024, description="largest request accepted")
    keepalive_s: int = Field(30, ge=1, description="ping a silent client this often")
