"""A real containerd with CRI on a socket of its own, and pods made through it.

Started from unpacked packages (`.ci/kubernetes-parts`), with its state in one folder: it shares
nothing with a containerd that the machine runs for Docker.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import grpc

from cri import runtime_pb2 as cri
from cri.runtime_pb2_grpc import ImageServiceStub, RuntimeServiceStub
from support.waiting import wait_until

IMAGE = "docker.io/library/tetra-test:1"
CGROUP_PARENT = "/kubepods/besteffort"
_READY_S, _CALL_S = 120, 120
_SANDBOXES = 4  # of one pod
_HOST = cri.NamespaceOption(network=cri.NODE, pid=cri.CONTAINER, ipc=cri.NODE)
_CONFIG = """
version = 2
root = "{state}/root"
state = "{state}/run"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  # Without CAP_SYS_RESOURCE a lower score than one's own is refused, and runc ends.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    BinaryName = "{runc}"
    SystemdCgroup = false
"""
_NRI = """
[plugins."io.containerd.nri.v1.nri"]
  disable = false
  plugin_path = "{state}/nri/plugins"
  plugin_config_path = "{state}/nri/conf"
  socket_path = "{state}/nri.sock"
"""
_CNI = """
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{plugins}"
  conf_dir = "{folder}"
"""


class Containerd:
    """One containerd, from `start` to `stop`."""

    def __init__(
        self,
        parts: Path,
        name: str,
        state: Path,
        *,
        prefix: tuple[str, ...] = (),
        network: Path | None = None,
    ) -> None:
        """``parts``: the folder of `.ci/kubernetes-parts`; ``name``: a package in it.

        ``prefix``: the command that enters other namespaces; ``network``: a folder with the
        configuration of pods' networks. With one, images are not copied for each container.
        """
        self._prefix = prefix
        self._network = network
        self._plugins = parts / "cni/usr/lib/cni"
        self._snapshotter = "overlayfs" if network else "native"
        self.name = name
        self.has_events = name != "containerd"  # CRI of 1.6 has none
        self._bin = parts / name / "usr/bin"
        self._runc = parts / "runc/usr/sbin/runc"
        self._busybox = parts / "busybox/bin/busybox"
        self._state = state
        self.socket = state / "containerd.sock"
        self.nri_socket = state / "nri.sock"  # of 1.7
        self._pods: dict[str, cri.PodSandboxConfig] = {}
        self._successors: dict[str, str] = {}  # of pods whose shim was lost
        self._process: subprocess.Popen[bytes] | None = None
        channel = grpc.insecure_channel(
            f"unix://{self.socket}",
            options=[
                ("grpc.default_authority", "localhost"), ("grpc.max_reconnect_backoff_ms", 500)
            ],
        )  # fmt: skip
        self.runtime, self.images = RuntimeServiceStub(channel), ImageServiceStub(channel)

    def start(self) -> None:
        """Start it and import the image."""
        self._state.mkdir(parents=True, exist_ok=True)
        config = self._state / "config.toml"
        config.write_text(
            (
                _CONFIG + (_NRI if self.has_events else "") + (_CNI if self._network else "")
            ).format(
                state=self._state, socket=self.socket, image=IMAGE, runc=self._runc,
                snapshotter=self._snapshotter,
                folder=self._network, plugins=self._plugins,
            )
        )  # fmt: skip
        path = f"{self._bin}:{os.environ['PATH']}"
        with (self._state / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, self._bin / "containerd", "--config", config],
                stdout=log, stderr=log, env=os.environ | {"PATH": path}, start_new_session=True,
            )  # fmt: skip
        wait_until(self._answers, _READY_S, self._log)
        archive = self._state / "image.tar"
        archive.write_bytes(image_archive(self._busybox.read_bytes()))
        self.import_images(archive)
        wait_until(
            lambda: self.images.ListImages(cri.ListImagesRequest()).images, _READY_S, self._log
        )

    def import_images(self, archive: Path) -> None:
        """Import the images of a docker-archive."""
        self._ctr("images", "import", "--snapshotter", self._snapshotter, str(archive))

    def run_pod(
        self, name: str, namespace: str = "default", *, uid: str = "", **labels: str
    ) -> str:
        """Start a pod without containers; return the id of its sandbox."""
        uid = uid or str(uuid4())
        added = {
            "io.kubernetes.pod.name": name,
            "io.kubernetes.pod.namespace": namespace,
            "io.kubernetes.pod.uid": uid,
        }
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, uid=uid, namespace=namespace),
            log_directory=str(self._state / "logs"),
            labels=labels | added,
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=f"{CGROUP_PARENT}/pod{uid}",
                security_context=cri.LinuxSandboxSecurityContext(namespace_options=_HOST),
            ),
        )
        return self._run_pod(config)

    def _run_pod(self, config: cri.PodSandboxConfig) -> str:
        request = cri.RunPodSandboxRequest(config=config)
        sandbox: str = self.runtime.RunPodSandbox(request, timeout=_CALL_S).pod_sandbox_id
        self._pods[sandbox] = config
        return sandbox

    def uid_of(self, sandbox: str) -> str:
        """Return the uid of a pod."""
        return self._pods[sandbox].metadata.uid

    def create(self, sandbox: str, name: str, *command: str) -> str:
        """Create a container in a pod; return its id."""
        pod = self._pods[sandbox]
        labels = dict(pod.labels) | {"io.kubernetes.container.name": name}
        container = cri.ContainerConfig(
            # No two containers of a pod have the same name and attempt.
            metadata=cri.ContainerMetadata(name=name, attempt=pod.metadata.attempt),
            image=cri.ImageSpec(image=IMAGE),
            command=command,
            labels=labels,
            linux=cri.LinuxContainerConfig(
                security_context=cri.LinuxContainerSecurityContext(namespace_options=_HOST)
            ),
        )
        request = cri.CreateContainerRequest(
            pod_sandbox_id=sandbox, config=container, sandbox_config=pod
        )
        made: str = self.runtime.CreateContainer(request, timeout=_CALL_S).container_id
        return made

    def run(self, sandbox: str, name: str, *command: str) -> str:
        """Create and start a container; return its id.

        On a busy host a pod's shim may not answer within 0.1 s: containerd then removes its socket,
        and starts nothing more in the pod. The pod continues in another sandbox, as with a kubelet.
        """
        for _ in range(_SANDBOXES):
            current = self._successors.get(sandbox, sandbox)
            container = self.create(current, name, *command)
            request = cri.StartContainerRequest(container_id=container)
            try:
                self.runtime.StartContainer(request, timeout=_CALL_S)
            except grpc.RpcError as error:
                if "failed to start shim" not in str(error):
                    raise
                config = cri.PodSandboxConfig()
                config.CopyFrom(self._pods[current])
                config.metadata.attempt += 1
                self._successors[sandbox] = self._run_pod(config)
                continue
            return container
        raise AssertionError(f"no shim of {_SANDBOXES} sandboxes answered: {self._log()}")

    def remove(self, container: str) -> None:
        """Stop and remove a container."""
        request = cri.RemoveContainerRequest(container_id=container)
        self.runtime.RemoveContainer(request, timeout=_CALL_S)

    def remove_pod(self, sandbox: str) -> None:
        """Stop and remove a pod with its containers."""
        if (successor := self._successors.pop(sandbox, "")) in self._pods:
            self.remove_pod(successor)
        stop = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox)
        self.runtime.StopPodSandbox(stop, timeout=_CALL_S)
        request = cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox)
        self.runtime.RemovePodSandbox(request, timeout=_CALL_S)
        self._remove_cgroups(self._pods.pop(sandbox).linux.cgroup_parent)

    def remove_every_pod(self) -> None:
        """Stop and remove the pods, also those that a kubelet has made."""
        for pod in self.runtime.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=_CALL_S).items:
            with suppress(grpc.RpcError):
                self.runtime.StopPodSandbox(
                    cri.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=_CALL_S
                )
                self.runtime.RemovePodSandbox(
                    cri.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=_CALL_S
                )

    def kill(self) -> None:
        """Kill the daemon; its containers continue."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Remove all pods and everything else."""
        for sandbox in list(self._pods):
            with suppress(grpc.RpcError, KeyError):  # one may have gone with another
                self.remove_pod(sandbox)
        for path in (CGROUP_PARENT, str(Path(CGROUP_PARENT).parent)):
            self._remove_cgroups(path)
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            mounted = line.split()[4]
            if mounted.startswith(f"{self._state}/"):
                subprocess.run(["umount", "--lazy", mounted], check=False)
        shutil.rmtree(self._state, ignore_errors=True)

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._log()
        try:
            self.runtime.Version(cri.VersionRequest(), timeout=5)
        except grpc.RpcError:
            return False
        return True

    def _ctr(self, *arguments: str) -> None:
        command = [
            *self._prefix, self._bin / "ctr", "-a", self.socket, "-n", "k8s.io", *arguments
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr

    def _log(self) -> str:
        return (self._state / "log").read_text()[-3000:]

    def _remove_cgroups(self, path: str) -> None:
        """Remove a pod's cgroups, as a kubelet does."""
        roots = Path("/sys/fs/cgroup")
        for root in (roots, *roots.iterdir()):
            folder = root / path.lstrip("/")
            for attempt in range(20):
                with suppress(OSError):
                    if folder.is_dir():
                        folder.rmdir()
                    break
                time.sleep(0.01 * attempt)  # until the kernel has removed the last process


def image_archive(busybox: bytes) -> bytes:
    """Return a docker-archive of busybox with some of its commands, which waits by default."""
    layer = _tar(
        {"bin/busybox": busybox},
        {f"bin/{name}": "busybox" for name in ("sh", "sleep", "usleep", "true", "cat", "touch")},
    )
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64", "os": "linux",
            "config": {"Cmd": ["/bin/sleep", "2000000"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()  # fmt: skip
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    return _tar(
        {name: config, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}, {}
    )


def _tar(files: dict[str, bytes], links: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            one = tarfile.TarInfo(name)
            one.size, one.mode = len(data), 0o755
            archive.addfile(one, io.BytesIO(data))
        for name, target in links.items():
            one = tarfile.TarInfo(name)
            one.type, one.linkname = tarfile.SYMTYPE, target
            archive.addfile(one)
    return out.getvalue()
