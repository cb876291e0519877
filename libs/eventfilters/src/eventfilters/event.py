"""An event as filters read it: parsed at most once, and only when a filter needs a field."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from google.protobuf.message import DecodeError, Message

from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process
from wire import read

_UNREAD: Any = object()


class _Kind(NamedTuple):
    """What is known about the member of the ``event`` oneof from its descriptor."""

    number: int  # its EventType
    has_process: bool
    has_parent: bool


def _kind(field: Any) -> _Kind:
    names = field.message_type.fields_by_name if field.message_type else {}
    return _Kind(field.number, "process" in names, "parent" in names)


_KINDS = {
    field.name: _kind(field)
    for field in GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields
}


class Event:
    """A GetEventsResponse, as bytes or parsed, with the parts that filters look at."""

    __slots__ = ("_data", "_inner", "_kind", "_message", "_parent", "_process", "_type")

    def __init__(self, data: bytes | None, message: GetEventsResponse | None = None) -> None:
        """Take the event's bytes, the parsed event, or both; ``data`` is None where unknown."""
        self._data = data
        self._message = message
        self._type = -1
        self._kind: Any = None
        self._inner: Any = _UNREAD
        self._process: Any = _UNREAD
        self._parent: Any = _UNREAD

    @property
    def data(self) -> bytes:
        """The serialized event."""
        if self._data is None:
            self._data = self.message.SerializeToString()
        return self._data

    @property
    def type(self) -> int:
        """The EventType: the number of the field that is set, the first in the bytes; 0: none."""
        if self._type < 0:
            if self._data is not None:
                self._type = read.first_field(self._data)
            else:
                name = self.kind
                self._type = 0 if name is None else _KINDS[name].number
        return self._type

    @property
    def message(self) -> GetEventsResponse:
        """The parsed event; empty where the bytes are malformed."""
        if self._message is None:
            try:
                self._message = GetEventsResponse.FromString(self._data or b"")
            except DecodeError:
                self._message = GetEventsResponse()
        return self._message

    @property
    def kind(self) -> str | None:
        """The name of the field that is set, such as ``process_exec``."""
        if self._inner is _UNREAD:
            self._read_inner()
        return cast("str | None", self._kind)

    @property
    def inner(self) -> Message | None:
        """The member of the ``event`` oneof."""
        if self._inner is _UNREAD:
            self._read_inner()
        return cast("Message | None", self._inner)

    @property
    def process(self) -> Process | None:
        """The event's process."""
        if self._process is _UNREAD:
            inner: Any = self.inner
            known = inner is not None and _KINDS[self._kind].has_process
            self._process = inner.process if known and inner.HasField("process") else None
        return cast("Process | None", self._process)

    @property
    def parent(self) -> Process | None:
        """The event's parent process."""
        if self._parent is _UNREAD:
            inner: Any = self.inner
            known = inner is not None and _KINDS[self._kind].has_parent
            self._parent = inner.parent if known and inner.HasField("parent") else None
        return cast("Process | None", self._parent)

    def _read_inner(self) -> None:
        message = self.message
        self._kind = message.WhichOneof("event")
        self._inner = None if self._kind is None else getattr(message, self._kind)
