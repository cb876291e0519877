"""What the machine lets the tests do; the `conftest.py` files that need it import the hook.

A test marked ``kernel``, ``containers`` or ``kubernetes`` is skipped where the machine cannot run
it, with the reason and the variable that turns such a skip into a failure.
"""

import importlib.util
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from chassis import capabilities


@cache
def why_no_kernel_tests() -> str | None:
    """Return what keeps BPF programs from being loaded here, or None."""
    if capabilities.missing(capabilities.effective()):
        return "no right to load BPF programs (not root)"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "the kernel has no BTF (/sys/kernel/btf/vmlinux)"
    if importlib.util.find_spec("bcc") is None:
        return "BCC's Python module is missing (python3-bpfcc, seen from .venv by make setup)"
    return None


@cache
def why_no_container_tests() -> str | None:
    """Return why no Docker engine can be used here, or None."""
    if shutil.which("docker") is None:
        return "no docker command"
    answer = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=120)
    return None if answer.returncode == 0 else "no Docker engine answers"


@cache
def why_no_kubernetes_tests() -> str | None:
    """Return why no parts of Kubernetes can be started here, or None."""
    folder = Path(os.environ.get("TETRA_KUBERNETES_PARTS", "/nonexistent"))
    if not all((folder / name).exists() for name in (".complete", ".api-complete")):
        return "no parts of Kubernetes (make test-kubernetes provides them)"
    return None if os.geteuid() == 0 else "no right to start containers (not root)"


_NEEDS = {
    "kernel": ("TETRA_REQUIRE_KERNEL", why_no_kernel_tests),
    "containers": ("TETRA_REQUIRE_CONTAINERS", why_no_container_tests),
    "kubernetes": ("TETRA_REQUIRE_KUBERNETES", why_no_kubernetes_tests),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here, or fail it where the environment says that it must run."""
    for marker, (variable, why_not) in _NEEDS.items():
        if item.get_closest_marker(marker) and (reason := why_not()):
            if os.environ.get(variable) == "1":
                pytest.fail(f"{reason}, and {variable}=1 forbids to skip", pytrace=False)
            pytest.skip(f"{reason}; {variable}=1 makes this a failure")
