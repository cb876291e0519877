"""Servers under load, each with what a second of its load does: redis, nginx and PostgreSQL."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import ROOT, Unavailable, need, wait_for
from embedded.health import free_port

_NGINX = """\
daemon off; pid {0}/pid; error_log {0}/error; user nobody nogroup; worker_processes 2;
events {{}}
http {{
  access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;
  fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
  server {{ listen 127.0.0.1:{1}; location / {{ root {0}/html; }} }}
}}
"""
_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


class Done(NamedTuple):
    """What a load did, by its own report, and what it took."""

    operations: float
    per_second: float
    cpu_s: float  # of the load and the server


class Load(NamedTuple):
    """``command``: for so many seconds. The patterns find its numbers in what it prints."""

    command: Callable[[float], list[str]]
    operations: str
    per_second: str
    server: subprocess.Popen[bytes]

    def run(self, seconds: float) -> Done:
        """Load the server."""
        before_s = self._cpu_s()
        done = subprocess.run(self.command(seconds), capture_output=True, text=True, check=True)
        spent_s = self._cpu_s() - before_s
        numbers = [re.findall(one, done.stdout) for one in (self.operations, self.per_second)]
        if not all(numbers):
            raise Unavailable(
                f"{done.args[0]}: no result: {done.stdout[-200:]}{done.stderr[-200:]}"
            )
        return Done(float(numbers[0][-1]), float(numbers[1][-1]), spent_s)

    def _cpu_s(self) -> float:
        return tree_cpu_s(self.server.pid) + children_cpu_s()


def children_cpu_s() -> float:
    """Return the CPU time of the children of this process that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree_cpu_s(pid: int) -> float:
    """Return the CPU time of a process, its descendants, and those of them that have ended."""
    spent, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            words = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            waiting += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:  # it has ended: its parent has its time
            continue
        spent += sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")
    return spent


@contextmanager
def servers() -> Iterator[dict[str, Load]]:
    """Start all three in a folder of their own; yield the loads by name."""
    with tempfile.TemporaryDirectory(prefix="tetra-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        yield {
            "redis-benchmark": stack.enter_context(_redis(folder)),
            "wrk on nginx": stack.enter_context(_nginx(folder)),
            "pgbench": stack.enter_context(_postgres(folder)),
        }


@contextmanager
def _running(command: list[str], ready: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: _succeeds(ready), command[0])
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def _redis(folder: Path) -> Iterator[Load]:
    port, data = str(free_port()), folder / "redis"
    data.mkdir()
    server = [need("redis-server", "redis-server"), "--bind", "127.0.0.1", "--port", port]
    load = [need("redis-benchmark", "redis-tools"), "-p", port, "-c", "20", "-t", "set"]

    def command(seconds: float) -> list[str]:
        return [*load, "-n", str(int(seconds * 40_000))]

    ping = ["redis-cli", "-p", port, "ping"]
    with _running([*server, "--dir", str(data), "--save", ""], ping) as process:
        yield Load(command, r"(\d+) requests completed", r"throughput summary: ([\d.]+)", process)


@contextmanager
def _nginx(folder: Path) -> Iterator[Load]:
    port, data = free_port(), folder / "nginx"
    (data / "html").mkdir(parents=True)
    (data / "html" / "page").write_bytes(bytes(4096))
    (data / "conf").write_text(_NGINX.format(data, port))
    server = [need("nginx", "nginx"), "-e", f"{data}/error", "-c", f"{data}/conf"]
    url = f"http://127.0.0.1:{port}/page"
    load = [need("wrk", "wrk"), "-t", "1", "-c", "20"]

    def command(seconds: float) -> list[str]:
        return [*load, "-d", f"{max(1, round(seconds))}s", url]

    get = ["python3", "-c", f"import urllib.request as r; r.urlopen('{url}')"]
    with _running(server, get) as process:
        yield Load(command, r"(\d+) requests in", r"Requests/sec: +([\d.]+)", process)


@contextmanager
def _postgres(folder: Path) -> Iterator[Load]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        raise Unavailable("PostgreSQL is not installed: apt-get install postgresql")
    tools, port, data = programs[-1], str(free_port()), folder / "postgres"
    data.mkdir()
    shutil.chown(data, "nobody", "nogroup")
    make = [*_NOBODY, str(tools / "initdb"), "-D", f"{data}/db", "-A", "trust", "-U", "nobody"]
    subprocess.run(make, check=True, capture_output=True, cwd=data)
    server = [
        *_NOBODY, str(tools / "postgres"), "-D", f"{data}/db", "-p", port, "-k", str(data),
        "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
    ]  # fmt: skip
    where = ["-h", "127.0.0.1", "-p", port, "-U", "nobody"]
    load = [str(tools / "pgbench"), *where]

    def command(seconds: float) -> list[str]:
        return [*load, "-c", "4", "-T", str(max(1, round(seconds))), "-n", "postgres"]

    with _running(server, [str(tools / "pg_isready"), *where]) as process:
        subprocess.run([*load, "-i", "-q", "postgres"], check=True, capture_output=True, cwd=ROOT)
        yield Load(command, r"actually processed: (\d+)", r"tps = ([\d.]+)", process)
