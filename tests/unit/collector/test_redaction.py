"""Redaction: which texts of which binaries, and filters that cannot be read."""

import pytest

from chassis.errors import SettingsError
from collector.metadata.redaction import Redactor

OF_CURL = '{"redact": ["--token[= ](\\\\S+)"], "binary_regex": ["^/usr/bin/curl$", "wget"]}'


@pytest.mark.parametrize(
    ("binary", "redacted"),
    [("/usr/bin/curl", True), ("/opt/wget2", True), ("/usr/bin/curl2", False), ("/bin/ls", False),
     ("", False)],
)  # fmt: skip
@pytest.mark.parametrize("key", ["binary_regex", "binaryRegex"])
def test_filter_covers_only_its_binaries(key, binary, redacted):
    redactor = Redactor(OF_CURL.replace("binary_regex", key))
    expected = "--token=*****" if redacted else "--token=hush"
    assert redactor.redact(binary, ["--token=hush", "-v"]) == [expected, "-v"]


def test_filter_without_binaries_covers_all():
    assert Redactor('{"redact": ["(hush)"]}').redact("/bin/any", ["hush"]) == ["*****"]


def test_filters_apply_one_after_the_other():
    text = '{"redact": ["a(b)"]} {"redact": ["a\\\\*+(c)", "(x)(y)?"]}'
    assert Redactor(text).redact("", ["abc x xy"]) == ["a********** ***** **********"]


def test_without_filters_nothing_changes():
    assert not Redactor()
    assert Redactor().redact("/bin/any", ["hush"]) == ["hush"]
    assert not Redactor(" \n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"redacts": []}', "unknown key: redacts"),
        ('{"redact": "x"}', "not a list of regexes"),
        ('{"redact": [1]}', "not a list of regexes"),
        ('{"binary_regex": ["("]}', "regex '('"),
    ],
)
def test_filter_that_cannot_be_read_is_refused(text, reason):
    with pytest.raises(SettingsError) as caught:
        Redactor(text)
    assert reason in str(caught.value)
