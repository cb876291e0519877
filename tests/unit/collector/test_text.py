"""The texts of a process, compared with a second, plain implementation of the rules."""

import posixpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector.records import text
from collector.records.process import (
    FLAG_DATA_ARGS,
    FLAG_DATA_FILENAME,
    FLAG_ERROR_CWD,
    FLAG_NO_CWD,
    FLAG_PROCFS,
    FLAG_ROOT_CWD,
)

ROOT, HERE = b"/", b"/srv"

# ---- the rules, once more


def valid_utf8(raw):
    """Each run of bytes that are no UTF-8 becomes one U+FFFD."""
    out, at, in_run = "", 0, False
    while at < len(raw):
        for size in (1, 2, 3, 4):
            try:
                out += raw[at : at + size].decode()
            except UnicodeDecodeError:
                continue
            at, in_run = at + size, False
            break
        else:
            out += "" if in_run else "\ufffd"
            at, in_run = at + 1, True
    return out


def rendered(argv_tail, cwd):
    """Arguments behind argv[0] and the directory as one string; None for a cwd that is not sent."""
    tokens = [*argv_tail, *([] if cwd is None else [cwd])]
    whole = valid_utf8(b"\0".join(tokens)).rstrip("\0").split("\0")
    if cwd is not None:
        whole.pop()
    out = ""
    for token in whole:
        if " " in token:
            out = out + " " + '"' + token + '"'
        elif out == "":
            out = token
        else:
            out = out + " " + token
    return out


def cleaned(path):
    """Shortest name of a path by lexical rules alone."""
    parts = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part != ".." or not path.startswith("/"):
            parts.append(part)
    return ("/" if path.startswith("/") else "") + "/".join(parts)


argument = st.binary(max_size=12).map(lambda b: b.replace(b"\0", b""))
argument_with_spaces = st.one_of(
    argument, st.lists(argument, max_size=3).map(b" ".join), st.sampled_from([b"", b" ", b'"'])
)
component = st.binary(min_size=1, max_size=8).map(
    lambda b: b.replace(b"\0", b"x").replace(b"/", b"y")
)
directory = st.lists(component, min_size=1, max_size=5).map(lambda c: b"/" + b"/".join(c))

# ---- arguments


@pytest.mark.parametrize(
    ("argv_tail", "cwd", "expected"),
    [
        ([], HERE, ""),
        ([b"-l"], HERE, "-l"),
        ([b"-l", b"/srv"], HERE, "-l /srv"),
        ([b"a b", b"c"], HERE, ' "a b" c'),
        ([b"c", b"a b"], HERE, 'c "a b"'),
        ([b"a b"], ROOT, ' "a b"'),
        ([b" "], HERE, ' " "'),
        ([b'say "hi"'], HERE, ' "say "hi""'),
        ([b'"', b"\\", b"\t", b"\n"], HERE, '" \\ \t \n'),
        ([b"a\tb"], HERE, "a\tb"),
        ([b"a", b"", b"b"], HERE, "a  b"),
        ([b"a", b"", b"", b"b"], HERE, "a   b"),
        ([b"", b"", b"a"], HERE, "a"),
        ([b"", b"a b"], HERE, ' "a b"'),
        ([b""], HERE, ""),
        ([b"", b""], HERE, ""),
        ([b"a", b""], HERE, "a "),
        ([b"a", b""], ROOT, "a"),
        ([b"a", b"", b""], HERE, "a  "),
        ([b"a", b"", b""], ROOT, "a"),
        ([b"a b", b"", b"c"], HERE, ' "a b"  c'),
        ([b"\xff"], HERE, "\ufffd"),
        ([b"\xff\xfe\xfd"], HERE, "\ufffd"),
        ([b"a\xffb\xfe"], HERE, "a\ufffdb\ufffd"),
        ([b"\xff", b"\xff"], HERE, "\ufffd \ufffd"),
        ([b"\xe2\x82"], HERE, "\ufffd"),  # cut in the middle of a character
        ([b"\xed\xa0\x80"], HERE, "\ufffd"),  # a surrogate
        ([b"\xc0\x80"], HERE, "\ufffd"),  # overlong
        (["é\u00a0x".encode()], HERE, "é\u00a0x"),  # no ASCII space: no quotes
    ],
)
def test_arguments_are_joined_by_the_rules(argv_tail, cwd, expected):
    args = b"".join(a + b"\0" for a in argv_tail)
    flags = FLAG_ROOT_CWD if cwd == ROOT else 0
    raw = b"" if cwd == ROOT else cwd
    assert text.arguments(args, raw, flags) == (expected, cwd.decode())


@given(st.lists(argument_with_spaces, max_size=6), directory | st.none())
@example([b""], None)
@example([b"a", b""], None)
def test_any_arguments_render_by_the_rules(argv_tail, cwd):
    args = b"".join(a + b"\0" for a in argv_tail)
    flags = FLAG_ROOT_CWD if cwd is None else 0
    arguments, directory = text.arguments(args, cwd or b"", flags)
    assert arguments == rendered(argv_tail, cwd)
    assert directory == ("/" if cwd is None else valid_utf8(cwd))


@given(st.binary(max_size=64), st.binary(max_size=16), st.integers(0, 1 << 26))
def test_no_bytes_make_arguments_fail(args, cwd, flags):
    arguments, directory = text.arguments(text.skip_argv0(args), cwd, flags)
    arguments.encode()
    directory.encode()


@pytest.mark.parametrize(
    ("flags", "cwd", "expected"),
    [
        (FLAG_NO_CWD, b"/srv", ""),
        (FLAG_NO_CWD | FLAG_ROOT_CWD, b"", ""),
        (FLAG_ERROR_CWD, b"", ""),
        (FLAG_ERROR_CWD | FLAG_ROOT_CWD, b"", ""),
        (FLAG_ROOT_CWD, b"", "/"),
        (FLAG_PROCFS, b" /srv/x \n", "/srv/x"),
        (0, b" /srv/x ", " /srv/x "),
        (0, b"/srv (deleted)", "/srv (deleted)"),
    ],
)
def test_flags_decide_the_directory(flags, cwd, expected):
    assert text.arguments(b"-x\0", cwd, flags) == ("-x", expected)


@given(st.binary(max_size=40))
def test_invalid_utf8_runs_become_one_replacement_each(raw):
    assert text.utf8(raw) == valid_utf8(raw)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (b"", b""),
        (b"true\0", b""),
        (b"\0", b""),
        (b"true\0-a\0", b"-a\0"),
        (b"x" * 4095 + b"\0-a\0", b"-a\0"),
        (b"x" * 4096 + b"\0-a\0", b"\0-a\0"),  # the rest of a longer argv[0] looks like arguments
        (b"x" * 5000 + b"\0-a\0", b"x" * 904 + b"\0-a\0"),
        (b"no NUL at all", b""),
    ],
)
def test_argv0_is_skipped_as_a_string_of_at_most_4096_bytes(args, expected):
    assert text.skip_argv0(args) == expected


# The message area has 1024 bytes: 64 of header, the name without NUL or 32 for a long one.
@pytest.mark.parametrize(
    ("filename", "args", "expected"),
    [
        (b"/bin/true", b"x" * 949 + b"\0", 0),
        (b"/bin/true", b"x" * 950 + b"\0", FLAG_DATA_ARGS),
        (b"n" * 253, b"", 0),
        (b"n" * 254, b"", FLAG_DATA_FILENAME),
        (b"n" * 253, b"x" * 705 + b"\0", 0),
        (b"n" * 253, b"x" * 706 + b"\0", FLAG_DATA_ARGS),
        (b"n" * 254, b"x" * 926 + b"\0", FLAG_DATA_FILENAME),
        (b"n" * 254, b"x" * 927 + b"\0", FLAG_DATA_FILENAME | FLAG_DATA_ARGS),
        (b"n" * 4095, b"x" * (1 << 20), FLAG_DATA_FILENAME | FLAG_DATA_ARGS),
    ],
)
def test_what_does_not_fit_the_message_area_is_flagged(filename, args, expected):
    assert text.size_flags(filename, args) == expected


# ---- binary


@pytest.mark.parametrize(
    ("filename", "cwd", "expected"),
    [
        (b"/bin/true", "/srv", "/bin/true"),
        (b"/bin/../bin//./true", "/srv", "/bin/../bin//./true"),  # absolute: not cleaned
        (b"//bin/true", "/srv", "//bin/true"),
        (b"./true", "/srv", "/srv/true"),
        (b"../true", "/srv", "/true"),
        (b"../../../true", "/srv", "/true"),
        (b"a//b/./c/../d", "/srv", "/srv/a/b/d"),
        (b"true", "/", "/true"),
        (b"true", "", "true"),
        (b"./x/../true", "", "true"),
        (b"\xff/true", "/srv", "/srv/\ufffd/true"),
        (b"/\xff\xfe", "/srv", "/\ufffd"),
        (b"", "/srv", "/srv"),
        (b"", "/.", "/"),
        (b"", "/srv/../a/", "/a"),
        (b"", "", ""),
        (b"/dev/fd/5", "/srv", "/dev/fd/5"),
        (b"x y", "/a b", "/a b/x y"),
    ],
)
def test_relative_names_are_joined_with_the_directory(filename, cwd, expected):
    assert text.binary(filename, cwd) == expected


@given(st.lists(component | st.sampled_from([b".", b"..", b""]), max_size=6), directory)
@example([], b"/.")
def test_any_relative_name_is_cleaned_lexically(parts, cwd):
    name = b"/".join(parts)
    base = valid_utf8(cwd)
    path = text.binary(name, base)
    if name.startswith(b"/"):
        assert path == valid_utf8(name)
    else:
        assert path == cleaned(f"{base}/{valid_utf8(name)}")
        assert path == posixpath.normpath(path)


@given(st.binary(max_size=40), st.text(max_size=10).filter(lambda t: "\0" not in t))
def test_no_name_makes_binary_fail(filename, cwd):
    assert isinstance(text.binary(filename, cwd), str)


# ---- flags and signals

FLAG_ORDER = """
1 execve, 4 procFS, 8 errorEnvs, 10 truncArgs, 40 miss, 100 errorFilename, 200 errorArgs, 800 nocwd,
1000 rootcwd, 2000 errorCWD, 4000 clone, 10000 errorCgroupName, 200000 errorCgroupID,
40000 errorCgroupSubsysCgrp, 80000 errorCgroupSubsys, 100000 errorCgroups,
400000 errorPathResolutionCwd, 800000 dataFilename, 1000000 dataArgs, 2000000 inInitTree
"""
FLAGS = [
    (int(item.split()[0], 16), item.split()[1]) for item in FLAG_ORDER.replace("\n", " ").split(",")
]


@given(st.sets(st.sampled_from(FLAGS)), st.sets(st.sampled_from([0x2, 0x400, 0x20000])))
def test_flags_print_in_their_fixed_order(chosen, unnamed):
    bits = sum(bit for bit, _ in chosen) | sum(unnamed)
    expected = [name for bit, name in FLAGS if (bit, name) in chosen]
    assert text.flags(bits) == " ".join(expected)


def test_flag_words_of_ordinary_lives():
    assert text.flags(0x4001) == "execve clone"
    assert text.flags(0x5001) == "execve rootcwd clone"
    assert text.flags(0x3004) == "procFS rootcwd errorCWD"
    assert text.flags(0x1004001) == "execve clone dataArgs"
    assert text.flags(0x2004001) == "execve clone inInitTree"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0, ""),
        (0x100, ""),
        (0xFF00, ""),
        (9, "SIGKILL"),
        (15, "SIGTERM"),
        (11 | 0x80, "SIGSEGV"),
        (6 | 0x80, "SIGABRT"),
        (0x80, ""),
        (1, "SIGHUP"),
        (16, "SIGSTKFLT"),
        (29, "SIGIO"),
        (30, "SIGPWR"),
        (31, "SIGSYS"),
        (32, ""),
        (34, ""),  # SIGRTMIN
        (64, ""),
        (0x0100 | 9, "SIGKILL"),
    ],
)
def test_signals_have_their_linux_names(code, name):
    assert text.signal_name(code) == name


# ---- container ids

ID = "0123456789abcdef" * 4
SHORT = ID[:31]


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        (ID, SHORT),  # docker, cgroupfs
        (f"docker-{ID}.scope", SHORT),  # docker, systemd
        (f"cri-containerd-{ID}.scope", SHORT),
        (f"kubepods-burstable-pod1_2.slice:cri-containerd:{ID}", SHORT),
        (f"crio-{ID}.scope", SHORT),
        (f"crio-conmon-{ID}.scope", SHORT),
        (f"libpod-{ID}.scope", SHORT),
        (f"/machine.slice/libpod-{ID}.scope/container", SHORT),
        (f"/libpod_parent/libpod-{ID}/container", SHORT),
        ("/machine.slice/other/container", ""),
        (f"docker-{ID}.service", ""),
        ("session-3.scope", ""),
        ("user@1000.service", ""),
        ("init.scope", ""),
        ("", ""),
        (ID[:32], ""),  # not cut, and too short
        (ID[:63], ""),
        ("g" * 64, "g" * 31),  # length decides, not the letters
        (("pod" + "a" * 57 + ":cri:" + ID)[:127], SHORT),
        ("x" * 80 + "-" + ID[:46], SHORT),  # 127 characters: cut by the kernel
        ("x" * 79 + "-" + ID[:46], ""),  # 126: all there is
        ("x" * 97 + "-" + ID[:29], ""),  # cut, but less than 31 left
        (f"/a/b/c/docker-{ID}.scope/syscont-cgroup-root", SHORT),
        (f"{ID}-init", SHORT),  # the first 64 characters are hexadecimal
    ],
)
def test_container_ids_are_found_in_cgroup_names(cgroup, expected):
    assert text.full_container_id(cgroup)[:31] == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (f"0::/system.slice/docker-{ID}.scope", SHORT),
        (f"12:pids:/docker/{ID}\n11:memory:/docker/{ID}", SHORT),
        (f"1:name=systemd:/kubepods/besteffort/pod1/{ID}", SHORT),
        (f"0::/machine.slice/libpod-{ID}.scope/container", SHORT),
        (f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope", SHORT),
        (f"4:memory:/actions/{ID}", SHORT),  # no name of a runtime: a hexadecimal leaf is enough
        (f"4:memory:/jobs/{ID[:32]}", SHORT),
        (f"4:memory:/jobs/{ID[:31]}", ""),  # an odd number of digits
        (f"4:memory:/jobs/{ID[:30]}", ""),
        ("0::/", ""),
        ("0::/user.slice/user-1000.slice/session-2.scope", ""),
        ("", ""),
    ],
)
def test_container_ids_are_found_in_proc_cgroup_files(lines, expected):
    assert text.procfs_container_id(lines)[:31] == expected


@given(st.text(max_size=200))
def test_no_cgroup_makes_the_container_rule_fail(cgroup):
    assert len(text.full_container_id(cgroup)[:31]) in (0, 31)
    assert isinstance(text.procfs_container_id(cgroup), str)
