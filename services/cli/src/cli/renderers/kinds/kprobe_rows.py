"""Compact output of kernel functions that have a row of their own: emoji, word and arguments.

An absent argument is an empty part without colour; its separating space stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cli.renderers.pen import Pen
from tetragon.tetragon_pb2 import KprobeArgument, KprobeSock, ProcessKprobe

_Row = tuple[str, str, Sequence[str]]
_Kprobe = Callable[[ProcessKprobe, Pen], _Row]
_Part = Callable[[KprobeArgument, Pen], str | None]  # None: the argument is absent


def _part(body: ProcessKprobe, index: int, part: _Part, pen: Pen) -> str:
    text = part(body.args[index], pen) if index < len(body.args) else None
    return "" if text is None else pen.cyan(text)


def _row(emoji: str, word: str, *parts: tuple[int, _Part]) -> _Kprobe:
    """Return a row whose parts are texts of arguments, by their position."""

    def render(body: ProcessKprobe, pen: Pen) -> _Row:
        return emoji, word, [_part(body, index, part, pen) for index, part in parts]

    return render


def _file(arg: KprobeArgument, pen: Pen) -> str | None:
    return pen.quote(arg.file_arg.path) if arg.HasField("file_arg") else None


def _text(arg: KprobeArgument, pen: Pen) -> str:
    return pen.quote(arg.string_arg)


def _integer(arg: KprobeArgument, pen: Pen) -> str:
    return str(arg.int_arg)


def _bytes_count(arg: KprobeArgument, pen: Pen) -> str:
    return f"{arg.size_arg} bytes"


def _flow(arg: KprobeArgument, pen: Pen) -> str:
    sock: KprobeSock = arg.sock_arg
    saddr, daddr = pen.plain(sock.saddr), pen.plain(sock.daddr)
    return f"tcp {saddr}:{sock.sport} -> {daddr}:{sock.dport}"


def _bpf_program(arg: KprobeArgument, pen: Pen) -> str:
    program = arg.bpf_attr_arg
    kind, name = pen.plain(program.ProgType), pen.plain(program.ProgName)
    return f"{kind} {name} instruction count {program.InsnCnt}"


def _perf_event(arg: KprobeArgument, pen: Pen) -> str:
    return pen.plain(f"{arg.perf_event_arg.Type} {arg.perf_event_arg.KprobeFunc}")


def _bpf_map(arg: KprobeArgument, pen: Pen) -> str:
    bpf_map = arg.bpf_map_arg
    return (
        f"{pen.plain(bpf_map.MapType)} {pen.plain(bpf_map.MapName)} key size {bpf_map.KeySize} "
        f"value size {bpf_map.ValueSize} max entries {bpf_map.MaxEntries}"
    )


def _path(arg: KprobeArgument, pen: Pen) -> str:
    return pen.quote(arg.path_arg.path)


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


def _setns(body: ProcessKprobe, pen: Pen) -> _Row:
    kind = _NAMESPACES.get(body.args[1].int_arg, "") if len(body.args) > 1 else ""
    return "🔧", "setns", [kind]


def _tcp_sendmsg(body: ProcessKprobe, pen: Pen) -> _Row:
    count = body.args[1].int_arg if len(body.args) > 1 else 0
    return "📤", "sendmsg", [_part(body, 0, _flow, pen), f"bytes {count}"]


def _file_permission(body: ProcessKprobe, pen: Pen) -> _Row:
    if len(body.args) < 2:
        return "❓", "security_file_permission", [""]
    may_write, may_read = 2, 4
    labels = {may_write: ("📝", "write"), may_read: ("📚", "read")}
    label = labels.get(body.args[1].int_arg, ("❓", "security_file_permission"))
    return *label, [_part(body, 0, _file, pen)]


def _mmap_file(body: ProcessKprobe, pen: Pen) -> _Row:
    if len(body.args) < 2:
        return "❓", "security_mmap_file", [""]
    protection = body.args[1].uint_arg
    letters = "".join(letter for bit, letter in ((1, "r"), (2, "w"), (4, "x")) if protection & bit)
    return "📝", f"mmap-{letters}", [_part(body, 0, _file, pen)]


def _truncate(function: str, path: _Part) -> _Kprobe:
    def render(body: ProcessKprobe, pen: Pen) -> _Row:
        if not body.args:
            return "❓", function, [""]
        return "📝", "truncate", [_part(body, 0, path, pen)]

    return render


ROWS: dict[str, _Kprobe] = {
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
