"""Redaction filters: secrets leave arguments and environment before anything leaves the host.

The text form is Tetragon's: JSON objects one after the other, each ``{"redact": [regex, ...],
"binary_regex": [regex, ...]}``. Regexes are RE2's: no pattern can hang us.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from chassis.errors import SettingsError

if TYPE_CHECKING:
    import re2

_STARS = "*****"


class _Filter(NamedTuple):
    redact: tuple[re2.Pattern, ...]
    binaries: tuple[re2.Pattern, ...]


class Redactor:
    """Applies the filters in order; with none it changes nothing."""

    def __init__(self, text: str = "") -> None:
        self._filters = tuple(_parse(text))

    def __bool__(self) -> bool:
        return bool(self._filters)

    def redact(self, binary: str, texts: Sequence[str]) -> list[str]:
        """Return ``texts`` with each capture group of each match replaced by five asterisks."""
        out = list(texts)
        for rule in self._filters:
            if rule.binaries and not any(p.search(binary) for p in rule.binaries):
                continue
            for pattern in rule.redact:
                out = [_cover_all(pattern, text) for text in out]
        return out


def _cover_all(pattern: re2.Pattern, text: str) -> str:
    return pattern.sub(lambda match: _cover(pattern, match.group()), text)


# The pattern runs again on the matched text alone, as in Tetragon.
def _cover(pattern: re2.Pattern, matched: str) -> str:
    match = pattern.search(matched)
    if match is None:
        return matched
    out, done = "", 0
    for group in range(1, pattern.groups + 1):
        start, end = match.span(group)
        if start < done or start < 0:  # inside a group already covered, or not in this match
            continue
        out += matched[done:start] + _STARS
        done = end
    return out + matched[done:]


def _parse(text: str) -> list[_Filter]:
    decoder, at, found = json.JSONDecoder(), 0, []
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        try:
            item, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise SettingsError(f"redaction filters: not JSON: {error}") from None
        if not isinstance(item, dict):
            raise SettingsError(f"redaction filters: not an object: {item!r}")
        unknown = set(item) - {"match", "redact", "binary_regex", "binaryRegex"}
        if unknown:
            raise SettingsError(f"redaction filters: unknown key: {', '.join(sorted(unknown))}")
        found.append(
            _Filter(
                _compile(item.get("redact", [])),
                _compile(item.get("binary_regex", item.get("binaryRegex", []))),
            )
        )
    return found


def _compile(patterns: object) -> tuple[re2.Pattern, ...]:
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        raise SettingsError(f"redaction filters: not a list of regexes: {patterns!r}")
    import re2  # not where nothing is redacted

    options = re2.Options()
    options.log_errors = False
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re2.compile(pattern, options=options))
        except re2.error as error:
            cause = error.args[0] if error.args else ""
            text = cause.decode() if isinstance(cause, bytes) else str(cause)
            raise SettingsError(f"redaction filters: regex {pattern!r}: {text}") from None
    return tuple(compiled)
