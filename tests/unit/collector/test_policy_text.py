"""Pieces of the C text of policies, without a kernel: what they mean."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.policies.ctext import comment, negated, signed, unsigned
from collector.policies.dispatch import Dispatcher
from collector.policies.headers import expanded
from collector.policies.maps import SYSCALL_DIRECTION, SYSCALLS_MAX
from collector.policies.numbers import Number, bind
from collector.policies.selectors.automaton import Automaton
from collector.policies.selectors.numbers import intervals
from collector.policies.selectors.texts import same_bytes, trie_keys, words
from tracingpolicy.values import Range

SMALL = st.binary(max_size=6).map(lambda raw: bytes(b"abAB"[byte % 4] for byte in raw))


@given(st.lists(SMALL, min_size=1, max_size=6), st.lists(SMALL).map(b"".join))
def test_automaton_finds_what_python_finds(texts, haystack):
    assert Automaton.of(texts).matches(haystack) == any(text in haystack for text in texts)
    lowered = [text.lower() for text in texts]
    assert Automaton.of(texts, ignore_case=True).matches(haystack) == any(
        text in haystack.lower() for text in lowered
    )


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=5), st.binary())
def test_automaton_stays_inside_its_table(texts, haystack):
    machine = Automaton.of(texts)
    assert machine.matches(haystack) == any(text in haystack for text in texts)
    assert len(machine.table()) == 256 + 2 * (machine.mask + 1)
    assert max(machine.next) * machine.classes + machine.classes - 1 <= machine.mask


@given(st.text())
def test_no_text_leaves_its_comment(text):
    found = comment(text)
    assert found.startswith("/* ")
    assert found.endswith(" */")
    assert "*/" not in found[3:-2]
    assert "/*" not in found[2:]
    assert "\n" not in found
    assert not found[3:-3].endswith("\\")


@given(st.binary(min_size=1, max_size=40))
def test_words_cover_a_text(value):
    found = b"".join(
        number.to_bytes(8, "little")[: mask.bit_length() // 8] for _, mask, number in words(value)
    )
    assert found == value
    assert len(same_bytes("text", value)) == len(words(value))


NUMBERS = st.integers(-20, 20)
RANGES = st.tuples(NUMBERS, NUMBERS).map(lambda pair: Range(*sorted(pair)))


@given(st.lists(NUMBERS | RANGES), NUMBERS)
def test_intervals_hold_the_same_numbers(values, number):
    found = intervals(values)
    inside = any(
        one.low <= number <= one.high if isinstance(one, Range) else one == number for one in values
    )
    assert any(low <= number <= high for low, high in found) == inside
    assert all(a[1] + 1 < b[0] for a, b in pairwise(found))


def test_trie_keys_have_their_length_in_bits():
    assert trie_keys([b"ab"], 4) == {b"\x10\0\0\0ab\0\0": b"\1"}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("a == 1", "!(a == 1)"),
        ("(a || b)", "!(a || b)"),
        ("(a) || (b)", "!((a) || (b))"),
        ("true", "false"),
    ],
)
def test_negation_binds_the_whole_condition(condition, expected):
    assert negated(condition) == expected


def test_literals_keep_their_value():
    assert signed(-(1 << 63)) == "(-0x7fffffffffffffffll - 1)"
    assert int(unsigned(-1).removesuffix("ull"), 16) == (1 << 64) - 1


def test_constants_are_bound_in_place():
    """A load with source register 15 becomes a plain one; maps and others stay."""

    def load(source: int, number: int) -> bytes:
        return bytes([0x18, source << 4 | 3, 0, 0]) + number.to_bytes(4, "little") + bytes(8)

    before = load(15, Number.HOOK) + load(1, 3) + bytes([0x95]) + bytes(7)
    after = bind(before, {Number.HOOK: 0x1122334455667788})
    assert after[:4] == bytes([0x18, 3, 0, 0])
    assert after[4:8] + after[12:16] == (0x1122334455667788).to_bytes(8, "little")
    assert after[16:] == before[16:]
    with pytest.raises(KeyError):
        bind(before, {})


def test_calls_of_kernel_functions_are_completed():
    helper, function = bytes.fromhex("8500000008000000"), bytes.fromhex("85000000c5ff0040")
    other = bytes.fromhex("8510000000000040")  # a call inside the program
    assert bind(helper + function + other, {}) == (
        helper + bytes.fromhex("85200000c5ff0000") + other
    )


# --- headers of a text


@pytest.fixture
def headers(tmp_path):
    (tmp_path / "tracing").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "low.h").write_text(
        "/* Two\n * lines. */\n#pragma once\n\n#define TWICE(x) doubled(x)\n"
        "static __always_inline int doubled(int x)\n{\n\treturn sum(x, x);\n}\n\n"
        "static __always_inline int sum(int a, int b)\n{\n\treturn a + b;\n}\n\n"
        "static __always_inline int unused(int a)\n{\n\treturn -a;\n}\n\n"
        "struct last {\n\tint unused;\n};\n"
    )
    (tmp_path / "tracing" / "high.h").write_text(
        '#pragma once\n\n#include "low.h"\n\n'
        "static __always_inline int higher(int x)\n{\n\treturn unused(x);\n}\n"
    )
    return tmp_path


def test_functions_that_nothing_calls_are_left_out(headers):
    text = expanded(["high.h"], "int hook0(void) { struct last unused; return 0; }", headers)
    assert "higher" not in text
    assert "unused(int" not in text
    assert "doubled(int x)" in text  # a macro names it, and it calls the next
    assert "sum(int a, int b)" in text
    assert text.index("lib/low.h") < text.index("tracing/high.h") < text.index("policy.c")


def test_functions_are_there_for_those_that_call_them(headers):
    text = expanded(["high.h"], "int hook0(void) { return higher (1); }", headers)
    assert "higher(int x)" in text
    assert "unused(int a)" in text


def test_lines_of_headers_keep_their_numbers(headers):
    text = expanded(["low.h"], "", headers)
    lines = text.splitlines()
    assert lines[0] == '#line 1 "lib/low.h"'
    written = (headers / "lib" / "low.h").read_text().splitlines()
    assert lines[1 + written.index("struct last {")] == "struct last {"


# --- levels of system calls


def test_every_level_leads_to_the_next_one_in_use(monkeypatch):
    array = SimpleNamespace(update=lambda key, value: None, delete=lambda key: None)
    levels = memoryview(bytearray(2 * SYSCALL_DIRECTION))
    dispatcher = Dispatcher(array, array, array, levels)
    monkeypatch.setattr(Dispatcher, "_attach", lambda self, at_return: None)

    def following(at_return=False):
        start = 7 + SYSCALL_DIRECTION * at_return
        return [levels[start + level * SYSCALLS_MAX] for level in range(6)]

    for level in (0, 1, 4):
        dispatcher.add(7, level, 1, at_return=False)
    assert following() == [1, 2, 5, 5, 5, 0]
    dispatcher.remove(7, 1, at_return=False)
    assert following() == [1, 5, 5, 5, 5, 0]
    assert dispatcher.take_level(7, at_return=False) == 1
    dispatcher.add(7, 2, 1, at_return=True)
    assert following(at_return=True) == [3, 3, 3, 0, 0, 0]
    assert following() == [1, 5, 5, 5, 5, 0]
    dispatcher.remove(7, 2, at_return=True)
    assert following(at_return=True) == [0] * 6
    assert sum(map(bool, levels)) == 5


def test_program_for_every_call_stands_behind_those_of_each_call(monkeypatch):
    programs = {}
    array = SimpleNamespace(update=programs.__setitem__, delete=programs.pop)
    levels = memoryview(bytearray(2 * SYSCALL_DIRECTION))
    dispatcher = Dispatcher(array, array, array, levels)
    attached = []
    monkeypatch.setattr(Dispatcher, "_attach", lambda self, at_return: None)
    monkeypatch.setattr(Dispatcher, "_detach", lambda self, at_return: attached.append(at_return))

    def way(number):
        """The levels that a call goes through."""
        found, level = [], 0
        while following := levels[number + level * SYSCALLS_MAX]:
            found.append(following - 1)
            level = following
        return found

    dispatcher.add(7, 0, 1, at_return=False)
    first = dispatcher.take_level_everywhere()
    dispatcher.add_everywhere(first, 2)
    second = dispatcher.take_level_everywhere()
    dispatcher.add_everywhere(second, 3)
    assert way(7) == [0, second, first]
    assert way(8) == way(SYSCALLS_MAX - 1) == [second, first]
    dispatcher.remove_everywhere(first)
    assert dispatcher.take_level_everywhere() == first
    assert (way(7), way(8)) == ([0, second], [second])
    dispatcher.remove_everywhere(second)
    assert (way(7), way(8)) == ([0], [])
    assert attached == []
    dispatcher.remove(7, 0, at_return=False)
    assert attached == [False]
    assert not any(levels)
    assert programs == {}
