"""OCSF and ECS records of every kind of event, held against what their schemas ask for.

`OCSF_RULES` is written from the published schema, version 1.3.0 (schema.ocsf.io): the attributes
that a class or an object must have, and the numbers that an enum allows.
"""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import formats
from exporter.formats import ecs, ocsf
from exporter.selection import Selected
from support.random_messages import fill
from tetragon.events_pb2 import GetEventsResponse

KINDS = [one.name for one in GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields]
TEXTS = st.text(max_size=8)

ACTIVITIES: dict[int, set[int]] = {
    1007: {1, 2, 3, 4, 5},
    1003: {1, 2, 3, 4},
    1005: {1, 2, 3},
    0: set(),
}
OF_CLASS: dict[int, set[str]] = {
    0: set(),
    1007: {"actor", "device", "process"},
    1003: {"actor", "device", "kernel"},
    1005: {"actor", "device", "module"},
}
OCSF_RULES: dict[str, set[str]] = {
    "event": {
        "activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid",
    },
    "metadata": {"product", "version"},
    "product": {"name", "vendor_name"},
    "device": {"type_id"},
    "kernel": {"name", "type_id"},
    "module": {"load_type_id"},
    "file": {"name", "type_id"},
    "image": {"uid"},
}  # fmt: skip
AT_LEAST_ONE = {
    "process": {"pid", "uid"},
    "device": {"ip", "uid", "name", "hostname"},
    "user": {"account", "name", "uid"},
    "actor": {"process", "user"},
}
PATH_OF = {"parent_process": "process"}
NUMBERS = {"type_id": {0, 1, 2, 3, 4, 5, 6, 7, 99}, "load_type_id": {0, 1, 2, 3, 4, 5, 99}}


def check_ocsf(record):
    """Assert that the record has what its class and its objects must have."""
    uid = record["class_uid"]
    assert set(record) >= OCSF_RULES["event"] | OF_CLASS[uid]
    assert record["activity_id"] in ACTIVITIES[uid] | {0, 99}
    assert record["type_uid"] == uid * 100 + record["activity_id"]
    assert record["category_uid"] == uid // 1000
    assert record["severity_id"] in range(7)
    assert isinstance(record["time"], int)
    check_object("metadata", record["metadata"])
    for name, value in record.items():
        if name != "unmapped" and isinstance(value, dict):
            check_object(name, value)


def check_object(name, value):
    kind = PATH_OF.get(name, name)
    assert set(value) >= OCSF_RULES.get(kind, set()), name
    if kind in AT_LEAST_ONE:
        assert set(value) & AT_LEAST_ONE[kind], name
    for key, one in value.items():
        if key in NUMBERS:
            assert one in NUMBERS[key], key
        if key in ("pid", "tid", "created_time", "terminated_time"):
            assert isinstance(one, int), key
        if key in ("name", "uid", "hostname", "cmd_line", "path"):
            assert isinstance(one, str), key
        if isinstance(one, dict):
            check_object(key, one)


def check_ecs(record):
    """Assert what ECS asks of every event, and of the fields that we fill."""
    assert re.fullmatch(r"-?\d+-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", record["@timestamp"])
    assert record["ecs"]["version"] == ecs.VERSION
    event = record["event"]
    assert event["kind"] == "event"
    assert set(event["category"]) <= {"process", "library", "host"}
    allowed = {
        "process": {"access", "change", "end", "info", "start"},
        "library": {"start"},
        "host": {"access", "change", "end", "info", "start"},
    }
    assert set(event["type"]) <= set.union(*(allowed[one] for one in event["category"]))
    process = record.get("process", {})
    for one in (process, process.get("parent", {})):
        assert isinstance(one.get("pid", 0), int)
        assert isinstance(one.get("args", []), list)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "check"), [("ocsf", check_ocsf), ("ecs", check_ecs)])
@given(data=st.data())
def test_any_event_makes_a_valid_record(kind, name, check, data):
    message = GetEventsResponse(node_name="n1")
    inner = getattr(message, kind)
    inner.SetInParent()
    fill(data.draw, inner, 3, TEXTS)
    for part in ("process", "parent"):
        if part in inner.DESCRIPTOR.fields_by_name and data.draw(st.booleans()):
            getattr(inner, part).start_time.Clear()
    text = formats.encoder(name)(Selected("n1:boot:1", 1_700_000_000_123_456_789, message))
    assert "\n" not in text
    check(json.loads(text))


def test_every_kind_of_process_event_is_in_both_tables():
    mapped = {kind for kind in KINDS if kind.startswith("process_")} - {"process_throttle"}
    assert set(ocsf.CLASSES) == mapped
    assert set(ecs.KINDS) == mapped


def exec_message():
    message = GetEventsResponse(node_name="n1")
    process = message.process_exec.process
    process.pid.value, process.uid.value, process.exec_id = 7, 1000, "id7"
    process.binary, process.arguments, process.cwd = "/usr/bin/ls", '-l "a b"', "/root"
    process.docker = "abc"
    message.process_exec.parent.binary = "/usr/bin/bash"
    message.process_exec.parent.pid.value = 3
    return message


def test_ocsf_of_an_exec():
    record = json.loads(formats.encoder("ocsf")(Selected("n1:b:1", 5_000_000_000, exec_message())))
    assert (record["class_uid"], record["activity_name"], record["time"]) == (1007, "Launch", 5000)
    assert record["metadata"]["uid"] == "n1:b:1"
    assert record["actor"]["process"]["file"]["path"] == "/usr/bin/bash"
    assert record["process"]["cmd_line"] == '/usr/bin/ls -l "a b"'
    assert record["process"]["user"] == {"uid": "1000"}
    assert record["process"]["container"] == {"uid": "abc"}
    assert record["metadata"]["profiles"] == ["host", "container"]


def test_ecs_of_an_exec():
    record = json.loads(formats.encoder("ecs")(Selected("n1:b:1", 5_000_000_001, exec_message())))
    assert record["@timestamp"] == "1970-01-01T00:00:05.000000001Z"
    assert record["event"]["id"] == "n1:b:1"
    assert record["process"]["args"] == ["/usr/bin/ls", "-l", "a b"]
    assert record["process"]["parent"]["executable"] == "/usr/bin/bash"
    assert record["container"] == {"id": "abc"}
    assert record["user"] == {"id": "1000"}
