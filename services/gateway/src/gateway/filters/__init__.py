"""Filters: one file a field of ``tetragon.Filter``, each with ``build``.

An event passes if the allow list is empty or one of its filters matches, and no filter of the deny
list does. A filter matches if all its fields do; a field if one of its values does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from gateway.batch import Batch, Event
from gateway.filters import (
    ancestor_binary_regex,
    arguments_regex,
    binary_regex,
    capabilities,
    cel_expression,
    container_id,
    container_name_regex,
    event_set,
    fields,
    health_check,
    in_init_tree,
    labels,
    namespace,
    namespace_regex,
    parent_arguments_regex,
    parent_binary_regex,
    pid,
    pid_set,
    pod_regex,
    policy_names,
)
from gateway.filters.predicate import Predicate
from tetragon import events_pb2

# The cheap first; pid_set last but CEL, since it learns only from events that reach it.
_BUILDERS: tuple[Callable[[events_pb2.Filter], Predicate | None], ...] = (
    event_set.build,
    policy_names.build,
    pid.build,
    in_init_tree.build,
    namespace.build,
    health_check.build,
    capabilities.build,
    binary_regex.build,
    arguments_regex.build,
    parent_binary_regex.build,
    parent_arguments_regex.build,
    container_id.build,
    pod_regex.build,
    namespace_regex.build,
    container_name_regex.build,
    ancestor_binary_regex.build,
    labels.build,
    pid_set.build,
    cel_expression.build,
)


@dataclass(frozen=True, slots=True)
class Selection:
    """What of the stream one client gets."""

    nodes: frozenset[str]  # empty: all
    match: Predicate | None  # None: every event
    rewrite: fields.Rewrite | None  # None: whole events

    @property
    def whole(self) -> bool:
        """Whether every event of a chosen node is sent as it is."""
        return self.match is None and self.rewrite is None

    def chooses(self, node: str) -> bool:
        """Return whether events of ``node`` are wanted at all."""
        return not self.nodes or node in self.nodes

    def select(self, batch: Batch, skip: int = 0) -> Iterator[bytes]:
        """Return what to send of ``batch``, without its first ``skip`` events."""
        for _, payload in self.select_numbered(batch, skip):
            yield payload

    def select_numbered(self, batch: Batch, skip: int = 0) -> Iterator[tuple[int, bytes]]:
        """As `select`, each with its index in the batch."""
        if not self.chooses(batch.node_name):
            return
        if self.whole:
            for index, payload in enumerate(batch.payloads[skip:], skip):
                if payload:
                    yield index, payload
            return
        for index, event in enumerate(islice(batch.events(), skip, None), skip):
            if event.data and (self.match is None or self.match(event)):
                yield index, event.data if self.rewrite is None else self.rewrite(event)

    def apply(self, event: Event) -> bytes | None:
        """Return what to send of a single event, None for nothing."""
        if self.match is not None and not self.match(event):
            return None
        return event.data if self.rewrite is None else self.rewrite(event)


def compile(
    allow: Iterable[events_pb2.Filter],
    deny: Iterable[events_pb2.Filter],
    field_filters: Iterable[events_pb2.FieldFilter],
    nodes: frozenset[str] = frozenset(),
) -> Selection:
    """Return the selection; raise `RequestError` naming a regex, expression or path that is bad."""
    allowed = [_build(wanted) for wanted in allow]
    denied = [_build(wanted) for wanted in deny]

    def match(event: Event) -> bool:
        return (not allowed or any(passes(event) for passes in allowed)) and not any(
            drops(event) for drops in denied
        )

    return Selection(
        nodes=nodes,
        match=match if allowed or denied else None,
        rewrite=fields.build(field_filters),
    )


def _build(wanted: events_pb2.Filter) -> Predicate:
    built = [build(wanted) for build in _BUILDERS]
    predicates = [predicate for predicate in built if predicate is not None]
    if len(predicates) == 1:
        return predicates[0]
    return lambda event: all(predicate(event) for predicate in predicates)
