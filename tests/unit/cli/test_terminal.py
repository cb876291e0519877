"""Colours, and output without control characters."""

import io

import pytest

from cli.terminal import Output, visible, wants_colour


class Tty(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("mode", "stream", "env", "wanted"),
    [
        ("auto", Tty(), {}, True),
        ("auto", io.StringIO(), {}, False),
        ("auto", Tty(), {"NO_COLOR": "1"}, False),
        ("auto", Tty(), {"NO_COLOR": ""}, True),
        ("auto", Tty(), {"TERM": "dumb"}, False),
        ("always", io.StringIO(), {"NO_COLOR": "1", "TERM": "dumb"}, True),
        ("never", Tty(), {}, False),
    ],
)
def test_colour(monkeypatch, mode, stream, env, wanted):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert wants_colour(mode, stream) is wanted


def test_escapes_have_the_shortest_form_that_is_exact():
    assert visible("\x00\x1b\x7f\x9b\u2028\U000e0041") == r"\x00\x1b\x7f\x9b\u2028\U000e0041"
    assert visible("a b ü") == "a b ü"


def test_characters_that_the_locale_lacks_become_escapes():
    stream = io.BytesIO()
    Output(stream, "iso-8859-1").write("ü世\n")
    assert stream.getvalue() == b"\xfc\\u4e16\n"
