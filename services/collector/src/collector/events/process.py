"""Records and processes to serialized GetEventsResponse; the first place that knows protobuf.

The bytes are spliced by hand. A process is encoded once, when it is first told, and its bytes go
into every event that names it, as the process or as a parent: that costs a third of building
message objects, and it is what lets one core keep up with a fork storm. tests/unit compare each
message with protobuf's own parser.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from collector.processes.cache import Image, Key, Process
from collector.records.process import NAMESPACES, ExitRecord
from collector.records.text import flags as flags_text
from collector.records.text import signal_name
from tetragon import events_pb2, tetragon_pb2
from tetragon.capabilities_pb2 import (
    CapabilitiesType,
    ProcessPrivilegesChanged,
    SecureBitsType,
)
from wire.write import (
    SMALL_VARINTS,
    VARINT,
    message,
    tag,
    text,
    timestamp,
    uint32_value,
    varint,
)

_BOOL_WRAPPERS = (b"", b"\x08\x01")


def _tags(kind: type, *names: str) -> dict[str, bytes]:
    fields = kind.DESCRIPTOR.fields_by_name  # type: ignore[attr-defined]  # every message has it
    return {name: tag(fields[name].number) for name in names}


_P = _tags(
    tetragon_pb2.Process,
    "exec_id", "pid", "uid", "cwd", "binary", "arguments", "flags", "start_time", "auid", "docker",
    "parent_exec_id", "cap", "ns", "tid", "process_credentials", "binary_properties", "user",
    "in_init_tree", "environment_variables", "argv", "container_info", "user_name",
)  # fmt: skip
_REFCNT = tag(tetragon_pb2.Process.REFCNT_FIELD_NUMBER, VARINT)
_EXEC = tag(events_pb2.GetEventsResponse.PROCESS_EXEC_FIELD_NUMBER)
_EXIT = tag(events_pb2.GetEventsResponse.PROCESS_EXIT_FIELD_NUMBER)
_NODE_NAME = tag(events_pb2.GetEventsResponse.NODE_NAME_FIELD_NUMBER)
_TIME = tag(events_pb2.GetEventsResponse.TIME_FIELD_NUMBER)
_CLUSTER = tag(events_pb2.GetEventsResponse.CLUSTER_NAME_FIELD_NUMBER)
_EXEC_PARTS = (tag(1), tag(2), tag(3))  # process, parent, ancestors
_EXIT_PARTS = (tag(1), tag(2), tag(6))
_EXIT_SIGNAL = tag(tetragon_pb2.ProcessExit.SIGNAL_FIELD_NUMBER)
_EXIT_STATUS = tag(tetragon_pb2.ProcessExit.STATUS_FIELD_NUMBER, VARINT)
_EXIT_TIME = tag(tetragon_pb2.ProcessExit.TIME_FIELD_NUMBER)


class Encoder:
    """Encodes the events of one node.

    ``host_namespaces`` are pid 1's namespace inode numbers, in the order of records.NAMESPACES.
    """

    def __init__(
        self, node_name: str, cluster_name: str = "", host_namespaces: Sequence[int] = ()
    ) -> None:
        self._node = node_name.encode()
        self._tail = text(_NODE_NAME, node_name)
        self._cluster = text(_CLUSTER, cluster_name)
        self._host_namespaces = host_namespaces

    def exec_id(self, key: Key) -> bytes:
        """Return base64 of ``<node>:<ktime_ns>:<pid>``."""
        return base64.b64encode(b"%s:%d:%d" % (self._node, key[1], key[0]))

    def process(self, process: Process) -> bytes:
        """Return the serialized tetragon.Process; the same bytes at each call."""
        if not process.wire:
            image = process.image
            if not image.wire:
                image.wire = self._image(image)
            process.wire = self._identity(process) + image.wire
        return process.wire

    def thread_copy(self, process: Process, tid: int) -> bytes:
        """Return the process as an event of one of its threads shows it.

        Such an event has a copy of its own, with the thread's id and the live reference count.
        """
        wire = process.wire or self.process(process)
        # The end of `_identity`: an optional refcnt, tid, in_init_tree; then comes the image.
        image_at = len(wire) - len(process.image.wire)
        tree_at = image_at - len(_P["in_init_tree"]) - (3 if process.in_init_tree else 1)
        tid_at = tree_at - len(uint32_value(_P["tid"], process.pid))
        head_end = tid_at - 2 if process.is_clone else tid_at
        references = process.references
        return b"".join(
            (
                wire[:head_end],
                _REFCNT + varint(references) if references > 0 else b"",
                uint32_value(_P["tid"], tid),
                wire[tree_at:],
            )
        )

    def bare_process(self, pid: int, start_time_ns: int, flags: str = "") -> bytes:
        """Return a process that is not in the table: its pid and start time."""
        return b"".join(
            (
                uint32_value(_P["pid"], pid),
                text(_P["flags"], flags),
                message(_P["start_time"], timestamp(max(start_time_ns, 0))),
            )
        )

    def exec_event(
        self,
        process: Process,
        parent: Process | None,
        ancestors: Sequence[Process] = (),
        binary_properties: bytes = b"",
    ) -> bytes:
        """Return a process_exec event; its time is the image's start."""
        body = self.process(process)
        if binary_properties:  # told once, on a copy: so the copy shows the live count
            body += message(_P["binary_properties"], binary_properties)
            body += _REFCNT + varint(process.references)
        return self.response(
            _EXEC, self._family(_EXEC_PARTS, body, parent, ancestors), process.start_time_ns
        )

    def exit_event(
        self,
        record: ExitRecord,
        time_ns: int,
        process: Process | None,
        parent: Process | None,
        ancestors: Sequence[Process] = (),
        start_time_ns: int = 0,
    ) -> bytes:
        """Return a process_exit event. An unknown process has only its pid and start time."""
        if process is not None:
            body = self.process(process)
        else:
            body = self.bare_process(record.pid, start_time_ns)
        inner = self._family(_EXIT_PARTS, body, parent, ancestors)
        if record.exit_code:
            inner += text(_EXIT_SIGNAL, signal_name(record.exit_code))
            if status := record.exit_code >> 8:
                inner += _EXIT_STATUS + varint(status)
        inner += message(_EXIT_TIME, timestamp(time_ns))
        return self.response(_EXIT, inner, time_ns)

    def _family(
        self,
        parts: tuple[bytes, bytes, bytes],
        process: bytes,
        parent: Process | None,
        ancestors: Sequence[Process],
    ) -> bytes:
        out = parts[0] + varint(len(process)) + process
        if parent is not None:
            wire = parent.wire or self.process(parent)
            out += parts[1] + varint(len(wire)) + wire
        for ancestor in ancestors:
            out += message(parts[2], self.process(ancestor))
        return out

    def response(self, event_tag: bytes, body: bytes, time_ns: int) -> bytes:
        """Return the GetEventsResponse whose event is ``body``."""
        time = timestamp(time_ns)
        return b"".join(
            (
                event_tag, varint(len(body)), body,
                self._tail, _TIME, SMALL_VARINTS[len(time)], time, self._cluster,
            )
        )  # fmt: skip

    def _identity(self, process: Process) -> bytes:
        exec_id = self.exec_id(process.key)
        parent_id = self.exec_id(process.parent)
        flags = flags_text(process.flags).encode()
        start = timestamp(process.start_time_ns)
        pid = uint32_value(b"", process.pid)
        tree = _BOOL_WRAPPERS[process.in_init_tree]
        return b"".join(
            (
                _P["exec_id"], varint(len(exec_id)), exec_id,
                _P["pid"], pid,
                _P["flags"], varint(len(flags)), flags,
                _P["start_time"], SMALL_VARINTS[len(start)], start,
                _P["parent_exec_id"], varint(len(parent_id)), parent_id,
                # The stored count: 1 for a fork, 0 else, whatever the live one is.
                _REFCNT + b"\x01" if process.is_clone else b"",
                _P["tid"], pid,
                _P["in_init_tree"], SMALL_VARINTS[len(tree)], tree,
            )
        )  # fmt: skip

    def _image(self, image: Image) -> bytes:
        out = [
            uint32_value(_P["uid"], image.uid),
            text(_P["cwd"], image.cwd),
            text(_P["binary"], image.binary),
            text(_P["arguments"], image.arguments),
            uint32_value(_P["auid"], image.auid),
            text(_P["docker"], image.docker),
            text(_P["user_name"], image.user),
        ]
        if image.show_user:
            out.append(message(_P["user"], text(tag(1), image.user)))
        if image.credentials:
            out += self._credentials(image.credentials)
        if image.namespaces:
            out.append(message(_P["ns"], self._namespaces(image.namespaces)))
        for key, value in image.environment:
            entry = text(tag(1), key) + text(tag(2), value)
            out.append(message(_P["environment_variables"], entry))
        out += [message(_P["argv"], argument) for argument in image.argv]
        if image.container is not None:
            info = b"".join(text(tag(n), v) for n, v in enumerate(image.container, start=1))
            out.append(message(_P["container_info"], info))
        return b"".join(out)

    def _credentials(self, values: Sequence[int]) -> list[bytes]:
        ids, (securebits, permitted, effective, inheritable) = values[:8], values[8:]
        body = b"".join(uint32_value(tag(n), value) for n, value in enumerate(ids, start=1))
        bits = b"".join(varint(bit) for bit in SecureBitsType.values() if bit and securebits & bit)
        if bits:
            body += message(tag(9), bits)
        caps = b"".join(
            message(tag(n), capability_list(mask))
            for n, mask in ((1, permitted), (2, effective), (3, inheritable))
            if mask
        )
        return [message(_P["cap"], caps), message(_P["process_credentials"], body)]

    def _namespaces(self, inodes: Sequence[int]) -> bytes:
        out = b""
        for number, (name, inode) in enumerate(zip(NAMESPACES, inodes, strict=True), start=1):
            if inode == 0 and name.startswith("time"):
                continue  # a kernel without time namespaces
            body = b"\x08" + varint(inode) if inode else b""
            if self._host_namespaces and self._host_namespaces[number - 1] == inode:
                body += b"\x10\x01"
            out += message(tag(number), body)
        return out


def capability_list(mask: int) -> bytes:
    """Return the packed CapabilitiesType values whose bits are set in ``mask``, ascending."""
    return b"".join(varint(cap) for cap in CapabilitiesType.values() if mask >> cap & 1)


def binary_properties(secureexec: int, euid: int, egid: int, inode: int | None) -> bytes:
    """Return the serialized tetragon.BinaryProperties of an exec; empty if nothing is notable.

    ``secureexec`` has the bits of enum secureexec_flags; ``inode`` is set for a file without links.
    """
    setuid, setgid, file_caps, setuid_root, setgid_root = (
        secureexec >> bit & 1 for bit in range(5)
    )
    out = b""
    if setuid:
        out += uint32_value(tag(1), euid)
    if setgid:
        out += uint32_value(tag(2), egid)
    reasons = ProcessPrivilegesChanged
    changed = b"".join(
        varint(reason)
        for present, reason in (
            (file_caps, reasons.PRIVILEGES_RAISED_EXEC_FILE_CAP),
            (setuid_root, reasons.PRIVILEGES_RAISED_EXEC_FILE_SETUID),
            (setgid_root, reasons.PRIVILEGES_RAISED_EXEC_FILE_SETGID),
        )
        if present
    )
    if changed:
        out += message(tag(3), changed)
    if inode is not None:
        properties = (b"\x08" + varint(inode) if inode else b"") + uint32_value(tag(2), 0)
        out += message(tag(4), message(tag(1), properties))
    return out
