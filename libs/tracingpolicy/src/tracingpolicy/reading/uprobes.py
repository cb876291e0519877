"""Elements of ``uprobes``: symbols, offsets, addresses, digests."""

from __future__ import annotations

import re

from tracingpolicy.model import Digest, HookKind, Symbol, Uprobe
from tracingpolicy.reading.context import HookContext
from tracingpolicy.reading.document import Node, whole_number
from tracingpolicy.reading.fields import U64, Fields
from tracingpolicy.reading.hooks import COMMON, HookReader, check_path, ignored, read_return
from tracingpolicy.reading.report import quoted

_KEYS = (
    *COMMON, "path", "symbols", "offsets", "addrs", "refCtrOffsets", "return", "returnArg", "data",
    "btfPath", "binaryDigests", "ignore",
)  # fmt: skip
_PLACES = ("symbols", "offsets", "addrs")
_SYMBOL = re.compile(r"[^\s+]+\Z")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+\Z")
# algorithm -> bytes of its values; a build id has the linker's length.
_DIGESTS = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64, "build-id": 0}
_DIGEST_FORM = "sha1:, sha256:, sha384:, sha512: or build-id: and hexadecimal digits"


def read_uprobe(reader: HookReader, node: Node, path: str, index: int) -> Uprobe:
    """Return an element of uprobes."""
    fields = Fields(reader.report, node, path, _KEYS, required=("path",))
    fields.not_empty("path")
    symbols = _symbols(fields)
    offsets = tuple(number for number, _ in fields.numbers("offsets", U64))
    addresses = tuple(number for number, _ in fields.numbers("addrs", U64))
    counters = tuple(number for number, _ in fields.numbers("refCtrOffsets", U64))
    _check_places(fields)
    returns, returned = read_return(fields, HookKind.UPROBE)
    hook = HookContext(reader.policy, HookKind.UPROBE, returned=returned, returns=returns)
    return Uprobe(
        path=check_path(fields, "path"),
        symbols=symbols,
        offsets=offsets,
        addresses=addresses,
        ref_ctr_offsets=counters,
        returns=returns,
        return_arg=returned,
        btf_path=check_path(fields, "btfPath"),
        digests=_digests(fields),
        ignore_digest_failure=ignored(fields, "digestVerificationFailure"),
        **reader.common(fields, index, hook),
    )


def _check_places(fields: Fields) -> None:
    given = [key for key in _PLACES if fields.items(key)]
    if any(fields.failed(key) for key in _PLACES):
        return
    if not given:
        fields.fail("the place in the program is missing", "", "one of symbols, offsets, addrs")
        return
    for key in given[1:]:
        fields.fail(f"{key} beside {given[0]}", key, "one of symbols, offsets, addrs")
    counters, places = len(fields.items("refCtrOffsets")), len(fields.items(given[0]))
    if counters and counters != places:
        message = f"{counters} reference counters for {places} {given[0]}"
        fields.fail(message, "refCtrOffsets", "one for each, 0 for none")


def _symbols(fields: Fields) -> tuple[Symbol, ...]:
    symbols = []
    for text, node in fields.texts("symbols"):
        name, plus, number = text.partition("+")
        offset = whole_number(number) if plus else 0
        if not _SYMBOL.match(name) or offset is None or not 0 <= offset <= U64:
            message = f"{fields.path}.symbols: {quoted(text)} is not a symbol"
            fields.report.add(node.position, message, "a name, or a name+0x10")
            continue
        symbols.append(Symbol(name, offset, text))
    return tuple(symbols)


def _digests(fields: Fields) -> tuple[Digest, ...]:
    digests = []
    for text, node in fields.texts("binaryDigests"):
        algorithm, colon, value = text.partition(":")
        algorithm = algorithm.lower()
        problem = ""
        if not colon or algorithm not in _DIGESTS:
            problem = f"{quoted(text)} is not a digest"
        elif not _HEX.match(value):
            problem = f"{quoted(value)} is not hexadecimal"
        elif _DIGESTS[algorithm] and len(value) != 2 * _DIGESTS[algorithm]:
            problem = f"{algorithm} has {2 * _DIGESTS[algorithm]} digits, not {len(value)}"
        if problem:
            path = f"{fields.path}.binaryDigests"
            fields.report.add(node.position, f"{path}: {problem}", _DIGEST_FORM)
        else:
            digests.append(Digest(algorithm, bytes.fromhex(value)))
    return tuple(digests)
