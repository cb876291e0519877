"""Writes blocks: durable when `Writer.finish` returns, else not there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from chassis.folders import open_own, sync_folder
from eventcolumns.rows import Row
from eventcolumns.schema import FOOTER_KEY, TYPES, Block, Footer

UNFINISHED = ".new"
_GROUP_ROWS = 65_536
_GROUP_BYTES = 32 << 20  # held in memory until a row group is written
_ARROW = {
    "uint64": pa.uint64(),
    "uint32": pa.uint32(),
    "time": pa.timestamp("ns"),
    "binary": pa.binary(),
}
SCHEMA = pa.schema([(name, _ARROW[TYPES[name]] if name in TYPES else pa.string())
                    for name in Row._fields])  # fmt: skip
# Numbers and identifiers that hardly repeat: a dictionary of them would be dropped again.
_PLAIN = {"stream_sequence", "batch_index", "sequence", "time", "pid", "exec_id", "event"}
_DICTIONARY = [name for name in Row._fields if name not in _PLAIN]


class Writer:
    """Writes the file of one block in ``folder``."""

    def __init__(self, folder: Path, mode: int = 0o600, name: str = "block") -> None:
        """``name``: of the file until it is finished. Raises `OSError`."""
        self._folder = folder
        self._path = folder / f"{name}{UNFINISHED}"
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0
        self.rows = 0
        fd = open_own(self._path)
        os.fchmod(fd, mode)  # not narrowed by the umask
        self._file = os.fdopen(fd, "wb")
        self._parquet = pq.ParquetWriter(
            self._file, SCHEMA, compression="zstd", use_dictionary=_DICTIONARY,
            write_statistics=[name for name in Row._fields if name != "event"],
        )  # fmt: skip

    @property
    def size_bytes(self) -> int:
        """The bytes that are written."""
        return self._file.tell()

    def append(self, rows: Sequence[Row]) -> None:
        """Add the rows; raise `OSError`."""
        columns = zip(zip(*rows, strict=True), SCHEMA, strict=True)
        arrays = [pa.array(values, type=field.type) for values, field in columns]
        self.append_batch(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Add the rows of ``batch``; raise `OSError`."""
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._waiting_rows >= _GROUP_ROWS or self._waiting_bytes >= _GROUP_BYTES:
            self._write_group()

    def finish(self, block: Block, footer: Footer) -> None:
        """Give the file the name of ``block``; raise `OSError`."""
        self._write_group()
        self._parquet.add_key_value_metadata({FOOTER_KEY: footer.encode()})
        self._parquet.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._path, self._folder / block.name)
        sync_folder(self._folder)

    def discard(self) -> None:
        """Remove the file."""
        with suppress(OSError, ValueError):
            self._parquet.close()
        self._parquet.is_open = False  # else it tries again when it is collected
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._path.unlink()

    def _write_group(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._waiting_rows = self._waiting_bytes = 0
            self._parquet.write_table(
                pa.Table.from_batches(waiting, SCHEMA), row_group_size=1 << 30
            )
