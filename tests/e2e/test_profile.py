"""``tetra profile``: a server runs under the profile of its own past, and not under less."""

import json
import os
import re
import shutil
import signal
import subprocess
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from e2e.test_embedded import BIN, Launch
from support import seccomp
from support.waiting import wait_until
from tracingpolicy import parse

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

SERVER = """
import http.server, os, subprocess, sys, tempfile

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with tempfile.TemporaryFile() as file:
            file.write(str(os.getsid(0)).encode())
            file.seek(0)
            body = file.read()
        subprocess.run(["/bin/true"], check=True)
        subprocess.run(["/bin/sh", "-c", "/bin/uname >&2; :"], check=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
REQUESTS = 20


@pytest.fixture
def launch(tmp_path, monkeypatch):
    monkeypatch.setenv("TETRA_POLICIES", "syscalls,capabilities,network")
    started = Launch(tmp_path / "state")
    yield started
    for pid in started.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    started.close()


def served(program, prepare=None):
    """Run the server, load it, stop it; return how many requests succeeded."""
    with subprocess.Popen(
        [program, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=prepare, close_fds=False,
    ) as process:  # fmt: skip
        port = process.stdout.readline().strip()
        good = 0
        for _ in range(REQUESTS if port else 0):
            url = f"http://127.0.0.1:{port}/"
            with suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
                good += answer.status == 200
        process.send_signal(signal.SIGINT)
        process.wait(30)
    return good


def complaints(unit, drop_in):
    """Return what systemd says of a unit with the drop-in; its exit code is 0 all the same."""
    unit.write_text(drop_in + "ExecStart=/usr/bin/true\n")
    command = ["systemd-analyze", "verify", "--man=no", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line for line in done.stderr.splitlines() if unit.name in line]


def test_a_server_runs_under_its_own_profile(launch, tmp_path):
    launch.wait_for("^  stop  +Ctrl-C$")
    log = tmp_path / "state" / "collector.log"
    wait_until(lambda: log.read_text().count('"event": "policy loaded"') == 3, 200, launch.text)
    program = tmp_path / "program"
    shutil.copy(Path("/usr/bin/python3").resolve(), program)
    subprocess.run(["/bin/sh", "-c", "/bin/ls / > /dev/null; :"], check=True)  # not of the server
    assert served(program) == REQUESTS
    wait_until(lambda: launch.lines_with("📌 syscall "), 60, launch.text)
    # Its end comes behind all that it called.
    ends = re.compile(rf"^💥 exit \d+: \S+: {program} ")
    wait_until(
        lambda: any(ends.match(line) for _, line in launch.lines_with(str(program))),
        60, launch.text,
    )  # fmt: skip

    said = []

    def tetra(*args, code=0):
        server = f"localhost:{launch.ports[1]}"
        command = [BIN / "tetra", "profile", *map(str, args), "--server-address", server]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr
        said.append(done.stderr)
        return done.stdout

    def shown():
        text = tetra("show", program)
        return text if " getsid" in text and "/bin/true" in text else None

    text = wait_until(shown, 60, launch.text)
    assert "listens on (1)" in text
    assert "1 instance on 1 node" in text
    assert "no event was lost" in text

    profile = tetra("write", program, "--as", "seccomp")
    (started,) = re.findall("with what it starts: (.*)", said[-1])
    assert {"/bin/sh", "/bin/uname"} <= set(started.split(", "))
    assert "/bin/ls" not in started
    assert served(program, lambda: seccomp.install(seccomp.program(profile))) == REQUESTS
    less = json.loads(profile)
    less["syscalls"][0]["names"].remove("getsid")
    cut = json.dumps(less)
    assert served(program, lambda: seccomp.install(seccomp.program(cut))) == 0

    drop_in = tetra("write", program, "--as", "systemd")
    assert "SystemCallFilter=getsid\n" in drop_in
    if shutil.which("systemd-analyze"):
        unit = tmp_path / "profiled.service"
        assert not complaints(unit, drop_in)
        (complaint,) = complaints(unit, drop_in + "SystemCallFilter=nosuchcall\n")
        assert "nosuchcall" in complaint
    parse(tetra("write", program, "--as", "tracingpolicy"), "written")
    assert tetra("diff", program, "--new", "1h", code=1).count("+ system call") > 20
    assert tetra("diff", program, "--new", "0s") == "nothing new\n"
    assert "is the name complete?" in tetra("show", "/no/such/program", code=1)
    for command in (("diff",), ("write", "--as", "seccomp")):
        assert tetra(*command, "/no/such/program", code=3) == ""
