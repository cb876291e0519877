"""Answers from blocks, by DuckDB."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from eventcolumns import schema
from eventcolumns.conditions import Condition, any_text, condition, text
from eventcolumns.errors import ColumnsError
from eventcolumns.fields import columns_of, since_ns_of, until_ns_of
from eventcolumns.rows import Place
from eventcolumns.schema import Block, Footer
from tetra.v1.stream_pb2 import CountEventsRequest

# Events are found by the time at which NATS stored them; host clocks may be ahead by this.
CLOCKS_APART_S = 60
_FETCH_ROWS = 2048
_PROGRESS_S = 0.5

Report = Callable[[float], None]  # of 0 to 100


@dataclass(frozen=True, slots=True)
class Limits:
    """What a query may use."""

    memory_bytes: int = 512 << 20
    threads: int = 2


class Group(NamedTuple):
    """Events with equal values."""

    values: tuple[str, ...]
    events: int
    first_ns: int
    last_ns: int
    node: str


class Found(NamedTuple):
    """An event."""

    place: Place
    event: bytes


class NodeEvents(NamedTuple):
    """The events of a node."""

    node: str
    events: int
    first_ns: int
    last_ns: int


class Engine:
    """Queries the blocks of one folder; the blocks that there are when it is made."""

    def __init__(self, folder: Path, limits: Limits, *, since_ns: int = 0) -> None:
        """Raises `ColumnsError` where the folder cannot be read."""
        self._folder = folder.absolute()
        try:
            found = schema.blocks(self._folder)
        except OSError as error:
            raise ColumnsError(f"columns: {folder}: {error.strerror}") from None
        self.all_blocks = found
        least_s = since_ns // 1_000_000_000 - CLOCKS_APART_S
        self.blocks = [block for block in found if block.to_s >= least_s]
        self._connection = _connect(self._folder, limits)

    def footers(self) -> list[tuple[Block, Footer]]:
        """Return each block with its footer; raise `ColumnsError`."""
        if not self.blocks:
            return []
        key = text(schema.FOOTER_KEY)
        rows = self._fetch(
            f"SELECT file_name, value FROM parquet_kv_metadata({self._files(self.blocks)}) "
            f"WHERE key = {key}::BLOB"
        )
        found = {Path(str(name)).name: value for name, value in rows}
        try:
            return [(block, Footer.decode(found[block.name])) for block in self.blocks]
        except (KeyError, ValueError) as error:
            raise ColumnsError(f"columns: {self._folder}: footer: {error}") from None

    def count(
        self, request: CountEventsRequest, nodes: Sequence[str], report: Report = lambda done: None
    ) -> list[Group]:
        """Count by the fields of the request, whose filters have to be exact conditions."""
        if not self.blocks:
            return []
        columns = ", ".join(f"coalesce(\"{one}\"::VARCHAR, '')" for one in columns_of(request.by))
        wanted = condition(request.allow_list, request.deny_list)
        assert wanted.exact
        since_ns = 0 if request.first_seen else since_ns_of(request)
        within = _within(wanted, nodes, since_ns, until_ns_of(request))
        with _Progress(self._connection, report):
            rows = self._fetch(
                f"SELECT {columns}, count(*), epoch_ns(min(time)), epoch_ns(max(time)), "
                f"arg_min(node, time) FROM {self._source(self.blocks)} WHERE {within} GROUP BY ALL"
            )
        return [Group(tuple(row[:-4]), *row[-4:]) for row in rows]

    def count_nodes(self, request: CountEventsRequest, nodes: Sequence[str]) -> list[NodeEvents]:
        """Count the events of the requested time, whether they pass the filters or not."""
        if not self.blocks:
            return []
        window = _window(since_ns_of(request), until_ns_of(request))
        within = " AND ".join([*window, *_nodes(nodes), "true"])
        rows = self._fetch(
            "SELECT node, count(*), epoch_ns(min(time)), epoch_ns(max(time)) "
            f"FROM {self._source(self.blocks)} WHERE {within} GROUP BY node"
        )
        return [NodeEvents(*row) for row in rows]

    def find(
        self, wanted: Condition, nodes: Sequence[str], since_ns: int = 0, until_ns: int = 0
    ) -> Iterator[Found]:
        """Yield in the stream's order every event that meets the condition."""
        columns = "stream_sequence, batch_index, node, boot_id, sequence, epoch_ns(time), event"
        within = _within(wanted, nodes, since_ns, until_ns)
        for rows in self._parts(columns, self.blocks, within):
            for row in rows:
                yield Found(Place._make(row[:-1]), row[-1])

    def events(
        self,
        wanted: Condition,
        nodes: Sequence[str],
        since_ns: int,
        until_ns: int,
        generation: int,
    ) -> Iterator[list[tuple[int, int, bytes]]]:
        """Yield, many at once, message of the stream, place in it and event, as `find`."""
        found = [block for block in self.blocks if block.generation == generation]
        within = _within(wanted, nodes, since_ns, until_ns)
        return self._parts("stream_sequence, batch_index, event", found, within)

    def _parts(
        self, columns: str, found: Sequence[Block], within: str
    ) -> Iterator[list[tuple[Any, ...]]]:
        if not found:
            return
        try:
            self._connection.execute(f"SELECT {columns} FROM {self._source(found)} WHERE {within}")
            while rows := self._connection.fetchmany(_FETCH_ROWS):
                yield rows
        except duckdb.Error as error:
            raise _explained(self._folder, error) from None

    def _fetch(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql).fetchall()
        except duckdb.Error as error:
            raise _explained(self._folder, error) from None

    def _files(self, found: Sequence[Block]) -> str:
        return "[" + ", ".join(text(str(self._folder / one.name)) for one in found) + "]"

    def _source(self, found: Sequence[Block]) -> str:
        return f"read_parquet({self._files(found)})"


class BlocksChanged(ColumnsError):
    """A block was merged or removed while it was read: a new `Engine` reads the others."""


class _Progress:
    """Reports how far the connection's query is, from a thread."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, report: Report) -> None:
        self._connection = connection
        self._report = report
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(_PROGRESS_S):
            self._report(max(0.0, self._connection.query_progress()))


# Reads nothing but the folder, loads no extension, and no query can change that.
def _connect(folder: Path, limits: Limits) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": limits.threads,
            "memory_limit": f"{limits.memory_bytes >> 20}MiB",
            "temp_directory": "",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )
    connection.execute("SET enable_progress_bar = true")
    connection.execute("SET enable_progress_bar_print = false")
    connection.execute(f"SET allowed_directories = [{text(f'{folder}/')}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _explained(folder: Path, error: duckdb.Error) -> ColumnsError:
    if isinstance(error, duckdb.OutOfMemoryException):
        return ColumnsError(
            "columns: the query needs more memory than it may use: use a filter, a shorter time or "
            "fewer fields, or raise TETRA_COLUMNS_MEMORY_BYTES"
        )
    cause = str(error).splitlines()[0][:300]
    if isinstance(error, duckdb.IOException):
        return BlocksChanged(f"columns: {folder}: {cause}")
    # A block that was removed is a hole, which the answer reports.
    return ColumnsError(
        f"columns: {folder}: {cause}: move a damaged file away: answers name the hole"
    )


def _within(wanted: Condition, nodes: Sequence[str], since_ns: int, until_ns: int) -> str:
    return " AND ".join([*_window(since_ns, until_ns), *_nodes(nodes), f"({wanted.sql})"])


def _window(since_ns: int, until_ns: int) -> list[str]:
    parts = []
    if since_ns:
        parts.append(f"time >= make_timestamp_ns({since_ns})")
    if until_ns:
        parts.append(f"time <= make_timestamp_ns({until_ns})")
    return parts


def _nodes(nodes: Sequence[str]) -> list[str]:
    return [any_text("node", sorted(nodes))] if nodes else []
