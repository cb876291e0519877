"""Filtering without a server, by the rules that servers follow."""

import pytest

from cli.errors import UsageError
from cli.filters import apply_field_filters, local_predicate
from tetra.v1.extensions_pb2 import ContainerInfo
from tetragon.events_pb2 import EXCLUDE, INCLUDE, FieldFilter, Filter, GetEventsResponse
from tetragon.tetragon_pb2 import Container, Pod

POD = Pod(
    namespace="shop",
    name="web-0",
    pod_labels={"app": "web", "tier": "front"},
    container=Container(name="nginx"),
)


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Filter(), True),
        (Filter(binary_regex=["^/bin", "iptab"]), True),
        (Filter(binary_regex=["^iptables"]), False),
        (Filter(arguments_regex=[r"^-L\z"]), True),
        (Filter(pid=[1, 101708]), True),
        (Filter(pid=[1]), False),
        (Filter(event_set=[1]), True),
        (Filter(event_set=[5, 9]), False),
        (Filter(namespace=["shop"]), True),
        (Filter(namespace=[""]), False),
        (Filter(namespace_regex=["^sh"]), True),
        (Filter(pod_regex=["^web-"]), True),
        (Filter(container_name_regex=["nginx"]), True),
        (Filter(container_name_regex=["^engine-name$"]), True),
        (Filter(container_id=["^0123"]), True),
        (Filter(parent_binary_regex=["sh$"]), True),
        (Filter(parent_binary_regex=["zsh$"]), False),
        (Filter(labels=["app=web,tier in (front, back)"]), True),
        (Filter(labels=["app==web,tier!=front"]), False),
        (Filter(labels=["!app", "tier"]), True),
        (Filter(labels=["tier notin (front)"]), False),
        (Filter(labels=[""]), True),
        (Filter(policy_names=["p"]), False),
        (Filter(binary_regex=["iptables"], pid=[2]), False),
        (Filter(capabilities={"effective": {"any": [21]}}), True),
        (Filter(capabilities={"effective": {"all": [21, 22]}}), False),
        (Filter(capabilities={"effective": {"none": [22]}, "permitted": {"exactly": []}}), None),
        (Filter(capabilities={"effective": {"exactly": [21]}}), True),
    ],
)
def test_filters(exec_event, wanted, matches):
    event = exec_event(
        pod=POD, docker="0123456789", container_info=ContainerInfo(name="engine-name")
    )
    event.process_exec.process.cap.effective.append(21)
    event.process_exec.parent.binary = "/bin/sh"
    if matches is None:
        with pytest.raises(UsageError, match="one of any, all, exactly, none"):
            local_predicate(wanted)
    else:
        assert local_predicate(wanted)(event) is matches


def test_host_processes_have_no_namespace(exec_event):
    assert local_predicate(Filter(namespace=[""]))(exec_event())
    assert not local_predicate(Filter(pod_regex=["."]))(exec_event())


def test_events_without_a_process_match_no_test_of_processes(event_of):
    event = event_of("process_throttle", cgroup="x")
    assert not local_predicate(Filter(pid=[0]))(event)
    assert local_predicate(Filter(event_set=[27]))(event)


def test_pid_set_follows_descendants(exec_event):
    test = local_predicate(Filter(pid_set=[10]))
    child, grandchild, other = exec_event(pid=11), exec_event(pid=12), exec_event(pid=13)
    child.process_exec.parent.pid.value = 10
    grandchild.process_exec.parent.pid.value = 11
    other.process_exec.parent.pid.value = 99
    assert [test(event) for event in (child, grandchild, other)] == [True, True, False]


def test_policy_names(event_of):
    test = local_predicate(Filter(policy_names=["p"]))
    assert test(event_of("process_kprobe", policy_name="p"))
    assert not test(event_of("process_usdt", policy_name="p"))


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(cel_expression=["true"]),
        Filter(binary_regex=["("]),
        Filter(labels=["a in b"]),
    ],
)
def test_what_cannot_be_matched_here_is_refused(wanted):
    with pytest.raises(UsageError):
        local_predicate(wanted)


def field_filter(action, *paths):
    made = FieldFilter(action=action)
    made.fields.paths.extend(paths)
    return made


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ([field_filter(INCLUDE, "process.pid")], {"process.pid"}),
        ([field_filter(INCLUDE, "process.pid", "parent")], {"process.pid", "parent.binary"}),
        ([field_filter(EXCLUDE, "process")], {"parent.binary"}),
        (
            [field_filter(INCLUDE, "process"), field_filter(EXCLUDE, "process.pid")],
            {"process.binary"},
        ),
        ([field_filter(INCLUDE, "nosuch")], set()),
        ([field_filter(EXCLUDE)], {"process.pid", "process.binary", "parent.binary"}),
    ],
)
def test_field_filters(filters, left):
    event = GetEventsResponse(node_name="n")
    event.process_exec.process.pid.value = 1
    event.process_exec.process.binary = "/b"
    event.process_exec.parent.binary = "/p"
    apply_field_filters(event, filters)
    body = event.process_exec
    assert {
        f"{field.name}.{inner.name}"
        for field, value in body.ListFields()
        for inner, _ in value.ListFields()
    } == left
    assert event.node_name == "n"
    assert event.WhichOneof("event") == "process_exec"
