"""Tetragon's compact form, byte for byte, colours included.

Line parts are joined by one space, and the separators of an absent part remain. Where the
original has a quirk we have it too; each is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cli.errors import RenderError
from cli.renderers import syscalls
from cli.terminal import visible
from cli.timestamps import rfc3339_nanos
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import (
    KprobeArgument,
    KprobeSock,
    Process,
    ProcessKprobe,
    ProcessLsm,
    ProcessTracepoint,
    StackTraceEntry,
)

_RED, _GREEN, _YELLOW, _BLUE, _MAGENTA, _CYAN = 31, 32, 33, 34, 35, 36

_TRAILER_COLUMN = 120  # bytes of line and trailer together
# CAP_SYS_ADMIN is number 21. Quirk: the original tests how many there are, not which.
_TRAILER_CAPS = 22

_ESCAPES = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
    '"': r"\"",
}
_TO_ESCAPE = re.compile(r"[^ !#-\[\]-~]")


class _Style(NamedTuple):
    """How parts of a line are written."""

    colour: Callable[[int, str], str]
    quote: Callable[[str], str]  # texts that processes choose
    plain: Callable[[str], str]  # texts that the original never quotes


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote(text: str) -> str:
    """Return ``text``, as a Go string literal if it has a space or anything unprintable."""
    if " " not in text and text.isprintable():
        return text
    return f'"{_TO_ESCAPE.sub(_escape, text)}"'


@dataclass(frozen=True, slots=True)
class CompactOptions:
    """What else a line may show."""

    colour: bool = False
    timestamps: bool = False
    stack_traces: bool = True
    ima_hash: bool = True
    # As Tetragon does since July 2026; its releases up to 1.7.0 print texts as they are.
    quote: bool = True
    # Escape what a terminal obeys also where the original does not quote.
    guard: bool = False


class CompactRenderer:
    """``-o compact``."""

    def __init__(self, options: CompactOptions) -> None:
        self._options = options
        bare = visible if options.guard else str
        self._style = _Style(
            _paint if options.colour else _unpainted, quote if options.quote else bare, bare
        )
        self._colour, self._quote, self._plain = self._style
        self._kinds: dict[str | None, Callable[[GetEventsResponse], str]] = {
            "process_exec": self._exec,
            "process_exit": self._exit,
            "process_kprobe": self._kprobe,
            "process_tracepoint": self._tracepoint,
            "process_loader": self._loader,
            "process_uprobe": self._uprobe,
            "process_usdt": self._usdt,
            "process_lsm": self._lsm,
            "process_throttle": self._throttle,
            "test": lambda event: "TEST EVENT\n",
        }

    def render(self, events: Iterable[GetEventsResponse]) -> str:
        """Return a line for each event; raise `RenderError` where there is no form for it."""
        lines = []
        for event in events:
            kind = event.WhichOneof("event")
            encode = self._kinds.get(kind)
            if encode is None:
                raise RenderError(f"compact output: {kind or 'empty event'}: no form for it")
            if self._options.timestamps:
                lines.append(f"{rfc3339_nanos(event.time)} ")
            lines.append(encode(event))
        return "".join(lines)

    def finish(self) -> str:
        """Return nothing: each line stands alone."""
        return ""

    # Building blocks

    def _label(self, emoji: str, word: str, colour: int = _BLUE) -> str:
        return self._colour(colour, f"{emoji} {word:<7}")

    def _source(self, event: GetEventsResponse, process: Process) -> str:
        if process.HasField("pod"):
            source = self._plain(f"{process.pod.namespace}/{process.pod.name}")
        else:
            source = self._quote(event.node_name)
        binary = self._quote(process.binary)
        return f"{self._colour(_GREEN, source)} {self._colour(_MAGENTA, binary)}"

    def _line(self, event: GetEventsResponse, body: Any, emoji: str, word: str, *parts: str) -> str:
        if not body.HasField("process"):
            raise RenderError(f"compact output: {event.WhichOneof('event')}: it has no process")
        process = body.process
        line = " ".join((self._label(emoji, word), self._source(event, process), *parts))
        admin = len(process.cap.effective) >= _TRAILER_CAPS
        trailer = self._colour(_MAGENTA, "🛑 CAP_SYS_ADMIN" if admin else "")
        if not trailer:
            return line + "\n"
        # Quirk: with colours an empty trailer still has its escapes, so every line is padded.
        width = max(0, _TRAILER_COLUMN - len(line.encode()))
        return f"{line} {trailer:>{width}}\n" if width else f"{line} {trailer}\n"

    # Kinds

    def _exec(self, event: GetEventsResponse) -> str:
        body = event.process_exec
        arguments = self._colour(_CYAN, self._quote(body.process.arguments))
        return self._line(event, body, "🚀", "process", arguments)

    def _exit(self, event: GetEventsResponse) -> str:
        body = event.process_exit
        arguments = self._colour(_CYAN, self._quote(body.process.arguments))
        status = self._colour(_RED, self._plain(body.signal) or str(body.status))
        return self._line(event, body, "💥", "exit", arguments, status)

    def _throttle(self, event: GetEventsResponse) -> str:
        body = event.process_throttle
        action = {1: self._colour(_RED, "START"), 2: self._colour(_GREEN, "STOP ")}
        label = self._label("🧬", "throttle", _RED)
        return f"{label} {action.get(body.type, '')} {self._quote(body.cgroup)}\n"

    def _loader(self, event: GetEventsResponse) -> str:
        body = event.process_loader
        build_id = f"{body.buildid.hex()} " if body.buildid else ""
        path = build_id + self._colour(_YELLOW, self._quote(body.path))
        return self._line(event, body, "🧬", "loader", path)

    def _uprobe(self, event: GetEventsResponse) -> str:
        body = event.process_uprobe
        parts = (self._quote(body.path), self._quote(body.symbol))
        return self._line(event, body, "🕵️", "uprobe", *parts)

    def _usdt(self, event: GetEventsResponse) -> str:
        body = event.process_usdt
        parts = (self._quote(body.path), self._quote(body.provider), self._quote(body.name))
        return self._line(event, body, "🕵️", "usdt", *parts)

    def _lsm(self, event: GetEventsResponse) -> str:
        body = event.process_lsm
        line = self._line(event, body, "🔒", "LSM", self._plain(body.function_name))
        return line + self._ima_hash(body) if self._options.ima_hash else line

    def _tracepoint(self, event: GetEventsResponse) -> str:
        body = event.process_tracepoint
        if (body.subsys, body.event) == ("raw_syscalls", "sys_enter"):
            return self._line(event, body, "☎ ", "syscall", _raw_syscall(body))
        parts = (self._plain(body.subsys), self._plain(body.event))
        return self._line(event, body, "⁉️", "tracepoint", *parts)

    def _kprobe(self, event: GetEventsResponse) -> str:
        body = event.process_kprobe
        function = _ABI_PREFIX.sub("", body.function_name)
        row = _KPROBES.get(function)
        if row is None:
            line = self._line(event, body, "❓", "syscall", self._plain(body.function_name))
        else:
            emoji, word, parts = row(body, self._style)
            line = self._line(event, body, emoji, word, *parts)
        return line + self._stacks(body) if self._options.stack_traces else line

    # Lines behind the line

    def _stacks(self, body: ProcessKprobe) -> str:
        text = ""
        if body.kernel_stack_trace:
            text += "Kernel:\n" + "".join(map(self._kernel_frame, body.kernel_stack_trace))
        if body.user_stack_trace:
            text += "User:\n" + "".join(map(self._user_frame, body.user_stack_trace))
        return text

    def _kernel_frame(self, frame: StackTraceEntry) -> str:
        colour = self._colour
        return (
            colour(_GREEN, f"   0x{frame.address:x}:")
            + colour(_BLUE, f" {self._quote(frame.symbol)}")
            + "+"
            + colour(_YELLOW, f"0x{frame.offset:x}\n")
        )

    def _user_frame(self, frame: StackTraceEntry) -> str:
        colour = self._colour
        return (
            colour(_GREEN, f"   0x{frame.address:x}:")
            + (colour(_BLUE, f" {self._quote(frame.symbol)}") if frame.symbol else "")
            + colour(_YELLOW, f" ({self._quote(frame.module)}+0x{frame.offset:x})\n")
        )

    def _ima_hash(self, body: ProcessLsm) -> str:
        if not body.ima_hash or not body.args:
            return ""
        path = ""
        if body.function_name in _BINPRM_HOOKS:
            path = body.args[0].linux_binprm_arg.path
        elif body.function_name in _FILE_HOOKS:
            path = body.args[0].file_arg.path
        if not path:
            return ""
        return self._colour(_GREEN, f"   {self._quote(path)}") + self._colour(
            _BLUE, f" {self._plain(body.ima_hash)}\n"
        )


class TtyRenderer:
    """``--tty-encode PATH``: what was written to one terminal, as it was written."""

    def __init__(self, path: str) -> None:
        self._path = path

    def render(self, events: Iterable[GetEventsResponse]) -> bytes:
        """Return the bytes that kprobe events wrote to the path; ignore all else."""
        return b"".join(
            event.process_kprobe.args[1].bytes_arg
            for event in events
            if len(event.process_kprobe.args) > 1
            and event.process_kprobe.args[0].file_arg.path == self._path
        )

    def finish(self) -> str:
        """Return nothing."""
        return ""


def _paint(code: int, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def _unpainted(code: int, text: str) -> str:
    return text


_BINPRM_HOOKS = frozenset(
    {
        "bprm_check_security",
        "bprm_committed_creds",
        "bprm_committing_creds",
        "bprm_creds_for_exec",
        "bprm_creds_from_file",
    }
)
_FILE_HOOKS = frozenset(
    {"file_ioctl", "file_lock", "file_open", "file_post_open", "file_receive", "mmap_file"}
)


def _raw_syscall(body: ProcessTracepoint) -> str:
    if not body.args:
        return "unknown"
    first = body.args[0]
    if first.WhichOneof("arg") == "syscall_id":
        return syscalls.describe(first.syscall_id.id, first.syscall_id.abi, body.args[1:])
    if first.WhichOneof("arg") == "long_arg":
        return syscalls.describe(first.long_arg, None, body.args[1:])
    return "unknown"


# Kprobe rows: emoji, word and the parts behind the process. An absent argument is an empty
# part without colour; its separating space stays.

_ABI_PREFIX = re.compile(r"^__(?:x64|arm64|ia32)_")

_Row = tuple[str, str, Sequence[str]]
_Kprobe = Callable[[ProcessKprobe, _Style], _Row]
_Part = Callable[[KprobeArgument, _Style], str | None]  # None: not there


def _part(body: ProcessKprobe, index: int, part: _Part, style: _Style) -> str:
    text = part(body.args[index], style) if index < len(body.args) else None
    return "" if text is None else style.colour(_CYAN, text)


def _row(emoji: str, word: str, *parts: tuple[int, _Part]) -> _Kprobe:
    """Return a row whose parts are texts of arguments, by their position."""

    def render(body: ProcessKprobe, style: _Style) -> _Row:
        return emoji, word, [_part(body, index, part, style) for index, part in parts]

    return render


def _file(arg: KprobeArgument, style: _Style) -> str | None:
    return style.quote(arg.file_arg.path) if arg.HasField("file_arg") else None


def _text(arg: KprobeArgument, style: _Style) -> str:
    return style.quote(arg.string_arg)


def _integer(arg: KprobeArgument, style: _Style) -> str:
    return str(arg.int_arg)


def _bytes_count(arg: KprobeArgument, style: _Style) -> str:
    return f"{arg.size_arg} bytes"


def _flow(arg: KprobeArgument, style: _Style) -> str:
    sock: KprobeSock = arg.sock_arg
    saddr, daddr = style.plain(sock.saddr), style.plain(sock.daddr)
    return f"tcp {saddr}:{sock.sport} -> {daddr}:{sock.dport}"


def _bpf_program(arg: KprobeArgument, style: _Style) -> str:
    program = arg.bpf_attr_arg
    kind, name = style.plain(program.ProgType), style.plain(program.ProgName)
    return f"{kind} {name} instruction count {program.InsnCnt}"


def _perf_event(arg: KprobeArgument, style: _Style) -> str:
    return style.plain(f"{arg.perf_event_arg.Type} {arg.perf_event_arg.KprobeFunc}")


def _bpf_map(arg: KprobeArgument, style: _Style) -> str:
    bpf_map = arg.bpf_map_arg
    return (
        f"{style.plain(bpf_map.MapType)} {style.plain(bpf_map.MapName)} key size {bpf_map.KeySize} "
        f"value size {bpf_map.ValueSize} max entries {bpf_map.MaxEntries}"
    )


def _path(arg: KprobeArgument, style: _Style) -> str:
    return style.quote(arg.path_arg.path)


_NAMESPACES = {
    0: "any",
    0x02000000: "cgroup",
    0x08000000: "ipc",
    0x40000000: "net",
    0x00020000: "mnt",
    0x20000000: "pid",
    0x00000080: "time",
    0x10000000: "user",
    0x04000000: "uts",
}


def _setns(body: ProcessKprobe, style: _Style) -> _Row:
    kind = _NAMESPACES.get(body.args[1].int_arg, "") if len(body.args) > 1 else ""
    return "🔧", "setns", [kind]


def _tcp_sendmsg(body: ProcessKprobe, style: _Style) -> _Row:
    count = body.args[1].int_arg if len(body.args) > 1 else 0
    return "📤", "sendmsg", [_part(body, 0, _flow, style), f"bytes {count}"]


def _file_permission(body: ProcessKprobe, style: _Style) -> _Row:
    if len(body.args) < 2:
        return "❓", "security_file_permission", [""]
    may_write, may_read = 2, 4
    labels = {may_write: ("📝", "write"), may_read: ("📚", "read")}
    label = labels.get(body.args[1].int_arg, ("❓", "security_file_permission"))
    return *label, [_part(body, 0, _file, style)]


def _mmap_file(body: ProcessKprobe, style: _Style) -> _Row:
    if len(body.args) < 2:
        return "❓", "security_mmap_file", [""]
    protection = body.args[1].uint_arg
    letters = "".join(letter for bit, letter in ((1, "r"), (2, "w"), (4, "x")) if protection & bit)
    return "📝", f"mmap-{letters}", [_part(body, 0, _file, style)]


def _truncate(function: str, path: _Part) -> _Kprobe:
    def render(body: ProcessKprobe, style: _Style) -> _Row:
        if not body.args:
            return "❓", function, [""]
        return "📝", "truncate", [_part(body, 0, path, style)]

    return render


_KPROBES: dict[str, _Kprobe] = {
    "sys_write": _row("📝", "write", (0, _file), (2, _bytes_count)),
    "sys_read": _row("📚", "read", (0, _file), (2, _bytes_count)),
    "fd_install": _row("📬", "open", (1, _file)),
    "sys_openat": _row("📬\ufe0f", "openat", (1, _text)),
    "sys_open": _row("📬\ufe0f", "open", (1, _text)),  # quirk: the path is argument 0
    "sys_close": _row("📪", "close", (0, _file)),
    "sys_mount": _row("💾", "mount", (0, _text), (1, _text)),
    "sys_setuid": _row("🔑", "setuid", (0, _integer)),
    "sys_clock_settime": _row("⏰", "clock_settime"),
    "sys_pivot_root": _row("💾", "pivot_root", (0, _text), (1, _text)),
    "proc_exec_connector": _row("🔧", "proc_exec_connector"),
    "sys_setns": _setns,
    "tcp_connect": _row("🔌", "connect", (0, _flow)),
    "tcp_close": _row("🧹", "close", (0, _flow)),
    "tcp_sendmsg": _tcp_sendmsg,
    "bpf_check": _row("🐝", "bpf_load", (0, _bpf_program)),
    "security_perf_event_alloc": _row("🐝", "perf_event_alloc", (0, _perf_event)),
    "security_bpf_map_alloc": _row("🗺", "bpf_map_create", (0, _bpf_map)),
    "security_bpf_map_create": _row("🗺", "bpf_map_create", (0, _bpf_map)),
    "security_file_permission": _file_permission,
    "security_mmap_file": _mmap_file,
    "security_path_truncate": _truncate("security_path_truncate", _path),
    "security_file_truncate": _truncate("security_file_truncate", _file),
}
