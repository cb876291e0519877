"""Run on a kernel under test, and on the host for comparison: the whole product, then its tests.

Standard library only, and nothing that is specific to virtual machines: results are written to a
folder, as ``result.json`` and logs. A line that begins with ``##`` reports progress.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
SESSION = Path("/tmp/tetra-session")  # the same everywhere: it is in the events
OTHER_BTF = Path("/other-kernel.btf")  # the host's types
CONTAINER = "cd" * 32
USER = 61234  # a uid without a name
READY_S = 400
WORKLOAD_S = 120
TESTS_FAILED = 1  # pytest's exit code; others are errors of pytest itself
MAX_FLAKY = 3  # at most so many failed tests are run again alone
FLAKY = "; flaky: "  # between pytest's last line and the names of such tests


class Stack:
    """``tetra-embedded``: NATS, collector, gateway and a client in one terminal."""

    def __init__(self, folder: Path) -> None:
        self._address = f"localhost:{free_port()}"
        self._log = folder / "stack.log"
        self._env = os.environ | {
            "TETRA_STATE_DIR": str(folder / "state"),
            "TETRA_CACHE_DIR": str(folder / "cache"),
            "TETRA_NATS_PORT": str(free_port()),
            "TETRA_LISTEN_ADDRESS": self._address,
            "TETRA_ENABLE_PROCESS_CRED": "true",
            "NODE_NAME": f"prove-{os.getpid()}",
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [BIN / "tetra-embedded"],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, phrase: str, timeout_s: float) -> None:
        def found() -> bool:
            if self._process.poll() is not None:
                raise Failure(f"tetra-embedded ended: {self.text()[-2000:]}")
            return phrase in self.text()

        wait_until(found, timeout_s, lambda: f"no {phrase!r} in:\n{self.text()[-2000:]}")

    def doctor(self) -> None:
        """Raise `Failure` if ``tetra doctor`` finds a problem."""
        nats = f"nats://127.0.0.1:{self._env['TETRA_NATS_PORT']}"
        done = subprocess.run(
            [BIN / "tetra", "doctor", "--server-address", self._address, "--nats-url", nats],
            capture_output=True, text=True, check=False, timeout=WORKLOAD_S,
        )  # fmt: skip
        if done.returncode:
            raise Failure(f"tetra doctor: {done.stdout}{done.stderr}")

    def tetra(self, *arguments: str) -> str:
        return subprocess.run(
            [BIN / "tetra", *arguments, "--server-address", self._address],
            stdout=subprocess.PIPE, text=True, check=True, timeout=WORKLOAD_S,
        ).stdout  # fmt: skip

    def render(self, events: Path, lines: Path) -> None:
        """Write saved events as the client prints them."""
        with events.open("rb") as source, lines.open("wb") as target:
            subprocess.run(
                [BIN / "tetra", "getevents"], stdin=source, stdout=target, check=True, timeout=60
            )

    def stop(self) -> None:
        """Press Ctrl-C; raise `Failure` if the process does not end cleanly."""
        os.killpg(self._process.pid, signal.SIGINT)
        if code := self._process.wait(60):
            raise Failure(f"tetra-embedded ended with {code}: {self.text()[-1000:]}")


class Failure(Exception):
    """A step failed."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], Any], timeout_s: float, what: Callable[[], str]) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failure(f"not within {timeout_s:.0f} s: {what()}")
        time.sleep(0.1)
    return value


def cgroups() -> tuple[Path, Path]:
    """Return a cgroup outside containers and one named like a container's, for this host."""
    v1 = Path("/sys/fs/cgroup/memory")
    if v1.is_dir():
        return v1 / "tetra-session", v1 / "docker" / CONTAINER
    v2 = Path("/sys/fs/cgroup/system.slice")  # the engine has systemd create it
    return v2 / "tetra-session.service", v2 / f"docker-{CONTAINER}.scope"


def run_session(stack: Stack) -> list[dict[str, Any]]:
    """Run the workload; return its events once its exit is reported."""
    shutil.rmtree(SESSION, ignore_errors=True)
    SESSION.mkdir(mode=0o777)
    os.chown(SESSION, USER, USER)
    script = SESSION / "script.sh"
    script.write_text("#!/bin/sh\n/usr/bin/true in-a-script\n")
    script.chmod(0o755)
    (SESSION / "long").write_text("a" * 70_000)
    (SESSION / "medium").write_text("a" * 6_000)
    session = (Path(__file__).parent / "session.sh").read_text()
    pids = [
        run_in(cgroup, commands)
        for cgroup, commands in zip(
            cgroups(), (session, "/usr/bin/true in-a-container"), strict=True
        )
    ]
    events: list[dict[str, Any]] = []

    def reported() -> bool:
        nonlocal events
        output = stack.tetra("getevents", "--since", "10m", "--no-follow", "-o", "json")
        events = [json.loads(line) for line in output.splitlines()]
        ended = {process_of(e)["pid"] for e in events if "process_exit" in e}
        return ended >= set(pids)

    wait_until(reported, WORKLOAD_S, lambda: f"no exits of {pids}")
    shutil.rmtree(SESSION)
    return below(pids, events)


def run_in(cgroup: Path, commands: str) -> int:
    """Run commands in two nested shells, as a user without a name; return the outer shell's pid.

    The outer one's parent differs from host to host; what is below it must not.
    """
    cgroup.mkdir(parents=True, exist_ok=True)
    prepare = f"echo $$ > {cgroup}/cgroup.procs"
    drop = f"setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all --"
    with subprocess.Popen(
        [
            "sh", "-c", f'{prepare} && exec {drop} "$@"', "sh",
            "sh", "-c", 'sh -c "$1" session; exit 0', "outer", commands,
        ],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        if code := process.wait(WORKLOAD_S):
            raise Failure(f"session in {cgroup}: exit code {code}")
    cgroup.rmdir()
    return process.pid


def process_of(event: dict[str, Any]) -> dict[str, Any]:
    [body] = (event[name] for name in ("process_exec", "process_exit") if name in event)
    found: dict[str, Any] = body["process"]
    return found


def below(pids: list[int], events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events of all descendants of ``pids``, in the order of events."""
    inside = {process_of(e)["exec_id"] for e in events if process_of(e)["pid"] in pids}
    kept = []
    for event in events:
        process = process_of(event)
        if process["pid"] not in pids and process.get("parent_exec_id") in inside:
            inside.add(process["exec_id"])
            kept.append(event)
    return kept


def run_tests(folder: Path, left_out: list[str], files: list[str]) -> str:
    """Run the kernel tests except for those left out; return pytest's last line.

    A few tests that fail among all may be races: they are named, and have to pass alone.
    """
    log, kept = folder / "pytest.log", folder / "pytest-cache"
    chosen = ["-k", " and ".join(f"not {name}" for name in left_out)] if left_out else []
    command = [
        str(BIN / "python"), "-m", "pytest", "-v", "--durations=40", "-o", "timeout=300",
        "-o", f"cache_dir={kept}", *(files or ["tests/kernel"]), *chosen,
    ]  # fmt: skip
    code = _pytest(command, log)
    lines = log.read_text(errors="replace").splitlines()
    last = lines[-1].strip("= ") if lines else "no output"
    if code == 0:
        return last
    list_of_failed = kept / "v/cache/lastfailed"
    text = list_of_failed.read_text() if list_of_failed.exists() else "{}"
    failed = list(json.loads(text))

    def again() -> bool:
        list_of_failed.write_text(text)  # removed by a run that passes
        return _pytest([*command, "--last-failed", "--last-failed-no-failures=none"], log) == 0

    if code == TESTS_FAILED and passes_alone(failed, again):
        return f"{last.partition(' in ')[0]}{FLAKY}{', '.join(failed)}"
    named = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    raise Failure("\n".join([last, *named[:10]]))


def passes_alone(failed: list[str], again: Callable[[], bool]) -> bool:
    """Return whether a few failed tests pass in two of three further runs of only these."""
    if not 0 < len(failed) <= MAX_FLAKY:
        return False
    print(f"## flaky: {', '.join(failed)}", flush=True)
    passed = again() + again()
    return passed == 2 or (passed == 1 and again())


def compiler_port() -> str | None:
    """Return the port at which this guest's host compiles, or None."""
    for port in Path("/sys/class/virtio-ports").glob("*"):
        if (port / "name").read_text() == "tetra.compiler\n":
            return f"/dev/{port.name}"
    return None


def _pytest(command: list[str], log: Path) -> int:
    """Run pytest; its output goes into a log and to the console."""
    env = os.environ | {"TETRA_REQUIRE_KERNEL": "1", "TETRA_OTHER_BTF": str(OTHER_BTF)}
    if port := compiler_port():
        env["TETRA_HOST_COMPILER"] = port
    with (
        log.open("ab") as kept,
        subprocess.Popen(
            command,
            cwd=SOURCE,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        assert process.stdout
        for line in process.stdout:  # also to the console: nothing else remains if the kernel hangs
            kept.write(line)
            print(line.decode(errors="replace").rstrip(), flush=True)
    return process.returncode


class Engine:
    """A separate Docker engine, and an image whose files are this host's."""

    def __init__(self, folder: Path) -> None:
        self._log = (folder / "dockerd.log").open("wb")
        self._process = subprocess.Popen(
            ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

        def answers() -> bool:
            if self._process.poll() is not None:
                raise Failure(f"dockerd: {(folder / 'dockerd.log').read_text()[-1000:]}")
            return subprocess.run(["docker", "info"], capture_output=True).returncode == 0

        wait_until(answers, READY_S, lambda: "dockerd does not answer")
        script = "tar -C / -c bin lib lib64 sbin etc/passwd | docker import - tetra-host"
        subprocess.run(["sh", "-c", script], check=True, stdout=subprocess.DEVNULL)

    def run(self, *arguments: str | Path) -> str:
        """Run a container until it ends, or with --detach; return its output."""
        shared = [
            word for folder in ("/usr", "/opt", "/src") for word in ("-v", f"{folder}:{folder}")
        ]
        command = ["docker", "run", *shared, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WORKLOAD_S)
        if done.returncode:
            raise Failure(f"docker run {arguments}: {done.stderr}")
        return done.stdout.strip()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._log.close()


def run_contained(folder: Path) -> str:
    """Run the collector in a container with the rights that compose.yaml gives it.

    Processes of a second container must be reported with its id, also where AppArmor confines it.
    """
    engine = Engine(folder)
    address, port = f"localhost:{free_port()}", str(free_port())
    url = f"nats://127.0.0.1:{port}"
    services = [
        ("nats-server", "-a", "127.0.0.1", "-p", port, "-js", "-sd", str(folder / "state" / "js")),
        ("tetra-gateway", "--nats-url", url, "--listen-address", address),
    ]
    running = []
    try:
        for name, *flags in services:
            with (folder / f"contained-{name}.log").open("wb") as log:
                running.append(subprocess.Popen([BIN / name, *flags], stdout=log, stderr=log))
        collector = engine.run(
            "--detach", "--network=host", "--pid=host", "--cgroupns=host", "--uts=host",
            "--cap-drop=ALL", "--cap-add=BPF", "--cap-add=PERFMON", "--cap-add=SYS_PTRACE",
            "--cap-add=DAC_READ_SEARCH", "--security-opt=no-new-privileges:true",
            "--security-opt=apparmor=unconfined", "--ulimit=memlock=-1", "-v", "/tmp:/tmp",
            "--env=TETRA_ENABLE_PROCESS_CRED=true", "tetra-host",
            BIN / "tetra-collector", "--nats-url", url, "--state-dir", "/tmp/contained/state",
            "--cache-dir", "/tmp/contained/cache", "--docker-socket", "",
        )  # fmt: skip

        def said() -> str:
            logs = subprocess.run(["docker", "logs", collector], capture_output=True, text=True)
            (folder / "contained-collector.log").write_text(logs.stdout + logs.stderr)
            return logs.stdout + logs.stderr

        wait_until(lambda: "nats connected" in said(), READY_S, said)
        profile = engine.run(
            "--name=seen", "--network=none", "tetra-host", "/usr/bin/cat", "/proc/self/attr/current"
        )
        [seen] = subprocess.run(
            ["docker", "inspect", "--format={{.Id}}", "seen"],
            check=True, capture_output=True, text=True,
        ).stdout.split()  # fmt: skip

        def reported() -> bool:
            output = subprocess.run(
                [BIN / "tetra", "getevents", "--since", "10m", "--no-follow", "-o", "json",
                 "--server-address", address],
                capture_output=True, text=True, timeout=WORKLOAD_S,
            ).stdout  # fmt: skip
            lives = [process_of(json.loads(line)) for line in output.splitlines()]
            return any(
                life["binary"] == "/usr/bin/cat" and life.get("docker") == seen[:31]
                for life in lives
            )

        wait_until(reported, WORKLOAD_S, said)
    finally:
        subprocess.run(["sh", "-c", "docker kill $(docker ps -q)"], capture_output=True)
        for process in running:
            process.terminate()
            process.wait(60)
        engine.stop()
    if Path("/sys/module/apparmor/parameters/enabled").read_text().strip() == "Y":
        if profile != "docker-default (enforce)":
            raise Failure(f"AppArmor is on, and the container ran as {profile!r}")
        return "AppArmor enforces"
    return "no AppArmor"


def _line(event: dict[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n"


def prove_product(folder: Path, step: Callable[[str, Callable[[], Any]], Any]) -> None:
    """Start everything, run the workload, and stop: a step each."""
    stack = Stack(folder)

    def start() -> bool:
        stack.wait_for("Ctrl-C", READY_S)
        return True

    if step("start", start):
        events = step("workload", lambda: run_session(stack))
        (folder / "events.json").write_text("".join(map(_line, events or [])))
        step("client", lambda: stack.render(folder / "events.json", folder / "lines.txt"))
        step("doctor", stack.doctor)
        step("stop", stack.stop)
    for log in (folder / "state").glob("*.log"):
        shutil.copy(log, folder)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--results", type=Path, required=True)
    options.add_argument(
        "--no-tests", action="store_true", help="only the product and the workload"
    )
    options.add_argument("--leave-out", default="", help="kernel tests, separated by commas")
    options.add_argument("--only", default="", help="files of tests: these and nothing else")
    arguments = options.parse_args()
    left_out = [name for name in arguments.leave_out.split(",") if name]
    only = [name for name in arguments.only.split(",") if name]
    folder: Path = arguments.results
    result: dict[str, Any] = {
        "release": os.uname().release,
        "machine": os.uname().machine,
        "python": platform.python_version(),
        "steps": {},
    }

    def step(name: str, action: Callable[[], Any]) -> Any:
        print(f"## {name}", flush=True)
        began = time.monotonic()
        outcome: dict[str, Any] = {"ok": True}
        value = None
        try:
            value = action()
        except Exception as error:
            outcome = {"ok": False, "why": f"{type(error).__name__}: {error}"}
            print(f"## {name}: failed: {error}", flush=True)
        outcome["seconds"] = round(time.monotonic() - began, 1)
        if isinstance(value, str):
            outcome["says"] = value
        result["steps"][name] = outcome
        (folder / "result.json").write_text(json.dumps(result, indent=1))
        return value if outcome["ok"] else None

    if not only:
        prove_product(folder, step)
    if not arguments.no_tests and not only and shutil.which("dockerd"):
        step("container", lambda: run_contained(folder))
    if not arguments.no_tests:
        step("kernel tests", lambda: run_tests(folder, left_out, only))
    shutil.rmtree(folder / "state", ignore_errors=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    shutil.rmtree(folder / "pytest-cache", ignore_errors=True)
    return int(not all(outcome["ok"] for outcome in result["steps"].values()))


if __name__ == "__main__":
    sys.exit(main())
