"""Regexes as Tetragon means them: RE2 syntax, found anywhere in the text, case-sensitive.

RE2 needs time linear in the text, so no pattern of a client can hang the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import re2

from gateway.errors import RequestError

MAX_PROGRAM_BYTES = 1 << 20  # of one compiled regex

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = MAX_PROGRAM_BYTES  # type: ignore[attr-defined]  # set by C++


def any_of(field: str, patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return whether any of ``patterns`` is found; raise `RequestError` naming a bad one."""
    searches = []
    for pattern in patterns:
        try:
            searches.append(re2.compile(pattern, _OPTIONS).search)
        except re2.error as error:
            cause = error.args[0] if error.args else error
            text = cause.decode(errors="replace") if isinstance(cause, bytes) else str(cause)
            raise RequestError(f"{field}: regex {shorten(pattern)!r}: {text[:200]}") from None
    if len(searches) == 1:
        [search] = searches
        return lambda text: search(text) is not None
    return lambda text: any(search(text) is not None for search in searches)


def shorten(text: str, limit: int = 200) -> str:
    """Return ``text``, cut after ``limit`` characters."""
    return text if len(text) <= limit else text[:limit] + "..."
