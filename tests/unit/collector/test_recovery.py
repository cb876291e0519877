"""A collector that is killed anywhere: the next one has its table, and tells what it did not."""

import os
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.bpf.ring import records_in
from collector.delivery.spool import Run, Spool
from collector.events.process import Encoder
from collector.metadata.enricher import Enricher
from collector.pipeline import Pipeline
from collector.processes.cache import ProcessCache
from collector.recovery import state
from collector.recovery.journal import Journal, Records, Replay
from collector.recovery.replay import recover
from tetra.v1.bus_pb2 import EventBatch
from tetra.v1.node_pb2 import LossCounters
from tetra.v1.state_pb2 import SavedTable
from unit.collector.synthetic import HOST_NS, exec_record, exit_record, fork_record

OFFSET_NS = 1_700_000_000_000_000_000
VERSION = "v1"


def framed(records):
    """Return records as they lie in the ring; every third one behind a discarded one."""
    parts = []
    for n, data in enumerate(records):
        if n % 3 == 2:
            parts.append(pack("<II", 5 | 1 << 30, 0) + bytes(8))
        parts.append(pack("<II", len(data), 0) + data + bytes(-len(data) % 8))
    return b"".join(parts)


def made(publish):
    encoder = Encoder("n", "", HOST_NS)
    return Pipeline(ProcessCache(), Enricher(HOST_NS), encoder, publish)


def lives(choices):
    """Return records of processes that fork, exec and end, as ``choices`` have it."""
    records, alive, ktime = [], {1: 1000}, 2000
    for n, (what, who) in enumerate(choices):
        ktime += 10
        pid = sorted(alive)[who % len(alive)]
        if what == "fork":
            child = 2 + n
            records.append(fork_record(child, ktime, parent=(pid, alive[pid])))
            alive[child] = ktime
        elif pid != 1:
            if what == "exec":
                path = b"/bin/%d" % n
                records.append(
                    exec_record(pid, ktime, replaced_ktime_ns=alive[pid], filename=path, args=path)
                )
                alive[pid] = ktime
            else:
                records.append(exit_record(pid, alive.pop(pid), ktime, code=n << 8))
    return records


def first_process():
    return exec_record(1, 1000, parent=(0, 1), filename=b"/sbin/init", args=b"init\0")


LIVES = st.lists(
    st.tuples(st.sampled_from(["fork", "fork", "exec", "exit"]), st.integers(0, 1000)), max_size=60
)


@given(LIVES, st.data())
@settings(max_examples=200, deadline=None)
def test_killed_anywhere_the_next_one_goes_on_exactly(tmp_path_factory, choices, data):
    folder = tmp_path_factory.mktemp("killed")
    records = [first_process(), *lives(choices)]
    expected = []
    straight = made(expected.append)
    straight.restore([])
    kernel = list(straight.cache)  # its start is by the clock of now
    straight.handle(records, OFFSET_NS)

    # One that saves its table at one time, and is killed at another.
    saved_at = data.draw(st.integers(0, len(records)), "saved at")
    killed_at = data.draw(st.integers(saved_at, len(records)), "killed at")
    told = []
    first = made(told.append)
    first.restore(kernel)
    first.handle(records[:saved_at], OFFSET_NS)
    journal = Journal(folder / "journal")
    acknowledged = data.draw(st.integers(0, len(told)), "acknowledged")
    about = SavedTable(
        node_name="n", boot_id="b", collector_start_ns=5, base=1, made=len(told),
        ring_position=800, journal=journal.next_number, records_version=VERSION,
        untold=told[acknowledged:],
    )  # fmt: skip
    assert state.save(folder, about, first.cache, first.encoder)
    journal.begin()
    position = 800
    for n in range(saved_at, killed_at):
        part = framed(records[n : n + 1])
        position += len(part)
        journal.records(OFFSET_NS, memoryview(part), position)
        first.handle(records[n : n + 1], OFFSET_NS)
    journal.close()
    assert told == expected[: len(told)]

    # The next one, killed as soon as it has recovered, and one more.
    saved = state.read(folder, "n")
    for start in (8, 9):
        spool = Spool(folder / "spool", Run("n", "b", start), 1 << 30, "never")
        spool.open()
        events = []
        second = made(events.append)
        recovered = recover(saved, journal.folder, VERSION, second, spool)
        spool.close()
    assert recovered.whole
    assert (recovered.ring_position, recovered.run.base) == (position, 1)
    kept = []
    while (record := spool.peek()) is not None:
        assert record.run is recovered.run
        assert record.first == acknowledged + len(kept)
        kept += EventBatch.FromString(record.payload).events
        spool.pop()
    assert kept == told[acknowledged:]
    second.publish = events.append
    second.handle(records[killed_at:], OFFSET_NS)
    assert told + events == expected
    assert {p.key for p in second.cache.all_living()} == {
        p.key for p in straight.cache.all_living()
    }


def journal_of(folder, parts, **options):
    journal = Journal(folder, **options)
    journal.begin()
    position = 0
    for part in parts:
        position += len(part)
        journal.records(1, memoryview(part), position)
    journal.close()
    return journal


PARTS = [framed([b"%d" % n * 40] * 3) for n in range(5)]


def read(folder, number=1, position=0):
    replay = Replay(folder, number, position)
    return [entry.data for entry in replay], replay


def test_a_torn_tail_ends_the_journal_where_the_ring_goes_on(tmp_path):
    journal_of(tmp_path, PARTS)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    ends = [0]
    for part in PARTS:
        ends.append(ends[-1] + 8 + 24 + len(part))
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        count = sum(end <= size for end in ends) - 1
        found, replay = read(tmp_path)
        assert found == PARTS[:count]
        assert replay.whole
        assert replay.position == sum(map(len, PARTS[:count]))


@pytest.mark.parametrize("at", range(0, 200, 7))
def test_a_changed_byte_ends_it(tmp_path, at):
    journal_of(tmp_path, PARTS)
    (file,) = tmp_path.iterdir()
    damaged = bytearray(file.read_bytes())
    damaged[at] ^= 0x10
    file.write_bytes(damaged)
    found, _ = read(tmp_path)
    assert found == PARTS[: len(found)]
    assert len(found) <= at // (32 + len(PARTS[0]))


def test_parts_that_do_not_join_are_found(tmp_path):
    journal = journal_of(tmp_path, PARTS[:2])
    journal.begin()
    (file,) = tmp_path.iterdir()
    assert file.name == "00000002"
    journal.records(1, memoryview(PARTS[4]), sum(map(len, PARTS)))
    journal.close()
    found, replay = read(tmp_path, 2, sum(map(len, PARTS[:2])))
    assert (found, replay.whole) == ([], False)


def test_a_journal_that_is_full_says_so_once_and_begins_anew(tmp_path, capsys):
    room = 2 * (32 + len(PARTS[0]))
    journal = journal_of(tmp_path, PARTS, limit_bytes=room)
    assert read(tmp_path)[0] == PARTS[:2]
    assert capsys.readouterr().out.count("journal unusable") == 1
    journal.begin()
    journal.records(1, memoryview(PARTS[0]), len(PARTS[0]))
    assert "journal works again" in capsys.readouterr().out
    journal.close()
    assert read(tmp_path, 2)[0] == PARTS[:1]
    assert sorted(os.listdir(tmp_path)) == ["00000002"]


def test_a_full_disk_stops_it_and_nothing_else(tmp_path, capsys):
    journal = Journal(tmp_path)
    journal.begin()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._fd)
    os.close(full)
    journal.records(1, memoryview(PARTS[0]), len(PARTS[0]))
    journal.records(1, memoryview(PARTS[1]), len(PARTS[1]))
    assert "No space left on device" in capsys.readouterr().out
    assert read(tmp_path)[0] == []


def test_without_a_limit_nothing_is_written(tmp_path):
    journal_of(tmp_path / "journal", PARTS, limit_bytes=0)
    assert not (tmp_path / "journal").exists()
    assert read(tmp_path / "journal")[0] == []


def recovered_from(folder, entries, version=VERSION, made_before=0):
    about = SavedTable(node_name="n", boot_id="b", collector_start_ns=5, made=made_before,
                       journal=1, records_version=version)  # fmt: skip
    spool = Spool(folder / "spool", Run("n", "b", 9), 1 << 30, "never")
    journal = Journal(folder / "journal")
    journal.begin()
    position = 0
    for entry in entries:
        if isinstance(entry, bytes):
            position += len(entry)
            journal.records(OFFSET_NS, memoryview(entry), position)
        elif isinstance(entry, int):
            journal.base(entry)
        else:
            journal.loss(entry)
    journal.close()
    found = recover(about, journal.folder, VERSION, made(lambda _: None), spool)
    record = spool.peek()
    spool.close()
    return found, record


def test_numbers_and_losses_are_those_last_noted(tmp_path):
    life = framed([first_process()])
    entries = [
        LossCounters(by_cause={"kernel_exec": 1}),
        41,
        life,
        LossCounters(by_cause={"kernel_exec": 2}),
    ]
    found, record = recovered_from(tmp_path, entries, made_before=7)
    assert found.run.base == record.run.base == 41
    assert (record.first, record.events) == (7, 1)
    assert (
        found.loss
        == EventBatch.FromString(record.payload).loss
        == LossCounters(by_cause={"kernel_exec": 2})
    )


def test_records_of_another_version_are_left_out(tmp_path, capsys):
    found, record = recovered_from(tmp_path, [framed([first_process()])], version="v0")
    assert not found.whole
    assert record is None
    assert "another version" in capsys.readouterr().out


def test_what_cannot_be_carried_out_stops_no_start(tmp_path, capsys, monkeypatch):
    parts = [framed([first_process()]), framed([exit_record(1, 1000, 2000)])]
    monkeypatch.setattr(Pipeline, "_exit", lambda *_: 1 / 0)
    found, record = recovered_from(tmp_path, parts)
    assert not found.whole
    assert record.events == 1
    assert "journal not carried out" in capsys.readouterr().out


def test_records_come_back_as_they_were():
    records = [b"a", b"bb" * 9, b"c" * 8]
    assert records_in(framed(records)) == records
    with pytest.raises(ValueError, match="no record at byte"):
        records_in(framed(records)[:-8])
    assert isinstance(Records(1, 2, b""), tuple)
