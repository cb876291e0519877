"""Events process_exec and process_exit."""

from __future__ import annotations

from collections.abc import Sequence

from collector.events.encoder import Encoder, FamilyTags, event_tag
from collector.events.fields import tags, varint_tag
from collector.processes.table import Process
from collector.records.layouts import ExecRecord, ExitRecord
from collector.records.text import signal_name
from tetragon import tetragon_pb2
from tetragon.capabilities_pb2 import ProcessPrivilegesChanged
from wire.write import VARINT, message, tag, text, uint32_value, varint

_EXEC, _EXIT = event_tag("process_exec"), event_tag("process_exit")
_EXEC_FAMILY = FamilyTags.of(tetragon_pb2.ProcessExec)
_EXIT_FAMILY = FamilyTags.of(tetragon_pb2.ProcessExit)
_EXIT_SIGNAL, _EXIT_TIME = tags(tetragon_pb2.ProcessExit, "signal", "time").values()
_EXIT_STATUS = varint_tag(tetragon_pb2.ProcessExit, "status")
_P = tags(tetragon_pb2.Process, "binary_properties")
_REFCNT = varint_tag(tetragon_pb2.Process, "refcnt")
_PROPERTIES = tags(tetragon_pb2.BinaryProperties, "setuid", "setgid", "privileges_changed", "file")
_FILE_INODE = tags(tetragon_pb2.FileProperties, "inode")["inode"]
_INODE = tag(tetragon_pb2.InodeProperties.NUMBER_FIELD_NUMBER, VARINT)
_LINKS = tag(tetragon_pb2.InodeProperties.LINKS_FIELD_NUMBER)

# Bits of enum secureexec_flags in events.h.
_SETUID, _SETGID, _FILE_CAPS, _SETUID_ROOT, _SETGID_ROOT = (1 << bit for bit in range(5))
_PRIVILEGES = (
    (_FILE_CAPS, ProcessPrivilegesChanged.PRIVILEGES_RAISED_EXEC_FILE_CAP),
    (_SETUID_ROOT, ProcessPrivilegesChanged.PRIVILEGES_RAISED_EXEC_FILE_SETUID),
    (_SETGID_ROOT, ProcessPrivilegesChanged.PRIVILEGES_RAISED_EXEC_FILE_SETGID),
)


def exec_event(
    encoder: Encoder,
    process: Process,
    parent: Process | None,
    ancestors: Sequence[Process] = (),
    properties: bytes = b"",
) -> bytes:
    """Return a process_exec event; its time is the image's start.

    ``properties``: serialized BinaryProperties, which only this event has.
    """
    body = encoder.process(process)
    if properties:
        # Tetragon reports them on a copy, which also shows the live reference count.
        body += message(_P["binary_properties"], properties) + _REFCNT + varint(process.references)
    family = encoder.family(_EXEC_FAMILY, body, parent, ancestors)
    return encoder.response(_EXEC, family, process.start_time_ns)


def running_event(
    encoder: Encoder, process: Process, parent: Process | None, ancestors: Sequence[Process] = ()
) -> bytes:
    """Return a process_exec event of a process that runs now, with its current flags."""
    body = encoder.process_anew(process)
    family = encoder.family(_EXEC_FAMILY, body, parent, ancestors)
    return encoder.response(_EXEC, family, process.start_time_ns)


def exit_event(
    encoder: Encoder,
    record: ExitRecord,
    offset_ns: int,
    process: Process | None,
    parent: Process | None,
    ancestors: Sequence[Process] = (),
) -> bytes:
    """Return a process_exit event. An unknown process has only its pid and start time.

    ``offset_ns``: what to add to the boot clock for the calendar's.
    """
    if process is not None:
        body = encoder.process(process)
    else:
        body = encoder.bare_process(record.pid, record.image_ktime_ns + offset_ns)
    time_ns = record.ktime_ns + offset_ns
    inner = encoder.family(_EXIT_FAMILY, body, parent, ancestors)
    if record.exit_code:
        inner += text(_EXIT_SIGNAL, signal_name(record.exit_code))
        if status := record.exit_code >> 8:
            inner += _EXIT_STATUS + varint(status)
    inner += _EXIT_TIME + encoder.time(time_ns)
    return encoder.response(_EXIT, inner, time_ns)


def binary_properties(record: ExecRecord) -> bytes:
    """Return the serialized tetragon.BinaryProperties of an exec; empty if nothing is notable."""
    bits, out = record.secureexec, b""
    if bits & _SETUID:
        out += uint32_value(_PROPERTIES["setuid"], record.euid)
    if bits & _SETGID:
        out += uint32_value(_PROPERTIES["setgid"], record.egid)
    changed = b"".join(varint(reason) for bit, reason in _PRIVILEGES if bits & bit)
    if changed:
        out += message(_PROPERTIES["privileges_changed"], changed)
    if record.nlink == 0:  # a file without a name
        inode = (_INODE + varint(record.inode) if record.inode else b"") + uint32_value(_LINKS, 0)
        out += message(_PROPERTIES["file"], message(_FILE_INODE, inode))
    return out
