"""How the kernel schedules this process beside others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

# The runtime of nats-server's language wakes a thread every 20 us for as long as anything runs.
NATS_TIMER_SLACK_NS = 2_000_000


def be_batch() -> None:
    """Let no wake-up of this process take the CPU from another; what it starts inherits that.

    A task of SCHED_BATCH that wakes waits for the next tick where a CPU is busy, and runs at once
    where one is idle (kernel/sched/fair.c, check_preempt_wakeup_fair()). Its share of the CPUs is
    the same as before. A container's seccomp profile may refuse it.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


@contextlib.contextmanager
def timer_slack(slack_ns: int) -> Iterator[None]:
    """Let the timers of what is started in the block end late, by at most ``slack_ns``.

    It is inherited by children, and kept when they execute another program (prctl(2),
    PR_SET_TIMERSLACK).
    """
    _write_slack(slack_ns)
    try:
        yield
    finally:
        _write_slack(0)  # the default


def _write_slack(slack_ns: int) -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/timerslack_ns").write_text(f"{slack_ns}\n")
