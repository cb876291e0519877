"""The Helm chart: lint, schemas of Kubernetes's releases, a real API server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.config import ColumnsSink, KafkaSink, load
from exporter.settings import Settings

PARTS = Path(os.environ.get("TETRA_KUBERNETES_PARTS", "/nonexistent"))
ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "tetra"
RELEASES = ("1.25", "1.29", "1.30", "1.34", "1.37")
# Kinds that come with other software; no schema of Kubernetes has them.
CUSTOM = {"ServiceMonitor", "Certificate", "CustomResourceDefinition"}

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

KAFKA = {
    "name": "bus",
    "type": "kafka",
    "brokers": ["kafka.example:9093"],
    "topic": "events",
    "ca_file": "/run/secrets/tetra-sinks/ca.crt",
    "user": "tetra",
    "password_file": "/run/secrets/tetra-sinks/password",
}
EVERYTHING = {
    "clusterName": "shop",
    "collector": {
        "environment": {"TETRA_USERNAME_METADATA": "unix"},
        "cgroupRate": "1000,1s",
        "policyCgroupRate": "500,1s",
    },
    "columns": {"claim": "past"},
    "exporter": {"enabled": True, "sinks": [KAFKA], "sinksSecret": "kafka-access"},
    "gateway": {
        "autoscaling": {"enabled": True},
        "tokensSecret": "tokens",
        "tolerations": [{"operator": "Exists"}],
    },
    "tls": {"enabled": True, "certManager": {"issuer": "ca", "dnsNames": ["events.example.com"]}},
    "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "networkPolicies": {"gatewayClients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
}
VARIANTS = {
    "defaults": {},
    "everything": EVERYTHING,
    "privileged, no metrics": {"collector": {"privileged": True}, "metrics": {"port": 0}},
    "external NATS": {
        "nats": {
            "enabled": False,
            "external": {"url": "nats://nats.example:4222", "collectorSecret": "c", "replicas": 3},
        }
    },
}


def helm(*arguments: str, values: object = None) -> subprocess.CompletedProcess[str]:
    """Run helm; values come from standard input."""
    return subprocess.run(
        [PARTS / "helm", *arguments], capture_output=True, text=True,
        input=json.dumps(values or {}), env=os.environ | {"HELM_CACHE_HOME": "/tmp/helm-cache"},
    )  # fmt: skip


@cache
def rendered(variant: str, release: str) -> str:
    done = helm(
        "template", "tetra", str(CHART), "--namespace", "tetra", "--kube-version", release,
        "--values", "-", values=VARIANTS[variant],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(variant: str, release: str = "1.37") -> list[dict[str, Any]]:
    """Return what the chart makes."""
    return [one for one in yaml.safe_load_all(rendered(variant, release)) if one]


def one(variant: str, kind: str, name: str, release: str = "1.37") -> dict[str, Any]:
    """Return one of the documents."""
    (found,) = (
        d
        for d in documents(variant, release)
        if d["kind"] == kind and d["metadata"]["name"] == name
    )
    return found


def test_lint_has_no_warning():
    done = helm("lint", str(CHART), "--strict")
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout + done.stderr


def test_shared_files_are_up_to_date():
    subprocess.run([sys.executable, "scripts/chart", "--check"], check=True, cwd=ROOT)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_documents_are_valid_in_every_release(variant, release, tmp_path):
    known = [d for d in documents(variant, release) if d["kind"] not in CUSTOM]
    assert len(known) > 8
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all(known))
    done = subprocess.run(
        [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", release, path],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(PARTS / "schemas")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ERROR" not in done.stdout + done.stderr


def test_schema_check_finds_a_mistake(tmp_path):
    path = tmp_path / "one.yaml"
    document = one("defaults", "Service", "tetra-gateway")
    document["spec"]["portz"] = []
    path.write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", "1.37", path],
        capture_output=True, env=os.environ | {"PYTHONPATH": str(PARTS / "schemas")},
    )  # fmt: skip
    assert done.returncode


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gateway": {"replicaz": 3}}, "replicaz"),
        ({"gateway": {"replicas": -1}}, "replicas"),
        ({"nats": {"enabled": False}}, "nats.external.url: set it"),
        ({"tls": {"enabled": True}}, "tls.certManager.issuer: set it"),
        ({"collector": {"environment": {"lower": "x"}}}, "lower"),
        ({"collector": {"cgroupRate": "many"}}, "cgroupRate"),
        ({"columns": {"claim": "past"}}, "set exporter.enabled to true"),
    ],
)
def test_wrong_values_are_refused(values, words):
    done = helm("template", "tetra", str(CHART), "--values", "-", values=values)
    assert done.returncode
    assert words in done.stderr


def test_collector_has_four_capabilities():
    pod = one("defaults", "DaemonSet", "tetra-collector")["spec"]["template"]["spec"]
    context = pod["containers"][0]["securityContext"]
    assert context["capabilities"] == {
        "drop": ["ALL"],
        "add": ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"],
    }
    assert context["privileged"] is False
    assert context["appArmorProfile"] == {"type": "Unconfined"}


def environment(variant: str, kind: str, name: str) -> dict[str, str]:
    (container,) = one(variant, kind, name)["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value", "") for each in container["env"]}


def test_throttling_is_set_in_the_collector():
    found = environment("everything", "DaemonSet", "tetra-collector")
    assert (found["TETRA_CGROUP_RATE"], found["TETRA_POLICY_CGROUP_RATE"]) == ("1000,1s", "500,1s")
    assert "TETRA_CGROUP_RATE" not in environment("defaults", "DaemonSet", "tetra-collector")


def test_columns_are_written_where_gateways_read(tmp_path):
    path = tmp_path / "sinks.yaml"
    path.write_text(one("everything", "Secret", "tetra-sinks")["stringData"]["sinks.yaml"])
    options: dict[str, Any] = {"sinks_file": path}
    kafka, sink = load(Settings(**options)).sinks
    assert isinstance(kafka, KafkaSink)
    assert isinstance(sink, ColumnsSink)
    gateway = environment("everything", "Deployment", "tetra-gateway")
    assert str(sink.folder) == gateway["TETRA_COLUMNS_DIR"]
    for kind, name, read_only in (
        ("StatefulSet", "tetra-exporter", None), ("Deployment", "tetra-gateway", True)
    ):  # fmt: skip
        pod = one("everything", kind, name)["spec"]["template"]["spec"]
        mounts = {each["mountPath"]: each for each in pod["containers"][0]["volumeMounts"]}
        assert mounts["/columns"].get("readOnly") == read_only
        claims = {each["name"]: each.get("persistentVolumeClaim") for each in pod["volumes"]}
        assert claims[mounts["/columns"]["name"]] == {"claimName": "past"}


def test_secrets_of_sinks_are_where_the_sinks_look():
    pod = one("everything", "StatefulSet", "tetra-exporter")["spec"]["template"]["spec"]
    mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    assert KAFKA["password_file"] == f"{mounts['sinks-secret']}/password"
    (volume,) = [each for each in pod["volumes"] if each["name"] == "sinks-secret"]
    assert volume["secret"]["secretName"] == "kafka-access"


def test_older_releases_get_the_annotation_of_apparmor():
    template = one("defaults", "DaemonSet", "tetra-collector", "1.25")["spec"]["template"]
    name = "container.apparmor.security.beta.kubernetes.io/collector"
    assert template["metadata"]["annotations"][name] == "unconfined"
    assert "appArmorProfile" not in template["spec"]["containers"][0]["securityContext"]


def test_only_the_collector_has_rights_at_the_api_server():
    accounts = [d for d in documents("everything") if d["kind"] == "ServiceAccount"]
    assert not any(account["automountServiceAccountToken"] for account in accounts)
    (binding,) = (d for d in documents("everything") if d["kind"] == "ClusterRoleBinding")
    assert [s["name"] for s in binding["subjects"]] == ["tetra-collector"]
    (role,) = (d for d in documents("everything") if d["kind"] == "ClusterRole")
    verbs = {verb for rule in role["rules"] for verb in rule["verbs"]}
    assert verbs == {"list", "watch", "patch"}


def test_every_other_container_is_restricted():
    for document in documents("everything"):
        template = document.get("spec", {}).get("template")
        if template is None or document["metadata"]["name"] == "tetra-collector":
            continue
        for container in template["spec"]["containers"]:
            context = container["securityContext"]
            assert context["runAsNonRoot"], document["metadata"]["name"]
            assert context["readOnlyRootFilesystem"]
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_rights_are_those_of_deploy_kubernetes():
    plain = yaml.safe_load_all((ROOT / "deploy/kubernetes/rbac.yaml").read_text())
    (ours,) = (d for d in plain if d["kind"] == "ClusterRole")
    (chart,) = (d for d in documents("defaults") if d["kind"] == "ClusterRole")
    assert chart["rules"] == ours["rules"]


def test_rights_in_nats_are_those_of_compose():
    config = one("defaults", "ConfigMap", "tetra-nats")["data"]
    assert config["users"].strip() == (ROOT / "deploy/nats/users").read_text().strip()


def test_install_upgrade_and_uninstall_on_an_api_server(api, namespace, tmp_path):
    # The server that is built here is of release 1.20, older than the chart asks for.
    chart = shutil.copytree(CHART, tmp_path / "tetra")
    about = yaml.safe_load((chart / "Chart.yaml").read_text()) | {"kubeVersion": ">=0.0.0-0"}
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
    values = {"gateway": {"podDisruptionBudget": {"enabled": False}}}
    to = ("--namespace", namespace, "--kubeconfig", str(api.kubeconfig()))

    def run(*arguments, values=None):
        done = helm(*arguments, *to, *(["--values", "-"] if values else []), values=values)
        assert done.returncode == 0, done.stderr

    def password():
        path = f"/api/v1/namespaces/{namespace}/secrets/watch-nats-gateway"
        return api.call("GET", path)["data"]["nats-password"]

    run("install", "watch", str(chart), values=values)
    first = password()
    (collector,) = api.call("GET", f"/apis/apps/v1/namespaces/{namespace}/daemonsets")["items"]
    assert collector["metadata"]["name"] == "watch-collector"
    run("upgrade", "watch", str(chart), values=values | {"collector": {"policies": "files"}})
    assert password() == first
    (collector,) = api.call("GET", f"/apis/apps/v1/namespaces/{namespace}/daemonsets")["items"]
    environment = collector["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "TETRA_POLICIES", "value": "files"} in environment
    run("uninstall", "watch", "--cascade", "background")
    for path in (
        f"/apis/apps/v1/namespaces/{namespace}/daemonsets",
        f"/apis/apps/v1/namespaces/{namespace}/deployments",
        f"/apis/apps/v1/namespaces/{namespace}/statefulsets",
        f"/api/v1/namespaces/{namespace}/configmaps",
        f"/api/v1/namespaces/{namespace}/services",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    ):
        names = [item["metadata"]["name"] for item in api.call("GET", path)["items"]]
        assert not [name for name in names if name.startswith("watch")], path
