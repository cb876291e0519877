"""Resources that several tests make."""

from __future__ import annotations

from typing import Any


def policy(name: str, mark: str, *, namespace: str = "", **spec: Any) -> dict[str, Any]:
    """Return a policy that reports who opens the file /MARK; namespaced where one is given."""
    about = {"name": name} | ({"namespace": namespace} if namespace else {})
    opened = {"index": 1, "operator": "Equal", "values": [f"/{mark}"]}
    hook = {
        "call": "sys_openat", "syscall": True, "args": [{"index": 1, "type": "string"}],
        "selectors": [{"matchArgs": [opened]}],
    }  # fmt: skip
    return {
        "apiVersion": "cilium.io/v1alpha1",
        "kind": "TracingPolicyNamespaced" if namespace else "TracingPolicy",
        "metadata": about,
        "spec": {"kprobes": [hook]} | spec,
    }
