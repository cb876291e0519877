"""A collector killed at any point: the next one has its table and delivers the missing events."""

import os
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.bpf.ring import records_in
from collector.delivery.spool import Spool
from collector.metadata.enricher import Enricher
from collector.recovery import state
from collector.recovery.journal import BASE, RECORDS, Journal, Replay
from collector.recovery.replay import recover
from collector.running import kernel_process
from collector.sensors.process import ProcessSensor
from support.stages import Stages
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


def made(saved=None, kernel=None):
    """Return new stages with the processes of a saved table; ``kernel``: the synthetic one."""
    stages = Stages(Enricher(HOST_NS))
    kernel = kernel or kernel_process(0)
    stages.table.restore(state.processes(saved, kernel) if saved else [kernel], 0.0)
    return stages


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
@settings(max_examples=80, deadline=None)
def test_next_collector_continues_exactly(tmp_path_factory, choices, data):
    folder = tmp_path_factory.mktemp("killed")
    records = [first_process(), *lives(choices)]
    straight = made()
    expected = straight.handle(records, OFFSET_NS)

    # The table is saved at one point, and the collector is killed at another.
    saved_at = data.draw(st.integers(0, len(records)), "saved at")
    killed_at = data.draw(st.integers(saved_at, len(records)), "killed at")
    first = made()
    reported = first.handle(records[:saved_at], OFFSET_NS)
    journal = Journal(folder / "journal")
    acknowledged = data.draw(st.integers(0, len(reported)), "acknowledged")
    about = SavedTable(
        node_name="n", boot_id="b", collector_start_ns=5, base=1, made=len(reported),
        ring_position=800, journal=journal.next_number, records_version=VERSION,
        unreported=reported[acknowledged:],
    )  # fmt: skip
    assert state.save(folder, about, first.table, first.encoder)
    journal.begin()
    position = 800
    for n in range(saved_at, killed_at):
        part = framed(records[n : n + 1])
        position += len(part)
        journal.records(OFFSET_NS, memoryview(part), position)
        reported += first.handle(records[n : n + 1], OFFSET_NS)
    journal.close()
    assert reported == expected[: len(reported)]

    # The next one is killed as soon as it has recovered; then one more starts.
    saved = state.read(folder, "n")
    for _ in range(2):
        spool = Spool(folder / "spool", 1 << 30, "never")
        spool.open("n")
        second = made(saved)
        recovered = recover(saved, journal.folder, VERSION, second.pipeline, second.table, spool)
        spool.close()
    assert recovered.complete
    assert (recovered.ring_position, recovered.run.base) == (position, 1)
    kept = []
    while (record := spool.peek()) is not None:
        assert record.run is recovered.run
        assert record.first == acknowledged + len(kept)
        kept += EventBatch.FromString(record.payload).events
        spool.pop()
    assert kept == reported[acknowledged:]
    assert reported + second.handle(records[killed_at:], OFFSET_NS) == expected
    assert {p.key for p in second.table.all_living()} == {
        p.key for p in straight.table.all_living()
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
    return [entry.payload for entry in replay], replay


HEAD, ENTRY = 8, 4 + 24  # bytes of the file's header, and of an entry's


def test_torn_tail_ends_the_journal_and_the_ring_continues(tmp_path):
    journal_of(tmp_path, PARTS)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    ends = [HEAD]
    for part in PARTS:
        ends.append(ends[-1] + ENTRY + len(part))
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        count = max(0, sum(end <= size for end in ends) - 1)
        found, replay = read(tmp_path)
        assert found == PARTS[:count]
        assert replay.stopped == ""
        assert replay.position == sum(map(len, PARTS[:count]))


@pytest.mark.parametrize("at", range(0, 200, 7))
def test_changed_byte_ends_the_journal(tmp_path, at):
    journal_of(tmp_path, PARTS)
    (file,) = tmp_path.iterdir()
    damaged = bytearray(file.read_bytes())
    damaged[at] ^= 0x10
    file.write_bytes(damaged)
    found, _ = read(tmp_path)
    assert found == PARTS[: len(found)]
    assert len(found) <= max(0, at - HEAD) // (ENTRY + len(PARTS[0]))


def test_hole_between_records_stops_the_replay(tmp_path):
    journal = journal_of(tmp_path, PARTS[:2])
    journal.begin()
    (file,) = tmp_path.iterdir()
    assert file.name == "00000002"
    journal.records(1, memoryview(PARTS[4]), sum(map(len, PARTS)))
    journal.close()
    found, replay = read(tmp_path, 2, sum(map(len, PARTS[:2])))
    assert found == []
    assert "records are missing behind position" in replay.stopped


def test_unknown_entry_stops_the_replay_with_a_reason(tmp_path):
    journal = Journal(tmp_path)
    journal.begin()
    journal.base(7)
    journal.append(b"NEWS", 1, 2, b"of a later version")
    journal.base(8)
    journal.close()
    replay = Replay(tmp_path, 1, 0)
    assert [(entry.kind, entry.second) for entry in replay] == [(BASE, 7)]
    assert "unknown kind 'NEWS'" in replay.stopped
    known = Replay(tmp_path, 1, 0, kinds=frozenset((RECORDS, BASE, b"NEWS")))
    assert [entry.payload for entry in known] == [b"", b"of a later version", b""]
    assert known.stopped == ""


def test_records_of_the_collectors_own_are_replayed_in_their_place(tmp_path):
    records = [first_process(), *lives([("fork", 0), ("exec", 1), ("exit", 1)])]
    straight = made()
    expected = straight.handle(records, OFFSET_NS)
    journal = Journal(tmp_path / "journal")
    journal.begin()
    position = 0
    for n, record in enumerate(records):
        if n % 2:
            journal.made(OFFSET_NS, record)
            continue
        part = framed([record])
        position += len(part)
        journal.records(OFFSET_NS, memoryview(part), position)
    journal.close()
    saved = SavedTable(node_name="n", journal=1, records_version=VERSION)
    spool = Spool(tmp_path / "spool", 1 << 30, "never")
    spool.open("n")
    second = made()
    recovered = recover(saved, journal.folder, VERSION, second.pipeline, second.table, spool)
    spool.close()
    assert recovered.complete
    assert recovered.made == len(expected)
    assert [p.key for p in second.table] == [p.key for p in straight.table]


def test_journal_of_another_version_stops_the_replay_with_a_reason(tmp_path):
    journal_of(tmp_path, PARTS)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[4] += 1
    file.write_bytes(data)
    found, replay = read(tmp_path)
    assert found == []
    assert "version 3, this one reads 2" in replay.stopped


def test_file_without_the_mark_of_a_journal_has_no_version(tmp_path):
    journal_of(tmp_path, PARTS)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[4:])
    found, replay = read(tmp_path)
    assert found == []
    assert replay.stopped == "file 1: not a journal that this collector reads"


def test_full_journal_is_logged_once_and_restarted(tmp_path, capsys):
    room = 2 * (ENTRY + len(PARTS[0]))
    journal = journal_of(tmp_path, PARTS, limit_bytes=room)
    assert read(tmp_path)[0] == PARTS[:2]
    assert capsys.readouterr().out.count("journal unusable") == 1
    journal.begin()
    journal.records(1, memoryview(PARTS[0]), len(PARTS[0]))
    assert "journal usable again" in capsys.readouterr().out
    journal.close()
    assert read(tmp_path, 2)[0] == PARTS[:1]
    assert sorted(os.listdir(tmp_path)) == ["00000002"]


def test_full_disk_stops_the_journal_only(tmp_path, capsys):
    journal = Journal(tmp_path)
    journal.begin()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._fd)
    os.close(full)
    journal.records(1, memoryview(PARTS[0]), len(PARTS[0]))
    journal.records(1, memoryview(PARTS[1]), len(PARTS[1]))
    assert "No space left on device" in capsys.readouterr().out
    assert read(tmp_path)[0] == []


def test_limit_of_zero_writes_nothing(tmp_path):
    journal_of(tmp_path / "journal", PARTS, limit_bytes=0)
    assert not (tmp_path / "journal").exists()
    assert read(tmp_path / "journal")[0] == []


def recovered_from(folder, entries, version=VERSION, made_before=0):
    about = SavedTable(node_name="n", boot_id="b", collector_start_ns=5, made=made_before,
                       journal=1, records_version=version)  # fmt: skip
    spool = Spool(folder / "spool", 1 << 30, "never")
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
    stages = made()
    found = recover(about, journal.folder, VERSION, stages.pipeline, stages.table, spool)
    record = spool.peek()
    spool.close()
    return found, record


def test_last_numbers_and_losses_count(tmp_path):
    one, two = (LossCounters(by_cause={"kernel_exec": n}) for n in (1, 2))
    entries = [one, 41, framed([first_process()]), two]
    found, record = recovered_from(tmp_path, entries, made_before=7)
    assert found.run.base == record.run.base == 41
    assert (record.first, record.events) == (7, 1)
    assert found.loss == EventBatch.FromString(record.payload).loss == two


def test_records_of_another_version_are_not_replayed(tmp_path, capsys):
    found, record = recovered_from(tmp_path, [framed([first_process()])], version="v0")
    assert not found.complete
    assert record is None
    assert "another version" in capsys.readouterr().out


def test_fault_during_the_replay_does_not_prevent_a_start(tmp_path, capsys, monkeypatch):
    parts = [framed([first_process()]), framed([exit_record(1, 1000, 2000)])]
    monkeypatch.setattr(ProcessSensor, "_exit", lambda *_: 1 / 0)
    found, record = recovered_from(tmp_path, parts)
    assert not found.complete
    assert record.events == 1
    assert "journal replay failed" in capsys.readouterr().out


def test_records_in_a_part_of_the_ring_are_found():
    records = [b"a", b"bb" * 9, b"c" * 8]
    assert records_in(framed(records)) == records
    with pytest.raises(ValueError, match="no record at byte"):
        records_in(framed(records)[:-8])
