"""``--columns``: one more child, whose columns the gateway reads."""

import json

import pytest

from embedded.settings import load
from embedded.stack import Stack


@pytest.fixture
def stack_of(tmp_path, monkeypatch):
    monkeypatch.setenv("TETRA_STATE_DIR", str(tmp_path))
    return lambda *arguments: Stack(load([*arguments]))


def test_exporter_is_a_child_between_gateway_and_collector(stack_of, tmp_path):
    names = [child.name for child in stack_of("--columns")._children]
    assert names == ["nats", "gateway", "exporter", "collector", "tetra"]
    [sink] = json.loads((tmp_path / "sinks.yaml").read_text())["sinks"]
    assert (sink["type"], sink["folder"]) == ("columns", str(tmp_path / "columns"))
    assert sink["max_size"] > 0


def test_without_it_there_is_no_exporter_and_old_columns_are_read(stack_of, tmp_path):
    stack = stack_of()
    assert stack.exporter is None
    assert stack._env["TETRA_COLUMNS_DIR"] == str(tmp_path / "columns")
