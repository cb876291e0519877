"""Names, arguments and directories of real execs: any bytes go through the kernel unharmed."""

import os
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.conftest import execs_of
from kernel.test_lives import TRUE, only

pytestmark = pytest.mark.kernel

ODD = (
    b"",
    b" ",
    b"a b",
    b"\xff",
    b"\xe2\x82",
    "🚀".encode(),
    b"\n",
    b'"',
    b"\x1b[31m",
    b"x" * 5000,
)
ARGUMENT = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"")) | st.sampled_from(ODD)


def as_text(raw: bytes) -> str:
    """Return ``raw`` with U+FFFD for each run of bytes that are not UTF-8."""
    text, at = "", 0
    while at < len(raw):
        for size in (1, 2, 3, 4):
            try:
                text += raw[at : at + size].decode()
            except UnicodeDecodeError:
                continue
            at += size
            break
        else:
            text += "" if text.endswith(_BAD) else _BAD
            at += 1
    return text.replace(_BAD, "\ufffd")


_BAD = "\ud800"  # stands for a run while it may grow; no decoded text holds it


def rendered(argv: list[bytes], *, root: bool) -> str:
    """The rule of Tetragon, written down a second time."""
    words = [as_text(word) for word in argv]
    if root:  # no directory behind them: empty arguments at the end cannot be recognized
        while words and not words[-1]:
            words.pop()
    text = ""
    for word in words:
        if " " in word:
            text = f'{text} "{word}"'
        elif text == "":
            text = word
        else:
            text = f"{text} {word}"
    return text


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(argv=st.lists(ARGUMENT, max_size=8), root=st.booleans())
def test_any_arguments(full, argv, root):
    pid, _, events = full.run(TRUE, *argv, cwd="/" if root else "/usr")
    reported = only(execs_of(events, pid)).process
    assert list(reported.argv) == [TRUE.encode(), *argv]
    assert reported.arguments == rendered(argv, root=root)
    assert reported.cwd == ("/" if root else "/usr")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.binary(min_size=1, max_size=255))
def test_any_directory_and_name(plain, tmp_path_factory, name):
    name = name.replace(b"\0", b"").replace(b"/", b"") or b"x"
    if name in (b".", b".."):
        name = b"..."
    folder = os.fsencode(tmp_path_factory.mktemp("any")) + b"/" + name
    os.mkdir(folder)
    os.symlink(TRUE, folder + b"/run")
    pid, _, events = plain.run(b"./run", "x", cwd=folder)
    reported = only(execs_of(events, pid)).process
    expected = as_text(folder)
    assert reported.cwd == expected
    assert reported.binary == f"{expected}/run"
    assert reported.arguments == "x"


def test_no_arguments_at_all(plain, lives):
    pid, _, events = plain.run(lives, "no-argv")
    reported = execs_of(events, pid)[-1].process
    assert (reported.binary, reported.arguments) == (TRUE, "")


def test_a_first_argument_longer_than_what_is_skipped(full):
    pid, _, events = full.run(b"n" * 5000, "rest", executable=TRUE)
    reported = only(execs_of(events, pid)).process
    assert reported.binary == TRUE
    assert reported.arguments == "n" * (5000 - 4096) + " rest"
    assert reported.argv[0] == b"n" * 5000


def test_a_name_below_an_open_folder(plain, lives):
    pid, _, events = plain.run(lives, "execveat")
    reported = execs_of(events, pid)[-1].process
    assert reported.binary.startswith("/dev/fd/")
    assert reported.binary.endswith("/true")
    assert reported.arguments == "below"


def test_a_script_run_by_a_script(plain, tmp_path):
    (tmp_path / "inner").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "outer").write_text(f"#!{tmp_path}/inner an argument\n")
    for name in ("inner", "outer"):
        (tmp_path / name).chmod(0o755)
    pid, _, events = plain.run(tmp_path / "outer", "x")
    reported = only(execs_of(events, pid)).process
    assert reported.binary == f"{tmp_path}/outer"
    assert reported.arguments == f'{tmp_path}/inner "an argument" {tmp_path}/outer x'


def test_dots_in_a_relative_name_are_cleaned_and_in_an_absolute_one_kept(plain, tmp_path):
    (tmp_path / "sub").mkdir()
    os.symlink(TRUE, tmp_path / "run")
    pid, _, events = plain.run("./../sub/.././run", cwd=tmp_path / "sub")
    assert only(execs_of(events, pid)).process.binary == f"{tmp_path}/run"
    odd = f"{tmp_path}/sub/../run"
    pid, _, events = plain.run(odd)
    assert only(execs_of(events, pid)).process.binary == odd


def test_a_directory_deeper_than_the_longest_path(plain, tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):  # 25 names of 200 bytes: more than 4096
        os.mkdir("d" * 200, dir_fd=fd)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    pid, _, events = plain.run(TRUE, "deep", preexec_fn=lambda: os.fchdir(fd))
    os.close(fd)
    reported = only(execs_of(events, pid)).process
    assert reported.flags == "execve clone errorPathResolutionCwd"
    assert ("/" + "d" * 200 + reported.cwd[-201:]) in ("/" + "d" * 200) * 25
    assert len(reported.cwd) > 4000
    subprocess.run(["rm", "-rf", tmp_path / ("d" * 200)], check=True)


def test_a_thousand_directories_deep(plain, tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    pid, _, events = plain.run(TRUE, "deep", preexec_fn=lambda: os.fchdir(fd))
    os.close(fd)
    reported = only(execs_of(events, pid)).process
    assert reported.flags == "execve clone"
    assert reported.cwd == f"{tmp_path}" + "/d" * 1000
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_a_directory_whose_mount_was_removed(plain, tmp_path):
    mnt = tmp_path / "mnt"
    mnt.mkdir()
    script = (
        f"mount -t tmpfs none {mnt} && mkdir -p {mnt}/a/b && cd {mnt}/a/b && umount -l {mnt} "
        f"&& exec {TRUE} detached"
    )
    pid, _, events = plain.run("unshare", "-m", "/bin/sh", "-c", script)
    reported = execs_of(events, pid)[-1].process
    assert (reported.arguments, reported.cwd) == ("detached", "/a/b")
