"""The tables of docs/export.md say what the exporter writes."""

import json
import re
from pathlib import Path

import pytest

from eventfilters import Event
from exporter import formats
from exporter.formats import ecs, ocsf
from exporter.selection import Selected
from exporter.sinks import otlp
from tetragon.events_pb2 import GetEventsResponse

PAGE = (Path(__file__).parents[3] / "docs/export.md").read_text()
TIME_NS = 1_700_000_000_000_000_000
TIMES = {"ocsf": "1700000000000", "ecs": "2023-11-14T22:13:20.000000000Z"}
NUMBER, TEXT = 61_001, "a-text-of-its-own"


def table(first):
    """Return the cells of the table whose head begins with ``first``."""
    rows = PAGE[PAGE.index(f"| {first} |") :].partition("\n\n")[0].splitlines()[2:]
    return [[one.strip() for one in row.strip("|").split("|")] for row in rows]


def test_events_become_what_the_first_table_says():
    others = ["others", "Base Event (0)", "host, info, report"]
    expected = [others]
    for kind, found in ocsf.CLASSES.items():
        activity = "Other: " if found.activity_id == 99 else ""
        category = ecs.KINDS[kind]
        parts = ", ".join([*category.category, *category.type, category.action])
        expected.append(
            [f"`{kind}`", f"{found.name} ({found.uid}), {activity}{found.activity}", parts]
        )
    assert sorted(table("event")) == sorted(expected)


def message_with(path):
    """Return an event where one field has a value of its own, and that value as a text."""
    kind = {"status": "process_exit", "policy_name": "process_kprobe"}.get(path, "process_exec")
    message = GetEventsResponse(node_name="n1")
    inner = getattr(message, kind)
    inner.process.pid.value = inner.parent.pid.value = 1
    inner.process.docker = "some-container"
    *folders, last = path.split(".")
    target = message if path.startswith(("aggregation_info", "node_name", "time")) else inner
    for one in folders:
        target = getattr(target, one)
    field = target.DESCRIPTOR.fields_by_name[last]
    if path == "time":
        return message, None
    if last == "host_unit":
        target.host_unit.unit = TEXT
        return message, TEXT
    if field.message_type is not None:
        getattr(target, last).value = NUMBER
        return message, str(NUMBER)
    value = TEXT if field.type == field.TYPE_STRING else NUMBER
    setattr(target, last, value)
    return message, str(value)


def at(record, path):
    for one in path.split("."):
        record = record[one]
    return json.dumps(record)


ROWS = table("Tetragon")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`"))
def test_field_is_where_the_second_table_says(row):
    name, *columns = row
    message, value = message_with(name.strip("`"))
    selected = Selected("n1:b:1", TIME_NS, message)
    for form, column in zip(("ocsf", "ecs"), columns, strict=False):
        record = json.loads(formats.encoder(form)(selected))
        record = {**record.get("actor", {}), **record}
        paths = re.findall(r"`([^`]+)`", column)
        assert paths, form
        for path in paths:
            assert (value or TIMES[form]) in at(record, path), (form, path)
    sink = columns[2]
    if sink == "body":  # the whole event
        assert value in formats.encoder("tetragon")(selected)
    elif sink.startswith("`"):
        found = otlp._attributes(Event(None, message))
        assert value in str(found[sink.strip("`")])
