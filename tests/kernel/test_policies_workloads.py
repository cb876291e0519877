"""Filters on containers and pods, with real cgroups: whose calls a policy reports."""

import os
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from collector.errors import ProbeError
from collector.metadata.containers.catalog import Catalog
from collector.metadata.containers.engine import Engine
from collector.policies.cgroup_tree import unified_root
from collector.policies.groups import POD, UNKNOWN
from collector.processes.pods import Pod
from collector.processes.table import ContainerInfo
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.policies import Machine, plan_of
from support.waiting import wait_until

pytestmark = pytest.mark.kernel

POLICY = """
    apiVersion: {api}
    kind: {kind}
    metadata: {{name: opens{namespace}}}
    spec:
      {selectors}
      kprobes:
      - call: sys_openat
        syscall: true
        args: [{{index: 1, type: string}}]
        selectors:
        - matchArgs: [{{index: 1, operator: Equal, values: ["{path}"]}}]
          {filters}
"""
# Container -> its pod's namespace, labels; image.
CONTAINERS = {
    "nginx": (("shop", {"app": "web", "tier": "front"}), "docker.io/library/nginx:1.27"),
    "envoy": (("shop", {"app": "web", "tier": "front"}), "envoy@sha256:1"),
    "mysql": (("shop", {"app": "db"}), "registry:5000/mysql"),
    "other": (("admin", {"app": "web"}), "docker.io/library/nginx"),
    "alone": (None, "debian:trixie-slim"),  # of Docker: in no pod
}
PODS = {name for name, (pod, _) in CONTAINERS.items() if pod}
ALL = {*CONTAINERS, "unknown", "host"}
OWN = "tetra.io/v1"


class Runtime(Engine):
    """A container engine that knows what a test adds."""

    def read(self, full_id=""):
        """Know nothing more."""

    def follow(self):
        """Follow nothing."""


@dataclass
class Host:
    """Containers with cgroups of their own, and the machine that policies are loaded on."""

    machine: Machine
    runtime: Runtime
    catalog: Catalog
    root: Path
    ids: dict[str, str]

    def cgroup(self, name: str) -> Path:
        """Return the folder of a container's cgroup."""
        return self.root / self.ids[name]

    def add(self, name: str) -> None:
        """Let the engine know a container."""
        pod, image = CONTAINERS[name]
        found = Pod(pod[0], f"pod-{name}", uuid4().hex, tuple(pod[1].items())) if pod else None
        self.runtime.add(ContainerInfo(self.ids[name], name, image, "containerd", found))

    def make(self, name: str, below: str = "") -> Path:
        """Make the cgroup of a container."""
        self.ids.setdefault(name, uuid4().hex + uuid4().hex)
        path = self.cgroup(name) / below
        path.mkdir()
        return path

    def value(self, path: Path) -> int | None:
        """Return what the kernel has for a cgroup."""
        found = self.machine.shared._own["policy_cgroups"].lookup(
            path.stat().st_ino.to_bytes(8, "little")
        )
        return None if found is None else int.from_bytes(found, "little")


@pytest.fixture(scope="module")
def host() -> Generator[Host, None, None]:
    """A host with all containers, one that no engine knows, and no policy."""
    try:
        root = unified_root(Path("/proc")) / f"tetra-test-{os.getpid()}"
        root.mkdir()
    except (OSError, ProbeError) as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    runtime = Runtime("")
    catalog = Catalog([runtime])
    catalog.start()
    runtime._changed = lambda full_id: catalog._container_changed(runtime, full_id)
    made = Host(Machine.create(catalog), runtime, catalog, root, {})
    for name in [*CONTAINERS, "unknown"]:
        made.make(name)
    for name in CONTAINERS:
        made.add(name)
    yield made
    made.machine.close()
    for path in sorted(root.rglob("*/"), key=lambda one: -len(one.parts)):
        path.rmdir()
    root.rmdir()


def test_unified_hierarchy_is_found_from_a_cgroup_namespace():
    # A pod has one: what mountinfo shows of the host's hierarchy then begins with "/..".
    try:
        root = unified_root(Path("/proc"))
        inside = root / f"tetra-test-namespace-{os.getpid()}"
        inside.mkdir()
    except (OSError, ProbeError) as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    code = (
        "from collector.policies.cgroup_tree import unified_root; from pathlib import Path; "
        "print(unified_root(Path('/proc'))); print(open('/proc/self/mountinfo').read())"
    )
    script = f'echo $$ > {inside}/cgroup.procs; exec unshare --cgroup {sys.executable} -c "$0"'
    try:
        done = subprocess.run(
            ["sh", "-c", script, code], capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        inside.rmdir()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(root)
    assert " /.. " in done.stdout


def plan(opened, selectors="", filters="", *, api="cilium.io/v1alpha1", namespace=""):
    return plan_of(
        POLICY.format(
            api=api, path=opened, selectors=selectors, filters=filters,
            kind="TracingPolicyNamespaced" if namespace else "TracingPolicy",
            namespace=f", namespace: {namespace}" if namespace else "",
        )
    )  # fmt: skip


def cat(opened: Path, cgroup: Path | None) -> int:
    """Open the file in a cgroup; return the pid."""
    script = 'if [ -n "$1" ]; then echo $$ > "$1/cgroup.procs"; fi && exec /bin/cat "$2"'
    command = ["/bin/sh", "-c", script, "sh", cgroup or "", opened]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    assert child.wait(60) == 0
    return child.pid


def reported(host: Host, loaded, opened: Path) -> set[str]:
    """Return where the file is opened so that the policy reports it."""
    places = {name: host.cgroup(name) for name in [*CONTAINERS, "unknown"]} | {"host": None}
    pids = {cat(opened, path): name for name, path in places.items()}
    return {pids[record.pid] for record in loaded.pump() if record.pid in pids}


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        ("podSelector: {}", PODS),
        ("containerSelector: {}", PODS),
        ("podSelector: {matchLabels: {app: web}}", {"nginx", "envoy", "other"}),
        (
            "podSelector: {matchLabels: {app: web, "
            "'k8s:io.kubernetes.pod.namespace': shop}}",
            {"nginx", "envoy"},
        ),
        ("podSelector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}",
         {"mysql", "other"}),
        ("podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}",
         {"mysql"}),
        ("containerSelector: {matchLabels: {name: envoy}}", {"envoy"}),
        ("containerSelector: {matchLabels: {repo: docker.io/library/nginx}}", {"nginx", "other"}),
        ("containerSelector: {matchLabels: {repo: 'registry:5000/mysql'}}", {"mysql"}),
        (
            "podSelector: {matchLabels: {app: web}}\n"
            "      containerSelector: {matchLabels: {name: nginx}}",
            {"nginx"},
        ),
        ("hostSelector: {}", {"host", "alone", "unknown"}),
        (
            "hostSelector: {}\n      podSelector: {matchLabels: {app: db}}",
            {"host", "alone", "unknown", "mysql"},
        ),
        ("hostSelector: {}\n      podSelector: {}\n      containerSelector: {}", ALL),
    ],
)  # fmt: skip
def test_policy_is_for_the_workloads_that_it_selects(host, opened, selectors, expected):
    with host.machine.loaded(plan(opened, selectors)) as loaded:
        assert reported(host, loaded, opened) == expected


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [("", {"nginx", "envoy", "mysql"}), ("podSelector: {matchLabels: {app: db}}", {"mysql"})],
)
def test_namespaced_policy_is_for_the_pods_of_its_namespace(host, opened, selectors, expected):
    with host.machine.loaded(plan(opened, selectors, namespace="shop")) as loaded:
        assert reported(host, loaded, opened) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("matchWorkloads: [{podSelector: {matchLabels: {app: db}}}]", {"mysql"}),
        ("matchWorkloads: [{hostSelector: {}}]", {"host", "alone", "unknown"}),
        ("matchContainers: [{field: name, operator: In, values: [nginx, alone]}]",
         {"nginx", "alone"}),
        ("matchContainers: [{field: name, operator: NotIn, values: [nginx, alone]}]",
         {"envoy", "mysql", "other", "host"}),
        ("matchContainers: [{field: image, operator: Prefix, values: [docker.io/]}]",
         {"nginx", "other"}),
        ("matchContainers: [{field: image, operator: NotPostfix, values: ['1.27', mysql]}]",
         {"envoy", "other", "alone", "host"}),
    ],
)  # fmt: skip
def test_selector_is_for_the_containers_that_it_selects(host, opened, filters, expected):
    with host.machine.loaded(plan(opened, filters=filters, api=OWN)) as loaded:
        assert reported(host, loaded, opened) == expected


@pytest.mark.parametrize("operator", ["In", "NotIn"])
def test_container_is_selected_by_its_id_before_its_name_is_known(host, opened, operator):
    value = host.ids["unknown"]
    filters = f"matchContainers: [{{field: id, operator: {operator}, values: ['{value}']}}]"
    with host.machine.loaded(plan(opened, filters=filters, api=OWN)) as loaded:
        found = reported(host, loaded, opened)
    assert found == ({"unknown"} if operator == "In" else ALL - {"unknown"})


def test_new_container_is_selected_before_its_first_call(host, opened):
    with host.machine.loaded(plan(opened, "podSelector: {matchLabels: {app: new}}")) as loaded:
        CONTAINERS["new"] = (("shop", {"app": "new"}), "new:1")
        try:
            host.ids["new"] = uuid4().hex + uuid4().hex
            host.add("new")  # the engine's event comes first
            cgroup = host.make("new")
            wait_until(lambda: host.value(cgroup), 20, lambda: "no value")
            nested = host.make("new", "init")
            wait_until(lambda: host.value(nested), 20, lambda: "no value below")
            made = [cat(opened, cgroup), cat(opened, nested)]
            assert [record.pid for record in loaded.pump() if record.pid in made] == made
            nested.rmdir()
            cgroup.rmdir()
        finally:
            del CONTAINERS["new"], host.ids["new"]


def test_container_whose_name_comes_late_is_selected_from_then_on(host, opened):
    with host.machine.loaded(plan(opened, "podSelector: {matchLabels: {app: late}}")) as loaded:
        CONTAINERS["late"] = (("shop", {"app": "late"}), "late:1")
        try:
            cgroup = host.make("late")
            wait_until(lambda: host.value(cgroup) == UNKNOWN, 20, lambda: host.value(cgroup))
            before = cat(opened, cgroup)
            host.add("late")
            after = cat(opened, cgroup)
            found = [record.pid for record in loaded.pump()]
            assert (before in found, after in found) == (False, True)
            cgroup.rmdir()
        finally:
            del CONTAINERS["late"], host.ids["late"]


def test_pod_whose_labels_change_is_selected_anew(host, opened):
    with host.machine.loaded(plan(opened, "podSelector: {matchLabels: {app: db}}")) as loaded:
        before = CONTAINERS["mysql"]
        CONTAINERS["mysql"] = (("shop", {"app": "old"}), before[1])
        host.add("mysql")
        try:
            assert reported(host, loaded, opened) == set()
        finally:
            CONTAINERS["mysql"] = before
            host.add("mysql")
        assert reported(host, loaded, opened) == {"mysql"}


def test_bits_of_a_removed_policy_are_not_inherited(host, opened):
    with host.machine.loaded(plan(opened, "podSelector: {matchLabels: {app: web}}")):
        pass
    with host.machine.loaded(plan(opened, "podSelector: {matchLabels: {app: db}}")) as loaded:
        assert reported(host, loaded, opened) == {"mysql"}
        assert host.value(host.cgroup("nginx")) == POD


def test_removed_cgroup_leaves_the_map(host, opened):
    with host.machine.loaded(plan(opened, "podSelector: {}")):
        cgroup = host.make("gone")
        key = cgroup.stat().st_ino.to_bytes(8, "little")
        values = host.machine.shared._own["policy_cgroups"]
        wait_until(lambda: values.lookup(key), 20, lambda: "no value")
        cgroup.rmdir()
        wait_until(lambda: values.lookup(key) is None, 20, lambda: "still there")
        del host.ids["gone"]
