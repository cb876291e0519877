"""Settings of the collector."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

import readymade
from bus.settings import BusSettings
from chassis.durations import parse_seconds
from chassis.settings import ENV_PREFIX, ServiceSettings
from collector.bpf.rate import Rate
from collector.resolver import resolver_address

# Settings that Tetragon's agent has too, under its names; its environment prefix works as well.
_TETRAGON = (
    "cgroup_rate", "cluster_name", "deleted_pod_cache_size", "enable_ancestors", "enable_k8s_api",
    "enable_pod_annotations", "enable_process_cred", "enable_process_environment_variables",
    "enable_process_ns", "enable_tracing_policy_crd", "execve_map_entries",
    "expose_stack_addresses", "filter_environment_variables", "k8s_kubeconfig_path",
    "process_cache_gc_interval", "process_cache_size", "procfs", "redaction_filters",
    "tracing_policy", "tracing_policy_dir", "username_metadata",
)  # fmt: skip


def _seconds(value: object) -> object:
    """Return the seconds of a duration ("1m30s"), as Tetragon's flags have it."""
    return parse_seconds(value, plain=True) if isinstance(value, str) else value


def _rate(value: object) -> object:
    """Return the rate in ``EVENTS,INTERVAL``, as Tetragon's --cgroup-rate has it."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    events, comma, interval = value.partition(",")
    expected = f"{value!r}: expected EVENTS,INTERVAL, as in 1000,1s"
    if not comma or not events.strip().isdecimal():
        raise ValueError(expected)
    try:
        seconds = parse_seconds(interval)
    except ValueError:
        raise ValueError(expected) from None
    if not int(events) or not 0.001 <= seconds <= 3600:
        raise ValueError(f"{value!r}: expected at least one event in 1ms to 1h")
    return Rate(int(events), round(seconds * 1e9))


def _ready_made(value: str) -> str:
    if value:
        readymade.selection(value)  # raises ReadyError, a ValueError
    return value


def _resolver(value: str) -> str:
    if value:
        resolver_address(value)  # raises ValueError
    return value


def _labels(value: object) -> object:
    """Return the labels in ``NAME=VALUE[,NAME=VALUE]``."""
    if not isinstance(value, str):
        return value
    labels = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        name, equals, content = part.partition("=")
        if not equals or not name:
            raise ValueError(f"label {part!r}: expected NAME=VALUE")
        labels[name.strip()] = content.strip()
    return labels


class Settings(ServiceSettings, BusSettings):
    """Settings of the collector; those that Tetragon has carry its names and defaults."""

    node_name: str = Field(
        default_factory=lambda: os.uname().nodename,
        min_length=1,
        description="this host's name in events; also from HUBBLE_NODE_NAME or NODE_NAME",
    )
    node_labels: Annotated[dict[str, str], NoDecode, BeforeValidator(_labels)] = Field(
        default_factory=dict,
        description="labels of this host, NAME=VALUE[,NAME=VALUE]: policies of the fleet and "
        "nodeSelector select by them",
    )
    cluster_name: str = Field("", description="cluster's name in events")
    state_dir: Path = Field(
        Path("/var/lib/tetra"), description="folder for state that must outlive the collector"
    )
    cache_dir: Path = Field(
        Path("/var/cache/tetra"), description="folder for compiled programs, by kernel"
    )
    procfs: Path = Field(Path("/proc"), description="the host's proc file system")
    btf: Path = Field(
        Path("/sys/kernel/btf/vmlinux"),
        description="the kernel's type information; if the kernel has none, a BTF file of exactly "
        "this kernel build",
    )
    ring_size_bytes: int = Field(
        8 << 20, ge=1 << 16, description="BPF ring buffer, rounded up to a power of two"
    )
    max_read_delay_ms: int = Field(
        250,
        ge=0,
        le=1000,
        description="longest time between two reads of the ring, on a host with busy CPUs; on "
        "others it is 4 to 40 ms while clients read, else 100 ms. A ring that is a quarter full is "
        "read at once",
    )
    execve_map_entries: int = Field(
        65536, ge=1024, description="processes that the kernel side can track at once"
    )
    process_cache_size: int = Field(65536, ge=64, description="process images kept in memory")
    process_cache_gc_interval: Annotated[float, BeforeValidator(_seconds)] = Field(
        30.0,
        gt=0,
        description="how long an unreferenced image stays: 30, 30s, 1m30s",
    )
    spool_memory_bytes: int = Field(
        64 << 20, ge=1 << 20, description="memory for events while NATS is unreachable"
    )
    spool_disk_bytes: int = Field(
        1 << 30, ge=0, description="disk space for them in the state folder; 0: none"
    )
    spool_sync: Literal["always", "never"] = Field(
        "always",
        description="always: events on disk survive a power failure; never: the kernel decides "
        "when to write them",
    )
    enable_process_cred: bool = Field(
        False, description="report capabilities, ids and set-id binaries"
    )
    enable_process_ns: bool = Field(False, description="report namespaces")
    enable_process_environment_variables: bool = Field(False, description="report the environment")
    filter_environment_variables: str = Field(
        "", description="names of variables to report, separated by commas; empty: all"
    )
    enable_ancestors: str = Field(
        "",
        pattern=r"^((.+,)?base(,.+)?)?$",
        description="report ancestors beyond the parent in these events: 'base' for exec and exit, "
        "and kprobe, tracepoint, uprobe, usdt, lsm, loader",
    )
    username_metadata: Literal["disabled", "unix"] = Field(
        "disabled", description="unix: fill the user field from the passwd file"
    )
    redaction_filters: str = Field(
        "", description='JSON objects {"redact": [regex], "binary_regex": [regex]}'
    )
    cgroup_rate: Annotated[Rate | None, NoDecode, BeforeValidator(_rate)] = Field(
        None,
        description="throttling, EVENTS,INTERVAL as in 1000,1s: the processes of a cgroup with "
        "more execs and forks are not reported until the rate falls; empty: never",
    )
    policy_cgroup_rate: Annotated[Rate | None, NoDecode, BeforeValidator(_rate)] = Field(
        None,
        description="the same for the events of one tracing policy in one cgroup",
    )
    enable_argv: bool = Field(False, description="also report arguments as an exact list")
    tracing_policy: Path | None = Field(
        None, description="file of one tracing policy, in addition to those of tracing_policy_dir"
    )
    tracing_policy_dir: Path = Field(
        Path("/etc/tetragon/tetragon.tp.d"),
        description="folder of tracing policies, one a file; a changed file replaces its policy",
    )
    policies: Annotated[str, AfterValidator(_ready_made)] = Field(
        "",
        description="ready-made policies to load: files,network; with parameters: "
        "'files paths=/etc,/srv; network'",
    )
    policy_spare: bool = Field(
        True,
        description="no policy acts on process 1, the collector, and the services of the stack",
    )
    policy_spare_programs: str = Field(
        "nats-server,tetra-gateway,tetra-collector,tetra-exporter,tetra-embedded",
        description="names of the stack's programs, separated by commas",
    )
    policy_spare_uids: str = Field(
        "0,65532,tetra,nats",
        pattern=r"^([\w.-]+(,[\w.-]+)*)?$",
        description="users that these programs run as, by number or by a name that this host "
        "knows; others can run a program of that name",
    )
    keep_enforcement: Literal["never", "crash", "always"] = Field(
        "never",
        description="crash: policies that act stay in force when the collector is killed; always: "
        "also when it is stopped; until the next collector has loaded its policies",
    )
    policy_signals_per_minute: int = Field(
        0,
        ge=0,
        description="a policy that sends more signals than this is switched to mode monitor; "
        "0: no limit",
    )
    policy_request_hosts: str = Field(
        "",
        description="hosts that actions GetUrl and DnsLookup may contact, separated by commas; "
        ".example.org: all names below that domain; empty: none",
    )
    policy_resolver: Annotated[str, AfterValidator(_resolver)] = Field(
        "",
        description="DNS server of action DnsLookup, ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT; "
        "empty: the system's",
    )
    expose_stack_addresses: bool = Field(
        False,
        description="report the addresses of stack frames, which reveal the kernel's load address",
    )
    keep_probes: Literal["never", "crash", "always"] = Field(
        "never",
        description="crash: the probes of a killed collector stay attached, and the next collector "
        "reports what they recorded meanwhile; always: also those of a stopped collector",
    )
    pin_dir: Path = Field(
        Path("/sys/fs/bpf/tetra"), description="folder in a BPF file system, for kept probes"
    )
    detach: bool = Field(
        False,
        description="detach the probes that an earlier collector of this node left attached, and "
        "exit",
    )
    metrics_address: str = Field(
        "", description="HTTP address of /metrics, /healthz and /readyz, host:port; empty: none"
    )
    docker_socket: str = Field(
        "/var/run/docker.sock",
        description="socket of the Docker engine, for names and images of containers; empty: none",
    )
    podman_socket: str = Field(
        "/run/podman/podman.sock", description="the same for Podman; empty: none"
    )
    cri_socket: str = Field(
        "auto",
        description="sockets of containerd or CRI-O, for containers and pods, separated by commas; "
        "auto: those of /run/containerd, /run/crio and k3s that exist; empty: none",
    )

    nri_socket: str = Field(
        "",
        description="NRI socket of containerd or CRI-O, as /var/run/nri/nri.sock: containers then "
        "start only after their policies are in effect; empty: none",
    )
    enable_k8s_api: bool = Field(
        False, description="read the pods and labels of this node from the Kubernetes API server"
    )
    enable_tracing_policy_crd: bool = Field(
        True, description="with enable_k8s_api: load the API server's tracing policies"
    )
    k8s_kubeconfig_path: Path | None = Field(
        None,
        description="kubeconfig file for the API server; default: the service account of this pod",
    )
    k8s_node_name: str = Field(
        default_factory=lambda: os.environ.get("NODE_NAME") or os.uname().nodename,
        description="this host's name at the API server; also from NODE_NAME",
    )
    enable_pod_annotations: bool = Field(False, description="report annotations of pods")
    deleted_pod_cache_size: int = Field(
        1024, ge=0, description="deleted pods that are kept for late events"
    )

    def request_hosts(self) -> frozenset[str]:
        """Return the allow list of requests."""
        names = self.policy_request_hosts.lower().replace(" ", "").split(",")
        return frozenset(filter(None, names))

    @model_validator(mode="after")
    def _kept_probes_need_the_disk(self) -> Settings:
        if self.keep_probes != "never" and not self.spool_disk_bytes:
            raise ValueError(
                "keep_probes needs spool_disk_bytes: records of kept probes are stored on disk"
            )
        return self


def adopt_environment(environment: MutableMapping[str, str]) -> None:
    """Use the variables of Tetragon's agent for those of ours that are not set."""
    for name in _TETRAGON:
        theirs, ours = f"TETRAGON_{name.upper()}", f"{ENV_PREFIX}{name.upper()}"
        if theirs in environment:
            environment.setdefault(ours, environment[theirs])
    if "TETRAGON_METRICS_SERVER" in environment:
        environment.setdefault(
            f"{ENV_PREFIX}METRICS_ADDRESS", environment["TETRAGON_METRICS_SERVER"]
        )
    for name in ("HUBBLE_NODE_NAME", "NODE_NAME"):
        if environment.get(name):
            environment.setdefault(f"{ENV_PREFIX}NODE_NAME", environment[name])
