"""Every mistake of a document is reported at once, each with its line and column."""

from pathlib import Path

import pytest

from tracingpolicy import PolicyErrors, parse

# A case is a line "== TITLE", a document, a line "--" and the mistakes, each
# "LINE:COLUMN: MESSAGE (allowed: WHAT)".
_TEXT = (Path(__file__).parent / "mistakes.txt").read_text()


def cases():
    for case in _TEXT.removeprefix("== ").split("\n== "):
        title, _, rest = case.partition("\n")
        document, _, expected = rest.partition("\n--\n")
        yield pytest.param(document + "\n", expected.split("\n"), id=title)


@pytest.mark.parametrize(("document", "expected"), list(cases()))
def test_mistakes(document, expected):
    with pytest.raises(PolicyErrors) as caught:
        parse(document, "p.yaml")
    found = [str(one).removeprefix("p.yaml:") for one in caught.value.mistakes]
    assert found == [line for line in expected if line]


def test_mistakes_are_sorted_and_unique():
    with pytest.raises(PolicyErrors) as caught:
        parse("kind: Foo\nspec: {z: 1, a: 1}\nmetadata: {name: A}\n", "x")
    places = [(one.line, one.column) for one in caught.value.mistakes]
    assert places == sorted(places)
    assert str(caught.value).count("\n") == len(places) - 1


@pytest.mark.parametrize(
    ("document", "where", "what"),
    [
        (b"kind: \xff", "1:7", "the text is not valid UTF-8"),
        ("kind: a\nx: \x01", "2:4", "control characters are not allowed"),
        ("kind: \udc80", "1:7", "the text is not valid UTF-8"),
        ("[" * 60, "1:49", "nested deeper than 48 levels"),
        (b"x" * (5 << 20), "1:1", "at most 4194304"),
        ("{[a]: b}", "1:2", "a key is a list"),
        ("a: !!python/none x", "1:4", "does not fit"),
        ("a: !x [1]", "1:4", "tag !x is not supported"),
        ("a: {<<: 5}", "1:9", "<< merges mappings only"),
    ],
)
def test_invalid_documents_are_reported(document, where, what):
    with pytest.raises(PolicyErrors) as caught:
        parse(document, "p")
    found = [str(one) for one in caught.value.mistakes]
    assert any(one.startswith(f"p:{where}: ") and what in one for one in found)


def test_aliases_do_not_multiply_without_bound():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(PolicyErrors, match="more than 200000 values after aliases"):
        parse("\n".join(lines))
