"""A child is ready by a line of its log, and its own error line is the reason of its end."""

import asyncio
import os
import re
import signal
import sys
from io import FileIO

import pytest

from embedded.child import Child
from embedded.errors import ChildError


def python(code: str, stop_within_s: float = 5) -> Child:
    return Child("child", (sys.executable, "-u", "-c", code), stop_within_s=stop_within_s)


async def test_ready_line_is_returned_and_everything_is_logged(tmp_path):
    child = python("print('one'); print('now ready'); import time; time.sleep(60)")
    await child.start(os.environ, tmp_path / "child.log")
    assert await child.wait_for_line("ready", 60) == "now ready"
    await child.stop()
    assert (tmp_path / "child.log").read_text() == "one\nnow ready\n"


async def test_last_runs_log_is_kept(tmp_path, monkeypatch):
    # A busy machine may read the last line late: the limit is for helpers that hold the output.
    monkeypatch.setattr("embedded.child._LAST_LINES_WITHIN_S", 30.0)
    for text in ("first", "second"):
        child = python(f"print('{text}')")
        await child.start(os.environ, tmp_path / "child.log")
        await child.wait()
    assert (tmp_path / "child.log.1").read_text() == "first\n"
    assert (tmp_path / "child.log").read_text() == "second\n"


async def test_full_disk_and_endless_lines_do_not_block_a_child(tmp_path, monkeypatch):
    full = FileIO("/dev/full", "wb")
    code = """
for _ in range(5000): print("x" * 1000)
print("y" * 3_000_000)
print("all printed")
import time; time.sleep(60)
"""
    child = python(code)
    monkeypatch.setattr(child, "_open_log", lambda path: full)
    await child.start(os.environ, tmp_path / "unused")
    await child.wait_for_line("all printed", 60)
    with FileIO(tmp_path / "child.log", "wb") as log:
        child._log(log, b"there is room again\n")
    await child.stop()
    first, second = (tmp_path / "child.log").read_text().splitlines()
    assert re.fullmatch(r"50\d\d lines could not be written: the disk was full", first)
    assert second == "there is room again"


async def test_own_error_line_is_the_reason(tmp_path):
    child = python("import sys; print('noise'); sys.exit('tetra-child: error: no BTF: not found')")
    await child.start(os.environ, tmp_path / "child.log")
    with pytest.raises(ChildError, match=r"^child: no BTF: not found$") as caught:
        await child.wait_for_line("ready", 60)
    assert caught.value.exit_code == 1
    assert not caught.value.details


async def test_end_without_an_error_line_shows_the_last_lines(tmp_path):
    code = """print('{"event": "attached", "level": "info", "hook": "exec"}'); exit(3)"""
    child = python(code)
    await child.start(os.environ, tmp_path / "child.log")
    with pytest.raises(ChildError, match=r"^child: ended with code 3$") as caught:
        await child.wait_for_line("ready", 60)
    assert caught.value.details == ["info attached hook=exec"]


async def test_missing_program_is_one_line(tmp_path):
    child = Child("child", (tmp_path / "absent",), stop_within_s=1)
    with pytest.raises(ChildError, match=rf"^child: {tmp_path}/absent: no such file or directory$"):
        await child.start(os.environ, tmp_path / "child.log")


async def test_child_that_ignores_sigterm_is_killed_in_time(tmp_path):
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready'); time.sleep(60)"
    )
    child = python(code, stop_within_s=0.2)
    await child.start(os.environ, tmp_path / "child.log")
    await child.wait_for_line("ready", 60)
    async with asyncio.timeout(5):
        await child.stop()
        assert await child.wait() == -signal.SIGKILL
