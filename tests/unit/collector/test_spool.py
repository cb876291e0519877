"""The spool: records come back in order, whole or not at all, and what had to go is counted."""

import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from collector.delivery import spool as module
from collector.delivery.segments import Run
from collector.delivery.spool import Spool

BOOT = "b-1"
_made: list[Spool] = []


class OneRun(Spool):
    """A spool, and the run that writes to it."""

    own: Run

    def add(self, first, count, payload):
        return self.append(self.own, first, count, payload)


def made(folder, start=1, limit=1 << 20, sync="never", node="n", boot=BOOT):
    spool = OneRun(folder, limit, sync)
    spool.own = Run(node, boot, start)
    spool.open(node)
    _made.append(spool)
    return spool


@pytest.fixture(autouse=True)
def _close_all():
    """Each was killed, as far as the next could see; the test process still owns the files."""
    yield
    for spool in _made:
        spool.close()
    _made.clear()


def drained(spool):
    """Return (run's start, first index, payload) of all records, removing them."""
    out = []
    while (record := spool.peek()) is not None:
        out.append((record.run.start_time_ns, record.first, record.payload))
        spool.pop()
    return out


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_records_are_read_in_order_and_removed(tmp_path):
    spool = made(tmp_path)
    for n in range(50):
        assert spool.add(n * 10, 10, b"%d" % n)
    assert (spool.events, spool.statistics.written) == (500, 500)
    assert drained(spool) == [(1, n * 10, b"%d" % n) for n in range(50)]
    assert (spool.events, spool.size_bytes, files(tmp_path)) == (0, 0, [])
    assert spool.add(500, 1, b"again")
    assert drained(spool) == [(1, 500, b"again")]


def test_another_run_reads_the_rest_and_appends_to_it(tmp_path):
    first = made(tmp_path, 1)
    first.add(0, 2, b"a")
    first.number(first.own, 41)
    first.add(2, 3, b"b")
    second = made(tmp_path, 2)
    second.add(0, 1, b"c")
    third = made(tmp_path, 3)  # neither was closed: they were killed
    record = third.peek()
    assert (record.run.boot_id, record.run.base, record.first) == (BOOT, 41, 0)
    assert [r[2] for r in drained(third)] == [b"a", b"b", b"c"]
    assert files(tmp_path) == []


def test_a_base_that_is_known_before_the_first_write_is_kept(tmp_path):
    spool = made(tmp_path)
    spool.number(spool.own, 7)
    assert files(tmp_path) == []
    spool.add(0, 1, b"x")
    assert made(tmp_path, 2).peek().run.base == 7


def test_records_of_another_node_are_kept(tmp_path):
    made(tmp_path, 1, node="other").add(0, 1, b"theirs")
    spool = made(tmp_path, 2)
    assert spool.peek() is None
    assert made(tmp_path, 3, node="other").peek().payload == b"theirs"


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_torn_tail_is_counted_and_the_records_before_it_are_read(tmp_path, cut):
    spool = made(tmp_path)
    for n in range(3):
        spool.add(n, 1, b"payload %d" % n)
    (path,) = tmp_path.rglob("*.seg")
    size = path.stat().st_size
    os.truncate(path, size - cut)
    again = made(tmp_path, 2)
    got = [r[2] for r in drained(again)]
    assert got == [b"payload %d" % n for n in range(len(got))]
    assert len(got) == 3 - -(-cut // (size // 3))
    # A cut between two records is not visible here: the numbers show the gap.
    assert again.statistics.torn == (0 if cut % (size // 3) == 0 else 1)


@pytest.mark.parametrize("at", range(0, 99, 3))
def test_a_flipped_bit_is_never_returned(tmp_path, at):
    spool = made(tmp_path)
    for n in range(3):
        spool.add(n, 1, b"payload %d" % n)
    (path,) = tmp_path.rglob("*.seg")
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)
    again = made(tmp_path, 2)
    again.add(9, 1, b"newer")
    got = [r[2] for r in drained(again)]
    assert got == [*[b"payload %d" % n for n in range(len(got) - 1)], b"newer"]
    assert again.statistics.torn == 1


def test_a_full_spool_drops_the_oldest_and_counts_them(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT_BYTES", 1000)
    spool = made(tmp_path, limit=5000)
    for n in range(100):
        spool.add(n * 7, 7, b"x" * 190)
        assert spool.size_bytes <= 5000 + 1000
    kept = drained(spool)
    assert spool.statistics.dropped == 700 - 7 * len(kept)
    assert [first for _, first, _ in kept] == list(range(700 - 7 * len(kept), 700, 7))
    assert 20 <= len(kept) <= 27


def test_batch_in_flight_while_its_segment_is_dropped_is_not_counted_as_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT_BYTES", 500)
    spool = made(tmp_path, limit=1500)
    for n in range(4):
        spool.add(n, 1, b"x" * 200)
    under_way = spool.peek()
    for n in range(4, 30):
        spool.add(n, 1, b"x" * 200)
    assert spool.peek() is under_way
    spool.pop()
    kept = drained(spool)
    assert spool.statistics.dropped == 30 - 1 - len(kept)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    target = tmp_path / "disk"
    target.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", target], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"needs root to mount: {done.stderr.decode()}")
    yield target
    subprocess.run(["umount", "-l", target], check=True)


def test_a_full_disk_stores_nothing_and_works_again_after_it_is_freed(small_disk):
    spool = made(small_disk / "spool")
    (small_disk / "ballast").write_bytes(b"x" * 200_000)
    taken = 0
    while spool.add(taken, 1, b"y" * 10_000):
        taken += 1
        assert taken < 100
    assert not spool.works
    assert not spool.add(taken, 1, b"y" * 10_000)
    (small_disk / "ballast").unlink()
    assert spool.add(taken, 1, b"y" * 10_000)
    assert spool.works
    assert [first for _, first, _ in drained(spool)] == list(range(taken + 1))


def test_a_folder_that_cannot_be_made_is_reported_once(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    spool = made(tmp_path / "file")
    assert not spool.add(0, 1, b"x")
    assert not spool.add(1, 1, b"x")
    assert capsys.readouterr().out.count("spool unusable") == 1


def test_no_disk_at_all(tmp_path):
    spool = made(tmp_path, limit=0)
    assert not spool.add(0, 1, b"x")
    assert spool.peek() is None
    assert files(tmp_path) == []


def test_any_bytes_in_the_folder_are_harmless(tmp_path):
    chance = random.Random(7)
    folder = tmp_path / "5"
    for _ in range(300):
        folder.mkdir(exist_ok=True)
        for name in ("run.json", "base", "00000001.seg", "00000002.seg"):
            (folder / name).write_bytes(chance.randbytes(chance.randrange(80)))
        if chance.random() < 0.7:
            (folder / "run.json").write_text(
                f'{{"node_name": "n", "boot_id": "b", "start_time_ns": {chance.randrange(9)}}}'
            )
        spool = made(tmp_path, 9)
        assert drained(spool) == []


class Model(RuleBasedStateMachine):
    """Against a plain list: append, read, crash and start again, in any order."""

    @initialize()
    def start(self):
        self.folder = Path(tempfile.mkdtemp())
        self.run = 1
        self.spool = made(self.folder, self.run, limit=1 << 30)
        self.expected = []
        self.index = 0

    @rule(size=st.integers(0, 400), count=st.integers(1, 5))
    def append(self, size, count):
        payload = b"%d:" % self.index + b"z" * size
        assert self.spool.add(self.index, count, payload)
        self.expected.append((self.run, self.index, payload))
        self.index += count

    @precondition(lambda self: self.expected)
    @rule()
    def read(self):
        record = self.spool.peek()
        assert (record.run.start_time_ns, record.first, record.payload) == self.expected[0]
        self.spool.pop()
        del self.expected[0]

    @rule()
    def peek_only(self):
        assert (self.spool.peek() is None) == (not self.expected)

    @rule()
    def crash(self):
        # What was read from a segment that was not finished comes again: the stream knows.
        self.run += 1
        self.index = 0
        present = drained(made(self.folder, self.run, limit=1 << 30))
        assert present[len(present) - len(self.expected) :] == self.expected
        self.spool = made(self.folder, self.run, limit=1 << 30)
        self.expected = []

    @invariant()
    def counts(self):
        if hasattr(self, "spool"):
            assert self.spool.statistics.torn == 0
            assert self.spool.statistics.dropped == 0

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=20, stateful_step_count=40, deadline=None)
