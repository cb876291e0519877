"""The sinks as their YAML file describes them. All mistakes are reported, with their paths."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import yaml
from google.protobuf import json_format
from google.protobuf.message import Message
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

import eventfilters
from chassis.durations import parse_seconds
from eventstream.aggregation import DEFAULT_EVENTS, MAX_EVENTS, MAX_WINDOW_S
from exporter.errors import ConfigError
from exporter.mistakes import describe
from exporter.settings import Settings
from tetragon.events_pb2 import FieldFilter, Filter

M = TypeVar("M", bound=Message)

_SIZE = re.compile(r"(\d+)\s*([kMG]i?B?|B)?")
_PERMISSIONS = re.compile(r"0?[0-7]{3}")
_UNIT_BYTES = {"k": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _duration(value: object) -> object:
    return parse_seconds(value, plain=True) if isinstance(value, str) else value


def _size(value: object) -> object:
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if not found:
            raise ValueError(f"{value!r} is not a size: write it as 10MB or 1GiB")
        return int(found[1]) * _UNIT_BYTES.get((found[2] or "B")[0], 1)
    return value


def _mode(value: object) -> object:
    # YAML reads 0640 without quotes as the number 416.
    if isinstance(value, int):
        raise ValueError('permissions are a text of three octal digits: write "600" with quotes')
    if isinstance(value, str) and not _PERMISSIONS.fullmatch(value):
        raise ValueError(f"{value!r} are no permissions: three octal digits, such as 600")
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port
        is_url = False
    if not is_url:
        raise ValueError(f"{value!r} is no URL: write it as https://host:port")
    return value


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{value!r} is no address: write it as host:port")
    return value


Seconds = Annotated[float, BeforeValidator(_duration), Field(ge=0)]
Bytes = Annotated[int, BeforeValidator(_size), Field(ge=0)]
Permissions = Annotated[str, BeforeValidator(_mode)]
Url = Annotated[str, AfterValidator(_url)]
Address = Annotated[str, AfterValidator(_address)]
Format = Literal["tetragon", "ocsf", "ecs"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_certificate(certificate: Path | None, key: Path | None) -> None:
    if key is not None and certificate is None:
        raise ValueError("key_file: certificate_file is missing: set both or neither")


class Aggregation(_Model):
    """Equal events of a window become one with a count; names as in Tetragon's API."""

    window_size: Seconds = Field(gt=0, le=MAX_WINDOW_S)
    channel_buffer_size: int = Field(DEFAULT_EVENTS, ge=1, le=MAX_EVENTS)  # different events held


class Common(_Model):
    """What every sink has."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    format: Format = "tetragon"
    nodes: tuple[str, ...] = ()  # empty: all
    allow_list: tuple[dict[str, Any], ...] = ()  # tetragon.Filter as JSON
    deny_list: tuple[dict[str, Any], ...] = ()
    field_filters: tuple[dict[str, Any], ...] = ()
    rate_limit: int = Field(-1, ge=-1)  # events a minute; -1: no limit
    aggregation: Aggregation | None = None
    start: Literal["now", "oldest"] = "now"  # where a new sink begins

    @model_validator(mode="after")
    def _filters_compile(self) -> Common:
        self.filters()
        return self

    def filters(self) -> eventfilters.Filters:
        """Return the filters, compiled; raise `ValueError` where they are malformed."""
        try:
            return eventfilters.compile(
                _messages(self.allow_list, Filter, "allow_list"),
                _messages(self.deny_list, Filter, "deny_list"),
                _messages(self.field_filters, FieldFilter, "field_filters"),
            )
        except eventfilters.FilterError as error:
            raise ValueError(str(error)) from None


class FileSink(Common):
    """JSON lines in a file, rotated: each event exactly once."""

    type: Literal["file"]
    path: Path
    permissions: Permissions = "600"
    max_size: Bytes = 10 << 20  # 0: no rotation by size
    rotation_interval: Seconds = 0  # 0: no rotation by time
    max_backups: int = Field(5, ge=0)  # 0: all
    compress: bool = False


class ColumnsSink(Common):
    """Parquet files with every event, for questions about the past."""

    type: Literal["columns"]
    folder: Path
    permissions: Permissions = "600"
    flush: Seconds = Field(60, ge=1)  # events are in a file after so long
    max_age: Seconds = 30 * 86400  # 0: no limit
    max_size: Bytes = 10 << 30  # of all files; 0: no limit
    format: Literal["none"] = "none"  # type: ignore[assignment]  # it has no lines
    start: Literal["now", "oldest"] = "oldest"

    @model_validator(mode="after")
    def _has_every_event(self) -> ColumnsSink:
        for name in ("nodes", "allow_list", "deny_list", "field_filters"):
            if getattr(self, name):
                raise ValueError(
                    f"{name}: not allowed here: columns must have every event, or "
                    f"answers would be wrong"
                )
        if self.rate_limit >= 0 or self.aggregation is not None:
            name = "aggregation" if self.aggregation else "rate_limit"
            raise ValueError(
                f"{name}: not allowed here: columns must have every event, or answers "
                f"would be wrong"
            )
        return self


class StdoutSink(Common):
    """JSON lines on standard output."""

    type: Literal["stdout"]


class HttpSink(Common):
    """Batches by HTTP POST; an answer from 200 to 299 acknowledges them."""

    type: Literal["http"]
    url: Url
    preset: Literal["json-lines", "json-array", "elasticsearch", "loki", "splunk-hec"] = (
        "json-lines"
    )
    headers: dict[str, SecretStr] = {}
    token_file: Path | None = None  # its text is sent as "Authorization: Bearer" (Splunk: "Splunk")
    index: str = "tetra"  # Elasticsearch
    labels: dict[str, str] = {}  # Loki
    ca_file: Path | None = None
    compress: bool = False
    max_batch: int = Field(1000, ge=1, le=100_000)
    timeout: Seconds = 30


class OtlpSink(Common):
    """OpenTelemetry log records."""

    type: Literal["otlp"]
    endpoint: Url
    protocol: Literal["grpc", "http"] = "grpc"
    headers: dict[str, SecretStr] = {}
    ca_file: Path | None = None
    compress: bool = False
    max_batch: int = Field(512, ge=1, le=10_000)
    timeout: Seconds = 10


class SyslogSink(Common):
    """RFC 5424 messages over TCP or TLS (RFC 5425)."""

    type: Literal["syslog"]
    address: Address
    transport: Literal["tls", "tcp"] = "tls"
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    facility: int = Field(13, ge=0, le=23)  # 13: log audit
    app_name: str = Field("tetra", pattern=r"^[!-~]{1,48}$")
    # Syslog acknowledges nothing. Messages older than this count as delivered while the connection
    # holds; when it breaks, all newer ones are sent again.
    settle: Seconds = 5

    @model_validator(mode="after")
    def _has_certificate(self) -> SyslogSink:
        _check_certificate(self.certificate_file, self.key_file)
        return self


class KafkaSink(Common):
    """Records of a topic: the key is the node, the header ``id`` the event's id."""

    type: Literal["kafka"]
    brokers: tuple[Address, ...] = Field(min_length=1)
    topic: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")
    transport: Literal["tls", "tcp"] = "tls"
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    user: str = ""
    password_file: Path | None = None
    mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = "none"
    max_batch: int = Field(1000, ge=1, le=10_000)
    timeout: Seconds = Field(30, gt=0)
    properties: dict[str, str] = {}  # of librdkafka; they take precedence

    @model_validator(mode="after")
    def _has_password(self) -> KafkaSink:
        if bool(self.user) != (self.password_file is not None):
            raise ValueError("user and password_file: set both or neither")
        _check_certificate(self.certificate_file, self.key_file)
        return self


Sink = Annotated[
    FileSink | ColumnsSink | StdoutSink | HttpSink | OtlpSink | SyslogSink | KafkaSink,
    Field(discriminator="type"),
]


class Sinks(_Model):
    """The whole file."""

    sinks: tuple[Sink, ...]

    @model_validator(mode="after")
    def _names_differ(self) -> Sinks:
        if not self.sinks:
            raise ValueError("sinks: there is none")
        names = [sink.name for sink in self.sinks]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"two sinks are called {', '.join(duplicates)}")
        self._check_places()
        return self

    # Each truncates the file to its own position: two would destroy each other's lines.
    def _check_places(self) -> None:
        found: dict[Path, str] = {}
        for sink in self.sinks:
            if not isinstance(sink, FileSink | ColumnsSink):
                continue
            name = "path" if isinstance(sink, FileSink) else "folder"
            place = getattr(sink, name)
            other = found.setdefault(place.resolve(), sink.name)
            if other != sink.name:
                raise ValueError(
                    f"{sink.name}: {name}: {place}: sink {other} writes it: choose another"
                )


def _messages(values: tuple[dict[str, Any], ...], kind: type[M], what: str) -> list[M]:
    found = []
    for number, value in enumerate(values):
        try:
            found.append(json_format.ParseDict(value, kind()))
        except json_format.ParseError as error:
            reason = str(error).partition("\n")[0]  # its comment: all fields
            raise ValueError(f"{what}[{number}]: {reason}") from None
    return found


def load(settings: Settings) -> Sinks:
    """Return the sinks of the settings; raise `ConfigError` with every mistake."""
    found = _load(settings)
    if not settings.own_node:
        return found
    own = (settings.node_name,)
    for sink in found.sinks:
        if sink.nodes and sink.nodes != own:
            raise ConfigError(
                f"sinks: {sink.name}: nodes: not only {settings.node_name}, and own_node is set"
            )
    return Sinks(sinks=tuple(sink.model_copy(update={"nodes": own}) for sink in found.sinks))


def _load(settings: Settings) -> Sinks:
    if settings.sinks_file is None:
        return _from_flags(settings)
    if settings.export_filename:
        raise ConfigError("settings: TETRA_EXPORT_FILENAME and TETRA_SINKS_FILE: set only one")
    path = settings.sinks_file
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"sinks: {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"sinks: {path}: {' '.join(str(error).split())}") from None
    return _validated(document, str(path))


def _from_flags(settings: Settings) -> Sinks:
    if not settings.export_filename:
        raise ConfigError(
            "sinks: none: set TETRA_SINKS_FILE (--sinks-file) or TETRA_EXPORT_FILENAME "
            "(--export-filename)"
        )
    to_stdout = settings.export_filename == "-"
    sink: dict[str, Any] = {
        "name": "export",
        "type": "stdout" if to_stdout else "file",
        "rate_limit": settings.export_rate_limit,
        "allow_list": _json_lines(settings.export_allowlist, "export_allowlist"),
        "deny_list": _json_lines(settings.export_denylist, "export_denylist"),
        "field_filters": _json_lines(settings.field_filters, "field_filters"),
    }
    if not to_stdout:
        sink |= {
            "path": settings.export_filename,
            "permissions": settings.export_file_perm,
            "max_size": settings.export_file_max_size_mb << 20,
            "rotation_interval": settings.export_file_rotation_interval,
            "max_backups": settings.export_file_max_backups,
            "compress": settings.export_file_compress,
        }
    return _validated({"sinks": [sink]}, "settings")


def _json_lines(text: str, name: str) -> list[Any]:
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise ConfigError(f"settings: TETRA_{name.upper()}: not JSON: {error}") from None


_SINKS = TypeAdapter(Sinks)
_KINDS: dict[str, type[BaseModel]] = {
    "file": FileSink,
    "columns": ColumnsSink,
    "stdout": StdoutSink,
    "http": HttpSink,
    "otlp": OtlpSink,
    "syslog": SyslogSink,
    "kafka": KafkaSink,
}


def _validated(document: object, source: str) -> Sinks:
    try:
        return _SINKS.validate_python(document)
    except ValidationError as error:
        lines = describe(error, _KINDS)
        count = f"{len(lines)} mistake{'s' if len(lines) > 1 else ''}"
        raise ConfigError("\n  ".join([f"sinks: {source}: {count}", *lines])) from None
