"""The part of the stream that one client gets: nodes and filters, within a limit of CPU time.

Every filter runs on the event loop that all clients share. A selection is applied in slices; after
each slice other tasks may run (`Turn`), and the time is charged (`Budget`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import thread_time
from typing import Protocol

import eventfilters
from eventfilters import Budget, Event, Filters
from eventstream.batch import Batch
from gateway.turn import Turn
from tetragon.events_pb2 import FieldFilter, Filter

COMPILING = 2  # requests whose filters are compiled at once, each in a thread

Selected = list[tuple[int, bytes]]  # index in the batch, what to send


@dataclass(slots=True)
class Selection:
    """The nodes and filters of one stream, and what they used."""

    nodes: frozenset[str]  # empty: all
    filters: Filters
    turn: Turn = field(default_factory=Turn)
    _budget: Budget = field(default_factory=Budget)

    @property
    def complete(self) -> bool:
        """Whether every event of a chosen node is sent unchanged."""
        return self.filters.pass_all

    @property
    def memory_bytes(self) -> int:
        """What the compiled filters take, at most."""
        return self.filters.memory_bytes

    def chooses(self, node: str) -> bool:
        """Return whether events of ``node`` are wanted at all."""
        return not self.nodes or node in self.nodes

    async def select(self, batch: Batch, skip: int = 0) -> AsyncIterator[Selected]:
        """Yield what to send of ``batch`` without its first ``skip`` events, slice by slice.

        Raises `eventfilters.CostError` where the filters take more CPU time than they may.
        """
        if not self.chooses(batch.node_name):
            return
        if self.complete:
            yield [(n, one) for n, one in enumerate(batch.payloads[skip:], skip) if one]
            return
        for part in self._slices(islice(batch.events(), skip, None), skip, self.filters.apply):
            yield part
            await self.turn.rest()

    def select_one(self, batch: Batch) -> Selected:
        """Return what to send of a batch of one event: as `select`, which no turn can cut."""
        if not self.chooses(batch.node_name):
            return []
        if self.complete:
            return [(0, one) for one in batch.payloads if one]
        start_s = thread_time()
        selected: Selected = []
        for event in batch.events():
            if event.data and (sent := self.filters.apply(event)) is not None:
                selected.append((0, sent))
        self._budget.charge(thread_time() - start_s, 1)
        return selected

    async def passing(self, batch: Batch, skip: int = 0) -> list[int]:
        """Return the indexes of the events that pass, of those behind the first ``skip``."""
        if not self.chooses(batch.node_name):
            return []
        if self.filters.match is None:
            return [n for n, one in enumerate(batch.payloads[skip:], skip) if one]
        match, found = self.filters.match, list[int]()
        events = islice(batch.events(), skip, None)
        for part in self._slices(events, skip, lambda event: b"" if match(event) else None):
            found += [index for index, _ in part]
            await self.turn.rest()
        return found

    async def select_payloads(self, payloads: Iterable[bytes]) -> AsyncIterator[Selected]:
        """As `select`, for events of any node that are not in a batch."""
        for part in self._slices(map(Event, payloads), 0, self.filters.apply):
            yield part
            await self.turn.rest()

    def _slices(
        self, events: Iterable[Event], first: int, apply: Callable[[Event], bytes | None]
    ) -> Iterator[Selected]:
        turn = self.turn
        selected: Selected = []
        start_s, charged = thread_time(), first
        index = first - 1
        for index, event in enumerate(events, first):
            if event.data and (sent := apply(event)) is not None:
                selected.append((index, sent))
            if turn.over:
                self._budget.charge(thread_time() - start_s, index + 1 - charged)
                yield selected
                selected, start_s, charged = [], thread_time(), index + 1
        self._budget.charge(thread_time() - start_s, index + 1 - charged)
        yield selected


class FilteredRequest(Protocol):
    """A request of events, of either service."""

    @property
    def allow_list(self) -> Sequence[Filter]: ...
    @property
    def deny_list(self) -> Sequence[Filter]: ...
    @property
    def field_filters(self) -> Sequence[FieldFilter]: ...


class Compiler:
    """Compiles the filters of requests beside the event loop, a few at once."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(COMPILING)

    async def compile(self, request: FilteredRequest, nodes: frozenset[str]) -> Selection:
        """Return the selection; raise `eventfilters.FilterError` where a filter is refused."""
        lists = request.allow_list, request.deny_list, request.field_filters
        if not any(lists):
            return Selection(nodes, eventfilters.compile(*lists))
        async with self._slots:
            return Selection(nodes, await asyncio.to_thread(eventfilters.compile, *lists))
