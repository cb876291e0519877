"""The services as processes of this machine, each of which can be killed, paused, cut off."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from support.net import answers, free_port

BIN = Path(sys.executable).parent
READY_S, END_S = 120.0, 90.0
# Of networks and interfaces, with the pid of who made them: several runs go side by side.
PREFIX = "tetra"
CLIENT_PORT = 4222  # of NATS, in a network of its own


def boot_ns() -> int:
    """Return the boot clock, which the marks and the kernel use."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = READY_S) -> None:
    """Wait until ``condition`` holds; raise `TimeoutError` naming ``what``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.02)


@dataclass
class Service:
    """A process with a log, which can come and go."""

    name: str
    command: list[str]
    folder: Path
    is_ready: Callable[[Service], bool]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    # Spans of the boot clock in which it did not serve, as seen from outside.
    away: list[tuple[int, int]] = field(default_factory=list)
    _gone_ns: int = 0

    @property
    def log(self) -> Path:
        """Its output, over all its starts."""
        return self.folder / f"{self.name}.log"

    def spawn(self) -> None:
        """Start it; it is not ready yet."""
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=os.environ | self.environment, start_new_session=True,
            )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.spawn()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until it serves; note how long it was down."""

        def ready() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{tail}")
            return self.is_ready(self)

        wait_for(ready, f"{self.name} ready")
        if self._gone_ns:
            self.away.append((self._gone_ns, boot_ns()))
            self._gone_ns = 0

    def end(self, number: int = signal.SIGKILL) -> None:
        """Kill it, or ask it to stop; return when it is gone."""
        if self.process is None:
            return
        self._gone_ns = boot_ns()
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        self.process.wait(END_S)
        self.process = None

    def memory_bytes(self, name: str) -> int:
        """Return what the kernel says of its memory: VmRSS now, VmHWM at most."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.M)
        return int(found[1]) << 10 if found else 0

    def forget_peak(self) -> None:
        """Reset VmHWM (Documentation/filesystems/proc.rst, clear_refs)."""
        assert self.process is not None
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def pause(self, going: bool) -> None:
        """Stop it with SIGSTOP, or continue it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT if going else signal.SIGSTOP)


def run_marks(
    folder: Path, out: Path, mark: str, count: int, per_second: int
) -> subprocess.Popen[bytes]:
    """Start ``count`` marked processes, one after the other; ``out`` gets their times."""
    source = Path(__file__).parents[1] / "workloads" / "marks.c"
    program = folder / "marks"
    subprocess.run(["gcc", "-O1", "-o", program, source], check=True)
    with out.open("wb") as file:
        return subprocess.Popen(
            [program, "/usr/bin/true", mark, "1", str(count), str(per_second)], stdout=file
        )


class Network:
    """A network namespace, wired to this host, in which NATS runs; the wire can be cut."""

    def __init__(self, n: int) -> None:
        self.name = f"{PREFIX}{os.getpid()}-{n}"  # at most 15 characters
        subnet = free_subnet()
        self.inside, self.outside = f"{subnet}.2", f"{subnet}.1"
        for command in (
            f"ip netns add {self.name}",
            f"ip link add {self.name} type veth peer name eth0 netns {self.name}",
            f"ip address add {self.outside}/24 dev {self.name}",
            f"ip link set {self.name} up",
            f"ip -netns {self.name} address add {self.inside}/24 dev eth0",
            f"ip -netns {self.name} link set eth0 up",
            f"ip -netns {self.name} link set lo up",
        ):
            subprocess.run(command.split(), check=True)

    def connect(self, connected: bool) -> None:
        """Plug the wire in, or pull it out."""
        state = "up" if connected else "down"
        subprocess.run(["ip", "link", "set", self.name, state], check=True)

    def restore_route(self) -> None:
        """Send what is for others through this host; nothing changes where that is so."""
        route = f"ip -netns {self.name} route replace default via {self.outside}"
        subprocess.run(route.split(), check=False, capture_output=True)

    def close(self) -> None:
        """Remove it."""
        remove_network(self.name)


def remove_network(name: str) -> None:
    """Remove a network namespace and its wire, as far as they are there."""
    for command in (f"ip netns delete {name}", f"ip link delete {name}"):
        subprocess.run(command.split(), check=False, capture_output=True)


def remove_leftovers() -> None:
    """Remove the networks of runs that were killed."""
    shown = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    for name, pid in re.findall(rf"^({PREFIX}(\d+)-\d+)\b", shown.stdout, re.M):
        if not Path(f"/proc/{pid}").exists():
            remove_network(name)


def free_subnet() -> str:
    """Return the first three numbers of a /24 for test networks, unused on this host."""
    shown = subprocess.run(["ip", "-json", "address"], capture_output=True, check=True)
    taken = {a.get("local", "") for link in json.loads(shown.stdout) for a in link["addr_info"]}
    subnets = [f"198.{18 + n // 256}.{n % 256}" for n in range(512)]  # RFC 2544
    return random.choice([s for s in subnets if f"{s}.1" not in taken])


def forward(change: str) -> None:
    """Let our networks reach each other where a container engine forbids forwarding."""
    if shutil.which("iptables"):
        ours = f"{PREFIX}{os.getpid()}-+"
        rule = f"iptables {change} FORWARD -i {ours} -o {ours} -j ACCEPT"
        subprocess.run(rule.split(), check=False, capture_output=True)


class Stack:
    """NATS (one node, or a cluster of three), two gateways, a collector, a client."""

    def __init__(self, folder: Path, nodes: int, state: Path, **settings: object) -> None:
        """``settings``: of the collector, such as ``spool_disk_bytes``."""
        self.folder = folder
        self.node = f"chaos-{os.getpid()}"  # a host has one collector of each name
        remove_leftovers()
        self.networks = [Network(n) for n in range(nodes)]
        routes = [f"nats://{network.inside}:6222" for network in self.networks]
        self.nats = [
            self._nats(n, network, routes if nodes > 1 else [])
            for n, network in enumerate(self.networks)
        ]
        urls = [f"nats://{network.inside}:{CLIENT_PORT}" for network in self.networks]
        if nodes > 1:  # they reach each other through this host
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            for network in self.networks:
                network.restore_route()
            forward("-I")
        self.url = ",".join(urls)
        common = {"TETRA_NATS_URL": self.url, "TETRA_LOG_FORMAT": "json"}
        self.gateways = [self._gateway(n, common, nodes) for n in range(2)]
        self.addresses = ",".join(g.environment["TETRA_LISTEN_ADDRESS"] for g in self.gateways)
        metrics = free_port()
        self.collector = Service(
            "collector", [str(BIN / "tetra-collector")], folder,
            lambda s: s.log.read_text().count('"event": "ready"') >= s.starts,
            common | {
                "NODE_NAME": self.node, "TETRA_STATE_DIR": str(state), "TETRA_DOCKER_SOCKET": "",
                "TETRA_METRICS_ADDRESS": f"127.0.0.1:{metrics}",
                "TETRA_CACHE_DIR": str(folder / "cache"),
                **{f"TETRA_{name.upper()}": str(value) for name, value in settings.items()},
            },
        )  # fmt: skip
        self.metrics_url = f"http://127.0.0.1:{metrics}/metrics"
        self.events = folder / "events.json"
        self.events.touch()
        self.nodes_folder = folder / "nodes"
        self.simulated = tuple(f"{self.node}-{n}" for n in (1, 2, 3))
        self.nodes = Service(
            "nodes", [sys.executable, "-m", "chaos.nodes", self.url, str(self.nodes_folder),
                      *self.simulated],
            folder, lambda _: (self.nodes_folder / "active.json").exists(),
            {"PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
        self.client = Service(
            "client", ["/bin/sh", "-c", 'exec "$0" "$@" >> events.json 2>> client.err',
                       str(BIN / "tetra"), "getevents", "-o", "json", "--node", self.node,
                       "--cursor-file", "cursor", "--reconnect",
                       "--server-address", self.addresses],
            folder, lambda _: self.events.stat().st_size > 0,
        )  # fmt: skip

    @property
    def policy_nodes(self) -> tuple[str, ...]:
        """Names of the nodes that load policies."""
        return (self.node, *self.simulated)

    @property
    def services(self) -> list[Service]:
        """All of them, in the order of starting."""
        return [*self.nats, *self.gateways, self.collector, self.nodes, self.client]

    def start(self) -> None:
        """Start all and wait until the client sees events."""
        for service in self.nats:
            service.spawn()
        for service in (*self.nats, *self.gateways, self.collector):
            (service.wait_ready if service.process else service.start)()
        self.client.spawn()

        def seen() -> bool:
            subprocess.run(["/usr/bin/true"], check=True)
            return self.client.is_ready(self.client)

        wait_for(seen, "client sees events")

    def stop(self) -> None:
        """End all and remove the networks."""
        for service in reversed(self.services):
            try:
                service.end(signal.SIGTERM)
            except subprocess.TimeoutExpired:
                service.end()
        for network in self.networks:
            network.close()
        if len(self.networks) > 1:
            forward("-D")

    def value(self, name: str) -> int:
        """Return a metric of the collector; -1 where it does not answer."""
        try:
            with urllib.request.urlopen(self.metrics_url, timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return -1
        found = re.search(rf"^tetra_collector_{name} (\S+)$", text, re.M)
        return int(float(found[1])) if found else 0

    def settled_value(self, name: str) -> int:
        """Return a metric of the collector, which has to answer within `READY_S`."""
        found = [-1]

        def answered() -> bool:
            found[0] = self.value(name)
            return found[0] >= 0

        wait_for(answered, f"{name} of the collector")
        return found[0]

    def _nats(self, n: int, network: Network, routes: list[str]) -> Service:
        config = self.folder / f"nats{n}.conf"
        cluster = (
            f"cluster {{ name: chaos, listen: '{network.inside}:6222', routes: {routes} }}\n"
            if routes else ""
        )  # fmt: skip
        config.write_text(
            f"server_name: nats{n}\nlisten: '{network.inside}:{CLIENT_PORT}'\n"
            "http: '127.0.0.1:8222'\n"
            f"max_payload: 8MB\nmax_pending: 64MB\n"
            f"jetstream {{ store_dir: '{self.folder}/jetstream{n}', sync_interval: always }}\n"
            + cluster
        )
        inside = ["ip", "netns", "exec", network.name]
        probe = ["/usr/bin/python3", "-c", "import urllib.request as u; u.urlopen("
                 "'http://127.0.0.1:8222/healthz?js-server-only=true', timeout=1)"]  # fmt: skip

        def ready(_: Service) -> bool:
            done = subprocess.run([*inside, *probe], capture_output=True, check=False)
            return done.returncode == 0

        command = [*inside, str(BIN / "nats-server"), "--config", str(config)]
        return Service(f"nats{n}", command, self.folder, ready)

    def _gateway(self, n: int, common: dict[str, str], nodes: int) -> Service:
        metrics = free_port()
        return Service(
            f"gateway{n}", [str(BIN / "tetra-gateway")], self.folder,
            lambda _: answers(f"http://127.0.0.1:{metrics}/readyz"),
            common | {
                "TETRA_LISTEN_ADDRESS": f"127.0.0.1:{free_port()}",
                "TETRA_METRICS_ADDRESS": f"127.0.0.1:{metrics}",
                "TETRA_STREAM_REPLICAS": str(nodes),
            },
        )  # fmt: skip
