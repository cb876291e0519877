"""A Compose stack of our images, for the tests that look at it from outside."""

import json
import os
import re
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

from support.waiting import wait_until

ROOT = Path(__file__).parents[2]
BASE_IMAGE = "debian:trixie-slim"
PROJECT = "tetra-test"
PORT = 54321
TRUE = "/usr/bin/true"
CALL_S, EVENT_S = 240.0, 90.0  # much more than it takes: a machine may be busy


def docker(*arguments, check=True, timeout_s=CALL_S):
    """Run docker and return what it printed."""
    done = subprocess.run(
        ["docker", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s
    )
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def inspect(container):
    """Return what Docker knows of a container."""
    return json.loads(docker("inspect", container))[0]


def logs_of(container):
    """Return what a container wrote to stderr."""
    done = subprocess.run(
        ["docker", "logs", container], capture_output=True, text=True, timeout=CALL_S
    )
    return done.stderr


def programs_of(pid):
    """Return the ids of the BPF programs that a process holds: its links' (attached ones)."""
    found = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        text = info.read_text()
        if "link_type:" in text and (match := re.search(r"^prog_id:\s*(\d+)", text, re.M)):
            found.add(int(match[1]))
    return found


def programs():
    """Return the ids of all BPF programs in the kernel."""
    shown = subprocess.run(["bpftool", "--json", "prog", "show"], capture_output=True, check=True)
    return {program["id"] for program in json.loads(shown.stdout)}


class Stack:
    """The services of one or several Compose files, under a project name of their own."""

    def __init__(self, *files, project=PROJECT, **environment):
        self._project = project
        self._files = [argument for file in files for argument in ("--file", file)]
        self._environment = os.environ | environment

    def set(self, **environment):
        """Set more variables, as a line more in the file .env would."""
        self._environment |= environment

    def command(self, *arguments):
        return [
            "docker",
            "compose",
            "--ansi=never",
            "--project-name",
            self._project,
            *self._files,
            *arguments,
        ]

    def compose(self, *arguments, check=True, timeout_s=CALL_S):
        """Run docker compose and return what it printed."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stderr}\n{self.logs()}"
        return done.stdout

    def logs(self, *services):
        """Return what the services wrote to stderr."""
        found = self.compose("ps", "--all", "--quiet", *services, check=False).split()
        # Not docker compose logs: it puts terminal codes between the lines.
        return "".join(logs_of(container) for container in found)

    def containers(self, service):
        """Return the ids of the service's running containers."""
        return self.compose("ps", "--quiet", service).split()

    def up(self, *arguments):
        self.compose("up", "--detach", "--no-build", *arguments)

    def down(self):
        self.compose(
            "--profile", "export", "down", "--volumes", "--remove-orphans", "--timeout", "10"
        )  # fmt: skip


@contextmanager
def fresh_stack(*files, **environment):
    """Yield a stack that is not up yet, without what a run that was killed left of one."""
    stack = Stack(*files, **environment)
    stack.down()
    try:
        yield stack
    finally:
        stack.down()


class Client:
    """A running ``tetra getevents`` whose output grows in `lines`."""

    def __init__(self, command, env=None):
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in (
                (self._process.stdout, self.lines),
                (self._process.stderr, self.errors),
            )
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream, lines):
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))

    def wait_for(self, text, timeout_s=EVENT_S):
        """Return the first line with ``text``."""
        return wait_until(
            lambda: next((line for line in list(self.lines) if text in line), None),
            timeout_s,
            lambda: f"{text!r} in\n" + "\n".join([*self.lines[-20:], *self.errors[-20:]]),
        )

    def wait_until_live(self):
        """Start processes until one is seen: from then on nothing may be missing."""

        def seen():
            assert self._process.poll() is None, self.errors
            subprocess.run([TRUE, f"live-{id(self)}"], check=True)
            return any(f"live-{id(self)}" in line for line in list(self.lines))

        wait_until(seen, EVENT_S, lambda: f"{self.lines[-5:]} {self.errors}")

    def stop(self):
        self._process.terminate()
        self._process.wait(EVENT_S)
        for reader in self._readers:
            reader.join(10)
