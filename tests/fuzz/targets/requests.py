"""What clients ask: the first part is a GetEventsRequest or a StreamEventsRequest.

It is refused as INVALID_ARGUMENT, or its filters are applied to events of all kinds, and what they
leave of an event can be parsed.
"""

from __future__ import annotations

from random import Random

import grpc
from google.protobuf.message import DecodeError

import eventfilters
from fuzz.inputs import flipped, join
from fuzz.messages import changed
from gateway import plan, rights
from gateway.errors import RequestError
from tetra.v1.stream_pb2 import StreamEventsRequest
from tetragon.events_pb2 import (
    EXCLUDE,
    PROCESS_EXEC,
    FieldFilter,
    Filter,
    GetEventsRequest,
    GetEventsResponse,
)

# Options.
STREAM = 1  # StreamEvents, else GetEvents


def _events() -> list[bytes]:
    out = []
    for field in GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields:
        event = GetEventsResponse(node_name="node-1")
        event.time.seconds = 1_767_225_600
        body = getattr(event, field.name)
        body.SetInParent()
        for member, pid in (("process", 5), ("parent", 4)):
            if member in body.DESCRIPTOR.fields_by_name:
                process = getattr(body, member)
                process.pid.value, process.binary, process.arguments = pid, "/usr/bin/x", "-a b"
                process.exec_id, process.docker = f"id{pid}", "0123456789ab"
                process.pod.namespace, process.pod.name = "default", "web"
                process.pod.pod_labels["a"] = "b"
                process.cap.effective.extend([0, 21])
                process.in_init_tree.value = True
        if "ancestors" in body.DESCRIPTOR.fields_by_name:
            body.ancestors.add(binary="/sbin/init")
        out.append(event.SerializeToString())
    return [*out, b"", b"\xff\xff", b"\x0a\x00"]


_EVENTS = _events()


def check(options: int, parts: list[bytes]) -> None:
    """Take the request as the service does, and send it made-up events."""
    kind = StreamEventsRequest if options & STREAM else GetEventsRequest
    try:
        request = kind.FromString(parts[0] if parts else b"")
    except DecodeError:
        return  # refused: streams.refusing
    try:
        if isinstance(request, StreamEventsRequest):
            rights.choose_nodes(frozenset(request.nodes))
            plan.time_ns("since", request.since)
            plan.time_ns("until", request.until)
        filters = eventfilters.compile(request.allow_list, request.deny_list, request.field_filters)
    except eventfilters.FilterError as error:
        refusal = RequestError(str(error))
    except RequestError as error:
        refusal = error
    else:
        _apply(filters)
        return
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert str(refusal)


def _apply(filters: eventfilters.Filters) -> None:
    for data in _EVENTS:
        sent = filters.apply(eventfilters.Event(data))
        if sent is not None and sent != data:
            GetEventsResponse.FromString(sent)


def mutate(part: bytes, rng: Random) -> bytes:
    """Another request by the schema, or other bytes."""
    if rng.random() < 0.1:
        return flipped(part, rng)
    # What both have is numbered alike or not at all: either reading is an input.
    kind = rng.choice((GetEventsRequest, StreamEventsRequest))
    return changed(part, kind, rng, {})


def seeds() -> list[bytes]:
    """Each filter field once, and field filters."""
    filters_of_each = [
        Filter(binary_regex=["^/usr/"], arguments_regex=["a|b"]),
        Filter(pid=[5], event_set=[PROCESS_EXEC]),
        Filter(pid_set=[4], namespace=["default", ""]),
        Filter(pod_regex=["web"], labels=["a=b", "a in (b,c),!x"]),
        Filter(cel_expression=["process_exec.process.pid > 1u"]),
        Filter(cel_expression=["process_exec.process.pid / 0u == 1u", "1u in [2u].map(x, x)"]),
        Filter(parent_binary_regex=["x"], parent_arguments_regex=["-a"]),
        Filter(ancestor_binary_regex=["init"], policy_names=["p"]),
        Filter(container_id=["0123"], container_name_regex=["w"]),
        Filter(unit=["a*.service", "b"], session=["42"]),
        Filter(namespace_regex=["d.*"], health_check={"value": True}),
        Filter(in_init_tree={"value": True}, capabilities={"effective": {"any": [21]}}),
    ]
    fields = FieldFilter(
        fields={"paths": ["process.pid", "parent"]}, action=EXCLUDE, event_set=[PROCESS_EXEC]
    )
    made = []
    for wanted in filters_of_each:
        request = GetEventsRequest(allow_list=[wanted], field_filters=[fields])
        stream = StreamEventsRequest(deny_list=[wanted], nodes=["node-1"])
        stream.since.seconds = 1_767_225_600
        made += [
            join(0, [request.SerializeToString()]),
            join(STREAM, [stream.SerializeToString()]),
        ]
    return made
