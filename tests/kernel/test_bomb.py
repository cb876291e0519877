"""A fork bomb: every process is reported or counted, compared with the kernel's count of forks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kernel.conftest import is_exit

pytestmark = pytest.mark.kernel

COUNT = 20_000


def forks_of_the_machine():
    """Return how many processes and threads the kernel has made since boot: /proc/stat."""
    words = Path("/proc/stat").read_text().split()
    return int(words[words.index("processes") + 1])


def test_every_process_of_a_burst_is_reported_or_counted_as_lost(plain, lives):
    plain.pump()  # what was forked before
    before, forks = forks_of_the_machine(), plain.stages.counts()["fork"]
    bomb = subprocess.Popen(
        [lives, "bomb", str(COUNT)], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 90
        while bomb.poll() is None and time.monotonic() < deadline:
            plain.pump()
            time.sleep(0.005)
        assert bomb.poll() == 0
        made = int(bomb.stdout.read())
    finally:
        os.killpg(bomb.pid, signal.SIGKILL) if bomb.poll() is None else bomb.stdout.close()
    if made < COUNT:
        pytest.skip(f"this machine allows only {made} processes at once")  # pragma: no cover
    plain.until_exit(bomb.pid, timeout_s=60)
    ended = [
        e.process_exit
        for e in plain.events
        if is_exit(e) and e.process_exit.parent.pid.value == bomb.pid
    ]
    lost = [
        sum(memoryview(plain.opened.lost.lookup(slot.to_bytes(4, sys.byteorder))).cast("Q"))
        for slot in range(5)
    ]
    assert len(ended) + lost[2] == COUNT
    assert sum(lost) == 0
    assert {e.status for e in ended} == {7}
    assert len({e.process.exec_id for e in ended}) == COUNT
    assert {e.process.binary for e in ended} == {lives}
    reported = plain.stages.counts()["fork"] - forks
    # The machine's count has threads too, and what others do here.
    assert COUNT <= reported <= forks_of_the_machine() - before
    assert len(plain.table) < plain.table.capacity
    assert plain.table.statistics.evictions == 0
    plain.events.clear()  # half of all pids are in there, and will be used again
