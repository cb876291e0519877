"""cel_expression: any CEL expression is true; a variable per event type, such as process_exec.

An expression is evaluated only for events of the types that occur in it: ``true`` alone matches
nothing. The variables of the other types are empty messages.

cel-cpp bounds one evaluation to 10,000 iterations of loops (cel/runtime_options.h), which take
about a millisecond. `Budget` bounds what they take together.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from eventfilters.errors import FilterError
from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from eventfilters.regex import shorten
from tetragon.events_pb2 import Filter, GetEventsResponse
from wire import read

if TYPE_CHECKING:  # 14 MB that most processes never need
    from cel_expr_python import cel  # type: ignore[import-untyped]  # has stubs, lacks py.typed

_FIELDS = GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields
_VARIABLES = {
    field.name: field.message_type.full_name for field in _FIELDS if field.message_type is not None
}
_NAME_OF_MESSAGE = {message: name for name, message in _VARIABLES.items()}
_CHECKED_TYPES = 3  # CheckedExpr.type_map: from expression id to type
_MESSAGE_TYPE = 9  # Type.message_type

_log = logging.getLogger(__name__)


class _Expression(NamedTuple):
    text: str
    program: cel.Expression
    variables: frozenset[str]  # those that occur in it


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.cel_expression:
        return None
    expressions = [_compile(text, allowance) for text in wanted.cel_expression]
    nothing = GetEventsResponse()
    failed: set[str] = set()

    def match(event: Event) -> bool:
        kind = event.kind
        for text, program, variables in expressions:
            if kind not in variables:
                continue
            data = {
                name: event.inner if name == kind else getattr(nothing, name) for name in variables
            }
            try:
                value = program.eval(data=data).value()
            except RuntimeError as error:  # more iterations than one evaluation may have
                value = error
            if value is True:
                return True
            if value is not False:  # an error fails the whole field
                if text not in failed:
                    failed.add(text)
                    _log.info("cel expression failed: %s: %s", shorten(text), value)
                return False
        return False

    return match


@cache
def _environment() -> cel.Env:
    from cel_expr_python import cel

    return cel.NewEnv(
        variables={name: cel.Type(message) for name, message in _VARIABLES.items()},
        container="tetragon",
    )


def _compile(text: str, allowance: Allowance) -> _Expression:
    environment = _environment()
    from cel_expr_python import cel

    try:
        program = environment.compile(text)
    except RuntimeError as error:
        cause = str(error).removeprefix("INVALID_ARGUMENT: ERROR: ").split("\n", 1)[0]
        raise FilterError(
            f"cel_expression: {shorten(text)!r}: {cause.removeprefix('<input>:')}"
        ) from None
    result = program.return_type()
    if result != cel.Type.BOOL:
        raise FilterError(f"cel_expression: {shorten(text)!r}: is {result.name()}, not bool")
    allowance.check_time()
    return _Expression(text, program, _variables_in(program))


# The variables of the message types that the checker found.
def _variables_in(program: cel.Expression) -> frozenset[str]:
    checked = read.values(program.serialize(), 2)  # google.protobuf.Any.value
    types = (
        read.values(read.values(entry, 2)[-1], _MESSAGE_TYPE)
        for part in checked
        for entry in read.values(part, _CHECKED_TYPES)
    )
    names = (name.decode() for found in types for name in found)
    return frozenset(_NAME_OF_MESSAGE[name] for name in names if name in _NAME_OF_MESSAGE)
