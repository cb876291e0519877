"""Settings of the exporter."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from bus.settings import BusSettings
from chassis.settings import ServiceSettings


class Settings(ServiceSettings, BusSettings):
    """Settings of the exporter."""

    sinks_file: Path | None = Field(None, description="YAML file that describes the sinks")
    state_dir: Path = Field(
        Path("/var/lib/tetra-exporter"),
        description="folder for each sink's position in the stream; it has to survive restarts",
    )
    check_sinks: bool = Field(
        False, description="check the file of sinks, print its mistakes or its sinks, and exit"
    )
    metrics_address: str = Field(
        "", description="HTTP address of /metrics, /healthz and /readyz; empty: none"
    )

    own_node: bool = Field(
        False,
        description="export only the events of this host: for an exporter beside its collector",
    )
    node_name: str = Field(
        default_factory=lambda: os.environ.get("NODE_NAME") or os.uname().nodename,
        description="this host's name in events; also from NODE_NAME",
    )
    event_log_address: str = Field(
        "",
        description="serve Tetragon's EventLogService at unix:PATH or a loopback address: it reads "
        "and sets the rotation of the first file; empty: not served",
    )
    token_file: Path | None = Field(
        None,
        description="bearer tokens for this service, one a line: TOKEN RIGHT[,RIGHT]; right read "
        "to get the rotation, control to set it",
    )

    # One file sink without a file of sinks: names and meaning as Tetragon's.
    export_filename: str = Field(
        "", description="write events as JSON lines to this file; -: to standard output"
    )
    export_file_max_size_mb: int = Field(
        10, ge=0, description="rotate the file at this size; 0: never"
    )
    export_file_rotation_interval: str = Field(
        "0", description="rotate the file this often, such as 24h; 0: never"
    )
    export_file_max_backups: int = Field(5, ge=0, description="rotated files to keep; 0: all")
    export_file_compress: bool = Field(False, description="compress rotated files with gzip")
    export_file_perm: str = Field("600", description="permissions of the file, octal")
    export_rate_limit: int = Field(
        -1,
        ge=-1,
        description="events per minute; further ones are dropped and counted; -1: no limit",
    )
    export_allowlist: str = Field(
        "", description="export only events that match one of these filters; JSON, one a line"
    )
    export_denylist: str = Field(
        "", description="do not export events that match one of these filters; JSON, one a line"
    )
    field_filters: str = Field("", description="fields to keep or omit; JSON, one a line")
