"""A real Kubernetes cluster of one node: all its programs, in a network and mounts of their own.

The programs come from `.ci/kubernetes-parts` and `.ci/kubernetes-api`; a name server is the
distribution's dnsmasq. What they mount and every packet filter rule end with the last of them.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import yaml

from support.containerd import Containerd
from support.kubernetes_api import KubernetesApi
from support.waiting import wait_until

NODE = "node-1"

_HOST, _INSIDE = "10.253.0.1", "10.253.0.2"
_PODS, _SERVICES, _NAME_SERVER = "10.253.64.0/24", "10.253.128.0/24", _INSIDE
_LINK = "tetra-k8s"
_READY_S = 240.0
# A kubelet changes these, and does not restore them.
_SYSCTLS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
# Folders that a kubelet always uses, regardless of its configuration: in memory, for it alone.
_FOLDERS = ("/var/log/pods", "/var/log/containers")
_NETWORK = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "ptp",
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": _PODS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}
_KUBELET = {
    "kind": "KubeletConfiguration",
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "address": "127.0.0.1",
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "cgroupDriver": "cgroupfs",
    "clusterDNS": [_NAME_SERVER],
    "clusterDomain": "cluster.local",
    "enforceNodeAllocatable": [],
    "evictionHard": {"memory.available": "1Mi"},
    "failSwapOn": False,
    "imageGCHighThresholdPercent": 100,
    "makeIPTablesUtilChains": False,
    "oomScoreAdj": 0,
}


class KubernetesCluster:
    """One cluster, from `start` to `stop`."""

    def __init__(self, parts: Path, folder: Path) -> None:
        """``parts``: the folder of `.ci/kubernetes-parts`; ``folder``: for everything it writes."""
        self._parts = parts
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._sysctls: dict[Path, str] = {}
        self._made: list[Path] = []

    def start(self) -> None:
        """Start everything, until the node is ready."""
        for name in _SYSCTLS:
            path = Path("/proc/sys") / name
            self._sysctls[path] = path.read_text()
        self._enter_namespaces()
        self.api = KubernetesApi(
            self._parts, self._made_folder("api"), address=_INSIDE, services=_SERVICES,
            prefix=self._prefix,
        )  # fmt: skip
        self.api.start()
        self.config = self.api.kubeconfig()
        self._start_control_plane()
        network = self._made_folder("network")
        (network / "10-pods.conflist").write_text(json.dumps(_NETWORK))
        state = self._made_folder("containerd")
        self._enter("mount", "--bind", str(state), "/run/containerd")
        self.containerd = Containerd(
            self._parts, "containerd-1.7", state, prefix=self._prefix, network=network
        )
        self.containerd.start()
        self._start_node()
        wait_until(self._node_is_ready, _READY_S, lambda: self.log("kubelet"), 0.3)

    def stop(self) -> None:
        """End everything and leave nothing."""
        for name in ("kubelet", "kube-scheduler", "kube-controller-manager"):
            self._end(name)
        if hasattr(self, "containerd"):
            with suppress(grpc.RpcError):  # it may have ended, or never answered
                self.containerd.remove_every_pod()
            self._remove_cgroups()
            self.containerd.stop()
        if hasattr(self, "api"):
            self.api.stop()
        for name in list(self._processes):
            self._end(name)
        subprocess.run(["ip", "link", "del", _LINK], capture_output=True, check=False)
        for pins in Path("/sys/fs/bpf/tetra").glob(f"{NODE}-*"):  # a killed collector leaves them
            shutil.rmtree(pins, ignore_errors=True)
        for path, value in self._sysctls.items():
            path.write_text(value)
        for path in reversed(self._made):
            with suppress(OSError):
                path.rmdir()
        shutil.rmtree(self._folder, ignore_errors=True)

    def follow_services(self) -> None:
        """Make the names of all services known to pods."""
        found = self.api.call("GET", "/api/v1/services")["items"]
        lines = []
        for service in found:
            name, namespace = (service["metadata"][key] for key in ("name", "namespace"))
            address = service["spec"]["clusterIP"]
            if address != "None":
                lines.append(f"{address} {name}.{namespace}.svc.cluster.local\n")
        hosts = self._folder / "hosts"
        hosts.write_text("".join(lines))
        self._end("dnsmasq")
        self._run(
            ["dnsmasq"], "--keep-in-foreground", "--no-hosts", "--no-resolv", "--user=root",
            f"--addn-hosts={hosts}", f"--listen-address={_NAME_SERVER}", "--bind-interfaces",
            "--pid-file", "--local=/cluster.local/",
        )  # fmt: skip

    def pods(self, namespace: str, **labels: str) -> list[dict[str, Any]]:
        """Return the pods with these labels."""
        chosen = ",".join(f"{name.replace('_', '/')}={value}" for name, value in labels.items())
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector={chosen}"
        found: list[dict[str, Any]] = self.api.call("GET", path)["items"]
        return found

    def log(self, name: str) -> str:
        """Return the end of a program's log."""
        return (self._folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def pod_logs(self) -> str:
        """Return the end of what each container has printed."""
        done = self._enter("sh", "-c", "tail -n 30 /var/log/pods/*/*/*.log", check=False)
        return done.stdout[-20000:]

    def _enter_namespaces(self) -> None:
        self._processes["namespaces"] = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "shared", "sleep", "infinity"]
        )
        pid = self._processes["namespaces"].pid
        self._prefix = ("nsenter", "--target", str(pid), "--net", "--mount")
        own = Path("/proc/self/ns/net").readlink()
        path, comm = Path(f"/proc/{pid}/ns/net"), Path(f"/proc/{pid}/comm")
        wait_until(lambda: path.readlink() != own, _READY_S, lambda: "no unshare")
        wait_until(lambda: comm.read_text() == "sleep\n", _READY_S, lambda: "no sleep")
        # A run that was killed leaves it, and with it the routes.
        subprocess.run(["ip", "link", "del", _LINK], capture_output=True, check=False)
        for command in (
            f"ip link add {_LINK} type veth peer name eth0 netns {pid}",
            f"ip address add {_HOST}/30 dev {_LINK}",
            f"ip link set {_LINK} up",
        ):
            subprocess.run(command.split(), check=True)
        for command in (
            "ip link set lo up",
            f"ip address add {_INSIDE}/30 dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {_HOST}",
        ):
            self._enter(*command.split())
        for network in (_PODS, _SERVICES):
            subprocess.run(["ip", "route", "add", network, "via", _INSIDE], check=True)
        for folder in map(Path, (*_FOLDERS, "/run/containerd")):
            if not folder.exists():
                folder.mkdir(parents=True)
                self._made.append(folder)
        for name in _FOLDERS:
            self._enter("mount", "-t", "tmpfs", "tmpfs", name)

    def _start_control_plane(self) -> None:
        config = ("--kubeconfig", str(self.config), "--leader-elect=false", "--port=0")
        self._run(
            [self._parts / "kube-controller-manager"], *config, "--bind-address=127.0.0.1",
            "--service-account-private-key-file", str(self.api.key),
            "--root-ca-file", str(self.api.certificate),
            "--cert-dir", str(self._made_folder("controllers")),
        )  # fmt: skip
        self._run(
            [self._parts / "kube-scheduler"], *config, "--bind-address=127.0.0.1",
            "--cert-dir", str(self._made_folder("scheduler")),
        )  # fmt: skip

    def _start_node(self) -> None:
        config = self._folder / "kubelet.yaml"
        config.write_text(yaml.safe_dump(_KUBELET))
        self._run(
            [self._parts / "kubelet"], "--kubeconfig", str(self.config), "--config", str(config),
            "--root-dir", str(self._made_folder("kubelet")),
            "--cert-dir", str(self._made_folder("kubelet-certificates")),
            "--volume-plugin-dir", str(self._made_folder("volume-plugins")),
            "--container-runtime=remote", f"--hostname-override={NODE}", f"--node-ip={_INSIDE}",
            "--container-runtime-endpoint=unix:///run/containerd/containerd.sock",
        )  # fmt: skip
        self._run(
            [self._parts / "kube-proxy"], "--kubeconfig", str(self.config),
            f"--hostname-override={NODE}", "--proxy-mode=iptables", f"--cluster-cidr={_PODS}",
            "--conntrack-max-per-core=0", "--conntrack-min=0",
            "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
        )  # fmt: skip

    def _node_is_ready(self) -> bool:
        for name, process in self._processes.items():
            assert process.poll() is None, f"{name}: {self.log(name)}"
        nodes = self.api.call("GET", "/api/v1/nodes")["items"]
        conditions = [one for node in nodes for one in node["status"].get("conditions", ())]
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _remove_cgroups(self) -> None:
        """Remove the pods' cgroups of every hierarchy, the deepest first."""
        roots = Path("/sys/fs/cgroup")
        for root in (roots, *roots.iterdir()):
            found = sorted((root / "kubepods").glob("**/"), reverse=True)
            for folder in found:
                with suppress(OSError):
                    folder.rmdir()

    def _made_folder(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def _enter(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self._prefix, *command], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done

    def _run(self, program: list[Any], *arguments: str) -> None:
        name = Path(program[0]).name
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*self._prefix, *program, *arguments], stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
