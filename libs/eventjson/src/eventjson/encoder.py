"""Write messages in the public JSON form, compiled from their descriptors.

``google.protobuf.json_format`` takes 80 µs an event and more. Here each message type gets a table
of one small function per field, made once; an event then takes the time of the fields it has. A
test compares the result with ``json_format.MessageToDict`` on random messages.

Form: proto field names, defaults left out, wrappers as bare values (0 and false too), 64-bit
integers as strings, RFC 3339 with 0, 3, 6 or 9 digits, map keys sorted, fields in the order
of their declaration.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from eventjson.times import rfc3339

# Numbers of our own fields in Tetragon's messages; its own test events begin at 40000.
_OUR_FIELDS = range(10000, 20000)

# Messages that repeat unchanged: an exit has the process of its exec, and processes share a parent.
_REPEATING = frozenset({"tetragon.Process"})
_CACHE_ENTRIES = 2048  # about 1.5 kB each
_CACHE_KEY_BYTES = 4096  # larger messages are not kept: arguments may have 2 MB

_Encode = Callable[[Any], str]

_WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_INTEGERS_64 = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    }
)
_UNPRINTABLE = re.compile(r"[^ -~]")


def _string(value: str) -> str:
    text = encode_basestring(value)
    # JSON requires escapes below 0x20 only. A terminal also obeys the controls from 0x7f to 0x9f,
    # and characters that change the writing direction make a line look like another.
    return text if text.isprintable() else _UNPRINTABLE.sub(_escape_unprintable, text)


def _escape_unprintable(match: re.Match[str]) -> str:
    char = match.group()
    return char if char.isprintable() else json.dumps(char)[1:-1]


def _bytes(value: bytes) -> str:
    return f'"{b64encode(value).decode()}"'


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _quoted(value: int) -> str:
    return f'"{value}"'


def _double(value: float) -> str:
    if math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _timestamp(value: Any) -> str:
    return f'"{rfc3339(value)}"'


class JsonEncoder:
    """Encodes messages. With ``extensions`` the result has the fields that Tetragon lacks."""

    def __init__(self, *, extensions: bool = False) -> None:
        self._extensions = extensions
        self._messages: dict[str, _Encode] = {}

    def encode(self, message: Message) -> str:
        """Return ``message`` as JSON text without a line break."""
        return self.compiled(message)(message)

    def compiled(self, message: Message | type[Message]) -> _Encode:
        """Return the function that encodes messages of this type."""
        return self._of_message(cast(Descriptor, message.DESCRIPTOR))

    def field(self, message: Message, name: str) -> str | None:
        """Return one field of ``message`` as JSON text, None where it is not set."""
        for field, value in message.ListFields():
            if field.name == name:
                return self._of_field(field)(value)
        return None

    def _of_message(self, descriptor: Descriptor) -> _Encode:
        name = descriptor.full_name
        encode = self._messages.get(name)
        if encode is None:
            if name in _WRAPPERS:
                inner = self._of_value(descriptor.fields_by_name["value"])
                encode = _wrapper(inner)
            elif name == "google.protobuf.Timestamp":
                encode = _timestamp
            elif name.startswith("google.protobuf."):
                encode = _well_known  # FieldMask, Duration, Any: no event has one
            else:
                # Entered before its fields are compiled, so that messages may contain themselves.
                fields: dict[FieldDescriptor, tuple[str, _Encode]] = {}
                encode = _message(fields, declared_in_order(descriptor))
                if name in _REPEATING:
                    encode = _cached(encode)
                self._messages[name] = encode
                for field in descriptor.fields:
                    if self._shown(field):
                        fields[field] = (f'"{field.name}":', self._of_field(field))
            self._messages[name] = encode
        return encode

    def _shown(self, field: FieldDescriptor) -> bool:
        if self._extensions or field.number not in _OUR_FIELDS:
            return True
        # A kind of event that Tetragon lacks: without its field, the line would say nothing.
        return field.containing_oneof is not None and field.containing_oneof.name == "event"

    def _of_field(self, field: FieldDescriptor) -> _Encode:
        if not field.is_repeated:
            return self._of_value(field)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = (field.message_type.fields_by_name[n] for n in ("key", "value"))
            return _map(self._of_key(key), self._of_value(value))
        return _list(self._of_value(field))

    def _of_key(self, field: FieldDescriptor) -> _Encode:
        if field.type == FieldDescriptor.TYPE_STRING:
            return _string
        return (lambda v: f'"{_bool(v)}"') if field.type == FieldDescriptor.TYPE_BOOL else _quoted

    def _of_value(self, field: FieldDescriptor) -> _Encode:
        kind = field.type
        if field.message_type is not None:
            return self._of_message(field.message_type)
        if kind == FieldDescriptor.TYPE_STRING:
            return _string
        if kind == FieldDescriptor.TYPE_BYTES:
            return _bytes
        if kind == FieldDescriptor.TYPE_BOOL:
            return _bool
        if field.enum_type is not None:
            return _enum({v.number: f'"{v.name}"' for v in reversed(field.enum_type.values)})
        if kind in _INTEGERS_64:
            return _quoted
        if kind in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
            return _double
        return str


def declared_in_order(descriptor: Descriptor) -> tuple[int, ...] | None:
    """Return field numbers as declared, or None where that is the numerical order anyway."""
    numbers = tuple(field.number for field in descriptor.fields)
    return None if list(numbers) == sorted(numbers) else numbers


def _message(
    fields: dict[FieldDescriptor, tuple[str, _Encode]], order: tuple[int, ...] | None
) -> _Encode:
    rank = None if order is None else {number: place for place, number in enumerate(order)}

    def encode(message: Message) -> str:
        present = message.ListFields()  # ordered by number
        if rank is not None:
            present = sorted(present, key=lambda item: rank[item[0].number])
        parts = []
        for field, value in present:
            if field in fields:
                name, encode_value = fields[field]
                parts.append(name + encode_value(value))
        return "{" + ",".join(parts) + "}"

    return encode


def _cached(encode: _Encode) -> _Encode:
    """Return ``encode`` with a cache. Its key, the bytes, takes a tenth of the time of encoding."""
    cache: dict[bytes, str] = {}

    def recall(message: Message) -> str:
        key = message.SerializeToString()
        text = cache.get(key)
        if text is None:
            text = encode(message)
            if len(key) <= _CACHE_KEY_BYTES:
                if len(cache) >= _CACHE_ENTRIES:
                    cache.clear()
                cache[key] = text
        return text

    return recall


def _wrapper(inner: _Encode) -> _Encode:
    return lambda message: inner(message.value)


def _list(inner: _Encode) -> _Encode:
    return lambda values: "[" + ",".join([inner(value) for value in values]) + "]"


def _map(key: _Encode, value: _Encode) -> _Encode:
    return lambda items: (
        "{" + ",".join([f"{key(k)}:{value(items[k])}" for k in sorted(items)]) + "}"
    )


def _enum(names: dict[int, str]) -> _Encode:
    return lambda number: names.get(number) or str(number)


def _well_known(message: Message) -> str:
    from google.protobuf import json_format

    value = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
