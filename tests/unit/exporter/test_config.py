"""The file of sinks: every mistake with its place."""

from pathlib import Path

import pytest
import yaml

from exporter import config
from exporter.errors import ConfigError
from exporter.settings import Settings


def load(tmp_path, document):
    path = tmp_path / "sinks.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return config.load(Settings.model_validate({"sinks_file": path}))


FILE = {"name": "a", "type": "file", "path": "/tmp/a.log"}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, ["sinks: field required"]),
        ({"sinks": []}, ["sinks: "]),
        ({"sinks": [{"name": "a", "type": "fil"}]}, ["sinks.0", "'file', 'columns', 'stdout'"]),
        ({"sinks": [FILE | {"pathh": 1}]}, ["sinks.0.file.pathh: extra inputs"]),
        ({"sinks": [FILE | {"permissions": "888"}]}, ["three octal digits, such as 600"]),
        ({"sinks": [FILE | {"max_size": "10 parsecs"}]}, ["is not a size: write it as 10MB"]),
        ({"sinks": [FILE | {"rotation_interval": "soon"}]}, ["is not a duration: write it as 90s"]),
        ({"sinks": [FILE, FILE]}, ["two sinks are called a"]),
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
    with pytest.raises(ConfigError, match="columns have every event"):
        load(tmp_path, {"sinks": [sink]})
