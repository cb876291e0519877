"""What all events share: the node, the time, and the process with its parent and ancestors.

Serialized parts are joined without protobuf objects. A process is encoded once, and its bytes go
into every event that names it, as the process or as a parent. That costs a third of building
message objects and lets one core keep up with a fork storm. tests/unit compare each message with
protobuf's own parser.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

from collector.events.fields import map_entries, tags, varint_tag
from collector.events.image import encode_image
from collector.events.pod import container_pid
from collector.processes.table import Image, Key, Process
from collector.records.layouts import Namespaces
from collector.records.text import flags as flags_text
from tetragon import events_pb2, tetragon_pb2
from wire.write import SMALL_VARINTS, message, tag, text, timestamp, uint32_value, varint

_CACHED_MAX = 1 << 18  # processes; above it the cache is emptied and fills again
_PARENTS_MAX = 4096  # parents whose exec_id is cached: most processes have one of a few parents

_P = tags(
    tetragon_pb2.Process,
    "exec_id", "pid", "flags", "start_time", "parent_exec_id", "tid", "in_init_tree",
)  # fmt: skip
_EXEC_ID, _PID, _FLAGS, _START, _PARENT_ID, _TID, _IN_TREE = _P.values()
_IN_TREE_FIELDS = (message(_IN_TREE, b""), message(_IN_TREE, b"\x08\x01"))  # a BoolValue
_REFCNT = varint_tag(tetragon_pb2.Process, "refcnt")
_ONE_REFERENCE = _REFCNT + b"\x01"
_E = tags(events_pb2.GetEventsResponse, "node_name", "time", "cluster_name", "node_labels")
_TIME = _E["time"]
_NO_TAG = b""


# A serialized tetragon.Process, and where its fields refcnt and tid begin and end.
_Encoded = tuple[bytes, int, int]


class FamilyTags(NamedTuple):
    """The tags under which an event has its process, parent and ancestors."""

    process: bytes
    parent: bytes
    ancestors: bytes

    @classmethod
    def of(cls, kind: type) -> FamilyTags:
        """Return those of the event message ``kind``."""
        return cls(**tags(kind, *cls._fields))


class Encoder:
    """Encodes the events of one node, and caches the bytes of processes."""

    def __init__(
        self,
        node_name: str,
        cluster_name: str = "",
        host_namespaces: Namespaces | None = None,
    ) -> None:
        """``host_namespaces`` are pid 1's."""
        self._node = node_name.encode()
        self._node_field = text(_E["node_name"], node_name)
        self._cluster_field = text(_E["cluster_name"], cluster_name)
        self._about_node = self._cluster_field  # what follows the time
        self._host_namespaces = host_namespaces
        self._processes: dict[Key, _Encoded] = {}
        self._images: WeakKeyDictionary[Image, bytes] = WeakKeyDictionary()
        self._parent_id = lru_cache(_PARENTS_MAX)(self._parent_id_field)
        self._time_ns, self._time = 0, b"\0"

    def set_node_labels(self, labels: Mapping[str, str]) -> None:
        """Report these labels of the node from now on; may be called in any thread."""
        pairs = tuple(sorted(labels.items()))
        self._about_node = b"".join((self._cluster_field, *map_entries(_E["node_labels"], pairs)))

    def exec_id(self, key: Key) -> bytes:
        """Return base64 of ``<node>:<ktime_ns>:<pid>``."""
        return b2a_base64(b"%s:%d:%d" % (self._node, key[1], key[0]), newline=False)

    def time(self, time_ns: int) -> bytes:
        """Return a google.protobuf.Timestamp behind its length.

        The last one is kept: an event has its time twice, as its own and as that of a process.
        """
        if time_ns != self._time_ns:
            body = timestamp(time_ns)
            self._time_ns, self._time = time_ns, SMALL_VARINTS[len(body)] + body
        return self._time

    def process(self, process: Process) -> bytes:
        """Return the serialized tetragon.Process, the same bytes until `forget`."""
        known = self._processes.get(process.key)
        return (self._cache(process) if known is None else known)[0]

    def process_anew(self, process: Process) -> bytes:
        """Return the serialized tetragon.Process with its current fields; cache nothing."""
        return self._encode(process)[0]

    def cached(self, process: Process) -> _Encoded:
        """Return what is kept of a process, the same object until `forget`."""
        return self._processes.get(process.key) or self._cache(process)

    def thread_copy(self, process: Process, tid: int) -> bytes:
        """Return the process for an event of one of its threads.

        Tetragon reports a copy in such an event, with the thread's id and the live reference count.
        """
        whole, refcnt_at, behind_tid = self.cached(process)
        references = process.references
        return b"".join(
            (
                whole[:refcnt_at],
                _REFCNT + varint(references) if references > 0 else b"",
                uint32_value(_P["tid"], tid),
                whole[behind_tid:],
            )
        )

    def bare_process(self, pid: int, start_time_ns: int, flags: str = "") -> bytes:
        """Return a process that is not in the table: its pid, flags and start time."""
        return b"".join(
            (
                uint32_value(_P["pid"], pid),
                text(_P["flags"], flags),
                message(_P["start_time"], timestamp(max(start_time_ns, 0))),
            )
        )

    def image(self, image: Image) -> bytes:
        """Return the fields of tetragon.Process that an exec established."""
        known = self._images.get(image)
        if known is None:
            known = self._images[image] = self._image(image)
        return known

    def forget(self, key: Key) -> None:
        """Drop the bytes of a process: it left the table, or its metadata has changed."""
        self._processes.pop(key, None)

    def forget_image(self, image: Image) -> None:
        """Drop the bytes of an image whose metadata has changed; `forget` its processes too."""
        self._images.pop(image, None)

    def family(
        self,
        family: FamilyTags,
        process: bytes,
        parent: Process | None,
        ancestors: Sequence[Process] = (),
    ) -> bytes:
        """Return the fields ``process``, ``parent`` and ``ancestors`` of an event."""
        if parent is None:
            out = family.process + varint(len(process)) + process
        else:
            above = self.process(parent)
            out = b"".join(
                (
                    family.process, varint(len(process)), process,
                    family.parent, varint(len(above)), above,
                )
            )  # fmt: skip
        for ancestor in ancestors:
            out += message(family.ancestors, self.process(ancestor))
        return out

    def response(self, event_tag: bytes, body: bytes, time_ns: int) -> bytes:
        """Return a GetEventsResponse with ``body`` as the event of field ``event_tag``."""
        return b"".join(
            (
                event_tag, varint(len(body)), body,
                self._node_field, _TIME, self.time(time_ns), self._about_node,
            )
        )  # fmt: skip

    def _image(self, image: Image) -> bytes:
        return image.saved or encode_image(image, self._host_namespaces)

    def _cache(self, process: Process) -> _Encoded:
        if len(self._processes) >= _CACHED_MAX:
            self._processes.clear()
        encoded = self._processes[process.key] = self._encode(process)
        return encoded

    def _encode(self, process: Process) -> _Encoded:
        exec_id = self.exec_id(process.key)
        pid = uint32_value(_NO_TAG, process.pid)
        head = b"".join(
            (
                _EXEC_ID, varint(len(exec_id)), exec_id, _PID, pid, _flags_field(process.flags),
                _START, self.time(process.start_time_ns), self._parent_id(process.parent),
            )
        )  # fmt: skip
        # The stored count, as Tetragon reports it: 1 for a fork, else 0.
        thread = (_ONE_REFERENCE if process.is_clone else b"") + _TID + pid
        # An image that only one process runs is encoded once anyway.
        image = self.image(process.image) if process.is_clone else self._image(process.image)
        pid_in_pod = container_pid(process.image, process.nspid) if process.nspid else b""
        in_tree = _IN_TREE_FIELDS[process.in_init_tree]
        whole = b"".join((head, thread, in_tree, image, pid_in_pod))
        return whole, len(head), len(head) + len(thread)

    def _parent_id_field(self, parent: Key) -> bytes:
        return message(_PARENT_ID, self.exec_id(parent))


@lru_cache(4096)
def _flags_field(bits: int) -> bytes:
    return message(_FLAGS, flags_text(bits).encode())


def event_tag(name: str) -> bytes:
    """Return the tag of the event ``name`` of GetEventsResponse, as "process_exec"."""
    return tag(events_pb2.GetEventsResponse.DESCRIPTOR.fields_by_name[name].number)
