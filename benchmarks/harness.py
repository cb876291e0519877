"""What every section uses: figures with targets, services as processes, their CPU and memory."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chassis import scheduling
from embedded.health import free_port

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
CACHE = ROOT / ".cache" / "bench"
TRUE = "/usr/bin/true"
_TICKS = os.sysconf("SC_CLK_TCK")


class Unavailable(Exception):
    """A section cannot run here; the text says what is missing and how to get it."""


def need_root() -> None:
    """Raise `Unavailable` for others than root."""
    if os.geteuid() != 0:
        raise Unavailable("loads BPF programs: run it as root")


def need(command: str, package: str) -> str:
    """Return the path of a command; raise `Unavailable` naming its package."""
    path = shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise Unavailable(f"{command} is not installed: apt-get install {package}")
    return path


@dataclass
class Figure:
    """One line of the table. ``wanted`` is (comparison, number): ("<=", 1.02)."""

    section: str
    name: str
    value: float
    unit: str = ""
    wanted: tuple[str, float] | None = None
    spread: tuple[float, float] | None = None  # least and most of what `value` is the median

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.wanted is None:
            return None
        comparison, number = self.wanted
        return self.value <= number if comparison == "<=" else self.value >= number


@dataclass
class Report:
    """Figures in the order they were made; each is printed at once."""

    figures: list[Figure] = field(default_factory=list)
    section: str = ""

    def begin(self, section: str, title: str) -> None:
        """Head the lines of a section."""
        self.section = section
        print(f"\n== {section}: {title}", flush=True)

    def say(self, text: str) -> None:
        """Print what is being done, so that a long section is seen to run."""
        print(f"   .. {text}", flush=True)

    def add(
        self,
        name: str,
        values: float | Sequence[float],
        unit: str = "",
        wanted: tuple[str, float] | None = None,
    ) -> float:
        """Add a figure, the median of ``values``; return it."""
        many = [values] if isinstance(values, (int, float)) else list(values)
        value = statistics.median(many)
        spread = (min(many), max(many)) if len(many) > 1 else None
        self.put(Figure(self.section, name, value, unit, wanted, spread))
        return value

    def put(self, figure: Figure) -> None:
        """Add a figure and print its line."""
        self.figures.append(figure)
        spread, wanted, target = figure.spread, figure.wanted, ""
        around = f"  ({_number(spread[0])} .. {_number(spread[1])})" if spread else ""
        if wanted:
            target = (
                f"  {'met' if figure.met else 'MISSED'}: wanted {wanted[0]} {_number(wanted[1])}"
            )
        number = _number(figure.value)
        print(f"   {figure.name:52} {number:>10} {figure.unit}{around}{target}", flush=True)

    def write(self, path: Path, failed: dict[str, str]) -> None:
        """Write everything as JSON."""
        written = {
            "kernel": os.uname().release,
            "machine": os.uname().machine,
            "cores": os.cpu_count(),
            "python": sys.version.split()[0],
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "not_run": failed,
            "figures": [vars(f) | {"met": f.met} for f in self.figures],
        }
        path.write_text(json.dumps(written, indent=1) + "\n")


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 10 else f"{value:.3f}"


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, user and system."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS


def resident_mb(pid: int) -> float:
    """Return the resident size of a process."""
    found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found[1]) / 1024 if found else 0.0


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Wait until ``condition`` holds; raise `RuntimeError` naming ``what``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.01)


class Services:
    """NATS, gateways and a collector on loopback, in processes of their own."""

    def __init__(self, folder: Path, programs: Path = BIN) -> None:
        """``programs``: where the services are, of this version or of another."""
        self.folder = folder
        self._programs = programs
        other = "" if programs == BIN else f"-{zlib.crc32(bytes(programs)):08x}"
        self._cache = CACHE / f"headers{other}"
        folder.mkdir(parents=True, exist_ok=True)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.nats_port = free_port()
        self.nats_url = f"nats://127.0.0.1:{self.nats_port}"
        self.addresses: list[str] = []
        self._metrics: dict[str, int] = {}

    def start_nats(self, sync: str = "always") -> None:
        """Start NATS as we ship it."""
        config = self.folder / "nats.conf"
        config.write_text(
            f"listen: '127.0.0.1:{self.nats_port}'\nmax_payload: 8MB\nmax_pending: 64MB\n"
            f"jetstream {{ store_dir: '{self.folder}/jetstream', sync_interval: {sync} }}\n"
        )
        command = [str(self._programs / "nats-server"), "--config", str(config)]
        if self._programs == BIN:
            with scheduling.timer_slack(scheduling.NATS_TIMER_SLACK_NS):
                self._start("nats", ["chrt", "--batch", "0", *command], {})
        else:
            self._start("nats", command, {})
        wait_for(self._nats_answers, "nats")

    def start_gateway(self) -> str:
        """Start one more gateway; return its address."""
        name = f"gateway{len(self.addresses)}"
        address = f"127.0.0.1:{free_port()}"
        self._start_service(
            name, "tetra-gateway",
            {"TETRA_LISTEN_ADDRESS": address, "TETRA_MAX_CLIENTS": "1000"},
        )  # fmt: skip
        self.addresses.append(address)
        return address

    def start_collector(self, **settings: str) -> float:
        """Start the collector; return the seconds until its probes were attached."""
        log = self.folder / "collector.log"
        before = log.read_text().count('"event": "ready"') if log.exists() else 0
        start = time.monotonic()
        environment = {
            # A host has one collector of a name; another benchmark may run.
            "NODE_NAME": f"bench-{os.getpid()}", "TETRA_STATE_DIR": str(self.folder / "state"),
            "TETRA_DOCKER_SOCKET": "", "TETRA_CACHE_DIR": str(self._cache), **settings,
        }  # fmt: skip
        self._start_service("collector", "tetra-collector", environment, ready=False)
        process = self.processes["collector"]

        def is_ready() -> bool:
            text = log.read_text()
            if process.poll() is not None:
                raise RuntimeError(f"collector: it ended: {text.rstrip().rpartition(chr(10))[2]}")
            return text.count('"event": "ready"') > before

        wait_for(is_ready, "collector")
        took_s = time.monotonic() - start
        port = self._metrics["collector"]
        wait_for(lambda: _answers(f"http://127.0.0.1:{port}/readyz"), "collector reaches nats")
        return took_s

    def start_client(self, output: str = "lifecycle") -> None:
        """Start one client that writes what happens to a file."""
        out = self.folder / f"client.{output}"
        out.write_bytes(b"")
        command = [
            self._programs / "tetra",
            "getevents",
            "-o",
            output,
            "--server-address",
            self.addresses[0],
        ]
        with out.open("wb") as file:
            self.processes["client"] = subprocess.Popen(
                [*map(str, command)], stdin=subprocess.DEVNULL, stdout=file, start_new_session=True
            )

        def seen() -> bool:
            subprocess.run([TRUE], check=True)
            return out.stat().st_size > 0

        wait_for(seen, "client sees events")

    def metrics(self, name: str) -> dict[str, float]:
        """Return the metrics of a service, by name with labels."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self._metrics[name]}/metrics", timeout=5
        ) as answer:
            lines = answer.read().decode().splitlines()
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in lines
            if not line.startswith("#")
        }

    def lost(self) -> int:
        """Return the events that the collector lost, in the kernel and in its spool."""
        metrics = self.metrics("collector")
        return int(
            sum(v for k, v in metrics.items() if k.startswith("tetragon_bpf_missed_events_total"))
            + metrics["tetra_collector_dropped_events_total"]
        )

    def settle(self) -> None:
        """Wait until all that was seen is published."""
        wait_for(
            lambda: self.metrics("collector")["tetra_collector_spool_events"] == 0, "published"
        )

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each service so far."""
        return {name: cpu_s(process.pid) for name, process in self.processes.items()}

    def stop(self, *names: str) -> None:
        """End some services, or all, in reverse order of starting."""
        for name in reversed(names or tuple(self.processes)):
            process = self.processes.pop(name, None)
            if process is None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start_service(
        self, name: str, command: str, environment: dict[str, str], ready: bool = True
    ) -> None:
        port = self._metrics[name] = free_port()
        common = {
            "TETRA_NATS_URL": self.nats_url, "TETRA_LOG_FORMAT": "json",
            "TETRA_METRICS_ADDRESS": f"127.0.0.1:{port}",
        }  # fmt: skip
        self._start(name, [str(self._programs / command)], common | environment)
        if ready:
            wait_for(lambda: _answers(f"http://127.0.0.1:{port}/readyz"), name)

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with (self.folder / f"{name.rstrip('0123456789')}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | environment, start_new_session=True,
            )  # fmt: skip

    def _nats_answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.nats_port), 1) as probe:
                return probe.recv(4) == b"INFO"
        except OSError:
            return False


@contextmanager
def services(name: str, programs: Path = BIN) -> Iterator[Services]:
    """Yield services with a fresh folder; end them all."""
    folder = CACHE / "run" / name
    shutil.rmtree(folder, ignore_errors=True)
    running = Services(folder, programs)
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def whole_stack(name: str, *, client: bool, programs: Path = BIN) -> Iterator[Services]:
    """Yield NATS, a gateway and a collector, and a client where it is asked for."""
    with services(name, programs) as running:
        running.start_nats()
        running.start_gateway()
        running.start_collector()
        if client:
            running.start_client()
        yield running


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def peers(which: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run what others use for the same: "libbpf-tools" (execsnoop, exitsnoop) or "bpftrace"."""
    CACHE.mkdir(parents=True, exist_ok=True)
    mount_tracefs()
    if which == "libbpf-tools":
        # Their wrappers of the same names in Python are another package's.
        commands = [[need(tool, "libbpf-tools")] for tool in ("execsnoop", "exitsnoop")]
    else:
        program = (
            "tracepoint:sched:sched_process_exec "
            '{ printf("exec %d %s\\n", pid, str(args->filename)); }'
            ' tracepoint:sched:sched_process_exit { printf("exit %d %s\\n", pid, comm); }'
        )
        commands = [[need("bpftrace", "bpftrace"), "-e", program]]
    started = []
    try:
        for number, command in enumerate(commands):
            out = CACHE / f"peer-{number}.txt"
            with out.open("wb") as file:
                started.append(
                    subprocess.Popen(
                        ["stdbuf", "-oL", *command], stdin=subprocess.DEVNULL, stdout=file,
                        stderr=subprocess.DEVNULL, start_new_session=True,
                    )
                )  # fmt: skip
            size = out.stat().st_size

            def seen(out: Path = out, size: int = size) -> bool:
                subprocess.run([TRUE], check=True)
                return out.stat().st_size > size + 100

            wait_for(seen, command[0])
        yield started
    finally:
        for process in started:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def mount_tracefs() -> None:
    """Both find tracepoints there; we need no tracefs."""
    if not Path("/sys/kernel/tracing/events").exists():
        command = ["mount", "-t", "tracefs", "none", "/sys/kernel/tracing"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"tracefs, which the others need: {done.stderr.strip()}")


def build_static(name: str, text: str) -> Path:
    """Compile a small static C program into the cache; return its path."""
    CACHE.mkdir(parents=True, exist_ok=True)
    source, program = CACHE / f"{name}.c", CACHE / name
    if not program.exists() or source.read_text() != text:
        source.write_text(text)
        subprocess.run([need("gcc", "gcc"), "-O2", "-static", "-o", program, source], check=True)
    return program
