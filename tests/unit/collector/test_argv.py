"""The exact argument list with redaction: it never shows more than the text."""

import pytest

from collector.metadata.enricher import Enricher
from collector.metadata.redaction import Redactor
from collector.records.layouts import ExecRecord, Namespaces

NAMESPACES = Namespaces(*range(1, 11))


def image_of(argv, redact=""):
    enricher = Enricher(NAMESPACES, argv=True, redactor=Redactor(redact))
    numbers = dict.fromkeys(ExecRecord._fields[:-5], 0)
    namespaces = {f"ns_{name}": inode for name, inode in NAMESPACES._asdict().items()}
    args = b"".join(a + b"\0" for a in argv)
    record = ExecRecord(**(numbers | namespaces), filename=b"/bin/x", cwd=b"/srv", args=args)
    return enricher.from_record(record)[0]


def test_arguments_are_reported_byte_for_byte():
    argv = (b"x", b"", b"\xff\xfe", b"two words", b"")
    assert image_of(argv).argv == argv


def test_redaction_leaves_other_arguments_byte_for_byte():
    image = image_of([b"x", b"\xff", b"--key=abc"], r'{"redact": ["--key=(\\S+)"]}')
    assert image.argv == (b"x", b"\xff", b"--key=*****")


@pytest.mark.parametrize(
    "argv",
    [[b"x", b"--password", b"hush"], [b"x", b"--password", b"hush", b"--password=other"]],
)
def test_secret_in_the_joined_text_alone_empties_the_list(argv):
    image = image_of(argv, r'{"redact": ["--password[ =](\\S+)"]}')
    assert "hush" not in image.arguments
    assert image.argv == ()
