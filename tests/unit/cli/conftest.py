"""Events as collectors make them, for the renderers."""

import pytest

from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process

TIME_NS = 1_767_225_600_123_456_789


def _process(pid=101708, binary="/usr/sbin/iptables", arguments="-L", user_name="root", **more):
    process = Process(binary=binary, arguments=arguments, user_name=user_name, **more)
    process.pid.value = pid
    process.uid.value = 0
    return process


def _event(node):
    event = GetEventsResponse(node_name=node)
    event.time.FromNanoseconds(TIME_NS)
    return event


@pytest.fixture
def process():
    """Make a process; keywords are its fields."""
    return _process


@pytest.fixture
def exec_event():
    """Make an exec event; keywords are fields of its process."""

    def make(node="node1", **fields):
        event = _event(node)
        event.process_exec.process.CopyFrom(_process(**fields))
        return event

    return make


@pytest.fixture
def exit_event():
    """Make an exit event; keywords are fields of its process."""

    def make(node="node1", status=0, signal="", **fields):
        event = _event(node)
        event.process_exit.process.CopyFrom(_process(**fields))
        event.process_exit.status = status
        event.process_exit.signal = signal
        return event

    return make


@pytest.fixture
def event_of():
    """Make an event of any kind with the process in it; keywords are fields of the kind."""

    def make(kind, node="node1", **fields):
        event = _event(node)
        body = getattr(event, kind)
        if "process" in body.DESCRIPTOR.fields_by_name:
            body.process.CopyFrom(_process(binary="/usr/bin/cat"))
        body.MergeFrom(type(body)(**fields))
        return event

    return make
