"""Counts by values: of rows one by one, or of groups that were counted elsewhere."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from eventcolumns.errors import ColumnsError
from eventcolumns.fields import columns_of, since_ns_of, until_ns_of, values_of
from eventcolumns.rows import Row
from tetra.v1.stream_pb2 import CountBasis, CountEventsRequest, CountRow

MAX_ROWS = 1_000_000


class Tally:
    """The rows of one answer, and the events of each node that were read for it."""

    def __init__(self, request: CountEventsRequest) -> None:
        """Raises `ColumnsError` if the request names an unknown field."""
        self._request = request
        self._columns = [Row._fields.index(name) for name in columns_of(request.by)]
        self._rows: dict[tuple[str, ...], list[int | str]] = {}  # count, first, last, first node
        self._nodes: dict[str, int] = {}
        self._first_ns = self._last_ns = 0
        self._since_ns = since_ns_of(request)
        self._until_ns = until_ns_of(request)

    def includes(self, time_ns: int) -> bool:
        """Return whether an event of this time is in the time that the request is about."""
        return time_ns >= self._since_ns and (not self._until_ns or time_ns <= self._until_ns)

    def reads(self, time_ns: int) -> bool:
        """Return whether an event of this time is needed; `first_seen` needs earlier ones too."""
        if self._request.first_seen:
            return not self._until_ns or time_ns <= self._until_ns
        return self.includes(time_ns)

    def add_node(self, node: str, events: int, first_ns: int, last_ns: int) -> None:
        """Add events of the requested time that were read."""
        self._nodes[node] = self._nodes.get(node, 0) + events
        self._first_ns = min(self._first_ns or first_ns, first_ns)
        self._last_ns = max(self._last_ns, last_ns)

    def add_row(self, row: Row) -> None:
        """Add one event that passes the filters."""
        self.add(values_of(row, self._columns), 1, row.time, row.time, row.node)

    def add(
        self, values: tuple[str, ...], count: int, first_ns: int, last_ns: int, node: str
    ) -> None:
        """Add events with these values; raise `ColumnsError` where there are too many values."""
        found = self._rows.get(values)
        if found is None:
            if len(self._rows) >= MAX_ROWS:
                raise ColumnsError(
                    f"count by: more than {MAX_ROWS} different values: use a filter, a shorter "
                    "time or fewer fields"
                )
            self._rows[values] = [count, first_ns, last_ns, node]
            return
        if first_ns < int(found[1]):
            found[1], found[3] = first_ns, node
        found[0] = int(found[0]) + count
        found[2] = max(int(found[2]), last_ns)

    def everything(self) -> tuple[list[CountRow], CountBasis]:
        """Return every row in any order, and the basis without what is missing."""
        return self._answer([*self._rows], [*self._rows])

    def answer(self) -> tuple[list[CountRow], CountBasis]:
        """Return the rows that the request asks for in their order, and the basis."""
        chosen = [
            values
            for values, row in self._rows.items()
            if not self._request.first_seen or int(row[1]) >= self._since_ns
        ]
        return self._answer(self._order(chosen), chosen)

    def _answer(
        self, order: Sequence[tuple[str, ...]], chosen: Sequence[tuple[str, ...]]
    ) -> tuple[list[CountRow], CountBasis]:
        rows = [_row(values, *self._rows[values]) for values in order]
        matched = sum(int(self._rows[values][0]) for values in chosen)
        basis = CountBasis(rows=len(chosen), matched=matched)
        for node in sorted(self._nodes):
            basis.nodes.add(node_name=node, events=self._nodes[node])
        if self._first_ns:
            basis.first.FromNanoseconds(self._first_ns)
            basis.last.FromNanoseconds(self._last_ns)
        return rows, basis

    def _order(self, chosen: list[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
        def key(values: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
            row = self._rows[values]
            return (int(row[1]) if self._request.first_seen else -int(row[0]), values)

        limit = self._request.limit
        return heapq.nsmallest(limit, chosen, key) if limit else sorted(chosen, key=key)


def _row(
    values: tuple[str, ...], count: int | str, first_ns: int | str, last_ns: int | str,
    node: int | str,
) -> CountRow:  # fmt: skip
    row = CountRow(values=values, count=int(count), first_node=str(node))
    row.first.FromNanoseconds(int(first_ns))
    row.last.FromNanoseconds(int(last_ns))
    return row
