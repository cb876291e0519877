"""The tools of other packages that sections compare with, or build with: there before the run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable

from benchmarks.harness import Unavailable

SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_PEERS = {"execsnoop": "libbpf-tools", "exitsnoop": "libbpf-tools", "bpftrace": "bpftrace"}
# Section -> command -> Debian's package of it.
_NEEDED = {
    "build": {**_PEERS, "make": "make", "gcc": "gcc"},
    "storm": {**_PEERS, "bpftool": "bpftool", "gcc": "gcc"},
    "busy": {**_PEERS, "gcc": "gcc", "stress-ng": "stress-ng"},
    "path": {"gcc": "gcc"},
    "query": {"jq": "jq"},
    "policies": {"bpftrace": "bpftrace", "gcc": "gcc"},
    "ready": {
        "bpftrace": "bpftrace",
        "gcc": "gcc",
        "make": "make",
        "redis-server": "redis-server",
        "nginx": "nginx",
        "wrk": "wrk",
        "pg_createcluster": "postgresql",
    },
}


def missing(sections: Iterable[str], path: str = SEARCH) -> dict[str, str]:
    """Return command -> package of what the sections need and this machine does not have."""
    wanted = {
        command: package
        for section in sections
        for command, package in _NEEDED.get(section, {}).items()
    }
    return {c: package for c, package in wanted.items() if shutil.which(c, path=path) is None}


def install(sections: Iterable[str], path: str = SEARCH) -> None:
    """Install what is missing, from the distribution; raise `Unavailable` where that fails."""
    lacking = missing(sections, path)
    if not lacking:
        return
    packages = sorted(set(lacking.values()))
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    advice = f"{', '.join(lacking)} missing: {' '.join(command)}; or name other sections in BENCH"
    if os.geteuid() != 0 or shutil.which("apt-get", path=path) is None:
        raise Unavailable(advice)
    print(f"installing {', '.join(packages)}", flush=True)
    for step in (["apt-get", "update"], command):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(step, capture_output=True, text=True, env=environment)
        if done.returncode:
            cause = (done.stderr.strip().splitlines() or ["failed"])[-1]
            raise Unavailable(f"{' '.join(step[:2])}: {cause}: {advice}")
    if still := missing(sections, path):
        raise Unavailable(f"{', '.join(still)} missing, also behind {' '.join(command)}")
