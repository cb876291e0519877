"""The file of sinks: every mistake with its place."""

from pathlib import Path

import pytest
import yaml

from exporter import config
from exporter.errors import ConfigError, SinkError
from exporter.settings import Settings
from exporter.sinks import check, make


def load(tmp_path, document):
    path = tmp_path / "sinks.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return config.load(Settings.model_validate({"sinks_file": path}))


FILE = {"name": "a", "type": "file", "path": "/tmp/a.log"}
COLUMNS = {"name": "past", "type": "columns", "folder": "/tmp/c"}
HTTP = {"name": "a", "type": "http", "url": "https://h"}
OTLP = {"name": "a", "type": "otlp", "endpoint": "https://h"}
SYSLOG = {"name": "a", "type": "syslog", "address": "h:1"}
KAFKA = {"name": "a", "type": "kafka", "brokers": ["127.0.0.1:9"], "topic": "t"}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, ["1 mistake\n", "sinks: is missing"]),
        ({"sinks": []}, ["sinks: there is none"]),
        (
            {"sinks": [{"name": "a", "type": "fil"}]},
            ["sinks.0: type: no such type 'fil': did you mean file?"],
        ),
        ({"sinks": [{"name": "a"}]}, ["sinks.0: type is missing: one of file, columns, stdout"]),
        ("", ["document: empty"]),
        ("hello", ["document: not a mapping of keys to values"]),
        ({"sinks": {"name": "a"}}, ["sinks: not a list: write each entry behind a dash"]),
        ({"sinks": [FILE | {"pathh": 1}]}, ["sinks.0.file.pathh: no such key: did you mean path?"]),
        ({"sinks": [FILE | {"zzz": 1}]}, ["sinks.0.file.zzz: no such key: one of name, format"]),
        ({"sink": [FILE]}, ["sink: no such key: did you mean sinks?"]),
        ({"sinks": [FILE | {"permissions": 600}]}, ['write "600" with quotes']),
        ({"sinks": [FILE | {"permissions": "888"}]}, ["three octal digits, such as 600"]),
        ({"sinks": [FILE | {"max_size": "10 parsecs"}]}, ["is not a size: write it as 10MB"]),
        ({"sinks": [FILE | {"rotation_interval": "soon"}]}, ["is not a duration: write it as 90s"]),
        ({"sinks": [FILE, FILE]}, ["two sinks are called a"]),
        (
            {"sinks": [FILE, FILE | {"name": "b", "path": "/tmp/../tmp/a.log"}]},
            ["b: path: /tmp/../tmp/a.log: sink a writes it: choose another"],
        ),
        ({"sinks": [COLUMNS, COLUMNS | {"name": "b"}]}, ["b: folder: /tmp/c: sink past writes it"]),
        ({"sinks": [HTTP | {"url": "h:80"}]}, ["'h:80' is no URL: write it as https://host:port"]),
        ({"sinks": [HTTP | {"url": "http://"}]}, ["'http://' is no URL"]),
        ({"sinks": [HTTP | {"url": "http://h:99999"}]}, ["'http://h:99999' is no URL"]),
        ({"sinks": [SYSLOG | {"address": "h"}]}, ["'h' is no address: write it as host:port"]),
        ({"sinks": [SYSLOG | {"address": "h:70000"}]}, ["'h:70000' is no address"]),
        ({"sinks": [SYSLOG | {"key_file": "/k"}]}, ["key_file: certificate_file is missing"]),
        ({"sinks": [FILE | {"allow_list": [{"binary_regex": ["("]}]}]}, ["binary_regex"]),
        ({"sinks": [FILE | {"allow_list": [{"binry": ["x"]}]}]}, ["allow_list[0]", "binry"]),
        ({"sinks": [FILE | {"deny_list": [{"event_set": ["NONE"]}]}]}, ["deny_list[0]"]),
        (
            {"sinks": [FILE | {"rate_limit": -2}, {"type": "http", "name": "x", "url": "ftp://x"}]},
            ["2 mistakes", "sinks.0.file.rate_limit", "sinks.1.http.url"],
        ),
        ("sinks: [", ["sinks.yaml", "line 1"]),
    ],
)
def test_mistakes_are_named(tmp_path, document, words):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, document)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("sink", [HTTP, OTLP, OTLP | {"protocol": "http"}, SYSLOG, KAFKA])
async def test_certificates_that_cannot_be_used_are_named(tmp_path, sink):
    path = tmp_path / "ca.pem"
    found = load(tmp_path, {"sinks": [sink | {"ca_file": str(path)}]}).sinks
    with pytest.raises(SinkError, match=f"^sink a: ca_file: {path}: No such file or directory$"):
        await check(found)
    path.write_text("hello")
    with pytest.raises(SinkError, match=f"^sink a: ca_file: {path}: not a certificate in PEM$"):
        await check(found)


@pytest.mark.parametrize("sink", [SYSLOG, KAFKA])
async def test_own_certificate_that_cannot_be_used_is_named(tmp_path, sink):
    path = tmp_path / "own.pem"
    found = load(tmp_path, {"sinks": [sink | {"certificate_file": str(path)}]}).sinks
    with pytest.raises(SinkError, match=f"^sink a: certificate_file: {path}: No such file"):
        await check(found)
    path.write_text("hello")
    with pytest.raises(
        SinkError, match=r"^sink a: (certificate_file: |kafka: .*ssl\.certificate\.location failed)"
    ):
        await check(found)


async def test_token_that_cannot_be_read_is_named(tmp_path):
    found = load(tmp_path, {"sinks": [HTTP | {"token_file": "/nope"}]}).sinks
    with pytest.raises(SinkError, match=r"^sink a: token_file: /nope: No such file or directory$"):
        await check(found)


async def test_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "file/a", "Not a directory")):
        (sink,) = load(tmp_path, {"sinks": [FILE | {"path": str(path)}]}).sinks
        with pytest.raises(SinkError, match=f"^sink a: {path}: {reason}$"):
            await make(sink).open({})


def test_sizes_and_durations(tmp_path):
    (sink,) = load(
        tmp_path, {"sinks": [FILE | {"max_size": "3MB", "rotation_interval": "1h30m"}]}
    ).sinks
    assert isinstance(sink, config.FileSink)
    assert (sink.max_size, sink.rotation_interval) == (3 << 20, 5400)


def test_flags_of_tetragon_make_a_file_sink():
    settings = Settings.model_validate(
        {
            "export_filename": "/var/log/tetragon/tetragon.log",
            "export_file_rotation_interval": "24h",
            "export_file_max_size_mb": 5,
            "export_rate_limit": 100,
            "export_allowlist": '{"event_set":["PROCESS_EXEC"]}\n{"namespace":["x"]}',
            "field_filters": '{"fields":"process.binary","action":"INCLUDE"}',
        }
    )
    (sink,) = config.load(settings).sinks
    assert isinstance(sink, config.FileSink)
    assert sink.path == Path("/var/log/tetragon/tetragon.log")
    assert (sink.max_size, sink.rotation_interval, sink.rate_limit) == (5 << 20, 86400, 100)
    assert len(sink.allow_list) == 2


def test_secrets_are_not_shown(tmp_path):
    sink = {"name": "x", "type": "http", "url": "http://x", "headers": {"Authorization": "top"}}
    assert "top" not in repr(load(tmp_path, {"sinks": [sink]}))


@pytest.mark.parametrize(
    "setting", [{"rate_limit": 5}, {"nodes": ["n1"]}, {"deny_list": [{"pid": [1]}]}]
)
def test_columns_with_a_part_of_the_events_are_refused(tmp_path, setting):
    sink = {"name": "past", "type": "columns", "folder": str(tmp_path)} | setting
    with pytest.raises(ConfigError, match="columns must have every event"):
        load(tmp_path, {"sinks": [sink]})
