"""BPF links: a loaded program attached to its target.

A `Link` owns one file descriptor; closing it detaches, which takes the kernel up to 130 ms a hook
for uprobes, kprobes and fentry (it waits for all CPUs): close in a thread, never in the event loop.
A link that is pinned stays attached without a descriptor, except those of `Link.by_ioctl`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from collector.bpf.programs import BOUND_BY_BTF, AttachType, Kind, Program
from collector.bpf.syscall import Command, address_of, bpf, perf_event_open
from collector.errors import AttachError

_RAW_TRACEPOINT = Struct("<QII")  # union bpf_attr, BPF_RAW_TRACEPOINT_OPEN
_LINK = Struct("<IIII")  # union bpf_attr, BPF_LINK_CREATE: program, target, attach type, flags
_PERF_COOKIE = Struct("<Q")
_KPROBE_MULTI = Struct("<IIQQQ")
_UPROBE_MULTI = Struct("<QQQQIIII")
_RETURN = 1  # BPF_F_KPROBE_MULTI_RETURN, BPF_F_UPROBE_MULTI_RETURN
_PERF_ATTR = Struct("<IIQQQQQIIQQ")  # struct perf_event_attr up to config2
_PERF_ATTR_SIZE = 112  # PERF_ATTR_SIZE_VER5
_PERF_TYPE_TRACEPOINT = 2
_SET_BPF, _ENABLE = 0x40042408, 0x2400  # PERF_EVENT_IOC_...
_REF_COUNTER_SHIFT = 32  # PERF_UPROBE_REF_CTR_OFFSET_SHIFT
_SOURCES = Path("/sys/bus/event_source/devices")
TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))


class Uprobe(NamedTuple):
    """A place in a file: its offset, of a USDT probe also that of its reference counter."""

    path: Path
    offset: int
    reference_counter: int = 0
    pid: int = 0  # 0: every process


class Link:
    """Owns an attached program's link, or before 5.15 the perf event that stands for it."""

    def __init__(self, fd: int, target: str, *, by_ioctl: bool = False) -> None:
        self.fd = fd
        self.target = target
        self.by_ioctl = by_ioctl  # a perf event: cannot be pinned

    def close(self) -> None:
        """Detach, unless it is pinned; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def attach(program: Program, target: str, *, cookie: int = 0) -> Link:
    """Attach to a kernel target by its name: everything but uprobes.

    ``target``: a tracepoint (of kind TRACEPOINT ``category/name``) or a function. Programs of the
    kinds in BOUND_BY_BTF know their target since they were loaded. ``cookie`` is what
    bpf_get_attach_cookie() returns: kprobes and tracepoints, since v5.15. Raises `AttachError`.
    """
    kind = program.kind
    if kind in (Kind.KPROBE, Kind.KRETPROBE):
        return _step(kind, target, lambda: _kprobe(program, target, cookie))
    if kind in (Kind.KPROBE_MULTI, Kind.KRETPROBE_MULTI):
        return attach_kprobes(program, (target,), (cookie,) if cookie else ())
    if kind is Kind.TRACEPOINT:
        return _step(kind, target, lambda: _tracepoint(program, target, cookie))
    if kind is Kind.RAW_TRACEPOINT or kind in BOUND_BY_BTF:
        return _step(kind, target, lambda: _raw_tracepoint(program, target))
    raise ValueError(f"attach: {program.name}: a {kind} program has no kernel target")


def attach_kprobes(program: Program, targets: Sequence[str], cookies: Sequence[int] = ()) -> Link:
    """Attach a program of kind KPROBE_MULTI or KRETPROBE_MULTI to many functions with one link."""
    names = [ctypes.create_string_buffer(target.encode()) for target in targets]
    symbols = (ctypes.c_uint64 * len(names))(*map(ctypes.addressof, names))
    values = (ctypes.c_uint64 * len(cookies))(*cookies) if cookies else None
    flags = _RETURN if program.kind is Kind.KRETPROBE_MULTI else 0
    tail = _KPROBE_MULTI.pack(flags, len(names), address_of(symbols), 0, address_of(values))
    text = targets[0] if len(targets) == 1 else f"{targets[0]} and {len(targets) - 1} more"
    return _step(
        program.kind, text,
        lambda: Link(_create(program, AttachType.TRACE_KPROBE_MULTI, tail=tail), text),
    )  # fmt: skip


def attach_uprobe(program: Program, place: Uprobe, *, cookie: int = 0) -> Link:
    """Attach a program of one of the four uprobe kinds to a place in a file."""
    text = f"{place.path}+{place.offset:#x}"
    if program.kind in (Kind.UPROBE, Kind.URETPROBE):
        return _step(program.kind, text, lambda: _uprobe(program, place, cookie))
    return attach_uprobes(program, [place], [cookie] if cookie else ())


def attach_uprobes(program: Program, places: Sequence[Uprobe], cookies: Sequence[int] = ()) -> Link:
    """Attach a program of kind UPROBE_MULTI or URETPROBE_MULTI to places in one file."""
    path = ctypes.create_string_buffer(os.fsencode(places[0].path))
    array = ctypes.c_uint64 * len(places)
    offsets = array(*(place.offset for place in places))
    counters = array(*(place.reference_counter for place in places))
    values = array(*cookies) if cookies else None
    tail = _UPROBE_MULTI.pack(
        address_of(path), address_of(offsets), address_of(counters), address_of(values),
        len(places), _RETURN if program.kind is Kind.URETPROBE_MULTI else 0, places[0].pid, 0,
    )  # fmt: skip
    text = f"{places[0].path}+{places[0].offset:#x}"
    return _step(
        program.kind, text,
        lambda: Link(_create(program, AttachType.TRACE_UPROBE_MULTI, tail=tail), text),
    )  # fmt: skip


def _step(kind: Kind, target: str, make: Callable[[], Link]) -> Link:
    try:
        return make()
    except OSError as error:
        raise AttachError(kind, target, error.errno or 0, error.strerror or str(error)) from None


def _raw_tracepoint(program: Program, target: str) -> Link:
    # Also opens links of tracing and LSM programs, which bring their target: name NULL.
    name = None
    if program.kind is Kind.RAW_TRACEPOINT:
        name = ctypes.create_string_buffer(target.encode())
    attr = _RAW_TRACEPOINT.pack(address_of(name), program.fd, 0)
    return Link(bpf(Command.RAW_TRACEPOINT_OPEN, attr), target)


def _create(program: Program, kind: AttachType, *, target: int = 0, tail: bytes = b"") -> int:
    return bpf(Command.LINK_CREATE, _LINK.pack(program.fd, target, kind, 0) + tail)


def _kprobe(program: Program, target: str, cookie: int) -> Link:
    name = ctypes.create_string_buffer(target.encode())
    is_return = program.kind is Kind.KRETPROBE
    event = _perf_event(_source("kprobe"), _flags("kprobe", is_return), address_of(name), 0)
    return _by_perf(program, event, target, cookie)


def _uprobe(program: Program, place: Uprobe, cookie: int) -> Link:
    name = ctypes.create_string_buffer(os.fsencode(place.path))
    flags = _flags("uprobe", program.kind is Kind.URETPROBE)
    flags |= place.reference_counter << _REF_COUNTER_SHIFT
    event = _perf_event(
        _source("uprobe"), flags, address_of(name), place.offset,
        pid=place.pid or -1, cpu=-1 if place.pid else 0,
    )  # fmt: skip
    return _by_perf(program, event, f"{place.path}+{place.offset:#x}", cookie)


def _tracepoint(program: Program, target: str, cookie: int) -> Link:
    for tracefs in TRACEFS:
        try:
            number = int((tracefs / "events" / target / "id").read_text())
        except FileNotFoundError:
            continue
        return _by_perf(program, _perf_event(_PERF_TYPE_TRACEPOINT, number, 0, 0), target, cookie)
    raise OSError(errno.ENOENT, "no such tracepoint in tracefs, or tracefs is not mounted")


def _source(name: str) -> int:
    return int((_SOURCES / name / "type").read_text())


def _flags(source: str, is_return: bool) -> int:
    # "config:0": which bit of config makes it a return probe.
    if not is_return:
        return 0
    return 1 << int((_SOURCES / source / "format" / "retprobe").read_text().split(":")[1])


def _perf_event(
    kind: int, config: int, config1: int, config2: int, *, pid: int = -1, cpu: int = 0
) -> int:
    # sample_period 1 and wakeup_events 1: every hit counts.
    attr = _PERF_ATTR.pack(
        kind, _PERF_ATTR_SIZE, config, 1, 0, 0, 0, 1, 0, config1, config2
    )  # fmt: skip
    return perf_event_open(attr.ljust(_PERF_ATTR_SIZE, b"\0"), pid=pid, cpu=cpu)


def _by_perf(program: Program, event: int, target: str, cookie: int) -> Link:
    """Bind the program to the perf event and own what keeps both: a link since v5.15."""
    try:
        tail = _PERF_COOKIE.pack(cookie)
        link = bpf(
            Command.LINK_CREATE, _LINK.pack(program.fd, event, AttachType.PERF_EVENT, 0) + tail
        )
    except OSError as error:
        if error.errno != errno.EINVAL or cookie:
            os.close(event)
            raise
    else:
        os.close(event)  # the link holds it
        return Link(link, target)
    try:
        fcntl.ioctl(event, _SET_BPF, program.fd)
        fcntl.ioctl(event, _ENABLE, 0)
    except OSError:
        os.close(event)
        raise
    return Link(event, target, by_ioctl=True)
