"""What a process does to the others on its CPUs: children inherit it."""

import os
import subprocess
import sys
from pathlib import Path

from chassis.scheduling import be_batch, timer_slack

READ_POLICY = "import os; print(os.sched_getscheduler(0))"
SLACK = Path("/proc/self/timerslack_ns")


def test_batch_is_inherited_by_children():
    child = os.fork()
    if child == 0:
        be_batch()
        done = subprocess.run([sys.executable, "-c", READ_POLICY], capture_output=True, check=True)
        os._exit(0 if done.stdout == b"%d\n" % os.SCHED_BATCH else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_timer_slack_is_for_what_is_started_in_the_block():
    before = SLACK.read_text()
    with timer_slack(3_000_000):
        child = subprocess.run(["cat", SLACK], capture_output=True, check=True)
    assert child.stdout == b"3000000\n"
    assert SLACK.read_text() == before
