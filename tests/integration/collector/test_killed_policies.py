"""A collector killed while a policy reports calls: none that it saw is missing or doubled."""

import asyncio
import itertools
import signal
import sys

import pytest

from integration.collector.test_killed import READY_S, Collector, headers, running  # noqa: F401
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.waiting import eventually

pytestmark = pytest.mark.kernel

DOCUMENT = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata:
  name: {name}
spec:
  kprobes:
  - call: sys_openat
    args:
    - {{index: 1, type: string}}
    selectors:
    - matchArgs:
      - {{index: 1, operator: Prefix, values: ["{prefix}/"]}}
"""
# Opens <folder>/0, <folder>/1, ... and prints the boot clock before each.
OPENER = """\
import os, sys, time
for number in range(10**9):
    print(time.clock_gettime_ns(time.CLOCK_BOOTTIME), flush=True)
    try:
        os.open(f"{sys.argv[1]}/{number}", 0)
    except FileNotFoundError:
        pass
    time.sleep(0.002)
"""
REVISIONS = 4


async def numbers_reported(gateway):
    """Return the numbers of all events of the policy, in the order of the stream."""
    responses = await gateway.read_all(last=10_000_000)
    return [
        int(event.process_kprobe.args[0].string_arg.rsplit("/", 1)[1])
        for response in responses
        for event in response.events
        if event.process_kprobe.policy_name == "numbers"
    ]


@pytest.mark.parametrize("keep", ["never", "crash"])
async def test_calls_seen_before_the_kill_are_delivered_once(
    gateway,
    nats_server,
    headers,  # noqa: F811
    bpf_file_system,
    tmp_path,
    keep,
):
    policies, opened = tmp_path / "policies", tmp_path / "opened"
    policies.mkdir()
    opened.mkdir()
    (policies / "numbers.yaml").write_text(DOCUMENT.format(name="numbers", prefix=opened))
    settings = {
        "TETRA_TRACING_POLICY_DIR": str(policies),
        "TETRA_KEEP_PROBES": keep,
        "TETRA_PIN_DIR": str(bpf_file_system / "tetra"),
    }
    collector = Collector(tmp_path, headers, nats_server.url, **settings)
    loaded = [0]

    async def reloaded():
        loaded[0] += 1
        await eventually(lambda: collector.logged("policy loaded") == loaded[0], READY_S)

    async with running(collector):
        await reloaded()
        printed = tmp_path / "times"
        with printed.open("wb") as file:  # a pipe that is full would stop it
            opener = await asyncio.create_subprocess_exec(
                sys.executable, "-c", OPENER, opened, stdout=file
            )

        async def more_opened():
            enough = printed.stat().st_size + 2000  # a hundred lines
            await eventually(lambda: printed.stat().st_size > enough, READY_S)

        kills = []
        for _ in range(3):
            await more_opened()
            await collector.end(signal.SIGKILL)
            kills.append(collector.away[-1][0])
            await collector.start()
            await reloaded()
        await more_opened()
        opener.kill()
        await opener.wait()
        times = [int(line) for line in printed.read_text().split()]

        async def all_there():
            numbers = await numbers_reported(gateway)
            return numbers if numbers and numbers[-1] >= len(times) - 2 else None

        numbers = await eventually(all_there, READY_S)
    assert len(numbers) == len(set(numbers))  # none twice
    assert numbers == sorted(numbers)
    gaps = [(a + 1, b) for a, b in itertools.pairwise(numbers) if b != a + 1]
    assert len(gaps) == 3  # only while no collector had the policy loaded
    assert collector.logged("policy reported nothing while no collector ran") == 3
    for (first, behind), killed in zip(gaps, kills, strict=True):
        # What it had read is delivered; on a busy machine it reads late.
        assert killed - 500_000_000 < times[first]
        assert times[behind - 1] > killed
