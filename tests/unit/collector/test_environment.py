"""The environment variables of Tetragon's agent stand for ours where ours are not set."""

import os

import pytest

from chassis.settings import load
from collector.settings import Settings, adopt_environment


def node_name(monkeypatch, **environment):
    """Return the node's name with these variables, and none of the others."""
    for name in ("TETRA_NODE_NAME", "HUBBLE_NODE_NAME", "NODE_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    adopt_environment(os.environ)
    name = load(Settings, "collector", []).node_name
    monkeypatch.delenv("TETRA_NODE_NAME", raising=False)
    return name


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, os.uname().nodename),
        ({"NODE_NAME": "a"}, "a"),
        ({"HUBBLE_NODE_NAME": "b"}, "b"),
        ({"TETRA_NODE_NAME": "c"}, "c"),
        # Tetragon asks for HUBBLE_NODE_NAME first (pkg/reader/node/node.go).
        ({"NODE_NAME": "a", "HUBBLE_NODE_NAME": "b"}, "b"),
        ({"NODE_NAME": "a", "HUBBLE_NODE_NAME": "b", "TETRA_NODE_NAME": "c"}, "c"),
        # Compose sets it to nothing where nothing is chosen.
        ({"NODE_NAME": ""}, os.uname().nodename),
        ({"NODE_NAME": "a", "HUBBLE_NODE_NAME": ""}, "a"),
    ],
    ids=str,
)
def test_node_name_comes_from_the_first_variable_that_is_set(monkeypatch, environment, expected):
    assert node_name(monkeypatch, **environment) == expected


def test_settings_of_tetragon_have_their_names():
    environment = {"TETRAGON_CLUSTER_NAME": "prod", "TETRAGON_METRICS_SERVER": ":2112"}
    adopt_environment(environment)
    assert environment["TETRA_CLUSTER_NAME"] == "prod"
    assert environment["TETRA_METRICS_ADDRESS"] == ":2112"
    ours = {"TETRA_CLUSTER_NAME": "ours", "TETRAGON_CLUSTER_NAME": "theirs"}
    adopt_environment(ours)
    assert ours["TETRA_CLUSTER_NAME"] == "ours"
