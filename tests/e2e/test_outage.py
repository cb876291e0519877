"""NATS is down until the collector's spool is full; then the collector is killed.

``make chaos CHAOS='--outage 300 --kill --spool-bytes 67108864'`` is the same at full length.
"""

import os

import pytest

from chaos import outage
from chaos.stack import Stack

pytestmark = pytest.mark.kernel

SPOOL_BYTES = 8 << 20  # two segments
PADDING = "x" * 1000  # in the arguments of each process: the spool is full in seconds


@pytest.mark.timeout(300)
def test_collector_killed_with_a_full_spool_reports_every_event_once_or_as_lost(tmp_path):
    stack = Stack(tmp_path, 1, tmp_path / "state", spool_disk_bytes=SPOOL_BYTES)
    try:
        mark = f"outage-{os.getpid()}-{PADDING}"
        plan = outage.Plan(seconds=6, per_second=500, lead_s=2, kill=True)
        result = outage.run(stack, tmp_path, mark, plan)
    finally:
        stack.stop()
    assert result["passed"], result
