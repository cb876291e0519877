r"""Regexes as Tetragon means them: RE2 syntax, found anywhere in the text, case-sensitive.

RE2 needs time linear in the text. All patterns of a field are joined to one regex, so the time does
not grow with their number either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import re2

from eventfilters.errors import FilterError
from eventfilters.limits import Allowance

Search = Callable[[str], bool]


def any_of(field: str, patterns: Sequence[str], allowance: Allowance) -> Search:
    """Return whether any of ``patterns`` is found; raise `FilterError` naming a bad one."""
    memory_bytes = allowance.regex_bytes(len(patterns))
    searches = [_compile(field, one, memory_bytes // len(patterns), allowance) for one in patterns]
    if len(searches) > 1 and (joined := _join(patterns, memory_bytes)) is not None:
        searches = [joined]
    if len(searches) == 1:
        [search] = searches
        return lambda text: search(text) is not None
    return lambda text: any(search(text) is not None for search in searches)


def _options(memory_bytes: int) -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = memory_bytes  # type: ignore[attr-defined]  # set by C++
    options.never_capture = True  # type: ignore[attr-defined]  # set by C++
    return options


def _compile(
    field: str, pattern: str, memory_bytes: int, allowance: Allowance
) -> Callable[[str], object]:
    try:
        search: Callable[[str], object] = re2.compile(pattern, _options(memory_bytes)).search
    except re2.error as error:
        cause = error.args[0] if error.args else error
        text = cause.decode(errors="replace") if isinstance(cause, bytes) else str(cause)
        raise FilterError(f"{field}: regex {shorten(pattern)!r}: {text[:200]}") from None
    allowance.check_time()
    return search


# None: too large as one, or not to be joined: \Q quotes all that follows, up to \E.
def _join(patterns: Sequence[str], memory_bytes: int) -> Callable[[str], object] | None:
    if any(r"\Q" in pattern for pattern in patterns):
        return None
    joined = "|".join(f"(?:{pattern})" for pattern in patterns)
    try:
        search: Callable[[str], object] = re2.compile(joined, _options(memory_bytes)).search
    except re2.error:
        return None
    return search


def shorten(text: str, limit: int = 200) -> str:
    """Return ``text``, cut after ``limit`` characters."""
    return text if len(text) <= limit else text[:limit] + "..."
