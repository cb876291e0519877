"""Join serialized messages as the elements of a repeated field, in C.

A message type of a single ``repeated bytes`` field has the same bytes on the wire as one of a
repeated message field. Serializing it takes a tenth of the time that joining the parts in Python
takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "wire.splice"


@cache
def splicer(number: int) -> Callable[[Iterable[bytes]], bytes]:
    """Return a function that makes field ``number``, repeated, from serialized messages."""
    elements = _elements_type(number)
    return lambda messages: cast(bytes, elements(elements=messages).SerializeToString())


def _elements_type(number: int) -> type[Any]:
    file = descriptor_pb2.FileDescriptorProto(name=f"wire/splice/{number}", package=_PACKAGE)
    file.message_type.add(name="Elements").field.add(
        name="elements",
        number=number,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Elements"))
