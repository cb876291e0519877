"""Address and credentials of the API server: from a service account, or a kubeconfig."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from collector.errors import KubernetesError

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """The server's address and this client's credentials."""

    host: str
    port: int
    tls: ssl.SSLContext | None  # None: plain HTTP, as of `kubectl proxy`
    token: str = ""
    token_file: Path | None = None  # read for each request: the kubelet renews the token

    def headers(self) -> dict[str, str]:
        """Return the headers that identify this client."""
        token = self.token_file.read_text().strip() if self.token_file else self.token
        return {"Authorization": f"Bearer {token}"} if token else {}


def access(kubeconfig: Path | None, environment: Mapping[str, str] = os.environ) -> Access:
    """Return the access of a kubeconfig, or of this pod's service account.

    Raise `KubernetesError`.
    """
    if kubeconfig is not None:
        return _of_kubeconfig(kubeconfig)
    host, port = (environment.get(f"KUBERNETES_SERVICE_{what}", "") for what in ("HOST", "PORT"))
    if not host:
        raise KubernetesError(
            "kubernetes: find the API server: not in a pod (KUBERNETES_SERVICE_HOST is not set); "
            "set k8s_kubeconfig_path"
        )
    try:
        tls = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
        (_ACCOUNT / "token").read_text()
    except OSError as error:
        raise KubernetesError(
            f"kubernetes: read the service account: {_ACCOUNT}: {error.strerror or error}; "
            "the pod needs automountServiceAccountToken"
        ) from None
    return Access(host, int(port or 443), tls, token_file=_ACCOUNT / "token")


def _of_kubeconfig(path: Path) -> Access:
    import yaml  # 24 ms of a start; only here

    try:
        document = yaml.safe_load(path.read_text())
        context = _named(document, "contexts", document["current-context"])["context"]
        cluster = _named(document, "clusters", context["cluster"])["cluster"]
        user = _named(document, "users", context["user"])["user"]
        return _from_entries(cluster, user, path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    raise KubernetesError(f"kubernetes: read kubeconfig: {path}: {reason}")


def _named(document: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    for one in document[kind]:
        if one["name"] == name:
            found: dict[str, Any] = one
            return found
    raise ValueError(f"{kind}: no {name}")


def _from_entries(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> Access:
    if "exec" in user or "auth-provider" in user:
        raise ValueError("users with an external program are not supported; use a token")
    server = urlsplit(cluster["server"])
    token_file = user.get("tokenFile")
    return Access(
        server.hostname or "",
        server.port or (443 if server.scheme == "https" else 80),
        _tls(cluster, user, folder) if server.scheme == "https" else None,
        user.get("token", ""),
        folder / token_file if token_file else None,
    )


def _tls(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> ssl.SSLContext:
    authority = cluster.get("certificate-authority-data")
    file = cluster.get("certificate-authority")
    tls = ssl.create_default_context(
        cafile=str(folder / file) if file else None,
        cadata=base64.b64decode(authority).decode() if authority else None,
    )
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if "client-certificate" in user:
        tls.load_cert_chain(folder / user["client-certificate"], folder / user["client-key"])
    elif "client-certificate-data" in user:
        raise ValueError("client-certificate-data: name a file with client-certificate")
    return tls
