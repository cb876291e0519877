"""Filters on texts: Equal, Prefix, Postfix, SubString and their opposites.

A text lies in the record, its length in a variable. Each filter becomes a function of its own that
compares eight bytes at a time: a few values one after the other, many by a nested ``switch``, more
than CHAIN_MAX prefixes and suffixes by a longest-prefix trie.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from collector.policies.ctext import all_of, any_of, comment, quoted
from collector.policies.selectors.automaton import Automaton
from tracingpolicy.operators import OPERATORS, Operator
from tracingpolicy.selectors import ValueFilter

if TYPE_CHECKING:
    from collector.policies.arguments.base import Unit

CHAIN_MAX = 8  # values that are compared one after the other
UNROLLED_MAX = 64  # prefixes and suffixes that are compared in code
PREFIX_MAX = 255  # bytes of a text that a prefix is looked for in
POSTFIX_MAX = 127
_SUBSTRINGS = (Operator.SUBSTRING, Operator.SUBSTRING_IGNORE_CASE)


def condition(text: str, length: str, one: ValueFilter, unit: Unit) -> str:
    """Return the C condition of a filter on the text at ``text``, of ``length`` bytes."""
    values = tuple(value for value in one.values if isinstance(value, bytes))
    positive = OPERATORS[one.operator].opposite or one.operator
    if positive in _SUBSTRINGS:
        return _substring(text, length, values, positive, unit)
    found = f"{_function(positive, values, unit)}(s, {text}, {length})"
    return found if positive is one.operator else f"!{found}"


def _function(operator: Operator, values: tuple[bytes, ...], unit: Unit) -> str:
    """Add the function that compares a text with values; return its name."""
    if operator is Operator.EQUAL:
        name, body = unit.unique("text_equals"), _equal(values)
    elif operator is Operator.PREFIX:
        name, body = unit.unique("text_begins"), _prefix(values, unit)
    elif operator is Operator.BELOW:
        name, body = unit.unique("text_is_below"), _below(values)
    else:
        name, body = unit.unique("text_ends"), _postfix(values, unit)
    unit.functions.append(
        f"static __always_inline bool {name}(struct scratch *s, const char *text, u32 len)\n{{\n"
        + "\n".join(body)
        + "\n}"
    )
    return name


def words(value: bytes) -> list[tuple[int, int, int]]:
    """Return (offset, mask, number) of each eight bytes of a value; the last may be shorter."""
    return [
        (
            at,
            (1 << 8 * len(value[at : at + 8])) - 1,
            int.from_bytes(value[at : at + 8], "little"),
        )
        for at in range(0, len(value), 8)
    ]


def same_bytes(text: str, value: bytes) -> list[str]:
    """Return C conditions that are all true where memory begins with ``value``."""
    return [_same_word(text, *one) for one in words(value)]


def _same_word(text: str, at: int, mask: int, number: int) -> str:
    if mask == (1 << 64) - 1:
        return f"word({text}, {at}) == {number:#x}ull"
    return f"(word({text}, {at}) & {mask:#x}ull) == {number:#x}ull"


def _equal(values: Iterable[bytes]) -> list[str]:
    by_length: dict[int, list[bytes]] = defaultdict(list)
    for value in sorted(set(values)):
        by_length[len(value)].append(value)
    lines = ["\tswitch (len) {"]
    for length, same in sorted(by_length.items()):
        lines += [f"\tcase {length}:", *_equal_of_length(same, 0, 2)]
    return [*lines, "\tdefault:", "\t\treturn false;", "\t}"]


def _equal_of_length(values: list[bytes], at: int, depth: int) -> list[str]:
    """Return statements that compare from byte ``at`` on with values of one length."""
    indent = "\t" * depth
    if len(values) <= CHAIN_MAX:
        tests = [
            all_of(_same_word("text", at + o, mask, n) for o, mask, n in words(value[at:]))
            for value in values
        ]
        notes = [f"{indent}{comment(quoted(value))}" for value in values]
        return [*notes, f"{indent}return {any_of(tests)};"]
    if at >= len(values[0]):
        return [f"{indent}return true;"]
    by_word: dict[int, list[bytes]] = defaultdict(list)
    for value in values:
        by_word[int.from_bytes(value[at : at + 8], "little")].append(value)
    mask = (1 << 8 * min(8, len(values[0]) - at)) - 1
    lines = [f"{indent}switch (word(text, {at}) & {mask:#x}ull) {{"]
    for number, same in sorted(by_word.items()):
        lines += [f"{indent}case {number:#x}ull:", *_equal_of_length(same, at + 8, depth + 1)]
    return [*lines, f"{indent}default:", f"{indent}\treturn false;", f"{indent}}}"]


def _shortest(values: Iterable[bytes], *, suffix: bool = False) -> list[bytes]:
    """Return the values without those that another one implies."""
    kept: list[bytes] = []
    known: set[bytes] = set()
    for value in sorted(set(values), key=lambda one: (len(one), one)):
        parts = (value[len(value) - n :] if suffix else value[:n] for n in range(len(value) + 1))
        if not any(part in known for part in parts):
            known.add(value)
            kept.append(value)
    return kept


def _prefix(values: tuple[bytes, ...], unit: Unit) -> list[str]:
    kept = [value for value in _shortest(values) if len(value) <= PREFIX_MAX]
    if len(kept) > UNROLLED_MAX:
        return _by_trie(kept, unit, "begins")
    lines = []
    for value in kept:
        test = all_of([f"len >= {len(value)}", *same_bytes("text", value)])
        lines += [
            f"\t{comment(quoted(value))}",
            f"\tif {_in_parentheses(test)}",
            "\t\treturn true;",
        ]
    return [*lines, "\treturn false;"]


def _below(values: tuple[bytes, ...]) -> list[str]:
    """A path that equals a value, or begins with it and a slash."""
    lines = []
    # By length: then what the verifier knows of the text's length is the same on most of the ways
    # to a compare, and it checks the rest once: 85 values take it 6,700 instructions, not 593,000.
    for value in sorted(set(values), key=lambda one: (len(one), one)):
        tests = [f"len >= {len(value)}", *same_bytes("text", value)]
        if value != b"/":
            size = len(value)
            tests.append(f"(len == {size} || text[{size}] == '/')")
        lines += [
            f"\t{comment(quoted(value))}",
            f"\tif {_in_parentheses(all_of(tests))}",
            "\t\treturn true;",
        ]
    return [*lines, "\treturn false;"]


def _postfix(values: tuple[bytes, ...], unit: Unit) -> list[str]:
    kept = [value for value in _shortest(values, suffix=True) if len(value) <= POSTFIX_MAX]
    if len(kept) > UNROLLED_MAX:
        return _by_trie([value[::-1] for value in kept], unit, "ends")
    lines = []
    for value in kept:
        end = f"tail(text, len, {len(value)})"
        test = all_of([f"len >= {len(value)}", *same_bytes(end, value)])
        lines += [
            f"\t{comment(quoted(value))}",
            f"\tif {_in_parentheses(test)}",
            "\t\treturn true;",
        ]
    return [*lines, "\treturn false;"]


def _in_parentheses(test: str) -> str:
    return test if test.startswith("(") and test.endswith(")") else f"({test})"


def trie_keys(values: Iterable[bytes], size: int) -> dict[bytes, bytes]:
    """Return the keys of a longest-prefix trie: length in bits, then the bytes."""
    return {
        (8 * len(value)).to_bytes(4, "little") + value.ljust(size, b"\0"): b"\1" for value in values
    }


def _by_trie(values: list[bytes], unit: Unit, how: str) -> list[str]:
    size = next(n for n in (16, 32, 64, 128, 256) if n >= max(map(len, values)))
    macro = f"MAP_{unit.unique('trie')}".upper()
    unit.maps.lpm(macro, macro.lower()[4:], 4 + size, trie_keys(values, size))
    unit.headers.add("tries.h")
    return [f"\treturn {how}_in_trie(s, MAP({macro}), text, len, {size});"]


def _substring(
    text: str, length: str, values: tuple[bytes, ...], operator: Operator, unit: Unit
) -> str:
    machine = Automaton.of(values, ignore_case=operator is Operator.SUBSTRING_IGNORE_CASE)
    macro = f"MAP_{unit.unique('automaton')}".upper()
    unit.maps.array(macro, macro.lower()[4:], machine.table())
    return (
        f"contains({text}, {length}, MAP_VALUE({macro}), {machine.classes}, {machine.mask:#x}, "
        f"{machine.accepting})"
    )
