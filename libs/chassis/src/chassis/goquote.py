"""Texts escaped as Go escapes them in string literals (strconv.Quote)."""

from __future__ import annotations

import re

_ESCAPES = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
    '"': r"\"",
}
_TO_ESCAPE = re.compile(r"[^ !#-\[\]-~]")


def escaped(text: str) -> str:
    """Return ``text`` with escapes for quotes, controls and what cannot be printed."""
    return _TO_ESCAPE.sub(_escape, text)


def escaped_bytes(raw: bytes) -> str:
    """Return ``raw`` as `escaped`; bytes that are not UTF-8 are escaped one by one."""
    return escaped(raw.decode(errors="surrogateescape"))


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    if char in _ESCAPES:
        return _ESCAPES[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # one byte of a text that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if char.isprintable():
        return char
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
