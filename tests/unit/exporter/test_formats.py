"""OCSF records of every kind of event validate against the published schema; ECS by its rules."""

import json
import re
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from eventjson.encoder import JsonEncoder
from exporter import formats
from exporter.formats import ecs, ocsf
from exporter.selection import Selected
from support.random_messages import fill
from tetragon.events_pb2 import GetEventsResponse

KINDS = [one.name for one in GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields]
TEXTS = st.text(max_size=8)

CLASS_NAMES = {0: "base_event", 1003: "kernel_activity", 1005: "module_activity",
               1007: "process_activity"}  # fmt: skip
OCSF = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=ocsf.VERSION))


@cache
def validator(class_uid, profiles):
    """Return what validates a class: no attribute too many, none too few."""
    return Draft202012Validator(OCSF.get_class_schema(CLASS_NAMES[class_uid], list(profiles)))


def check_ocsf(record):
    """Assert that the published schema of the record's class accepts it."""
    profiles = tuple(record["metadata"]["profiles"])
    found = validator(record["class_uid"], profiles).iter_errors(record)
    errors = [f"{one.json_path}: {one.message}" for one in found]
    assert not errors, errors
    assert record["type_uid"] == record["class_uid"] * 100 + record["activity_id"]
    assert record["category_uid"] == record["class_uid"] // 1000


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


def full_message():
    """Return an event in which every field that a collector fills has a value of its own."""
    message = GetEventsResponse(node_name="n1", cluster_name="berlin", node_labels={"zone": "z7"})
    message.aggregation_info.count = 4711
    event = message.process_kprobe
    event.function_name, event.policy_name, event.message = "security_file_open", "watch", "why"
    event.args.add().string_arg = "argument-1"
    event.tags.append("tag-1")
    for name, number in (("process", 61), ("parent", 71)):
        process = getattr(event, name)
        process.pid.value, process.tid.value = number * 1000 + 1, number * 1000 + 2
        process.uid.value, process.auid.value = number * 1000 + 3, number * 1000 + 4
        process.exec_id, process.parent_exec_id = f"{name}-id", f"{name}-of-{name}-id"
        process.binary, process.cwd = f"/usr/bin/{name}", f"/home/{name}"
        process.arguments, process.flags = f"--of {name}", f"execve {name}"
        process.start_time.seconds = 1_700_000_000
        process.docker = f"{name}-container"[:31]
        process.container_info.id = f"{name}-container-full"
        process.container_info.name, process.container_info.image = f"{name}-web", f"{name}:9"
        process.container_info.runtime = f"{name}-engine"
        process.user_name = f"{name}-user"
        process.host_unit.unit, process.host_unit.session = f"{name}.service", f"{name}-42"
        process.pod.namespace, process.pod.name = f"{name}-shop", f"{name}-pod"
        process.pod.pod_labels["app"], process.pod.workload = f"{name}-app", f"{name}-deployment"
        process.cap.effective.append(1)
        process.ns.net.inum = number * 1000 + 5
        process.environment_variables.add(Key=f"{name}-key", Value=f"{name}-value")
        process.binary_properties.file.path = f"/deleted/{name}"
    event.ancestors.add().binary = "/usr/sbin/ancestor"
    return message


def leaves(value):
    """Yield the texts of all values in a JSON document."""
    if isinstance(value, dict):
        for one in value.values():
            yield from leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one)
    else:
        yield str(value)


@pytest.mark.parametrize("name", ["ocsf", "ecs"])
@pytest.mark.parametrize("has_pod", [True, False])
def test_record_has_every_value_of_the_event(name, has_pod):
    message = full_message()
    if not has_pod:
        message.process_kprobe.process.ClearField("pod")
        message.process_kprobe.parent.ClearField("pod")
    else:  # an event has either
        for one in (message.process_kprobe.process, message.process_kprobe.parent):
            one.pod.container.id, one.pod.container.name = f"runtime://{one.docker}-full", "web"
            one.pod.container.image.id, one.pod.container.image.name = "sha256:5", "nginx"
            one.ClearField("container_info")
    record = json.loads(formats.encoder(name)(Selected("n1:b:1", 5_000_000_000, message)))
    (check_ocsf if name == "ocsf" else check_ecs)(record)
    text = "\n".join(leaves(record))
    event = json.loads(JsonEncoder(extensions=True).encode(message))
    for times in (event["process_kprobe"]["process"], event["process_kprobe"]["parent"]):
        assert times.pop("start_time")  # in another form
    missing = [one for one in leaves(event) if one not in text]
    assert not missing


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
