"""A real API server of Kubernetes with its etcd, and what a kubelet and a scheduler would write."""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import yaml

from support.net import free_port
from support.waiting import wait_until

_ADMIN = "admin-token"
_READY_S = 120.0
_ANSWER_S = 60.0  # a busy server may refuse or drop what only reads
_MERGE = "application/merge-patch+json"


class KubernetesApi:
    """etcd and kube-apiserver, from `start` to `stop`."""

    def __init__(
        self,
        parts: Path,
        folder: Path,
        *,
        address: str = "127.0.0.1",
        services: str = "10.9.0.0/24",
        prefix: tuple[str, ...] = (),
    ) -> None:
        """``parts``: the folder of `.ci/kubernetes-api`; ``services``: range of their addresses.

        ``prefix``: the command that enters the namespaces of a cluster, which also has a
        controller manager: the server then asks for service accounts.
        """
        self._parts = parts
        self._folder = folder
        self._address = address
        self._services = services
        self._prefix = prefix
        self._ports = {name: free_port() for name in ("etcd", "peer", "api")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._tls = ssl.create_default_context()
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

    @property
    def etcd_url(self) -> str:
        """Where etcd answers."""
        return f"http://127.0.0.1:{self._ports['etcd']}"

    @property
    def url(self) -> str:
        """Where the server answers."""
        return f"https://{self._address}:{self._ports['api']}"

    @property
    def key(self) -> Path:
        """The key that signs tokens of service accounts."""
        return self._folder / "account.key"

    @property
    def certificate(self) -> Path:
        """The server's certificate, with its authority."""
        return self._folder / "tls/apiserver.crt"

    def start(self) -> None:
        """Start both and wait until the server is ready."""
        key, tokens = self.key, self._folder / "tokens.csv"
        if not key.exists():
            subprocess.run(
                ["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True
            )
            tokens.write_text(f'{_ADMIN},admin,1,"system:masters"\n')
        peer = f"http://127.0.0.1:{self._ports['peer']}"
        self._run(
            "etcd", "--data-dir", str(self._folder / "etcd"), "--unsafe-no-fsync",
            "--listen-client-urls", self.etcd_url, "--advertise-client-urls", self.etcd_url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"default={peer}",
        )  # fmt: skip
        self.start_server()

    def start_server(self) -> None:
        """Start the API server alone."""
        folder = self._folder
        self._run(
            "kube-apiserver", "--etcd-servers", self.etcd_url, "--cert-dir", str(folder / "tls"),
            "--bind-address", self._address, "--advertise-address", self._address,
            "--secure-port", str(self._ports["api"]), "--service-cluster-ip-range", self._services,
            "--token-auth-file", str(folder / "tokens.csv"), "--authorization-mode", "Node,RBAC",
            "--service-account-issuer", "tests", "--allow-privileged=true",
            "--service-account-signing-key-file", str(self.key),
            "--service-account-key-file", str(self.key),
            *(() if self._prefix else ("--disable-admission-plugins", "ServiceAccount")),
        )  # fmt: skip
        wait_until(self._ready, _READY_S, lambda: self._log("kube-apiserver"), 0.2)

    def kill_server(self) -> None:
        """Kill the API server; etcd keeps everything."""
        process = self._processes.pop("kube-apiserver")
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End both."""
        for name in ("kube-apiserver", "etcd"):
            if (process := self._processes.pop(name, None)) is not None:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Call the server as its administrator; return the answer.

        What only reads is asked again while the server is not able to answer.
        """
        deadline = time.monotonic() + _ANSWER_S
        while True:
            try:
                return self._call(method, path, body, kind)
            except HTTPError as error:
                text = error.read().decode()
                busy = error.code == 429 or error.code >= 500
                if method != "GET" or not busy or time.monotonic() > deadline:
                    raise AssertionError(f"{method} {path}: {text}") from None
            except (OSError, http.client.HTTPException):
                if method != "GET" or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def _call(self, method: str, path: str, body: Any, kind: str) -> Any:
        request = urllib.request.Request(
            f"{self.url}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {_ADMIN}", "Content-Type": kind},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=_ANSWER_S, context=self._tls) as answer:
            return json.loads(answer.read() or b"null")

    def make(self, path: str, *items: dict[str, Any]) -> list[dict[str, Any]]:
        """Create resources below ``path``; return them as the server keeps them."""
        return [self.call("POST", path, item) for item in items]

    def apply(self, document: Path) -> None:
        """Create the cluster-wide resources of a file: roles, bindings, definitions."""
        for item in yaml.safe_load_all(document.read_text()):
            group, kind = item["apiVersion"], item["kind"].lower() + "s"
            self.make(f"/apis/{group}/{kind}", item)
            if kind == "customresourcedefinitions":
                self._await_definition(f"/apis/{group}/{kind}/{item['metadata']['name']}", item)

    def _await_definition(self, path: str, item: dict[str, Any]) -> None:
        """Wait until the server serves the resources that a definition defines."""
        spec = item["spec"]
        served = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"

        def established() -> bool:
            status = self.call("GET", path).get("status") or {}
            found = status.get("conditions") or ()
            if not any(one["type"] == "Established" and one["status"] == "True" for one in found):
                return False
            try:
                return bool(self._call("GET", served, None, "application/json"))
            except OSError:
                return False

        wait_until(established, _READY_S, lambda: f"{served} is not served", 0.2)

    def merge(self, path: str, change: dict[str, Any]) -> Any:
        """Merge a change into a resource."""
        return self.call("PATCH", path, change, _MERGE)

    def compact(self) -> None:
        """Drop all older versions: who watched at one has to list again."""
        revision = int(self.call("GET", "/api/v1/namespaces")["metadata"]["resourceVersion"])
        body = json.dumps({"revision": str(revision), "physical": True}).encode()
        request = urllib.request.Request(f"{self.etcd_url}/v3/kv/compaction", body, method="POST")
        urllib.request.urlopen(request, timeout=_ANSWER_S).close()

    def kubeconfig(self, namespace: str = "kube-system", account: str = "") -> Path:
        """Return a file with the access of a service account, or of the administrator."""
        token = _ADMIN
        if account:
            path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
            token = self.call("POST", path, body)["status"]["token"]
        document = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [
                {
                    "name": "k",
                    "cluster": {"server": self.url, "certificate-authority": str(self.certificate)},
                }
            ],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        file = self._folder / f"kubeconfig-{account or 'admin'}"
        file.write_text(yaml.safe_dump(document))
        return file

    def _run(self, name: str, *arguments: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*self._prefix, self._parts / name, *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _ready(self) -> bool:
        for name, process in self._processes.items():
            assert process.poll() is None, self._log(name)
        request = urllib.request.Request(
            f"{self.url}/readyz",
            headers={"Authorization": f"Bearer {_ADMIN}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=5, context=self._tls) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError, http.client.HTTPException):
            return False

    def _log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()[-3000:]
