"""``tetra doctor``: checks whether this host can run the collector, and says what to correct."""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from chassis import capabilities as needed
from cli.command import Args, Command
from cli.errors import TetraError
from cli.flags import Flag, colour_flag
from cli.server_flags import server_options
from cli.terminal import Output, visible, wants_colour
from cli.values import Value
from cli.words import counted

if TYPE_CHECKING:
    from tetra.v1.node_pb2 import NodeInfo

_LEAST_KERNEL = (5, 8)  # BPF ring buffer
_HOST_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_NATS_TIMEOUT_S = 2.0
_NATS_URL = "nats://127.0.0.1:4222"


class Finding(NamedTuple):
    """One line: what was checked, the result, what to do."""

    level: str  # ok, warn or bad
    what: str
    fact: str
    advice: str = ""


def run(args: Args) -> int:
    """Print the findings."""
    output = Output.stdout()
    colour = wants_colour(args.color, sys.stdout)
    checks: tuple[Callable[[], Finding | tuple[Finding, ...]], ...] = (
        kernel,
        btf,
        capabilities,
        lockdown,
        proc_mount,
        cgroup_mount,
        bcc,
        lambda: nats(args.nats_url),
        lambda: gateway(args),
    )
    worst = 0
    for check in checks:
        found = check()
        for finding in (found,) if isinstance(found, Finding) else found:
            worst = max(worst, finding.level == "bad")
            output.write(_line(finding, colour=colour, unicode=output.unicode))
    return worst


def _line(finding: Finding, *, colour: bool, unicode: bool) -> str:
    signs = {"ok": ("✔", 32), "warn": ("!", 33), "bad": ("✘", 31)}
    sign, code = signs[finding.level]
    sign = sign if unicode else f"{finding.level:<4}"
    indent = " " * (len(sign) + 15)
    sign = f"\x1b[{code}m{sign}\x1b[0m" if colour else sign
    text = f"{sign} {finding.what:<13} {visible(finding.fact)}\n"
    if not finding.advice:
        return text
    arrow = "→" if unicode else "->"
    return f"{text}{indent}{arrow} {visible(finding.advice)}\n"


def kernel(release: str | None = None) -> Finding:
    """Check the kernel's release."""
    release = release or platform.release()
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < _LEAST_KERNEL:
        return Finding("bad", "kernel", release, "Linux 5.8 or newer is needed (BPF ring buffer)")
    return Finding("ok", "kernel", f"{release} {platform.machine()}")


def btf(path: str = "/sys/kernel/btf/vmlinux") -> Finding:
    """Check for the kernel's type information."""
    if os.access(path, os.R_OK):
        return Finding("ok", "BTF", path)
    return Finding(
        "bad", "BTF", f"{path} is missing", "a kernel with CONFIG_DEBUG_INFO_BTF=y is needed"
    )


def capabilities(status: str = "/proc/self/status") -> Finding:
    """Check whether this process has the capabilities that the collector needs."""
    try:
        missing = needed.missing(needed.effective(Path(status)))
    except (OSError, ValueError):
        return Finding("warn", "capabilities", f"{status} cannot be read", "run on Linux")
    if missing:
        return Finding(
            "bad",
            "capabilities",
            f"this process lacks {', '.join(missing)}",
            "the collector needs them: run it as root, or with --cap-add for each",
        )
    return Finding("ok", "capabilities", ", ".join(needed.NEEDED))


def lockdown(path: str = "/sys/kernel/security/lockdown") -> Finding:
    """Check whether the kernel allows BPF programs to read its memory."""
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return Finding("ok", "lockdown", "none")
    if "[confidentiality]" in text:
        return Finding(
            "bad", "lockdown", text, "BPF may not read kernel memory: boot with lockdown=integrity"
        )
    return Finding("ok", "lockdown", text)


def proc_mount(path: str = "/proc") -> Finding:
    """Check whether all processes of the host are visible."""
    try:
        Path(path, "1", "stat").read_text()
        namespace = os.readlink(f"{path}/self/ns/pid")
    except FileNotFoundError:
        return Finding("bad", "/proc", "process 1 is hidden", "mount /proc without hidepid=2")
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        return Finding("bad", "/proc", f"cannot be read: {cause}", "run as root")
    if namespace != f"pid:[{_HOST_PID_NAMESPACE}]":
        return Finding(
            "warn",
            "/proc",
            "of a container's pid namespace",
            "for the collector: --pid=host (Docker), hostPID: true (Kubernetes)",
        )
    return Finding("ok", "/proc", "all processes of the host can be seen")


def cgroup_mount(mounts: str = "/proc/self/mounts") -> Finding:
    """Check which version of cgroups identifies containers."""
    try:
        rows = [line.split()[2:4] for line in Path(mounts).read_text().splitlines()]
    except OSError:
        rows = []
    # Where both are mounted, container engines use v1, if it has one of these.
    v1 = {name for kind, options in rows if kind == "cgroup" for name in options.split(",")}
    for controller in ("memory", "pids", "cpuset"):
        if controller in v1:
            return Finding("ok", "cgroups", f"v1 ({controller})")
    if any(kind == "cgroup2" for kind, _ in rows):
        return Finding("ok", "cgroups", "v2")
    return Finding(
        "warn", "cgroups", "not mounted", "containers will not be named: mount /sys/fs/cgroup"
    )


def bcc() -> Finding:
    """Check for BCC's Python module, which only the distribution provides."""
    if find_spec("bcc") is not None:
        return Finding("ok", "BCC", "Python module found")
    return Finding(
        "warn",
        "BCC",
        "no Python module in this environment",
        "where the collector runs: apt install python3-bpfcc",
    )


def nats(urls: str) -> Finding:
    """Check whether a NATS server with JetStream answers at one of the addresses."""
    failure = ""
    for url in urls.split(","):
        host, port = _host_and_port(url.strip())
        try:
            with socket.create_connection((host, port), timeout=_NATS_TIMEOUT_S) as connection:
                connection.settimeout(_NATS_TIMEOUT_S)
                greeting = connection.makefile("rb").readline(64 * 1024).decode(errors="replace")
        except OSError as error:
            failure = f"{host}:{port}: {error.strerror or error}".lower()
            continue
        if not greeting.startswith("INFO "):
            failure = f"{host}:{port}: no NATS server"
        elif '"jetstream":true' not in greeting:
            return Finding("bad", "NATS", f"{host}:{port}: no JetStream", "start it with -js")
        else:
            version = re.search(r'"version":"([^"]*)"', greeting)
            return Finding("ok", "NATS", f"{host}:{port}: {version[1] if version else 'answers'}")
    return Finding("bad", "NATS", failure, "start one (make run), or pass --nats-url")


def _host_and_port(url: str) -> tuple[str, int]:
    rest = url.rpartition("://")[2].rpartition("@")[2].rstrip("/")
    found = re.fullmatch(r"\[?([^\]]*?)\]?(?::(\d+))?", rest)
    return (found[1] or "127.0.0.1", int(found[2] or 4222)) if found else (rest, 4222)


def gateway(args: Args) -> tuple[Finding, ...]:
    """Check whether the gateway answers, is healthy, and knows nodes; then check their policies."""
    from cli.client import Client
    from cli.errors import UnsupportedError

    try:
        with Client(server_options(args)) as client:
            address, version = client.address, client.version()
            try:
                nodes = client.nodes()
            except UnsupportedError:
                return (Finding("ok", "gateway", f"{address}: {version} (a plain Tetragon)"),)
    except TetraError as error:
        return (
            Finding("bad", "gateway", str(error), "start one (make run), or pass --server-address"),
        )
    alive = [node for node in nodes if node.alive]
    fact = f"{address}: {version}, {len(alive)} of {counted(len(nodes), 'node')} alive"
    if not alive:
        return (Finding("warn", "gateway", fact, "no collector is connected to its NATS server"),)
    found = Finding("ok", "gateway", fact)
    reporting = [node for node in alive if node.HasField("policies")]
    return (found, policies(reporting)) if reporting else (found,)


def policies(nodes: Sequence[NodeInfo]) -> Finding:
    """Check the tracing policies of nodes that are alive."""
    from cli.policies.results import some
    from cli.policies.table import bytes_text

    loaded = sum(node.policies.loaded for node in nodes)
    memory = sum(node.policies.kernel_memory_bytes for node in nodes)
    where = counted(len(nodes), "node")
    fact = f"{loaded} loaded on {where}, {bytes_text(memory)} of kernel memory"
    failed = [node.node_name for node in nodes if node.policies.failed]
    if failed:
        count = sum(node.policies.failed for node in nodes)
        return Finding(
            "warn",
            "policies",
            f"{fact}; {count} failed on {some(failed)}",
            "tetra tracingpolicy status says why",
        )
    lossy = [node.node_name for node in nodes if node.policies.lost or node.policies.missed]
    if lossy:
        lost = sum(node.policies.lost for node in nodes)
        missed = sum(node.policies.missed for node in nodes)
        return Finding(
            "warn",
            "policies",
            f"{fact}; {lost} records lost, {missed} runs missed on {some(lossy)}",
            "narrow their filters or add a rateLimit; docs/policies.md explains the reasons for "
            "losses",
        )
    return Finding("ok", "policies", fact)


COMMAND = Command(
    "doctor",
    run,
    summary="check whether this host can run the collector and reach the servers",
    text="""Check this host line by line: kernel, BTF, capabilities, mounts, tools, NATS, gateway,
and the tracing policies of its nodes.
Exit code 0: nothing is wrong, warnings are allowed. 1: something must be corrected.

examples:
  sudo tetra doctor
  tetra doctor --nats-url nats://bus.example:4222 --server-address gw.example:54321
""",
    params=[
        Flag(
            "--nats-url",
            type=Value("URL", example=_NATS_URL),
            default=lambda: os.environ.get("TETRA_NATS_URL", _NATS_URL),
            help=f"address of the NATS server [default: TETRA_NATS_URL, else {_NATS_URL}]",
        ),
        colour_flag(),
    ],
)
