"""The sinks, one module each: files, columns, standard output, HTTP, OpenTelemetry, syslog,
Kafka."""

from __future__ import annotations

from collections.abc import Sequence

from exporter import config
from exporter.sinks.base import Sink
from exporter.sinks.tls import read


async def check(sinks: Sequence[config.Common]) -> None:
    """Make each sink: its certificates, keys and tokens are read. Raises `SinkError`."""
    for sink in sinks:
        if isinstance(sink, config.HttpSink) and sink.token_file is not None:
            read(sink.name, "token_file", sink.token_file)
        await make(sink).close()


def make(sink: config.Common) -> Sink:
    """Return the sink that ``sink`` describes; raise `SinkError` where it can never work."""
    # Imported when used: OpenTelemetry takes a third of a second and 30 MB.
    if isinstance(sink, config.ColumnsSink):
        from exporter.sinks.columns import Columns

        return Columns(sink)
    if isinstance(sink, config.FileSink):
        from exporter.sinks.file import File

        return File(sink)
    if isinstance(sink, config.StdoutSink):
        from exporter.sinks.stdout import Stdout

        return Stdout()
    if isinstance(sink, config.HttpSink):
        from exporter.sinks.http import Http

        return Http(sink)
    if isinstance(sink, config.OtlpSink):
        from exporter.sinks.otlp import Otlp

        return Otlp(sink)
    if isinstance(sink, config.KafkaSink):
        from exporter.sinks.kafka import Kafka

        return Kafka(sink)
    assert isinstance(sink, config.SyslogSink)
    from exporter.sinks.syslog import Syslog

    return Syslog(sink)
