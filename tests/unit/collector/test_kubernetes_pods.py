"""The pods of a node from an API server: what they are, and that the copy follows every change."""

import pytest

from collector.kubernetes import follow
from collector.kubernetes.client import ApiClient
from collector.kubernetes.node import KubernetesNode
from collector.kubernetes.pods import KubernetesPods
from collector.kubernetes.workloads import pod_record
from collector.metadata.containers.catalog import Catalog
from collector.metadata.containers.engine import Engine
from collector.processes.pods import Pod, PodContainer
from collector.processes.table import ContainerInfo
from support.api_server import ApiServer, pod, running
from support.waiting import wait_until

ID, OTHER = "a" * 64, "b" * 64
REPLICA_SET = {"kind": "ReplicaSet", "name": "web-5d9f7", "controller": True}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(follow, "RETRY_S", (0.01, 0.02))
    started = []
    start = follow.Follower.start

    def start_noted(follower, name):
        started.append(follower)
        start(follower, name)

    monkeypatch.setattr(follow.Follower, "start", start_noted)
    server = ApiServer()
    server.start()
    yield server
    for one in started:
        one.stop()
    server.stop()


@pytest.fixture
def changes():
    return []


@pytest.fixture
def pods(server, changes):
    """A follower of the server's pods that has its list."""
    pods = KubernetesPods(ApiClient(server.access), "n1", deleted_max=2)
    pods.start(lambda uid, ids: changes.append((uid, ids)))
    until(lambda: server.watches)
    return pods


def until(condition):
    return wait_until(condition, 20, lambda: "API server")


def named(pods, name):
    return pods.complete(Pod("", "", f"uid-{name}"), "nginx")


def test_pod_is_complete():
    item = pod(
        "web-5d9f7-x", generateName="web-5d9f7-", ownerReferences=[REPLICA_SET],
        labels={"app": "web", "pod-template-hash": "5d9f7"}, annotations={"note": "1"},
        status=running(ID),
        spec={
            "containers": [
                {
                    "name": "nginx", "image": "nginx", "securityContext": {"privileged": True},
                    "livenessProbe": {"exec": {"command": ["/bin/check", "-q"]}},
                    "readinessProbe": {"httpGet": {"port": 80}},
                }
            ]
        },
    )  # fmt: skip
    record = pod_record(item)
    assert record.pod == Pod(
        "shop", "web-5d9f7-x", "uid-web-5d9f7-x",
        (("app", "web"), ("pod-template-hash", "5d9f7")), (), "web", "Deployment",
    )  # fmt: skip
    assert record.containers == {
        "nginx": PodContainer(
            "nginx", "nginx:1", "docker.io/library/nginx@sha256:1", 1795748400 * 10**9, True,
            (("/bin/check", "-q"),),
        )
    }  # fmt: skip
    assert record.names == {ID: ("nginx", "containerd")}
    assert pod_record(item, annotations=True).pod.annotations == (("note", "1"),)


@pytest.mark.parametrize(
    ("about", "workload"),
    [
        ({}, ("x", "Pod")),
        ({"generateName": "x-"}, ("x", "Pod")),
        ({"ownerReferences": [REPLICA_SET]}, ("x", "Pod")),
        ({"ownerReferences": [REPLICA_SET], "generateName": "w"}, ("web-5d9f7", "ReplicaSet")),
        (
            {"ownerReferences": [REPLICA_SET | {"controller": False}], "generateName": "w"},
            ("x", "Pod"),
        ),
        (
            {
                "ownerReferences": [{"kind": "Job", "name": "tidy-29384756", "controller": True}],
                "generateName": "w",
            },
            ("tidy", "CronJob"),
        ),
        (
            {
                "ownerReferences": [{"kind": "Job", "name": "tidy-2938", "controller": True}],
                "generateName": "w",
            },
            ("tidy-2938", "Job"),
        ),
        (
            {
                "ownerReferences": [{"kind": "DaemonSet", "name": "log", "controller": True}],
                "generateName": "w",
            },
            ("log", "DaemonSet"),
        ),
        (
            {
                "ownerReferences": [
                    {"kind": "ReplicationController", "name": "shop-3", "controller": True}
                ],
                "generateName": "w",
                "labels": {"deploymentconfig": "shop"},
            },
            ("shop", "DeploymentConfig"),
        ),
    ],
)
def test_workload_is_what_made_the_pod(about, workload):
    found = pod_record(pod("x", **about)).pod
    assert (found.workload, found.workload_kind) == workload


def test_list_asks_for_this_nodes_pods_in_pages(server):
    server.items = [pod(f"p{n}") for n in range(5)]
    server.page = 2
    pods = KubernetesPods(ApiClient(server.access), "n1")
    pods.start(lambda *_: None)
    until(lambda: len(pods) == 5)
    assert [query["fieldSelector"] for query in server.lists] == ["spec.nodeName=n1"] * 3


def test_container_is_known_from_the_status(server, pods, changes):
    server.emit("ADDED", pod("web"))
    until(lambda: changes == [("uid-web", ())])
    assert pods.container(ID) is None
    server.emit("MODIFIED", pod("web", status=running(ID)))
    found = until(lambda: pods.container(ID))
    assert found[:4] == (ID, "nginx", "nginx:1", "containerd")
    assert (found.pod.name, found.pod.container.image) == ("web", "nginx:1")
    assert changes[-1] == ("uid-web", (ID,))


def test_deleted_pods_are_kept_for_late_events(server, pods):
    for name in "abc":
        server.emit("ADDED", pod(name))
    until(lambda: len(pods) == 3)
    for name in "abc":
        server.emit("DELETED", pod(name))
    until(lambda: len(pods) == 0)
    assert named(pods, "a") is None  # the cache holds two
    assert (named(pods, "b").name, named(pods, "c").name) == ("b", "c")


def test_watch_continues_where_it_ended(server, pods):
    server.emit("ADDED", pod("a"))
    until(lambda: named(pods, "a"))
    server.cut()
    until(lambda: len(server.watches) == 2)
    server.emit("ADDED", pod("b"))
    until(lambda: named(pods, "b"))
    assert (server.watches, len(server.lists)) == (["1", "2"], 1)


def test_version_that_is_gone_leads_to_a_new_list(server, pods):
    server.emit("ADDED", pod("a"))
    server.emit("ADDED", pod("b"))
    until(lambda: len(pods) == 2)
    server.items, server.version = [pod("b"), pod("c")], 9
    server.expire()
    until(lambda: named(pods, "c"))
    assert len(pods) == 2  # a was deleted meanwhile
    until(lambda: server.watches[-1] == "9")
    until(lambda: pods.synced)  # the watch's answer is behind its request


def test_bookmarks_move_the_version_only(server, pods):
    server.emit("BOOKMARK", {"kind": "Pod", "metadata": {}})
    server.emit("ADDED", pod("a"))
    until(lambda: named(pods, "a"))
    server.emit("BOOKMARK", {"kind": "Pod", "metadata": {}})
    until(server.events.empty)
    server.cut()
    until(lambda: server.watches == ["1", "4"])
    assert len(pods) == 1


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_server_that_refuses_is_asked_again(server, monkeypatch, status):
    server.status, server.items = status, [pod("a")]
    pods = KubernetesPods(ApiClient(server.access), "n1")
    pods.start(lambda *_: None)
    until(lambda: len(server.lists) >= 3)
    assert not pods.synced
    assert pods.settled("uid-a")  # nothing is waited for
    server.status = 200
    until(lambda: named(pods, "a"))


def test_server_that_is_slow_delays_nothing(server):
    server.may_answer.clear()
    server.items = [pod("a", status=running(ID))]
    pods = KubernetesPods(ApiClient(server.access), "n1")
    catalog = Catalog([], pods)
    catalog.start()  # returns
    assert (catalog.get(ID), catalog.settled(ID)) == (None, True)
    server.may_answer.set()
    assert until(lambda: catalog.get(ID)).pod.name == "a"
    assert [one.id for one in until(catalog.take_late)] == [ID]


def test_unreachable_server_leaves_known_pods_in_place(server, pods):
    server.emit("ADDED", pod("a"))
    until(lambda: named(pods, "a"))
    server.stop()
    until(lambda: not pods.synced)
    assert named(pods, "a").name == "a"
    assert pods.settled("uid-new")


def test_unknown_pod_is_waited_for_a_while(server, pods, monkeypatch):
    until(lambda: pods.synced)
    assert not pods.settled("uid-a")
    server.emit("ADDED", pod("a"))
    until(lambda: pods.settled("uid-a"))
    monkeypatch.setattr("collector.kubernetes.pods._NEW_S", 0.0)
    pods.settled("uid-b")
    assert until(lambda: pods.settled("uid-b"))


@pytest.mark.parametrize(
    "item",
    [{"metadata": {}}, {"metadata": {"name": "a", "namespace": "b"}}, {"metadata": {"name": 1}},
     {"metadata": {"name": "a", "namespace": "b", "uid": "c"}, "spec": {"containers": [1]}}],
)  # fmt: skip
def test_malformed_pod_is_left_out(server, pods, item):
    server.emit("ADDED", item)
    server.emit("ADDED", pod("a"))
    until(lambda: named(pods, "a"))
    assert (len(pods), pods.statistics.malformed) == (1, 1)


def test_static_pod_is_known_by_its_runtimes_uid(server, pods):
    server.emit("ADDED", pod("etcd", annotations={"kubernetes.io/config.hash": "hash"}))
    assert until(lambda: pods.complete(Pod("", "", "hash"), "nginx")).name == "etcd"


class Runtime(Engine):
    """A container engine that knows what the test gives it."""

    def read(self, full_id=""):
        """Know nothing more."""

    def follow(self):
        """Follow nothing."""


def test_catalog_completes_the_runtimes_pod(server, pods):
    runtime = Runtime("")
    catalog = Catalog([runtime], pods)
    catalog.start()
    seen = []
    catalog.listen(seen.append)
    bare = ContainerInfo(ID, "nginx", "nginx:1", "containerd", Pod("shop", "web", "uid-web"))
    runtime._changed = lambda full_id: catalog._container_changed(runtime, full_id)
    runtime.add(bare)
    assert (catalog.get(ID), catalog.settled(ID)) == (bare, False)
    server.emit("ADDED", pod("web", labels={"app": "web"}))
    until(lambda: catalog.settled(ID))
    assert catalog.get(ID).pod.labels == (("app", "web"),)
    assert catalog.get(ID).pod.workload == "web"
    assert [one.id for one in catalog.take_late()] == [ID]
    assert seen == [ID, ID]


def test_catalog_without_a_runtime_knows_containers_from_statuses(server, pods):
    catalog = Catalog([], pods)
    until(lambda: pods.synced)
    assert (catalog.get(ID), catalog.settled(ID)) == (None, False)
    server.emit("ADDED", pod("web", status=running(ID)))
    until(lambda: catalog.settled(ID))
    assert catalog.get(ID).name == "nginx"


def test_labels_of_the_node_are_followed(server):
    server.items = [{"metadata": {"name": "n1", "labels": {"zone": "a"}}}]
    node, seen = KubernetesNode(ApiClient(server.access), "n1"), []
    node.listen(seen.append)
    node.start()
    until(lambda: seen == [{"zone": "a"}])
    server.emit("MODIFIED", {"metadata": {"name": "n1", "labels": {"zone": "b"}}})
    until(lambda: seen[1:] == [{"zone": "b"}])
    assert server.lists[0]["fieldSelector"] == "metadata.name=n1"
