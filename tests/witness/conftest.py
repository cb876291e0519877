"""The product on this machine, with the ready-made policies that the witness is compared with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from e2e import test_embedded
from e2e.test_embedded import BIN, Launch, launched
from support.machine import pytest_runtest_setup as pytest_runtest_setup
from support.waiting import wait_until
from witness.programs import PROGRAMS

POLICIES = ("files", "network", "credentials", "host")


class Recorder:
    """The events of the policies, as ``tetra getevents -o json`` prints them."""

    def __init__(self, launch: Launch, folder: Path) -> None:
        self.folder = folder  # below it files are watched
        self.events: list[dict[str, Any]] = []
        command = [
            BIN / "tetra", "getevents", "-o", "json", "--policy-names", ",".join(POLICIES),
            "--server-address", f"localhost:{launch.ports[1]}",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._marks = 0
        wait_until(self._sees_a_mark, 60, launch.text)

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.events.append(json.loads(line))

    def _mark(self) -> str:
        self._marks += 1
        mark = self.folder / f"mark-{self._marks}-"
        mark.touch()
        return mark.name

    def _sees_a_mark(self) -> bool:
        """Make one more mark; return whether one of those so far has arrived."""
        self._mark()
        return any("mark-" in json.dumps(event) for event in self.events)

    def position(self) -> int:
        """Return the number of events so far, once all that were made before have arrived."""
        before, mark = len(self.events), self._mark()

        def arrived() -> bool:
            return any(mark in json.dumps(event) for event in self.events[before:])

        wait_until(arrived, 60, lambda: self.events[-5:])
        return len(self.events)

    def of(self, pids: set[int], since: int) -> list[dict[str, Any]]:
        """Return the events of processes that have ended; ids are used again."""
        until, found = self.position(), []
        for event in self.events[since:until]:
            (body,) = (body for kind, body in event.items() if kind.startswith("process_"))
            if body["process"]["pid"] in pids:
                found.append(event)
        return found

    def close(self) -> None:
        """End the client."""
        self._process.terminate()
        self._process.wait(20)
        self._reader.join(20)
        assert self._process.stdout
        self._process.stdout.close()


class Stack(NamedTuple):
    """A running product; compiling its policies takes long, so there is one for all tests here."""

    launch: Launch
    watched: Path
    secret: Path


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """All policies loaded, everything below one folder watched, and one file a secret."""
    with tempfile.TemporaryDirectory(prefix="tetra-witness-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # servers that drop their rights work in it
        state, watched, secret = folder / "state", folder / "watched", folder / "secret"
        watched.mkdir()
        choice = f"files paths={watched} secrets={secret}; network; credentials; host bpf=false"
        with ExitStack() as running:
            with pytest.MonkeyPatch.context() as patch:  # for this one, not for other tests
                patch.setenv("TETRA_POLICIES", choice)
                patch.setattr(test_embedded, "NODE", f"witness-{os.getpid()}")
                launch = running.enter_context(launched(state))
            launch.wait_for("^  stop  +Ctrl-C$")
            log, loaded = state / "collector.log", '"event": "policy loaded"'
            wait_until(lambda: log.read_text().count(loaded) == len(POLICIES), 250, launch.text)
            yield Stack(launch, watched, secret)


@pytest.fixture(scope="session")
def witness_is_there() -> None:
    """Skip where strace or a program that must be there is not installed."""
    missing = [one.needs for one in PROGRAMS if not one.is_there]
    if shutil.which("strace") is None:
        missing.append("strace")
    if missing:
        reason = f"not installed: {', '.join(missing)}"
        if os.environ.get("TETRA_REQUIRE_WITNESS") == "1":
            pytest.fail(f"{reason}, and TETRA_REQUIRE_WITNESS=1 forbids to skip", pytrace=False)
        pytest.skip(f"{reason}; TETRA_REQUIRE_WITNESS=1 makes this a failure")


@pytest.fixture(scope="session")
def recorder(witness_is_there: None, stack: Stack) -> Iterator[Recorder]:
    """What the policies report from now on."""
    recorder = Recorder(stack.launch, stack.watched)
    yield recorder
    recorder.close()
