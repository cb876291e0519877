"""A container that becomes known late is in the events that follow."""

import pytest

from collector.late import apply_containers
from collector.metadata.enricher import Enricher
from collector.processes.pods import Pod
from collector.processes.table import ContainerInfo, Image, Process
from support.stages import Stages
from tetragon.events_pb2 import GetEventsResponse
from unit.collector.synthetic import HOST_NS, exec_record, exit_record, fork_record

CONTAINER = "c" * 64
WEB = ContainerInfo(CONTAINER, "web", "nginx", "docker")


@pytest.fixture
def stages():
    """Stages with a process in a container, its fork, and one outside."""
    stages = Stages(Enricher(HOST_NS))
    stages.handle(
        [
            exec_record(5, 10, cgroup=CONTAINER.encode(), nspid=1),
            fork_record(6, 11, parent=(5, 10), nspid=2),
            exec_record(7, 12),
        ]
    )
    return stages


def test_later_events_have_the_container(stages):
    assert apply_containers([WEB], stages.table, stages.encoder) == 2
    exits = [exit_record(6, 11, 20), exit_record(5, 10, 21), exit_record(7, 12, 22)]
    found = [GetEventsResponse.FromString(e).process_exit for e in stages.handle(exits)]
    assert [e.process.container_info.name for e in found] == ["web", "web", ""]
    assert found[0].parent.container_info.name == "web"


def test_second_time_changes_nothing(stages):
    apply_containers([WEB], stages.table, stages.encoder)
    assert apply_containers([WEB], stages.table, stages.encoder) == 0
    assert [p.image.container for p in stages.table if p.image.docker] == [WEB, WEB]


def test_later_events_have_the_pod(stages):
    apply_containers([WEB], stages.table, stages.encoder)
    pod = Pod("shop", "web-1", "u1", (("app", "web"),), workload="web", workload_kind="Deployment")
    assert apply_containers([WEB._replace(pod=pod)], stages.table, stages.encoder) == 2
    exits = [exit_record(6, 11, 20), exit_record(5, 10, 21), exit_record(7, 12, 22)]
    found = [GetEventsResponse.FromString(e).process_exit.process for e in stages.handle(exits)]
    assert [(p.pod.namespace, p.pod.workload) for p in found] == [("shop", "web")] * 2 + [("", "")]
    assert [p.pod.container.pid.value for p in found] == [2, 1, 0]  # each its own


@pytest.mark.parametrize(
    "containers", [[], [WEB._replace(id="d" * 64)], [WEB._replace(id="")]], ids=str
)
def test_other_containers_change_nothing(stages, containers):
    assert apply_containers(containers, stages.table, stages.encoder) == 0
    assert {p.image.container for p in stages.table} == {None}


def test_known_and_saved_images_are_kept(stages):
    other = WEB._replace(name="other")
    known = Image("/bin/known", docker=CONTAINER[:31], container=other)
    saved = Image("/bin/saved", docker=CONTAINER[:31], saved=b"bytes")
    for pid, image in ((8, known), (9, saved)):
        stages.table.add(Process(pid, 30, (1, 1000), 0, 0, False, image), 0.0)
    assert apply_containers([WEB], stages.table, stages.encoder) == 2
    assert (known.container, saved.container) == (other, None)
