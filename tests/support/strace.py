"""strace as a witness: the acts of a command and its descendants, read from their system calls.

Nothing here is shared with what it is compared with: paths, addresses and results are those that
strace prints. Each thread's calls are in a file of their own (``-ff``), so no line is interrupted
by another thread's.
"""

from __future__ import annotations

import ast
import posixpath
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

_FILES = (
    "open,openat,openat2,creat,unlink,unlinkat,rmdir,mkdir,mkdirat,mknod,mknodat,symlink,symlinkat,"
    "rename,renameat,renameat2,link,linkat,chmod,fchmod,fchmodat,fchmodat2,chown,lchown,fchown,"
    "fchownat,truncate"
)
_NETWORK = "connect,accept,accept4,listen"
_CREDENTIALS = (
    "setuid,setgid,setreuid,setregid,setresuid,setresgid,setfsuid,setfsgid,setgroups,capset,prctl,"
    "add_key,request_key,keyctl"
)
_HOST = (
    "mount,umount2,chroot,pivot_root,sethostname,setdomainname,setns,unshare,swapon,swapoff,bpf,"
    "finit_module,delete_module,reboot,acct"
)
_PLACES = "clone,clone3,fork,vfork,chdir,fchdir"  # whose threads, and in which directory
_LINE = re.compile(
    r"(\w+)\((.*)\) += (\?|-?\d+|0x[0-9a-f]+)(?:<(.*)>(?:\(deleted\))?| (E\w+) \(.*\))?$"
)
_WRITING = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"}
_DEVICE = re.compile(r"<(?:char|block) \d+:\d+>$")  # behind the path of one
# Devices that every program opens, which policy host leaves out.
_EVERYBODY = re.compile(
    r"/dev/(null|zero|full|u?random|tty|ptmx|console|log|std\w+|(pts|shm|mqueue|hugepages|fd)(/.*)?)$"
)
_AT = re.compile(r"(?:AT_FDCWD|\d+)<(.*)>$")
_SOCKET = re.compile(r"\d+<(TCP|TCPv6|UDP|UDPv6|UNIX\S*):\[(.*)\]>$")
# PR_SET_KEEPCAPS, PR_CAPBSET_DROP, PR_SET_SECUREBITS; of PR_CAP_AMBIENT what changes something.
_PRCTL = ("PR_SET_KEEPCAPS", "PR_CAPBSET_DROP", "PR_SET_SECUREBITS")
_AMBIENT = ("PR_CAP_AMBIENT_RAISE", "PR_CAP_AMBIENT_LOWER", "PR_CAP_AMBIENT_CLEAR_ALL")


class Act(NamedTuple):
    """One thing that a process did, in a form that both sides can be brought to."""

    pid: int
    word: str
    what: str
    error: str = ""  # name of the error


class Call(NamedTuple):
    """A line of strace."""

    name: str
    args: list[str]
    value: str
    path: str  # of the descriptor that was returned
    error: str


@dataclass(slots=True)
class Witnessed:
    """What strace saw."""

    pids: set[int] = field(default_factory=set)  # processes, not threads
    acts: list[Act] = field(default_factory=list)


def witnessed(command: Sequence[str | Path], folder: Path, **options: Any) -> Witnessed:
    """Run a command under strace until it and all its descendants have ended."""
    folder.mkdir()
    trace = ",".join((_FILES, _NETWORK, _CREDENTIALS, _HOST, _PLACES))
    strace = [
        "strace", "-ff", "-yy", "-qq", "-s", "4096", "--seccomp-bpf", "-e", "signal=none",
        "-e", f"trace={_existing(trace)}", "-o", str(folder / "t"),
    ]  # fmt: skip
    subprocess.run([*strace, *command], check=True, **options)
    calls = {int(one.suffix[1:]): list(_calls(one)) for one in folder.iterdir()}
    leaders = _leaders(calls)
    found = Witnessed({leaders.get(tid, tid) for tid in calls})
    started = {int(call.value) for made in calls.values() for call in made if _starts(call)}
    (first,) = calls.keys() - started
    waiting = [(first, str(options["cwd"]))]
    pending: set[str] = set()  # sockets that a call has begun to connect
    while waiting:
        tid, cwd = waiting.pop()
        for call in calls.get(tid, ()):
            if _starts(call):
                waiting.append((int(call.value), cwd))
            elif call.name == "chdir" and not call.error:
                cwd = posixpath.normpath(posixpath.join(cwd, _text(call.args[0])))
            elif call.name == "fchdir" and not call.error:
                cwd = _path(call.args[0], "")
            elif call.name == "connect" and _is_completed(call, pending):
                continue
            for word, what, error in _acts(call, cwd):
                found.acts.append(Act(leaders.get(tid, tid), word, what, error))
    return found


def _starts(call: Call) -> bool:
    """Return whether a call started a process or thread."""
    return call.name in ("clone", "clone3", "fork", "vfork") and call.value.isdigit()


def _is_completed(call: Call, pending: set[str]) -> bool:
    """Return whether a call only asks how a connection that an earlier one began has ended."""
    if call.args[0] in pending or "->" in call.args[0]:
        pending.discard(call.args[0])
        return True
    if call.error == "EINPROGRESS":
        pending.add(call.args[0])
    return False


def _existing(trace: str) -> str:
    """Return the list with names that this strace may not know marked as optional."""
    return ",".join(f"?{name}" for name in trace.split(","))


def _calls(file: Path) -> Iterator[Call]:
    for line in file.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match:
            name, args, value, path, error = match.groups()
            path = _DEVICE.sub("", path or "")
            yield Call(name, _split(args), value, path, error or "")


def _split(text: str) -> list[str]:
    """Split arguments at commas outside of strings, brackets and descriptors' paths."""
    found, depth, start, at = [], 0, 0, 0
    while at < len(text):
        char = text[at]
        if char == '"':
            at += 1
            while text[at] != '"':
                at += 2 if text[at] == "\\" else 1
        elif char in "{[(" or (char == "<" and (at == 0 or text[at - 1] != "<")):
            depth += 1
        elif char in "}])" or (char == ">" and text[at - 1] not in "-="):
            depth -= 1
        elif char == "," and depth == 0:
            found.append(text[start:at].strip())
            start = at + 1
        at += 1
    return [*found, text[start:].strip()] if text else []


def _leaders(calls: dict[int, list[Call]]) -> dict[int, int]:
    """Return the process of each thread."""
    creators = {
        int(call.value): tid
        for tid, made in calls.items()
        for call in made
        if _starts(call) and "CLONE_THREAD" in str(call.args)
    }  # fmt: skip
    leaders = {}
    for tid in creators:
        leader = tid
        while leader in creators:
            leader = creators[leader]
        leaders[tid] = leader
    return leaders


def _text(argument: str) -> str:
    """Return a string argument; strace escapes as C does."""
    return str(ast.literal_eval(argument)) if argument.startswith('"') else ""


def _path(folder: str, name: str) -> str:
    """Return the path of a name in a directory, which strace shows behind the descriptor."""
    at = _AT.match(folder)
    return posixpath.normpath(posixpath.join(at[1] if at else "", _text(name)))


_NAMED: dict[str, tuple[str, tuple[int, ...]]] = {
    # call -> word, positions of directories and names: (dir, name) or (dir, name, dir, name)
    "unlinkat": ("remove", (0, 1)), "mkdirat": ("create", (0, 1)), "mknodat": ("create", (0, 1)),
    "symlinkat": ("create", (1, 2)), "renameat": ("rename", (0, 1, 2, 3)),
    "renameat2": ("rename", (0, 1, 2, 3)), "linkat": ("link", (0, 1, 2, 3)),
    "fchmodat": ("chmod", (0, 1)), "fchmodat2": ("chmod", (0, 1)), "fchownat": ("chown", (0, 1)),
}  # fmt: skip
_BARE: dict[str, tuple[str, tuple[int, ...]]] = {
    "unlink": ("remove", (0,)), "rmdir": ("remove", (0,)), "mkdir": ("create", (0,)),
    "mknod": ("create", (0,)), "symlink": ("create", (1,)), "rename": ("rename", (0, 1)),
    "link": ("link", (0, 1)), "chmod": ("chmod", (0,)), "chown": ("chown", (0,)),
    "lchown": ("chown", (0,)), "truncate": ("truncate", (0,)),
}  # fmt: skip
_Found = Iterator[tuple[str, str, str]]


def _acts(call: Call, cwd: str) -> _Found:
    """Yield word, object and error of what a call did, if it is one of ours."""
    if call.name in ("open", "openat", "openat2", "creat"):
        yield from _opened(call, cwd)
    elif call.name in _NAMED:
        word, places = _NAMED[call.name]
        pairs = zip(places[::2], places[1::2], strict=True)
        names = [_path(call.args[folder], call.args[name]) for folder, name in pairs]
        yield word, " -> ".join(names), call.error
    elif call.name in _BARE:
        word, places = _BARE[call.name]
        names = (posixpath.join(cwd, _text(call.args[place])) for place in places)
        yield word, " -> ".join(map(posixpath.normpath, names)), call.error
    elif call.name in ("fchmod", "fchown"):
        at = _AT.match(call.args[0])
        yield call.name.removeprefix("f"), at[1] if at else "", call.error
    elif call.name in _NETWORK.split(","):
        yield from _connected(call)
    elif call.name in _CREDENTIALS.split(","):
        if call.name != "prctl" or _changes(call.args):
            yield call.name, "", call.error
    elif call.name in _HOST.split(","):
        yield call.name.replace("umount2", "umount"), "", call.error


def _opened(call: Call, cwd: str) -> _Found:
    flags = "O_WRONLY" if call.name == "creat" else str(call.args[1:])
    if call.value.isdigit():
        writes = bool(_WRITING & set(re.findall(r"O_\w+", flags)))
        if writes:
            yield "open", call.path, ""
        if writes and call.path.startswith(("/proc/sys/", "/sys/")):
            yield "setting", call.path, ""
        if call.path.startswith("/dev/") and not _EVERYBODY.match(call.path):
            yield "device", call.path, ""
    elif call.error in ("EACCES", "EPERM"):
        folder, name = call.args[:2] if "at" in call.name[4:] else (f"0<{cwd}>", call.args[0])
        yield "denied", _path(folder, name), call.error


def _changes(args: list[str]) -> bool:
    return args[0] in _PRCTL or (args[0] == "PR_CAP_AMBIENT" and args[1] in _AMBIENT)


def _connected(call: Call) -> _Found:
    shown = _SOCKET.match(call.args[0])
    if shown is None or not shown[1].startswith("TCP"):
        return
    if call.name == "listen":
        yield "listen", shown[2], call.error
    elif call.name == "connect":
        address = re.search(r'inet_(?:addr\(|pton\(AF_INET6, )"(.*?)"', call.args[1])
        port = re.search(r"port=htons\((\d+)\)", call.args[1])
        if address and port:
            yield "connect", f"{address[1]}:{port[1]}", ""  # its result may come later
    elif call.name.startswith("accept"):
        ends = re.match(r"TCP(?:v6)?:\[(.*)->(.*)\]", call.path)
        if ends:
            yield "accept", f"{ends[1]} from {ends[2]}", ""
