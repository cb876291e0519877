"""The event loop wakes for every record even if nothing else would wake it."""

import asyncio

import pytest

from collector.bpf.reader import RingReader
from kernel.conftest import exits_of

pytestmark = pytest.mark.kernel

# The pause is for the reader to have gone to sleep; then an exec without a fork before it.
SCRIPT = 'x=$(printf "%*s" "$1" x); sleep 0.5; exec true "$x"'


@pytest.mark.parametrize("size", [1, 5_000, 120_000])
async def test_exec_wakes_the_reader(plain, size):
    woken = asyncio.Event()

    def handle(records, offset_ns):
        plain.feed(records, offset_ns)
        woken.set()

    plain.pump()
    reader = asyncio.create_task(RingReader(plain.opened.ring, handle).run())
    child = await asyncio.create_subprocess_exec("/bin/sh", "-c", SCRIPT, "sh", str(size))
    try:
        async with asyncio.timeout(30):
            while not exits_of(plain.events, child.pid):
                await woken.wait()
                woken.clear()
    finally:
        reader.cancel()
        await child.wait()
