"""The texts of a process in Tetragon's form: binary, arguments, flags, signal, container id.

Pure functions from kernel bytes to the strings of the public API. Some rules are odd (joined
arguments cannot be split again, an empty one may vanish). Clients rely on them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from functools import lru_cache

from collector.records.process import (
    FLAG_DATA_ARGS,
    FLAG_DATA_FILENAME,
    FLAG_ERROR_CWD,
    FLAG_NO_CWD,
    FLAG_PROCFS,
    FLAG_ROOT_CWD,
)

# Bit and name, in the order of printing.
_FLAG_NAMES = (
    (0x0000001, "execve"),
    (0x0000004, "procFS"),
    (0x0000008, "errorEnvs"),
    (0x0000010, "truncArgs"),
    (0x0000040, "miss"),
    (0x0000100, "errorFilename"),
    (0x0000200, "errorArgs"),
    (0x0000800, "nocwd"),
    (0x0001000, "rootcwd"),
    (0x0002000, "errorCWD"),
    (0x0004000, "clone"),
    (0x0010000, "errorCgroupName"),
    (0x0200000, "errorCgroupID"),
    (0x0040000, "errorCgroupSubsysCgrp"),
    (0x0080000, "errorCgroupSubsys"),
    (0x0100000, "errorCgroups"),
    (0x0400000, "errorPathResolutionCwd"),
    (0x0800000, "dataFilename"),
    (0x1000000, "dataArgs"),
    (0x2000000, "inInitTree"),
)

# Tetragon's message has 1024 bytes for name and arguments behind a header of 64; a file name of
# 254 bytes, and arguments that do not fit, travel apart: the descriptor left behind has 32.
_MESSAGE_AREA = 1024
_MESSAGE_HEADER = 64
_FILENAME_APART = 254
_DESCRIPTOR = 32
_ARGV0_MAX = 4096

_INVALID_RUN = re.compile("[\udc80-\udcff]+")


def utf8(raw: bytes) -> str:
    """Return ``raw`` as text, each run of bytes that are not UTF-8 replaced by one U+FFFD."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return _INVALID_RUN.sub("\ufffd", raw.decode(errors="surrogateescape"))


@lru_cache(4096)
def flags(bits: int) -> str:
    """Return the names of the set bits, joined by one space."""
    return " ".join(name for bit, name in _FLAG_NAMES if bits & bit)


def skip_argv0(args: bytes) -> bytes:
    """Return the argument area behind argv[0], of which at most 4096 bytes are skipped."""
    end = args.find(0, 0, _ARGV0_MAX)
    return args[_ARGV0_MAX:] if end < 0 else args[end + 1 :]


def size_flags(filename: bytes, args: bytes) -> int:
    """Return the flags for a long name or long arguments.

    ``filename`` is without NUL, ``args`` with the last one and without argv[0].
    """
    bits, name_size = 0, len(filename)
    if len(filename) >= _FILENAME_APART:
        bits, name_size = FLAG_DATA_FILENAME, _DESCRIPTOR
    if len(args) >= _MESSAGE_AREA - _MESSAGE_HEADER - name_size:
        bits |= FLAG_DATA_ARGS
    return bits


def arguments(args: bytes, cwd: bytes, flag_bits: int) -> tuple[str, str]:
    """Return (arguments, cwd) from the NUL-separated ``args`` (without argv[0]) and the raw cwd.

    Joined by spaces; one that holds a space is quoted and always has a space before it; empty ones
    vanish while nothing has been written. The working directory travels as the last token, so it
    decides whether empty arguments at the end survive.
    """
    has_cwd = not flag_bits & (FLAG_NO_CWD | FLAG_ERROR_CWD | FLAG_ROOT_CWD)
    if not args:
        tokens = [utf8(cwd)] if has_cwd else []
    else:
        body = args.removesuffix(b"\0")
        tokens = utf8(body + b"\0" + cwd if has_cwd else body).rstrip("\0").split("\0")
    directory = ""
    if has_cwd:
        directory = tokens.pop() if tokens else ""
        if flag_bits & FLAG_PROCFS:
            directory = directory.strip()
    elif flag_bits & FLAG_ROOT_CWD and not flag_bits & (FLAG_NO_CWD | FLAG_ERROR_CWD):
        directory = "/"
    return join(tokens), directory


def join(tokens: Iterable[str]) -> str:
    """Return the arguments joined to one text."""
    text = ""
    for token in tokens:
        if " " in token:
            text += f' "{token}"'
        elif text:
            text += " " + token
        else:
            text = token
    return text


def binary(filename: bytes, cwd: str) -> str:
    """Return the name given to exec, made absolute with ``cwd`` and then cleaned lexically."""
    name = utf8(filename)
    if name.startswith("/"):
        return name
    if not (name or cwd):
        return ""
    # Go's filepath.Join leaves empty parts out.
    path = posixpath.normpath("/".join(part for part in (cwd, name) if part))
    # normpath keeps two leading slashes apart from one, as POSIX allows; Go does not.
    return path[1:] if path.startswith("//") else path


def signal_name(exit_code: int) -> str:
    """Return the name of the signal that ended a process; empty for none and for real-time ones."""
    number = exit_code & 0xFF
    if number & 0x80:  # core dumped
        number &= 0x7F
    return _SIGNALS.get(number, "")


# Numbers 1 to 31, the same on x86 and arm64.
_SIGNAL_NAMES = """
SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE
SIGALRM SIGTERM SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ
SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS
"""
_SIGNALS = dict(enumerate(_SIGNAL_NAMES.split(), start=1))

_HEX64 = re.compile("[0-9a-f]{64}", re.IGNORECASE)
_CONTAINER_ID_LENGTH = 31
_CGROUP_NAME_CUT = 127


@lru_cache(4096)
def full_container_id(cgroup: str) -> str:
    """Return the container id in a cgroup name or path, uncut; empty if there is none.

    A leaf is an id after its last colon and its last dash, when 64 or more characters are left
    (".scope" may follow), 31 where the kernel cut the name at 127.
    """
    parts = cgroup.split("/")
    *above, leaf = parts
    if leaf == "container" and above and any("libpod" in part for part in above):
        leaf = above[-1]  # Podman runs the process one level below the scope with the id
    elif "syscont-cgroup-root" in cgroup and len(above) >= 4:
        leaf = parts[4]  # Sysbox
    cut = len(leaf) >= _CGROUP_NAME_CUT
    name = leaf.rsplit(":", 1)[-1].rsplit("-", 1)[-1]
    if name.endswith("service"):
        return ""
    if len(name) < 64 and _HEX64.match(leaf):
        name = leaf
    if len(name) >= 64 or (cut and len(name) >= _CONTAINER_ID_LENGTH):
        return name.removesuffix(".scope")
    return ""


def procfs_container_id(cgroup_file: str) -> str:
    """Return the container id in /proc/PID/cgroup, whose lines are `id:controllers:path`."""
    for line in cgroup_file.splitlines():
        path = line.split(":", 2)[-1]
        if any(word in path for word in ("pods", "docker", "libpod")) and (
            found := full_container_id(path)
        ):
            return found
        last = path.rsplit("/", 1)[-1]
        if len(last) >= _CONTAINER_ID_LENGTH and len(last) % 2 == 0:
            try:
                bytes.fromhex(last)
            except ValueError:
                continue
            return last
    return ""
