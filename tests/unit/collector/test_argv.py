"""The exact argument list beside redaction: never more than the text shows."""

import pytest

from collector.metadata.enricher import Enricher
from collector.metadata.redaction import Redactor
from collector.records.process import Credentials, ExecRecord

NAMESPACES = tuple(range(1, 11))


def image_of(argv, redact=""):
    enricher = Enricher(NAMESPACES, argv=True, redactor=Redactor(redact))
    record = ExecRecord(
        flags=1, ktime_ns=5, pid=7, nspid=7, parent_ktime_ns=1, parent_pid=1, auid=0,
        replaced_ktime_ns=0, inode=1, nlink=1, secureexec=0,
        credentials=Credentials(0, 0, 0, 0, 0, 0, 0, 0), ns=NAMESPACES, start_boottime_ns=5,
        arg_start=1, filename=b"/bin/x", cwd=b"/srv", cgroup=b"",
        args=b"".join(a + b"\0" for a in argv), envs=b"",
    )  # fmt: skip
    return enricher.from_record(record)[0]


def test_arguments_are_told_byte_for_byte():
    argv = (b"x", b"", b"\xff\xfe", b"two words", b"")
    assert image_of(argv).argv == argv


def test_redaction_leaves_other_arguments_byte_for_byte():
    image = image_of([b"x", b"\xff", b"--key=abc"], r'{"redact": ["--key=(\\S+)"]}')
    assert image.argv == (b"x", b"\xff", b"--key=*****")


@pytest.mark.parametrize(
    "argv",
    [[b"x", b"--password", b"hush"], [b"x", b"--password", b"hush", b"--password=other"]],
)
def test_a_secret_that_only_the_joined_text_gives_away_leaves_no_list(argv):
    image = image_of(argv, r'{"redact": ["--password[ =](\\S+)"]}')
    assert "hush" not in image.arguments
    assert image.argv == ()
