"""More calls than the collector can take: each is delivered, or counted as lost by its policy."""

import asyncio
import signal
import sys
from collections import Counter

import pytest

from integration.collector.test_killed import (  # noqa: F401
    READY_S,
    Collector,
    headers,
    running,
)
from integration.collector.test_killed_policies import DOCUMENT
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.waiting import eventually

pytestmark = pytest.mark.kernel

CALLS = 20_000
OPENER = """\
import os, sys
for number in range(int(sys.argv[2])):
    try:
        os.open(f"{sys.argv[1]}/{number}", 0)
    except FileNotFoundError:
        pass
"""


async def test_calls_are_delivered_or_counted(
    gateway,
    nats_server,
    headers,  # noqa: F811
    tmp_path,
):
    policies, opened = tmp_path / "policies", tmp_path / "opened"
    policies.mkdir()
    opened.mkdir()
    (policies / "burst.yaml").write_text(DOCUMENT.format(name="burst", prefix=opened))
    settings = {"TETRA_TRACING_POLICY_DIR": str(policies), "TETRA_RING_SIZE_BYTES": "65536"}
    collector = Collector(tmp_path, headers, nats_server.url, **settings)
    async with running(collector):
        await eventually(lambda: collector.logged("policy loaded"), READY_S)
        # A stopped collector reads nothing, however slow the opener is: the ring fills for sure.
        collector.process.send_signal(signal.SIGSTOP)
        try:
            opener = await asyncio.create_subprocess_exec(
                sys.executable, "-c", OPENER, opened, str(CALLS)
            )
            assert await opener.wait() == 0
        finally:
            collector.process.send_signal(signal.SIGCONT)

        async def all_there():
            delivered, lost = await counted(gateway)
            return (delivered, lost) if delivered + lost >= CALLS else None

        delivered, lost = await eventually(all_there, READY_S)
    assert delivered + lost == CALLS
    assert delivered
    assert lost


async def counted(gateway):
    """Return the numbers of events of the policy and of its records that were lost."""
    responses = await gateway.read_all(last=10_000_000)
    delivered = sum(
        event.process_kprobe.policy_name == "burst"
        for response in responses
        for event in response.events
    )
    lost = Counter()
    for response in responses:
        for loss in response.losses:
            lost.update(loss.lost.by_cause)
    return delivered, sum(
        number for cause, number in lost.items() if cause.startswith("policy:burst:")
    )
