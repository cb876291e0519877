"""Children that end, fall silent or say that they cannot work are started again, within a limit."""

import asyncio
import os
import re
import signal
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

import pytest

from embedded import supervisor
from embedded.child import Child
from embedded.errors import ChildError
from embedded.health import free_port
from embedded.supervisor import Patience, Service, Supervisor
from support.waiting import eventually

# Answers 200, or 503 and a text from a file where there is one.
CODE = """
import http.server, pathlib, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        bad = pathlib.Path(sys.argv[2])
        self.send_response(503 if bad.exists() else 200)
        self.end_headers()
        if bad.exists():
            self.wfile.write(bad.read_bytes())
    def log_message(self, *arguments): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", flush=True)
server.serve_forever()
"""
# On a busy machine a child may take seconds to answer.
QUICK = Patience(look_every_s=0.05, silent_s=60.0, unhealthy_s=0.3, room_bytes=100)


class Watched:
    """One supervised child."""

    def __init__(self, folder, patience=QUICK):
        self.port, self.bad = free_port(), folder / "bad"
        self.free = 1000
        self.restart_heals = False  # what makes it unhealthy is gone when it starts
        self.messages: list[str] = []
        self.log = folder / "child.log"
        code = (sys.executable, "-c", CODE, str(self.port), str(self.bad))
        self.child = Child("child", code, stop_within_s=0.3)
        self.pids: list[int] = []
        self.supervisor = Supervisor(
            [Service(self.child, self.port, "/healthz")], self.start, lambda: self.free,
            self.messages.append, patience,
        )  # fmt: skip

    async def start(self, child):
        if self.restart_heals:
            self.bad.unlink(missing_ok=True)
        await child.start(os.environ, self.log)
        await child.wait_for_line("ready", 30)
        self.pids.append(child.pid)

    def has_started(self, times):
        return len(self.pids) == times

    @asynccontextmanager
    async def running(self):
        await self.start(self.child)
        task = asyncio.create_task(self.supervisor.run())
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, ChildError):
                await task
            await self.child.stop()


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


async def test_killed_child_is_restarted_with_a_line(watched):
    async with watched.running():
        os.kill(watched.pids[0], signal.SIGKILL)
        await eventually(lambda: len(watched.pids) == 2)
        assert watched.messages == ["child: killed by SIGKILL: starting it again (1 of 5)"]
    assert watched.log.read_text().count("ready") == 2  # one log for one run


async def test_child_that_does_not_answer_is_started_again(tmp_path):
    watched = Watched(tmp_path, replace(QUICK, silent_s=1.0))
    async with watched.running():
        os.kill(watched.pids[0], signal.SIGSTOP)
        await eventually(lambda: len(watched.pids) == 2)
        [line] = watched.messages
        assert re.fullmatch(r"child: no answer for \d+ s: starting it again \(1 of 5\)", line)
        with pytest.raises(ProcessLookupError):
            os.kill(watched.pids[0], 0)


async def test_child_that_cannot_work_is_started_again_once_there_is_room(watched):
    watched.free = 99
    async with watched.running():
        partial_file = watched.bad.with_suffix(".new")
        partial_file.write_text('{"status": "unavailable", "error": "no space left on device"}')
        partial_file.rename(watched.bad)  # the child must not read half of it
        await eventually(lambda: watched.messages)
        assert watched.messages[0].startswith(
            "child: no space left on device: it is started again when the disk has"
        )
        assert len(watched.pids) == 1
        watched.restart_heals = True
        watched.free = 100
        await eventually(lambda: len(watched.pids) == 2)
        assert watched.messages[1] == "child: no space left on device: starting it again (1 of 5)"


async def test_child_that_keeps_failing_ends_the_launcher(watched, monkeypatch):
    monkeypatch.setattr(supervisor, "STARTS_MAX", 2)
    async with watched.running() as task:
        for starts in (1, 2, 3):
            await eventually(partial(watched.has_started, starts))
            os.kill(watched.pids[-1], signal.SIGKILL)
        with pytest.raises(ChildError, match=r"killed by SIGKILL; it was started again 2 times"):
            await asyncio.wait_for(task, 30)


async def test_start_that_fails_counts_as_one(watched, monkeypatch):
    monkeypatch.setattr(supervisor, "STARTS_MAX", 2)

    async def fail(_child):
        raise ChildError("child: no BTF")

    async with watched.running() as task:
        watched.supervisor._start = fail
        os.kill(watched.pids[0], signal.SIGKILL)
        with pytest.raises(ChildError, match=r"^child: no BTF; it was started again 2 times"):
            await asyncio.wait_for(task, 30)
