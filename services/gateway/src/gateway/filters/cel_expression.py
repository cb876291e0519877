"""cel_expression: any CEL expression is true; a variable per event type, such as process_exec.

An expression is asked only about events of the types that occur in it: ``true`` alone matches
nothing. The variables of the other types are empty messages.
"""

from __future__ import annotations

import structlog
from cel_expr_python import cel  # type: ignore[import-untyped]  # has stubs, lacks py.typed

from gateway.batch import Event
from gateway.errors import RequestError
from gateway.filters.predicate import Predicate
from gateway.filters.regex import shorten
from tetragon import events_pb2
from wire import read

_FIELDS = events_pb2.GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields
_VARIABLES = {
    field.name: field.message_type.full_name for field in _FIELDS if field.message_type is not None
}
_NUMBER_OF_MESSAGE = {_VARIABLES[field.name]: field.number for field in _FIELDS}
_CHECKED_TYPES = 3  # CheckedExpr.type_map: from expression id to type
_MESSAGE_TYPE = 9  # Type.message_type

_log = structlog.get_logger()


def build(wanted: events_pb2.Filter) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.cel_expression:
        return None
    environment = cel.NewEnv(
        variables={name: cel.Type(message) for name, message in _VARIABLES.items()},
        container="tetragon",
    )
    expressions = [_compile(environment, text) for text in wanted.cel_expression]
    nothing = events_pb2.GetEventsResponse()
    empty = {name: getattr(nothing, name) for name in _VARIABLES}
    failed: set[str] = set()

    def match(event: Event) -> bool:
        name = event.message.WhichOneof("event")
        if name is None:
            return False
        for text, expression, types in expressions:
            if event.type not in types:
                continue
            try:
                value = expression.eval(data=empty | {name: event.inner}).value()
            except RuntimeError as error:  # loops in loops: beyond what CEL allows for one event
                value = error
            if value is True:
                return True
            if value is not False:  # an error fails the whole field
                if text not in failed:
                    failed.add(text)
                    _log.info("cel expression failed", expression=text, error=str(value))
                return False
        return False

    return match


def _compile(environment: cel.Env, text: str) -> tuple[str, cel.Expression, frozenset[int]]:
    try:
        expression = environment.compile(text)
    except RuntimeError as error:
        cause = str(error).removeprefix("INVALID_ARGUMENT: ERROR: ").split("\n", 1)[0]
        raise RequestError(
            f"cel_expression: {shorten(text)!r}: {cause.removeprefix('<input>:')}"
        ) from None
    result = expression.return_type()
    if result != cel.Type.BOOL:
        raise RequestError(f"cel_expression: {shorten(text)!r}: is {result.name()}, not bool")
    return text, expression, _types_in(expression)


# The event types among the types that the checker found.
def _types_in(expression: cel.Expression) -> frozenset[int]:
    checked = read.values(expression.serialize(), 2)  # google.protobuf.Any.value
    types = (
        read.values(read.values(entry, 2)[-1], _MESSAGE_TYPE)
        for part in checked
        for entry in read.values(part, _CHECKED_TYPES)
    )
    names = (name.decode() for found in types for name in found)
    return frozenset(_NUMBER_OF_MESSAGE[name] for name in names if name in _NUMBER_OF_MESSAGE)
