"""When the reader wakes: idle for every record, in a pause for a quarter of the ring."""

import asyncio
import contextlib
import subprocess
import time

import pytest

from collector.bpf import kernel, probes
from collector.bpf.reader import RingReader
from kernel.conftest import Watch, exits_of, is_exit
from support.waiting import eventually

pytestmark = pytest.mark.kernel

# The pause is for the reader to have gone to sleep; then an exec without a fork before it.
SCRIPT = 'x=$(printf "%*s" "$1" x); sleep 0.5; exec true "$x"'
SMALL_RING = 256 << 10
LIVES = 1200  # fill the ring twice
STORM = f"for ((i = 0; i < {LIVES}; i++)); do /bin/true; done"


class Pauses:
    """Pauses of a fixed length."""

    def __init__(self, pause_s, first_pause_s=0.0):
        self.length_s = pause_s
        self.first_s = first_pause_s
        self.begun = 0
        self.end = lambda: None  # ends the pause of the reader that uses these

    def first_pause_s(self):
        self.begun += bool(self.first_s)
        return self.first_s

    def pause_s(self, records, read_bytes, past_s):
        self.begun += 1
        return self.length_s


@contextlib.asynccontextmanager
async def reading(watch, pauses):
    """Run a reader into ``watch``; yield what returns when something has been handled."""
    woken = asyncio.Event()

    def handle(records, offset_ns, more):
        watch.feed(records, offset_ns)
        woken.set()

    async def handled():
        await woken.wait()
        woken.clear()

    ring_reader = RingReader(watch.opened.ring, handle, pauses)
    pauses.end = ring_reader.end_pause
    reader = asyncio.create_task(ring_reader.run())
    try:
        yield handled
    finally:
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader


@pytest.fixture
def small(headers):
    """A collector with a small ring, and nothing in it."""
    info, folder = kernel.detect(headers), probes.bpf_folder()
    flags = probes.compiler_flags(info, ring_size_bytes=SMALL_RING, process_map_entries=65536)
    opened = asyncio.run(probes.open_probes(info, flags, folder))
    yield Watch(opened)
    opened.close()
    opened.free()


@pytest.mark.parametrize("size", [1, 5_000, 120_000])
@pytest.mark.parametrize("pauses", [Pauses(0.003), Pauses(0.2, 0.2)], ids=["calm", "busy"])
async def test_exec_wakes_the_reader(plain, size, pauses):
    plain.pump()
    async with reading(plain, pauses) as handled, asyncio.timeout(30):
        child = await asyncio.create_subprocess_exec("/bin/sh", "-c", SCRIPT, "sh", str(size))
        while not exits_of(plain.events, child.pid):
            await handled()
        await child.wait()


def lost(watch):
    counters = (watch.opened.lost.lookup(slot.to_bytes(4, "little")) or b"" for slot in range(5))
    return sum(
        int.from_bytes(value[at : at + 8], "little")
        for value in counters
        for at in range(0, len(value), 8)
    )


async def storm(watch, handled):
    """Run short-lived processes until all their exits are handled."""
    child = await asyncio.create_subprocess_exec("/bin/bash", "-c", STORM, stdin=subprocess.DEVNULL)
    while not exits_of(watch.events, child.pid) and not lost(watch):
        await handled()
    await child.wait()
    return sum(
        is_exit(event) and event.process_exit.parent.pid.value == child.pid
        for event in watch.events
    )


async def test_nothing_is_lost_in_a_storm_with_long_pauses_and_a_small_ring(small):
    pauses = Pauses(5.0, 5.0)  # five times what the setting allows: the ring fills in less
    async with reading(small, pauses) as handled, asyncio.timeout(120):
        assert await storm(small, handled) == LIVES
    assert lost(small) == 0


async def test_records_do_not_wake_the_reader_in_a_pause(small):
    pauses = Pauses(0.5)
    async with reading(small, pauses) as handled, asyncio.timeout(60):
        child = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exec true")
        await handled()  # a pause begins
        before, looks, since = pauses.begun, len(small.events), time.monotonic()
        for _ in range(20):
            await (await asyncio.create_subprocess_exec("/bin/true")).wait()
        await handled()
        assert len(small.events) > looks
        # Each look begins a pause: had a record woken the reader, one would be shorter.
        assert pauses.begun - before <= (time.monotonic() - since) / pauses.length_s + 1
        await child.wait()


async def test_a_pause_that_is_ended_brings_its_records_at_once(small):
    pauses = Pauses(3600.0, 3600.0)
    async with reading(small, pauses) as handled, asyncio.timeout(60):
        pauses.end()  # idle: nothing to end
        for _ in range(2):
            child = await asyncio.create_subprocess_exec("/bin/true")
            await child.wait()
            await eventually(lambda: pauses.begun)  # the first record has woken the reader
            assert not exits_of(small.events, child.pid)
            pauses.end()
            await handled()
            assert exits_of(small.events, child.pid)
