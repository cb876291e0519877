"""The ring's memory, laid out as the kernel does, with a second process in the kernel's place."""

import mmap
import os
import shutil
import subprocess
from pathlib import Path
from struct import pack, pack_into

import pytest

from collector.bpf.ring import Ring

PAGE = mmap.PAGESIZE
SIZE = 16 * PAGE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Producer:
    """Writes records as kernel/bpf/ringbuf.c does."""

    def __init__(self):
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * SIZE)
        self.memory = mmap.mmap(self.fd, 2 * PAGE + 2 * SIZE)
        self.position = 0

    def put(self, data, flags=0):
        # The data lies there twice in a row: what does not fit at the end goes on in the second.
        for start in (0, SIZE):
            at = 2 * PAGE + start + self.position % SIZE
            record = pack("<II", len(data) | flags, 0) + data
            room = self.memory[at : at + len(record)]
            self.memory[at : at + len(room)] = record[: len(room)]
        over = self.position % SIZE + 8 + len(data) - SIZE
        if over > 0:
            self.memory[2 * PAGE : 2 * PAGE + over] = record[-over:]
        self.position += (len(data) + 15) & ~7
        pack_into("<Q", self.memory, PAGE, self.position)


@pytest.fixture
def ring():
    producer = Producer()
    ring = Ring(os.dup(producer.fd), SIZE)
    yield producer, ring
    ring.close()
    producer.memory.close()
    os.close(producer.fd)


def test_records_come_in_order_across_the_end_of_the_memory(ring):
    producer, reader = ring
    expected = []
    for n in range(3000):
        data = b"%d" % n * (n % 50 + 1)
        producer.put(data)
        expected.append(data)
        if n % 7 == 0:
            assert reader.drain() == expected
            expected = []
    assert reader.drain() == expected
    assert reader.drain() == []


def test_discarded_records_are_passed_and_a_busy_one_is_waited_for(ring):
    producer, reader = ring
    producer.put(b"one")
    producer.put(b"gone", DISCARDED)
    at = 2 * PAGE + producer.position % SIZE
    producer.put(b"slow", BUSY)
    producer.put(b"after")
    assert reader.drain() == [b"one"]
    assert reader.drain() == []
    pack_into("<I", producer.memory, at, 4)
    assert reader.drain() == [b"slow", b"after"]


def test_a_limit_leaves_the_rest(ring):
    producer, reader = ring
    for n in range(10):
        producer.put(b"%d" % n)
    assert reader.drain(4) == [b"0", b"1", b"2", b"3"]
    assert len(reader.drain()) == 6


def test_nobody_ever_sees_half_of_the_consumers_position(ring, tmp_path):
    """Half of one looks like a full ring to the kernel, and records are lost."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: make setup")
    producer, reader = ring
    source = Path(__file__).parents[2] / "workloads" / "position.c"
    subprocess.run(["gcc", "-O1", "-o", tmp_path / "position", source], check=True)
    watcher = subprocess.Popen(
        [tmp_path / "position", str(producer.fd)], pass_fds=(producer.fd,), stdout=subprocess.PIPE
    )
    assert watcher.stdout.readline() == b"ready\n"
    for _ in range(400_000):
        producer.put(b"x" * 100)
        reader.drain()
    reader._consumer_position[0] = 1 << 41  # what the watcher takes as the end
    out, _ = watcher.communicate(timeout=60)
    assert watcher.returncode == 0, out


def consumer(producer):
    return int.from_bytes(producer.memory[:8], "little")


def test_held_record_is_freed_with_the_next_ones_or_by_release(ring):
    producer, reader = ring
    for data in (b"one", b"two", b"three"):
        producer.put(data)
    assert reader.drain(hold=True) == [b"one", b"two", b"three"]
    # To the kernel the reader is behind, so a new record is not the first that it has not freed.
    assert consumer(producer) == reader.position - 16
    producer.put(b"four")
    assert reader.drain(hold=True) == [b"four"]
    assert consumer(producer) == reader.position - 16
    assert reader.drain(hold=True) == []
    assert consumer(producer) == reader.position - 16
    reader.release()
    assert consumer(producer) == reader.position == producer.position


def test_discarded_records_behind_the_held_one_stay_with_it(ring):
    producer, reader = ring
    producer.put(b"one")
    producer.put(b"gone", DISCARDED)
    assert reader.drain(hold=True) == [b"one"]
    assert consumer(producer) == 0
    assert reader.position == producer.position
