"""``make run``, as a user runs it: start, events, Ctrl-C, nothing is left."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from support.net import free_port
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_WITHIN_S = 90
# As many times as long as processes wait for a CPU.
END_WITHIN_S = 2 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
NODE = f"embedded-{os.getpid()}"  # two checkouts may be tested at once


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def loaded_programs() -> set[str]:
    """Return the ids of all BPF programs in the kernel."""
    shown = subprocess.run(
        [BIN / "bpftool", "--json", "prog", "show"], capture_output=True, check=True
    )
    return {str(program["id"]) for program in json.loads(shown.stdout)}


class Launch:
    """A running ``make run`` with ports and a state folder of its own."""

    def __init__(self, state_dir: Path, **settings: str) -> None:
        self.state_dir = state_dir
        self.ports = (free_port(), free_port())
        self.env = os.environ | {
            "TETRA_STATE_DIR": str(state_dir),
            "TETRA_NATS_PORT": str(self.ports[0]),
            "TETRA_LISTEN_ADDRESS": f"localhost:{self.ports[1]}",
            "NODE_NAME": NODE,
            "TETRA_MAX_READ_DELAY_MS": "40",  # also on a machine that is busy with other tests
            **settings,
        }
        self.lines: list[tuple[float, str]] = []  # with the time of arrival
        self.process = subprocess.Popen(
            ["make", "run"],
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # its process group is the terminal's foreground
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip("\n")))

    def close(self) -> None:
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stdout
        self.process.stdout.close()

    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def wait_for(self, pattern: str, timeout_s: float = START_WITHIN_S) -> re.Match[str]:
        """Return the first match in the output; fail if it ends or the time is over."""

        def find():
            match = re.search(pattern, self.text(), re.MULTILINE)
            assert match or self.process.poll() is None, self.text()
            return match

        return wait_until(find, timeout_s, self.text)

    def lines_with(self, marker: str) -> list[tuple[float, str]]:
        return [line for line in self.lines if marker in line[1]]

    def has_ended(self, marker: str) -> bool:
        """Return whether start and end of a marked process are printed."""
        return len(self.lines_with(marker)) >= 2

    def processes(self) -> dict[int, str]:
        """Return pid -> command line of all that runs with our state folder."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if str(self.state_dir).encode() in (folder / "environ").read_bytes():
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if command:  # a zombie has none
                        found[int(folder.name)] = command
        return found

    def pid_of(self, command: str) -> int:
        wanted = re.compile(rf"bin/{command}( |$)")
        [pid] = [pid for pid, line in self.processes().items() if wanted.search(line)]
        return pid

    def program_ids(self) -> set[str]:
        """Return the ids of the BPF programs that our processes hold."""
        ids = set()
        for pid in self.processes():
            for info in Path(f"/proc/{pid}/fdinfo").glob("*"):
                with suppress(OSError):
                    ids |= set(re.findall(r"^prog_id:\s*(\d+)", info.read_text(), re.MULTILINE))
        return ids

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def expect_nothing_left(self, programs: set[str], within_s: float = END_WITHIN_S) -> None:
        wait_until(lambda: not self.processes(), within_s, self.processes)
        # A killed process has no memory, and so no environment, a moment before its sockets close.
        wait_until(lambda: not any(map(listens, self.ports)), within_s, lambda: self.ports)
        # The kernel frees a program a moment after its last descriptor is closed.
        wait_until(lambda: not programs & loaded_programs(), within_s, loaded_programs)


@contextmanager
def launched(state_dir: Path, **settings: str) -> Iterator[Launch]:
    """Run ``make run`` until the block ends."""
    started = Launch(state_dir, **settings)
    try:
        yield started
    finally:
        for pid in started.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        started.close()


@pytest.fixture
def launch(tmp_path):
    with launched(tmp_path / "state") as started:
        yield started


def delays_of_ends(launch: Launch) -> Iterator[float]:
    """Run processes; give how long after each one's end its line was there."""
    user = re.escape(Path("/etc/passwd").read_text().split(":", 1)[0])
    while True:
        marker = f"marker-{uuid.uuid4().hex}"
        child = subprocess.Popen(["/usr/bin/true", marker])
        child.wait()
        ended = time.monotonic()
        wait_until(partial(launch.has_ended, marker), 30, launch.text)
        (_, started_line), (shown, ended_line) = launch.lines_with(marker)
        process = f"{child.pid}: {user}: /usr/bin/true {marker}"
        assert re.fullmatch(f"🚀 process {process}", started_line)
        assert re.fullmatch(f"💥 exit {process}", ended_line)
        yield shown - ended


@pytest.mark.kernel
def test_make_run_shows_a_process_in_two_lines_and_leaves_nothing(launch):
    launch.wait_for("^  stop  +Ctrl-C$")
    assert re.search(rf"node {NODE} \(Linux {re.escape(os.uname().release)}\)", launch.text())
    assert f"localhost:{launch.ports[1]}" in launch.text()

    # The machine may be busy with something else for some of them, not for all.
    assert any(delay_s < 0.1 for delay_s in islice(delays_of_ends(launch), 50))

    programs = launch.program_ids()
    assert len(programs) >= 3  # fork, exec, exit
    launch.press_ctrl_c()
    launch.expect_nothing_left(programs)
    launch.process.wait(30)
    assert "Traceback" not in launch.text()


@pytest.mark.kernel
def test_make_run_prints_its_address_again_at_the_end(launch):
    """The banner has scrolled away behind the events."""
    launch.wait_for("^  stop  +Ctrl-C$")
    launch.press_ctrl_c()
    launch.process.wait(60)
    last = launch.text().rpartition("\nStopped\n")[2]
    assert last.startswith(f"  gateway   was on localhost:{launch.ports[1]}\n")


@pytest.mark.kernel
@pytest.mark.timeout(300)
def test_fork_bomb_is_shown_completely_and_all_services_survive(launch, tmp_path):
    count, lives = 20_000, tmp_path / "lives"
    source = ROOT / "tests/workloads/lives.c"
    subprocess.run(["gcc", "-O1", "-pthread", "-o", lives, source], check=True)
    launch.wait_for("^  stop  +Ctrl-C$")
    services = launch.processes()
    # All alive together until the last is there. It says itself how many there were.
    done = subprocess.run([lives, "bomb", str(count)], capture_output=True, check=True, timeout=120)
    if (made := int(done.stdout)) < count:
        pytest.skip(f"this machine allows only {made} processes at once")  # pragma: no cover
    life = f"root: {lives} bomb {count}"

    def lines(sign):
        return [line for _, line in list(launch.lines) if line.startswith(sign) and life in line]

    wait_until(lambda: len(lines("💥")) > count, 120, lambda: len(lines("💥")))
    assert (len(lines("🚀")), len(lines("💥"))) == (1, count + 1)
    assert sum(line.endswith(" 7") for line in lines("💥")) == count
    assert launch.processes() == services
    address = f"localhost:{launch.ports[1]}"
    verified = subprocess.run(
        [BIN / "tetra", "verify", "--server-address", address], capture_output=True, timeout=60
    )
    assert verified.returncode == 0, verified


@pytest.mark.kernel
def test_exporter_of_columns_runs_beside_the_services(tmp_path):
    marker = f"marker-{uuid.uuid4().hex}"
    ask = [BIN / "tetra", "getevents", "--since", "10m", "-e", "PROCESS_EXEC",
           "--arguments", marker, "--count-by", "binary"]  # fmt: skip
    with launched(tmp_path / "state", TETRA_COLUMNS="true") as launch:
        launch.wait_for("^exporter +columns in ")
        launch.wait_for("^  stop  +Ctrl-C$")
        assert launch.pid_of("tetra-exporter")
        for _ in range(3):
            subprocess.run(["/usr/bin/true", marker], check=True)
        server = ["--server-address", f"localhost:{launch.ports[1]}"]

        def counted():
            done = subprocess.run([*ask, *server], capture_output=True, text=True, timeout=60)
            return [line for line in done.stdout.splitlines() if line.endswith("/usr/bin/true")]

        wait_until(lambda: counted() == ["3       /usr/bin/true"], 60, counted, 0.2)
        launch.press_ctrl_c()
        launch.process.wait(30)
        assert "tetra-embedded: error" not in launch.text()


@pytest.mark.kernel
def test_killed_launcher_ends_its_children(launch):
    launch.wait_for("^  stop  +Ctrl-C$")
    programs = launch.program_ids()
    os.kill(launch.pid_of("tetra-embedded"), signal.SIGKILL)
    launch.expect_nothing_left(programs)


def wait_until_shown(launch):
    """Start processes until the terminal shows one."""
    marker = uuid.uuid4().hex

    def shown():
        subprocess.run(["/usr/bin/true", marker], check=True)
        return launch.has_ended(marker)

    wait_until(shown, 60, launch.text)


@pytest.mark.kernel
@pytest.mark.parametrize("service", ["nats-server", "tetra-gateway", "tetra-collector"])
def test_dead_service_is_restarted_with_a_line(launch, service):
    launch.wait_for("^  stop  +Ctrl-C$")
    killed = launch.pid_of(service)
    os.kill(killed, signal.SIGKILL)
    name = service.removeprefix("tetra-").removesuffix("-server")
    launch.wait_for(rf"^tetra-embedded: {name}: killed by SIGKILL: starting it again \(1 of 5\)$")
    wait_until_shown(launch)
    assert launch.pid_of(service) != killed


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 700 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["-o", "size=700m,mode=700"]
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path):
    """Write zeros until the disk is full."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))


@pytest.mark.kernel
@pytest.mark.timeout(240)
def test_full_disk_stops_nothing_permanently(small_disk):
    launch = Launch(small_disk / "state")
    try:
        launch.wait_for("^disk +the event stream is limited to 349 MiB: .*TETRA_STREAM_MAX_BYTES")
        launch.wait_for("^  stop  +Ctrl-C$")
        wait_until_shown(launch)
        fill(small_disk / "fill")
        for _ in range(20):  # NATS has to write some
            subprocess.run(["/usr/bin/true", "x" * 10_000], check=True)
        full = "^tetra-embedded: nats: .*no space left on device: "
        launch.wait_for(full + "it is started again when the disk has 32 MiB free")
        (small_disk / "fill").unlink()
        launch.wait_for(full + r"starting it again \(1 of 5\)$")
        wait_until_shown(launch)
        address = f"localhost:{launch.ports[1]}"
        verified = subprocess.run(
            [BIN / "tetra", "verify", "--server-address", address], capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        print(verified.stdout, verified.stderr)
        assert "damaged" not in verified.stdout + verified.stderr
        launch.press_ctrl_c()
        launch.process.wait(30)
    finally:
        for pid in launch.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        launch.close()


@pytest.mark.kernel
def test_stream_larger_than_the_disk_is_refused_at_once(small_disk):
    environment = {
        "TETRA_STATE_DIR": str(small_disk),
        "TETRA_STREAM_MAX_BYTES": str(1 << 30),
        "TETRA_LISTEN_ADDRESS": f"localhost:{free_port()}",
        "TETRA_NATS_PORT": str(free_port()),
    }
    assert "TETRA_STREAM_MAX_BYTES is 1.0 GiB" in refuse(environment)


@pytest.mark.kernel
def test_link_in_the_state_folder_is_not_followed(tmp_path):
    target = tmp_path / "target"
    target.write_text("untouched")
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "nats.password").symlink_to(target)
    assert "nats.password: is a link" in refuse({"TETRA_STATE_DIR": str(state)})
    assert target.read_text() == "untouched"


@pytest.mark.kernel
def test_state_folder_of_another_user_is_refused(tmp_path):
    os.chown(tmp_path, 12345, 12345)
    assert "belongs to user 12345" in refuse({"TETRA_STATE_DIR": str(tmp_path)})


@pytest.mark.kernel
def test_state_folder_in_use_is_one_line_and_exit_code_2(tmp_path):
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        refused = refuse({"TETRA_STATE_DIR": str(tmp_path)})
    assert "in use by pid 4711" in refused


@pytest.mark.kernel
def test_port_in_use_is_one_line_that_names_the_holder(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        refused = refuse({"TETRA_STATE_DIR": str(tmp_path), "TETRA_NATS_PORT": port})
    assert f"port {port} is in use by " in refused
    assert f"(pid {os.getpid()})" in refused


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
def test_without_rights_one_line_names_sudo(tmp_path):
    refused = refuse(
        {"TETRA_STATE_DIR": str(tmp_path)}, ["setpriv", "--reuid=65534", "--clear-groups"]
    )
    assert "sudo make run" in refused


def refuse(env: dict[str, str], prefix: list[str] | None = None) -> str:
    """Return the one line with which it refuses to start."""
    answer = subprocess.run(
        [*(prefix or []), BIN / "tetra-embedded"],
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert answer.returncode == 2
    [line] = answer.stderr.splitlines()
    assert line.startswith("tetra-embedded: error: ")
    return line
