"""The files of the columns: their names, merged ones, and those that are removed."""

import os

import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from eventcolumns import folder as keeping
from eventcolumns.basis import missing_in
from eventcolumns.engine import Engine, Limits
from eventcolumns.errors import ColumnsError, DamagedBlock
from eventcolumns.rows import Row, place_of, row_of
from eventcolumns.schema import Block, Footer, blocks
from eventcolumns.writer import SCHEMA, UNFINISHED, Writer
from eventfilters import Event
from eventstream.batch import Batch
from exporter.config import ColumnsSink
from exporter.errors import SinkError
from exporter.sinks.columns import Columns
from support.feeder import exec_event
from tetra.v1 import bus_pb2
from tetra.v1.stream_pb2 import CountEventsRequest, GapNotice
from tetragon.events_pb2 import GetEventsResponse


def rows_of(sequence, numbers):
    events = [exec_event(number, time_ns=number) for number in numbers]
    message = bus_pb2.EventBatch(
        node_name="n1", boot_id="b", first_sequence=numbers[0], events=events
    )
    message.collector_start.FromNanoseconds(1)
    batch = Batch.decode(message.SerializeToString(), sequence, 5)
    return [row_of(place_of(batch, n, one), one) for n, one in enumerate(batch.events())]


def write(folder, block, footer=None):
    writer = Writer(folder)
    for sequence in range(block.first, block.last + 1):
        writer.append(rows_of(sequence, range(sequence * 10, sequence * 10 + 10)))
    writer.finish(block, footer or Footer(block.to_s * 1_000_000_000))


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "columns"
    found.mkdir(mode=0o700)
    return found


def sequences(folder):
    files = [folder / block.name for block in blocks(folder)]
    tables = [pq.read_table(path, columns=["sequence"]) for path in files]
    return [number for table in tables for number in table["sequence"].to_pylist()]


def test_name_of_a_block_is_read_back_and_others_are_none():
    block = Block(2, 17, 42, 1_700_000_000, 1_700_000_060)
    assert Block.parse(block.name) == block
    for name in ("block.new", "1_2_3.parquet", "a_2_3_4_5.parquet", block.name + ".new"):
        assert Block.parse(name) is None


def test_small_blocks_become_one_and_nothing_changes(folder):
    for n in range(1, 13):
        gap = GapNotice(cause=GapNotice.CAUSE_COLLECTOR_DOWN, count=n)
        write(folder, Block(1, n, n, n, n + 1), Footer(n, gaps=[gap]))
    before = sequences(folder)
    merged = keeping.merge_small(folder, 64 << 20)
    assert merged == Block(1, 1, 12, 1, 13)
    assert blocks(folder) == [merged]  # while the merged ones are still there
    assert len(list(folder.iterdir())) == 13
    keeping.remove_superseded(folder)
    assert [path.name for path in folder.iterdir()] == [merged.name]
    assert sequences(folder) == before
    footer = keeping.footer_of(folder / merged.name)
    assert footer.last_stored_ns == 12
    assert [gap.count for gap in footer.gaps] == [*range(1, 13)]


def test_blocks_that_are_not_side_by_side_or_not_small_stay(folder):
    for n in [1, 2, 3, 4, 5, 6, 7, 9, 10]:
        write(folder, Block(1, n, n, n, n + 1))
    write(folder, Block(2, 1, 1, 11, 12))
    assert keeping.merge_small(folder, 64 << 20) is None
    size = os.path.getsize(folder / blocks(folder)[0].name)
    assert keeping.merge_small(folder, size) is None


def test_hole_between_blocks_is_reported(folder):
    write(folder, Block(1, 1, 2, 1, 2))
    write(folder, Block(1, 6, 7, 8, 9))
    [gap] = missing_in(Engine(folder, Limits()).footers(), 0, 0, []).gaps
    assert (gap.first, gap.last, gap.count) == (3, 5, 3)


def test_oldest_blocks_are_removed_by_age_and_size_but_never_the_last(folder):
    for n in range(1, 6):
        write(folder, Block(1, n, n, n * 100, n * 100 + 50))
    assert keeping.remove_old(folder, 250, 0) == 1
    assert [block.first for block in blocks(folder)] == [2, 3, 4, 5]
    size = os.path.getsize(folder / blocks(folder)[0].name)
    assert keeping.remove_old(folder, 0, 2 * size + 10) == 2
    assert keeping.remove_old(folder, 1e9, 1) == 1
    assert [block.first for block in blocks(folder)] == [5]


def test_unfinished_file_is_no_block(folder):
    writer = Writer(folder)
    writer.append(rows_of(1, range(10)))
    assert blocks(folder) == []
    writer.discard()
    assert list(folder.iterdir()) == []


def test_columns_of_the_file_are_those_of_a_row():
    assert SCHEMA.names == list(Row._fields)


def test_footer_of_another_version_is_refused():
    with pytest.raises(ValueError, match="version 9"):
        Footer.decode('{"version": 9}')


def test_row_of_an_event_without_a_process():
    event = GetEventsResponse(node_name="n1")
    event.process_throttle.cgroup = "/a"
    batch = Batch.decode(b"", 3, 77)
    batch.payloads.append(event.SerializeToString())
    one = Event(batch.payloads[0])
    row = row_of(place_of(batch, 0, one), one)
    assert (row.kind, row.binary, row.time) == ("process_throttle", None, 77)


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "cut":
        del data[len(data) // 2 :]
    if how == "data":
        for at in range(100, len(data) // 2, 50):
            data[at] ^= 0xFF
    path.write_bytes(b"" if how == "empty" else data)


@pytest.mark.parametrize("how", ["empty", "cut", "data"])
def test_damaged_block_is_named_and_others_are_merged(folder, how):
    made = [Block(1, n, n, n, n + 1) for n in range(1, 21)]
    for block in made:
        write(folder, block)
    path = folder / made[10].name
    damage(path, how)
    with pytest.raises(DamagedBlock) as caught:
        keeping.merge_small(folder, 64 << 20)
    assert caught.value.path == path
    assert not [one for one in folder.iterdir() if one.suffix == UNFINISHED]
    merged = keeping.merge_small(folder, 64 << 20, damaged={path.name})
    assert merged is not None
    assert (merged.first, merged.last) == (1, 10)
    with pytest.raises(ColumnsError, match="move a damaged file away: answers name the hole"):
        Engine(folder, Limits()).count(CountEventsRequest(by=["binary", "arguments"]), [])
    path.unlink()
    [gap] = missing_in(Engine(folder, Limits()).footers(), 0, 0, []).gaps
    assert (gap.first, gap.last) == (11, 11)


async def test_exporter_survives_a_damaged_block_and_names_it(folder):
    for n in range(1, 13):
        write(folder, Block(1, n, n, n, n + 1))
    damage(folder / blocks(folder)[3].name, "cut")
    settings = {"name": "past", "type": "columns", "folder": folder, "max_age": 0}
    sink = Columns(ColumnsSink.model_validate(settings))
    place = sink.resume(None)
    assert place is not None
    with capture_logs() as logs:
        sink._tidy()
        sink._tidy()
    assert [one["path"] for one in logs] == [str(folder / Block(1, 4, 4, 4, 5).name)]
    damage(folder / blocks(folder)[-1].name, "empty")
    with pytest.raises(SinkError, match=r"sink past: damaged block .*: move it away$"):
        sink.resume(None)
