"""Field filters: what is kept of an event, by Tetragon's rules."""

import re
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

import eventfilters
from eventfilters import Event, FilterError
from tetragon import events_pb2

EXEC: dict[str, Any] = {
    "process_exec": {
        "process": {"exec_id": "a", "pid": 7, "binary": "/b", "pod": {"name": "web", "uid": "u"}},
        "parent": {"exec_id": "p", "pid": 3},
        "ancestors": [{"exec_id": "x", "pid": 1}, {"exec_id": "y", "pid": 2}],
    },
    "node_name": "n",
    "time": "2026-01-02T03:04:05Z",
}
EXIT = {"process_exit": {"process": {"pid": 7}, "status": 3}, "node_name": "n"}


def rewritten(sent, *field_filters):
    """Return the inner message that is left; the envelope is always complete."""
    built = [ParseDict(f, events_pb2.FieldFilter()) for f in field_filters]
    filters = eventfilters.compile((), (), built)
    message = ParseDict(sent, events_pb2.GetEventsResponse())
    data = filters.apply(Event(message.SerializeToString()))
    message_left = filters.apply_parsed(Event(None, message))
    assert message_left == events_pb2.GetEventsResponse.FromString(data)
    left = MessageToDict(
        events_pb2.GetEventsResponse.FromString(data), preserving_proto_field_name=True
    )
    (kind,) = {"process_exec", "process_exit"} & left.keys()
    inner = left.pop(kind)
    assert left == {k: v for k, v in sent.items() if k != kind}
    return inner


def paths(*names, **more):
    camel = (re.sub("_([a-z])", lambda m: m[1].upper(), name) for name in names)  # as JSON has it
    return {"fields": ",".join(camel), **more}


def without(inner, *names):
    return {k: v for k, v in inner.items() if k not in names}


INNER = EXEC["process_exec"]


@pytest.mark.parametrize(
    ("field_filters", "left"),
    [
        ([paths("process.pid")], {"process": {"pid": 7}}),
        ([paths("process")], {"process": INNER["process"]}),
        ([paths("process", "process.pid")], {"process": INNER["process"]}),
        ([paths("process.pid", "process")], {"process": INNER["process"]}),
        ([paths("process.pod.name")], {"process": {"pod": {"name": "web"}}}),
        ([paths("ancestors.pid")], {"ancestors": [{"pid": 1}, {"pid": 2}]}),
        ([paths("nothing.here")], {}),
        ([paths("process.nothing")], {"process": {}}),
        ([paths()], INNER),
        ([paths(action="EXCLUDE")], INNER),
        ([paths("parent", "ancestors", action="EXCLUDE")], {"process": INNER["process"]}),
        (
            [paths("process.pod.uid", action="EXCLUDE")],
            INNER | {"process": INNER["process"] | {"pod": {"name": "web"}}},
        ),
        ([paths("nothing", action="EXCLUDE")], INNER),
        ([paths("process", "parent", "ancestors", action="EXCLUDE")], {}),
        ([paths("process"), paths("process.pod", action="EXCLUDE")],
         {"process": without(INNER["process"], "pod")}),
        ([paths("process.pod", action="EXCLUDE"), paths("process.pod")], {"process": {}}),
        ([paths("process.pid", event_set=["PROCESS_EXIT"])], INNER),
        ([paths("process.pid", event_set=["PROCESS_EXEC"])], {"process": {"pid": 7}}),
        ([paths("process.pid", event_set=["PROCESS_EXEC"], invert_event_set=True)], INNER),
        ([paths("process.pid", event_set=["PROCESS_EXIT"], invert_event_set=True)],
         {"process": {"pid": 7}}),
    ],
)  # fmt: skip
def test_kept_fields(field_filters, left):
    assert rewritten(EXEC, *field_filters) == left


def test_one_filter_for_two_kinds():
    assert rewritten(EXIT, paths("status")) == {"status": 3}
    assert rewritten(EXIT, paths("process", action="EXCLUDE")) == {"status": 3}


@pytest.mark.parametrize("path", ["", ".", "process.", ".process", "process..pid"])
def test_a_malformed_path_is_named(path):
    wanted = events_pb2.FieldFilter()
    wanted.fields.paths.append(path)
    with pytest.raises(FilterError, match="field_filters: path"):
        eventfilters.compile((), (), [wanted])


def test_fields_of_ours_are_kept_like_others():
    sent = {"process_exec": {"process": {"pid": 7, "user_name": "root"}}, "node_name": "n"}
    assert rewritten(sent, paths("process.user_name")) == {"process": {"user_name": "root"}}
