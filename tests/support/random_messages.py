"""Random protobuf messages for property tests."""

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, (1 << 64) - 1),
}


def fill(draw, message, depth, texts):
    """Set some fields of ``message`` to anything their types allow, strings to ``texts``."""
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        message.seconds = draw(st.integers(-62135596800, 253402300799))
        digits = draw(st.sampled_from([0, 3, 6, 9]))
        message.nanos = draw(st.integers(0, 10**digits - 1)) * 10 ** (9 - digits)
        return
    if message.DESCRIPTOR.full_name == "google.protobuf.Duration":
        message.FromNanoseconds(draw(st.integers(0, 10**15)))
        return
    if message.DESCRIPTOR.full_name == "google.protobuf.FieldMask":
        message.paths.extend(["process.exec_id", "parent"])
        return
    fields = list(message.DESCRIPTOR.fields)
    for place in draw(st.sets(st.integers(0, len(fields) - 1), max_size=4)) if fields else ():
        _set_field(draw, message, fields[place], depth, texts)


def _set_field(draw, message, field, depth, texts):
    target = getattr(message, field.name)
    if field.message_type and field.message_type.GetOptions().map_entry:
        value = _scalar(field.message_type.fields_by_name["value"], texts)
        target.update(draw(st.dictionaries(texts, value, max_size=3)))
    elif field.message_type:
        if depth == 0:
            return
        if field.is_repeated:
            for _ in range(draw(st.integers(0, 2))):
                fill(draw, target.add(), depth - 1, texts)
        else:
            target.SetInParent()
            fill(draw, target, depth - 1, texts)
    elif field.is_repeated:
        target.extend(draw(st.lists(_scalar(field, texts), max_size=3)))
    else:
        setattr(message, field.name, draw(_scalar(field, texts)))


def _scalar(field, texts):
    if field.type == FieldDescriptor.TYPE_STRING:
        return texts
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=12)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.sampled_from([*field.enum_type.values_by_number, 77777])
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return st.floats(allow_nan=True, width=32)
    return INTEGERS[field.cpp_type]
